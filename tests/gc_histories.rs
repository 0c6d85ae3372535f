//! Random histories, and gc in the middle of them: killed at a system call, or beside whoever works.
//!
//! Whatever a checkpoint, the live tree, an open file or a kept operation names is there afterwards, bit by bit; after a run with grace 0
//! that finished, nothing else is. MEMENTOFS_GC_HISTORIES says how many (default 40), MEMENTOFS_GC_SEED where to begin.
//! `scripts/campaigns/gc` runs many.

use mementofs::object::{Author, EntryKind, ExternalLink, Name, Node, ObjectId, TreeItem};
use mementofs::repository::{GcRules, Repository};
use mementofs::tree::{self, NodeSource, Reached};
use mementofs::workspace::{Branches, CheckpointRequest, Ino, NewNode, ROOT, RenameMode, Workspace};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Files of a state: path (a directory and a name) to bytes.
type Files = BTreeMap<(u8, u8), Arc<Vec<u8>>>;

const DIRECTORIES: u64 = 3;
const NAMES: u64 = 7;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Bytes from a small choice, so that states share objects.
fn content(random: &mut Random) -> Arc<Vec<u8>> {
    let seed = random.below(30);
    let usual = [0, 20, 20, 3000, 3000, 30_000, 30_000, 60_000, 300_000, 1_200_000][(seed % 10) as usize];
    let len = if seed == 29 { 4_400_000 } else { usual }; // The store takes over the file that it was written to.
    let mut bytes = Random(seed);
    Arc::new((0..len).map(|_| bytes.below(256) as u8).collect())
}

/// A checkpoint and what it must hold.
#[derive(Clone)]
struct Known {
    id: ObjectId,
    files: Files,
    /// It has a name or a link: no rule removes it.
    pinned: bool,
}

/// A store with what was promised about it.
struct World {
    store: PathBuf,
    /// The branches of the store and the one at work.
    opened: Option<(Arc<Branches>, Arc<Workspace>)>,
    live: Files,
    checkpoints: Vec<Known>,
    undo: Option<Files>,
    /// Files that somebody has open, with what they hold.
    open: Vec<(Ino, Arc<Vec<u8>>)>,
    labels: u64,
    _dir: tempfile::TempDir,
}

fn opened(repository: Arc<Repository>) -> (Arc<Branches>, Arc<Workspace>) {
    let branches = Branches::new(repository);
    let workspace = branches.open("main").unwrap();
    (branches, workspace)
}

fn author() -> Author {
    Author { uid: 0, pid: 0, command: "gc".into() }
}

fn name(text: String) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let (branches, workspace) = opened(Repository::create(&store).unwrap());
        for directory in 0..DIRECTORIES {
            create(&workspace, ROOT, &name(format!("d{directory}")), EntryKind::Directory);
        }
        Self {
            store,
            opened: Some((branches, workspace)),
            live: Files::new(),
            checkpoints: Vec::new(),
            undo: None,
            open: Vec::new(),
            labels: 0,
            _dir: dir,
        }
    }

    fn workspace(&self) -> &Arc<Workspace> {
        &self.opened.as_ref().unwrap().1
    }

    fn branches(&self) -> &Arc<Branches> {
        &self.opened.as_ref().unwrap().0
    }

    fn close(&mut self) {
        self.open.clear(); // Whoever had files open is gone with the daemon.
        self.opened = None;
    }

    fn open_again(&mut self) {
        self.opened = Some(opened(Repository::open(&self.store).unwrap()));
    }

    fn place(&self, path: (u8, u8)) -> (Ino, Name) {
        let directory = self.workspace().lookup(ROOT, &name(format!("d{}", path.0))).unwrap().unwrap();
        (directory.ino, name(format!("f{}", path.1)))
    }

    fn step(&mut self, random: &mut Random) {
        let path = (random.below(DIRECTORIES) as u8, random.below(NAMES) as u8);
        match random.below(20) {
            0..=6 => self.write(path, content(random)),
            7 => self.remove(path),
            8 => self.rename(path, (random.below(DIRECTORIES) as u8, random.below(NAMES) as u8)),
            9 => self.hold(path),
            10..=13 => self.checkpoint(random.below(6)),
            14 => self.delete(random.below(100)),
            15 => self.restore(random.below(100), None),
            16 => self.restore(random.below(100), Some(path.0)),
            17 => self.undo(),
            18 => drop(self.workspace().seal_now().unwrap()),
            _ => self.label(random.below(100)),
        }
    }

    fn write(&mut self, path: (u8, u8), bytes: Arc<Vec<u8>>) {
        self.remove(path);
        let (parent, name) = self.place(path);
        let ino = create(self.workspace(), parent, &name, EntryKind::File);
        for (at, part) in bytes.chunks(100_000).enumerate() {
            self.workspace().write(ino, at as u64 * 100_000, part, false).unwrap();
        }
        self.workspace().forget(ino, 1);
        self.live.insert(path, bytes);
    }

    fn remove(&mut self, path: (u8, u8)) {
        if self.live.remove(&path).is_some() {
            let (parent, name) = self.place(path);
            self.workspace().unlink(parent, &name).unwrap();
        }
    }

    fn rename(&mut self, from: (u8, u8), to: (u8, u8)) {
        if from == to {
            return;
        }
        if let Some(bytes) = self.live.remove(&from) {
            let ((parent, name), (new_parent, new_name)) = (self.place(from), self.place(to));
            self.workspace().rename(parent, &name, new_parent, &new_name, RenameMode::Replace, None).unwrap();
            self.live.insert(to, bytes);
        }
    }

    /// Opens a file and keeps it open, whatever becomes of its name.
    fn hold(&mut self, path: (u8, u8)) {
        if let Some(bytes) = self.live.get(&path).cloned() {
            let (parent, name) = self.place(path);
            let ino = self.workspace().lookup(parent, &name).unwrap().unwrap().ino;
            self.open.push((ino, bytes));
        }
    }

    fn checkpoint(&mut self, label: u64) {
        let mut request = CheckpointRequest::new("one of many", author());
        self.labels += 1;
        match label {
            0 => request.name = Some(format!("name-{}", self.labels)),
            1 => request.links.push(ExternalLink { system: "sys".into(), external_id: self.labels.to_string() }),
            _ => {}
        }
        let id = self.workspace().checkpoint(&request).unwrap().id;
        self.remember(id, self.live.clone(), label < 2);
    }

    fn remember(&mut self, id: ObjectId, files: Files, pinned: bool) {
        match self.checkpoints.iter_mut().find(|known| known.id == id) {
            Some(known) => known.pinned |= pinned,
            None => self.checkpoints.push(Known { id, files, pinned }),
        }
    }

    fn label(&mut self, at: u64) {
        let workspace = self.workspace().clone();
        let Some(known) = pick(&mut self.checkpoints, at) else { return };
        self.labels += 1;
        let named =
            workspace.repository().history().set_name(&known.id, None, Some(&format!("label-{}", self.labels)), &author());
        named.unwrap();
        known.pinned = true;
    }

    fn delete(&mut self, at: u64) {
        let Some(known) = pick(&mut self.checkpoints, at) else { return };
        let id = known.id;
        if self.workspace().newest() != Some(id) {
            self.workspace().repository().delete_checkpoint(&id, &author()).unwrap();
            self.checkpoints.retain(|known| known.id != id);
        }
    }

    fn restore(&mut self, at: u64, directory: Option<u8>) {
        let Some(known) = pick(&mut self.checkpoints, at).cloned() else { return };
        let path = directory.map(|directory| vec![name(format!("d{directory}"))]);
        let restored = self.workspace().restore(&known.id, path.as_deref(), false, &author()).unwrap();
        let mut after = known.files;
        if let Some(directory) = directory {
            after.retain(|path, _| path.0 == directory);
            after.extend(self.live.iter().filter(|(path, _)| path.0 != directory).map(|(path, bytes)| (*path, bytes.clone())));
        }
        self.moved(after, restored.safety, restored.changes.is_empty());
    }

    fn undo(&mut self) {
        if let Some(before) = self.undo.take() {
            let restored = self.workspace().undo(&author()).unwrap();
            self.moved(before, restored.safety, restored.changes.is_empty());
        }
    }

    fn moved(&mut self, after: Files, safety: Option<ObjectId>, nothing_changed: bool) {
        let before = std::mem::replace(&mut self.live, after);
        if let Some(id) = safety {
            self.remember(id, before.clone(), false);
        }
        // A movement that changes nothing may be none, and then undo takes back the one before.
        self.undo = (!nothing_changed).then_some(before);
    }

    /// Takes note of what a run with a rule may have removed: all that is not pinned and not among the newest.
    fn removed_by_rule(&mut self, keep_last: Option<u32>, finished: bool) {
        let Some(keep_last) = keep_last else { return };
        let rows = self.workspace().repository().history().checkpoints().unwrap();
        let present: HashSet<ObjectId> = rows.iter().map(|row| row.id).collect();
        let newest: HashSet<ObjectId> = rows.iter().take(keep_last as usize).map(|row| row.id).collect();
        let head = self.workspace().newest();
        self.checkpoints.retain(|known| {
            let kept = known.pinned || newest.contains(&known.id) || head == Some(known.id);
            assert!(present.contains(&known.id) || !kept, "the rule removed {} which it keeps", known.id);
            assert!(kept || !finished || !present.contains(&known.id), "the rule left {}", known.id);
            present.contains(&known.id)
        });
    }

    /// Looks whether everything that was promised is there.
    fn check(&self) {
        let repository = self.workspace().repository();
        for directory in 0..DIRECTORIES as u8 {
            let ino = self.workspace().lookup(ROOT, &name(format!("d{directory}"))).unwrap().unwrap().ino;
            let listed = self.workspace().list(ino, 0, 1000).unwrap();
            let expected = self.live.keys().filter(|path| path.0 == directory).count();
            assert_eq!(listed.len(), expected, "names in d{directory}");
        }
        for (path, bytes) in &self.live {
            let (parent, name) = self.place(*path);
            let ino = self.workspace().lookup(parent, &name).unwrap().unwrap_or_else(|| panic!("{path:?} is missing")).ino;
            assert!(self.workspace().read(ino, 0, u64::MAX).unwrap() == **bytes, "live {path:?}");
        }
        for (ino, bytes) in &self.open {
            assert!(self.workspace().read(*ino, 0, u64::MAX).unwrap() == **bytes, "open file {ino}");
        }
        for known in &self.checkpoints {
            assert!(files_of(repository, &known.id) == known.files, "checkpoint {}", known.id);
        }
    }

    /// Looks whether everything that nothing names is gone. Nobody has a file open.
    fn check_that_nothing_else_is_left(&self) {
        let repository = self.workspace().repository();
        let database = rusqlite::Connection::open(self.store.join("store.db")).unwrap();
        let ids = |sql: &str| -> BTreeSet<ObjectId> {
            let mut statement = database.prepare(sql).unwrap();
            let rows = statement.query_map([], |row| row.get::<_, Option<String>>(0)).unwrap();
            rows.filter_map(|row| row.unwrap()).map(|hex| hex.parse().unwrap()).collect()
        };
        let mut reachable = ids("SELECT id FROM file_commits");
        let last = "SELECT max(seq) FROM operations WHERE type IN ('restore', 'undo', 'import') GROUP BY branch";
        let roots = ids(&format!(
            "SELECT live_root FROM branches WHERE deleted_at IS NULL UNION SELECT root_tree FROM file_commits WHERE deleted_at IS NULL
             UNION SELECT before_root FROM operations WHERE seq IN ({last}) UNION SELECT after_root FROM operations WHERE seq IN ({last})"
        ));
        for id in roots {
            reachable.insert(id);
            let mut manifests = Vec::new();
            tree::reach(&**repository, &repository.root(&id).unwrap(), &mut |id, kind| {
                if kind == Reached::Manifest {
                    manifests.push(*id);
                }
                reachable.insert(*id)
            })
            .unwrap();
            for id in manifests {
                reachable.extend(repository.manifest(&id).unwrap().extents.iter().filter_map(|extent| extent.blob));
            }
        }
        let stored = ids("SELECT id FROM file_blobs");
        let left: Vec<_> = stored.difference(&reachable).collect();
        assert!(left.is_empty(), "{} unreachable objects are left: {left:?}", left.len());
        let lost: Vec<_> = reachable.difference(&stored).collect();
        assert!(lost.is_empty(), "{} reachable objects are not stored: {lost:?}", lost.len());
        let usage = repository.history().usage().unwrap();
        for container in repository.packs().containers().unwrap() {
            let live = usage.get(&container.container).map_or(0, |used| used.stored_bytes);
            let headers = 1000 + container.size_bytes / 4;
            assert!(live + headers * 2 >= container.size_bytes, "{container:?} has {live} live bytes");
        }
    }
}

fn create(workspace: &Workspace, parent: Ino, name: &Name, kind: EntryKind) -> Ino {
    let node = NewNode { kind, mode: 0o755, uid: 0, gid: 0, device: 0, target: Box::default() };
    workspace.create(parent, name, node, 0).unwrap().ino
}

fn pick(checkpoints: &mut [Known], at: u64) -> Option<&mut Known> {
    let count = checkpoints.len() as u64;
    if count == 0 { None } else { checkpoints.get_mut((at % count) as usize) }
}

/// Reads all of a checkpoint from the objects, past the live tree.
fn files_of(repository: &Repository, id: &ObjectId) -> Files {
    let root = repository.root(&repository.commit(id).unwrap().root_tree).unwrap();
    let mut files = Files::new();
    for item in tree::list(repository, root.tree(), 0) {
        let (directory, item) = item.unwrap();
        let TreeItem::Entry(entry) = item else { panic!("no hard links here") };
        let Node::Directory { tree, .. } = entry.node else { panic!("only directories at the top") };
        for item in tree::list(repository, tree, 0) {
            let (file, item) = item.unwrap();
            let TreeItem::Entry(entry) = item else { panic!("no hard links here") };
            let Node::File { size_bytes, content, .. } = entry.node else { panic!("only files") };
            let bytes = if size_bytes == 0 { Vec::new() } else { repository.read_content(&content, 0..size_bytes).unwrap() };
            files.insert((digit(&directory), digit(&file)), Arc::new(bytes));
        }
    }
    files
}

fn digit(name: &Name) -> u8 {
    name.as_bytes()[1] - b'0'
}

fn count_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|count| count.parse().ok()).unwrap_or(default)
}

/// The library that kills a process at a system call; see its source.
fn fault_library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("fault-{}.so", std::process::id()));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/campaigns/kit/fault.c");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl").status();
        assert!(built.unwrap().success(), "the library of faults does not compile");
        library
    })
}

/// What the child does: opens the store and collects, and dies at the system call that its environment says.
#[test]
fn child_that_collects() {
    let Ok(store) = std::env::var("MEMENTOFS_GC_CHILD") else { return };
    let (branches, _workspace) = opened(Repository::open(Path::new(&store)).unwrap());
    // Everything that changes a file, killed before (1) or after (2) the call; the layout is that of `struct page`.
    let (mask, at, action) = (0b01_0011_1111_1111u32, count_from("MEMENTOFS_GC_AT", 1), 1 + count_from("MEMENTOFS_GC_AT", 1) % 2);
    let mut page = [&[0; 4][..], &mask.to_le_bytes(), &at.to_le_bytes(), &(action as u32).to_le_bytes()].concat();
    let path = std::env::var("FAULT_PAGE").unwrap();
    std::os::unix::fs::FileExt::write_all_at(&std::fs::File::options().write(true).open(&path).unwrap(), &page, 0).unwrap();
    page[..4].copy_from_slice(&1u32.to_le_bytes());
    std::os::unix::fs::FileExt::write_all_at(&std::fs::File::options().write(true).open(&path).unwrap(), &page, 0).unwrap();
    branches.collect(&rules(child_keep_last()), &author()).unwrap();
}

fn child_keep_last() -> Option<u32> {
    std::env::var("MEMENTOFS_GC_KEEP").ok().and_then(|keep| keep.parse().ok())
}

fn rules(keep_last: Option<u32>) -> GcRules {
    GcRules { grace_secs: Some(0), keep_last, ..GcRules::default() }
}

/// Lets a child collect on the store and die at a call. Says whether it finished instead.
fn killed_in_gc(store: &Path, at: u64, keep_last: Option<u32>) -> bool {
    let page = store.with_file_name("page");
    std::fs::write(&page, [0; 4096]).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "child_that_collects", "--nocapture", "--test-threads=1"]);
    child.env("MEMENTOFS_GC_CHILD", store).env("MEMENTOFS_GC_AT", at.to_string()).env("LD_PRELOAD", fault_library());
    child.env("FAULT_PAGE", &page).env("FAULT_STORE", store);
    if let Some(keep_last) = keep_last {
        child.env("MEMENTOFS_GC_KEEP", keep_last.to_string());
    }
    let output = child.output().unwrap();
    let killed = output.status.signal() == Some(9);
    assert!(killed || output.status.success(), "gc failed: {}", String::from_utf8_lossy(&output.stderr));
    !killed
}

fn killed_history(random: &mut Random) -> bool {
    let mut world = World::new();
    for _ in 0..6 + random.below(20) {
        world.step(random);
    }
    world.close();
    let keep_last = (random.below(4) == 0).then_some(2);
    let finished = killed_in_gc(&world.store, 1 + random.below(70), keep_last);
    world.open_again();
    world.removed_by_rule(keep_last, finished);
    world.check();
    for _ in 0..random.below(6) {
        world.step(random);
    }
    world.branches().collect(&rules(None), &author()).unwrap();
    world.check();
    world.close();
    world.open_again();
    world.branches().collect(&rules(None), &author()).unwrap();
    world.check_that_nothing_else_is_left();
    world.undo();
    world.check();
    finished
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// gc goes on and on while somebody works.
fn history_beside_gc(random: &mut Random) {
    let mut world = World::new();
    for _ in 0..4 {
        world.step(random);
    }
    let stop = AtomicBool::new(false);
    let branches = world.branches().clone();
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                branches.collect(&rules(None), &author()).unwrap();
            }
        });
        let ends = SetOnDrop(&stop); // After a panic too.
        for _ in 0..10 + random.below(20) {
            world.step(random);
        }
        drop(ends);
        collector.join().unwrap();
    });
    drop(branches);
    world.check();
    world.close();
    world.open_again();
    world.branches().collect(&rules(None), &author()).unwrap();
    world.check();
    world.check_that_nothing_else_is_left();
}

#[test]
fn gc_loses_nothing_and_leaves_nothing() {
    if std::env::var("MEMENTOFS_GC_CHILD").is_ok() {
        return;
    }
    let (histories, seed) = (count_from("MEMENTOFS_GC_HISTORIES", 40), count_from("MEMENTOFS_GC_SEED", 1));
    let (mut killed, mut beside, mut violations) = (0, 0, 0);
    for number in seed..seed + histories {
        // One seed each, so that a history that fails can be run alone: MEMENTOFS_GC_SEED with MEMENTOFS_GC_HISTORIES=1.
        let history = std::panic::catch_unwind(|| {
            if number % 4 == 0 {
                history_beside_gc(&mut Random(number));
                (0, 1)
            } else {
                (u64::from(!killed_history(&mut Random(number))), 0)
            }
        });
        match history {
            Ok(counts) => (killed, beside) = (killed + counts.0, beside + counts.1),
            Err(_) => {
                violations += 1;
                println!("VIOLATION in the history with MEMENTOFS_GC_SEED={number}");
            }
        }
    }
    println!("gc was killed in {killed} histories and ran beside work in {beside}");
    println!("{histories} cycles, {violations} violations");
    assert_eq!(violations, 0);
    assert!(killed > 0 || histories < 8, "gc was never killed");
}
