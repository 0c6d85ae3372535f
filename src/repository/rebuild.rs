//! Puts together again what was lost of the database: from the packs, the events beside it, and the journals.
//!
//! Nothing is invented: an object counts once its bytes were read and have its id, a checkpoint once its record was found.

use super::commits::memento_of;
use super::{DATABASE, FIRST_SEGMENT, MAIN_BRANCH, Repository, RepositoryError};
use crate::history::{BranchState, Event, History, NewObject, Recorded, Standings};
use crate::object::{Commit, Container, Entry, Location, ObjectId, ObjectKind, Timestamp, TreeNode};
use crate::store::{StoreDir, StoreLock};
use crate::tree::NodeSource;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Objects named by one transaction.
const NAMED_AT_ONCE: usize = 10_000;
/// Number of the branch that a store begins with.
const FIRST_BRANCH: i64 = 1;
/// How often the log of a rebuilt database is tried to be moved into it, and how long after the time before.
const CLOSING_TRIES: usize = 40;
const CLOSING_PAUSE: Duration = Duration::from_millis(50);
/// Name of the database while it is being rebuilt.
const FRESH: &str = "store.db.new";

/// Where a journal says that its branch stands.
#[derive(Clone, Debug)]
pub struct FoundBranch {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: BranchState,
    /// The largest identity that its journal gives to a file.
    pub identity_max: u64,
}

/// What the packs hold.
#[derive(Default)]
struct FoundObjects {
    placed: u64,
    commits: Vec<ObjectId>,
    identity: u64,
}

impl Repository {
    /// Names objects that lie in the packs, whole, and that the index does not know. Returns how many.
    pub fn find_lost_objects(&self) -> Result<u64, RepositoryError> {
        Ok(self.place_found(&|id| Ok(self.history.locate(id)?.is_none()))?.placed)
    }

    /// Names every whole copy of the objects that `wanted` says yes to; the last copy wins.
    fn place_found(&self, wanted: &dyn Fn(&ObjectId) -> Result<bool, RepositoryError>) -> Result<FoundObjects, RepositoryError> {
        let mut found = FoundObjects::default();
        let mut batch: Vec<NewObject> = Vec::new();
        for info in self.packs.containers()? {
            for (kind, id, location) in self.records_in(info.container)? {
                if !wanted(&id)? {
                    continue;
                }
                let Ok(bytes) = self.packs.read(&id, &location) else { continue };
                found.look_at(kind, id, &bytes);
                batch.push((id, kind, location));
                if batch.len() == NAMED_AT_ONCE {
                    self.history.place_objects(&batch)?;
                    batch.clear();
                }
            }
        }
        self.history.place_objects(&batch)?;
        Ok(found)
    }

    fn records_in(&self, container: Container) -> Result<Vec<(ObjectKind, ObjectId, Location)>, RepositoryError> {
        Ok(match container {
            Container::Pack(number) => self.packs.scan_pack(number)?.records,
            Container::Large(id) => self.packs.scan_large(id)?.records,
        })
    }

    /// Places other whole copies of lost objects, and takes those out of the index that are nowhere. Returns the latter.
    pub(super) fn replace_lost(&self, lost: &HashSet<ObjectId>) -> Result<Vec<ObjectId>, RepositoryError> {
        if lost.is_empty() {
            return Ok(Vec::new());
        }
        self.place_found(&|id| Ok(lost.contains(id)))?;
        let mut gone: Vec<ObjectId> = lost.iter().filter(|id| self.read_stored(id).is_err()).copied().collect();
        gone.retain(|id| !self.rewrite_record(id).unwrap_or(false));
        self.history.remove_objects(&gone)?;
        Ok(gone)
    }

    /// Stores the record of a checkpoint anew from its row, if that gives the very same bytes.
    fn rewrite_record(&self, id: &ObjectId) -> Result<bool, RepositoryError> {
        let row = self.history.commit(id)?;
        let commit = Commit {
            parent: row.parent,
            root: row.root_tree,
            time: row.time,
            message: row.message,
            metadata: row.meta,
            links: self.history.links_of(id)?,
            branch: row.branch,
            author: row.author,
            kind: row.kind,
        };
        for links in [commit.links.clone(), Vec::new()] {
            let candidate = Commit { links, ..commit.clone() };
            if candidate.id() == *id {
                let location = self.packs.append(ObjectKind::Commit, id, &candidate.encode())?;
                self.packs.sync()?;
                self.history.place_objects(&[(*id, ObjectKind::Commit, location)])?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Restores what the database lost: its events end before those written beside it.
    pub(super) fn restore_lost_events(&self) -> Result<(), RepositoryError> {
        let lost = self.history.events_lost()?;
        if lost == 0 {
            return Ok(());
        }
        self.note_trouble(&format!("the database lost its last {lost} events; they are restored from events.log and the packs"));
        self.find_lost_objects()?;
        let events = self.mirrored_events()?;
        let known = self.history.events_since(0, 1)?.len();
        let newest = if known == 0 { 0 } else { events.last().map_or(0, |event| event.seq) - lost };
        let missing: Vec<Event> = events.into_iter().filter(|event| event.seq > newest).collect();
        let ids: Vec<ObjectId> = missing.iter().filter_map(created).collect();
        let recorded: HashSet<ObjectId> = self.history.commit_ids()?.into_iter().collect();
        let found = self.found_commits(ids.into_iter().filter(|id| !recorded.contains(id)))?;
        self.restore_commits(found, |_| true)?;
        for (branch, (head, live_root)) in self.history.restore_events(&missing)? {
            // The journal knows from which segment on; see where the branch is opened.
            let row = self.history.branch_by_id(branch)?;
            self.history.place_branch(branch, &row.name, &BranchState { head, live_root, journal_seq: row.journal_seq })?;
        }
        Ok(self.history.number_branches()?)
    }

    fn mirrored_events(&self) -> Result<Vec<Event>, RepositoryError> {
        let read = self.history.mirrored();
        Ok(read.map_err(|source| RepositoryError::Io { what: "cannot read events.log", source })?.events)
    }

    fn found_commits(&self, ids: impl Iterator<Item = ObjectId>) -> Result<Vec<(ObjectId, Commit)>, RepositoryError> {
        let mut found = Vec::new();
        for id in ids {
            if let Ok(bytes) = self.read_stored(&id)
                && let Ok(commit) = Commit::decode(&bytes)
            {
                found.push((id, commit));
            }
        }
        Ok(found)
    }

    /// Records checkpoints that were found, parents first. Returns them.
    fn restore_commits(
        &self,
        found: Vec<(ObjectId, Commit)>,
        is_real: impl Fn(&ObjectId) -> bool,
    ) -> Result<Vec<Recorded>, RepositoryError> {
        let roots: HashMap<ObjectId, ObjectId> = found.iter().map(|(id, commit)| (*id, commit.root)).collect();
        let mut recorded = Vec::new();
        for (id, commit) in in_order(found).into_iter().filter(|(id, _)| is_real(id)) {
            let whole = self.read_stored(&commit.root).is_ok();
            let before = commit
                .parent
                .and_then(|parent| roots.get(&parent).copied().or_else(|| self.commit(&parent).ok().map(|row| row.root_tree)));
            let readable = whole && before.is_none_or(|root| self.root(&root).is_ok());
            // Where a state is gone, what was changed cannot be told.
            let changes =
                if readable { self.changes_between(before.as_ref(), &commit.root).unwrap_or_default() } else { Vec::new() };
            let bytes_changed = changes.iter().filter_map(|change| change.new.as_ref()).map(Entry::size_bytes).sum();
            let mementos = changes.iter().map(memento_of).collect();
            recorded.push(Recorded { id, commit, mementos, bytes_changed, whole });
        }
        self.history.restore_commits(&recorded)?;
        Ok(recorded)
    }
}

impl FoundObjects {
    fn look_at(&mut self, kind: ObjectKind, id: ObjectId, bytes: &[u8]) {
        self.placed += 1;
        match kind {
            ObjectKind::Commit => self.commits.push(id),
            ObjectKind::Tree => {
                if let Ok(TreeNode::Leaf(items)) = TreeNode::decode(bytes) {
                    self.identity = items.iter().map(|(_, item)| item.identity()).fold(self.identity, u64::max);
                }
            }
            _ => {}
        }
    }
}

fn created(event: &Event) -> Option<ObjectId> {
    let payload: serde_json::Value = serde_json::from_str(&event.payload).ok()?;
    payload["commit"].as_str().filter(|_| event.event_type == "checkpoint.created")?.parse().ok()
}

/// Sorts commits so that each comes behind its parent, otherwise by time.
fn in_order(mut found: Vec<(ObjectId, Commit)>) -> Vec<(ObjectId, Commit)> {
    found.sort_by_key(|(id, commit)| (commit.time, *id));
    let known: HashSet<ObjectId> = found.iter().map(|(id, _)| *id).collect();
    let mut done = HashSet::new();
    let mut sorted = Vec::with_capacity(found.len());
    while !found.is_empty() {
        let before = sorted.len();
        let (ready, waiting): (Vec<_>, Vec<_>) = found.into_iter().partition(|(id, commit)| {
            let ready = commit.parent.is_none_or(|parent| done.contains(&parent) || !known.contains(&parent));
            if ready {
                done.insert(*id);
            }
            ready
        });
        sorted.extend(ready);
        found = waiting;
        if sorted.len() == before {
            return sorted; // A circle cannot be: ids are hashes.
        }
    }
    sorted
}

/// Rebuilds the database of a store beside the old one, then puts it in its place. Returns what the old one is called now.
pub(super) fn rebuild_database(
    dir: StoreDir,
    lock: StoreLock,
    branches: &[FoundBranch],
    said: &mut Vec<String>,
) -> Result<(), RepositoryError> {
    let path = dir.path().to_owned();
    let fresh = path.join(FRESH);
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(with_suffix(&fresh, suffix)); // Of a repair that was ended before it was done.
    }
    let salvaged = History::open(&path.join(DATABASE)).map(|old| old.readable_events()).unwrap_or_default();
    let repository = Repository::assemble(dir, lock, History::create(&fresh)?)?;
    repository.fill(salvaged, branches, said)?;
    repository.history.shrink()?;
    let wal = with_suffix(&fresh, "-wal");
    let has_log = || fs::metadata(&wal).is_ok_and(|wal| wal.len() > 0);
    for _ in 0..CLOSING_TRIES {
        if has_log() {
            std::thread::sleep(CLOSING_PAUSE); // The thread that moves the log is at it, and nobody else may be meanwhile.
            repository.history.shrink()?;
        }
    }
    if has_log() {
        return Err(RepositoryError::Other("the rebuilt database could not be closed; run it again".into()));
    }
    replace_database(&path, &fresh, said)
        .map_err(|source| RepositoryError::Io { what: "cannot put the rebuilt database in its place", source })
}

/// The old database goes aside first, its log behind it; a kill in between leaves no database, which a repair builds again.
fn replace_database(store: &Path, fresh: &Path, said: &mut Vec<String>) -> std::io::Result<()> {
    let old = store.join(DATABASE);
    fs::File::open(fresh)?.sync_all()?;
    let aside = (1u32..).map(|number| store.join(format!("{DATABASE}.damaged-{number}"))).find(|path| !path.exists());
    let aside = aside.ok_or(std::io::ErrorKind::AlreadyExists)?;
    for suffix in ["", "-wal", "-shm"] {
        let part = with_suffix(&old, suffix);
        if part.exists() {
            fs::rename(&part, with_suffix(&aside, suffix))?;
            if suffix.is_empty() {
                said.push(format!("the damaged database is kept as {}", aside.display()));
            }
        }
    }
    fs::File::open(store)?.sync_all()?;
    fs::rename(fresh, old)?;
    fs::File::open(store)?.sync_all()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Repository {
    /// Fills an empty database.
    fn fill(&self, salvaged: Vec<Event>, branches: &[FoundBranch], said: &mut Vec<String>) -> Result<(), RepositoryError> {
        let objects = self.place_found(&|_| Ok(true))?;
        said.push(format!("{} objects were found in the packs and named", objects.placed));
        let events = merged(self.mirrored_events()?, salvaged);
        let found = self.found_commits(objects.commits.iter().copied().collect::<HashSet<_>>().into_iter())?;
        let real = real_commits(&found, &events);
        let recorded = self.restore_commits(found, |id| real.contains(id))?;
        self.history.make_branch(Some(FIRST_BRANCH), MAIN_BRANCH)?; // No event tells of it.
        let mut stands = self.history.restore_events(&events)?;
        self.history.tell_of_commits(&recorded)?;
        said.push(format!("{} checkpoints were recorded again, with {} events", recorded.len(), events.len()));
        let identity = branches.iter().map(|branch| branch.identity_max).fold(objects.identity, u64::max);
        self.history.raise_identities(identity + 1)?;
        if events.is_empty() {
            for branch in branches {
                self.history.make_branch(Some(branch.id), &branch.name)?;
            }
            self.stand_on_newest(&recorded, &mut stands)?;
        }
        self.place_branches(branches, &stands, said)?;
        Ok(self.history.number_branches()?)
    }

    /// Without events, each branch that a commit names stands on the newest that does.
    fn stand_on_newest(&self, recorded: &[Recorded], stands: &mut Standings) -> Result<(), RepositoryError> {
        for Recorded { id, commit, whole, .. } in recorded {
            let branch = self.history.make_branch(None, &commit.branch)?;
            if *whole {
                stands.insert(branch, (Some(*id), commit.root));
            }
        }
        Ok(())
    }

    fn place_branches(
        &self,
        branches: &[FoundBranch],
        stands: &Standings,
        said: &mut Vec<String>,
    ) -> Result<(), RepositoryError> {
        let mut placed = HashSet::new();
        for branch in branches.iter().filter(|branch| self.root(&branch.state.live_root).is_ok()) {
            self.history.place_branch(branch.id, &branch.name, &branch.state)?;
            placed.insert(branch.id);
        }
        for row in self.history.branches()? {
            if placed.contains(&row.id) {
                said.push(format!("the branch {} stands where its journal says", row.name));
                continue;
            }
            match stands.get(&row.id).filter(|(_, root)| self.root(root).is_ok()) {
                Some((head, live_root)) => {
                    let state = BranchState { head: *head, live_root: *live_root, journal_seq: FIRST_SEGMENT };
                    self.history.place_branch(row.id, &row.name, &state)?;
                    let on = head.map_or("a state without a checkpoint".to_owned(), |id| format!("checkpoint {id}"));
                    said.push(format!("the branch {} stands on {on}; changes after that were not found", row.name));
                }
                None if row.id == FIRST_BRANCH && stands.is_empty() => {
                    let state = BranchState { head: None, live_root: self.put_empty_root()?, journal_seq: FIRST_SEGMENT };
                    self.history.place_objects(&self.sync_pending()?)?;
                    self.history.place_branch(row.id, &row.name, &state)?;
                    said.push(format!("the branch {} begins anew: nothing of it was found", row.name));
                }
                None => said.push(format!("where the branch {} stood was not found", row.name)),
            }
        }
        Ok(())
    }
}

/// The events of both, those of the first where both have one.
fn merged(mirrored: Vec<Event>, salvaged: Vec<Event>) -> Vec<Event> {
    let mut events = mirrored;
    events.extend(salvaged);
    events.sort_by_key(|event| event.seq); // Stable.
    events.dedup_by_key(|event| event.seq);
    events
}

/// Which of the commit records found were acknowledged: those that an event tells of, those these descend from, and those
/// newer than the last event, whose own may have been lost. A record that a crash left behind is none.
fn real_commits(found: &[(ObjectId, Commit)], events: &[Event]) -> HashSet<ObjectId> {
    let parents: HashMap<ObjectId, Option<ObjectId>> = found.iter().map(|(id, commit)| (*id, commit.parent)).collect();
    let told_until = events.last().map_or(Timestamp::from_nanos(i64::MIN), |event| event.time);
    let complete =
        events.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1) && events.first().is_some_and(|first| first.seq == 1);
    let newer = found.iter().filter(|(_, commit)| !complete || commit.time > told_until).map(|(id, _)| *id);
    let mut waiting: Vec<ObjectId> = events.iter().filter_map(created).chain(newer).collect();
    let mut real = HashSet::new();
    while let Some(id) = waiting.pop() {
        if let Some(parent) = parents.get(&id)
            && real.insert(id)
        {
            waiting.extend(parent);
        }
    }
    real
}

/// Opens a store for a repair.
pub(super) fn open_locked(path: &Path) -> Result<(StoreDir, StoreLock), RepositoryError> {
    let dir = StoreDir::open(path)?;
    let lock = dir.lock()?;
    Ok((dir, lock))
}
