//! What the result has under each name, and which files both sides changed.

use super::entries::merge_attributes;
use super::side::{Key, Side, Target, Versions};
use super::{ConflictKind, MergePolicy, MergeRules};
use crate::object::{Entry, NAME_BYTES_MAX, Name, Root};
use crate::tree::{NodeSink, TreeError, lookup, tree_of};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// A conflict before the paths of the result are known.
pub(super) struct Raised {
    pub at: Key,
    pub kind: ConflictKind,
    pub other: Option<Key>,
}

/// The decisions of a merge, as edits to our state.
pub(super) struct Plan<'a> {
    pub sink: &'a dyn NodeSink,
    pub our_root: &'a Root,
    pub ours: Side,
    pub theirs: Side,
    pub rules: &'a MergeRules<'a>,
    /// Names that stand for something else than in our state; nothing for those that go.
    pub edits: BTreeMap<Key, Option<Target>>,
    /// Files of ours that change, as they will be.
    pub files: BTreeMap<u64, Entry>,
    /// Directories of ours whose attributes change, as they will be.
    pub directories: BTreeMap<u64, Entry>,
    pub raised: Vec<Raised>,
    /// Where things are that had to make way.
    pub(super) aside: HashMap<u64, Key>,
    /// Directories that must have a place in the result.
    pub(super) needed: Vec<u64>,
    our_keys: HashMap<u64, Vec<Key>>,
    their_keys: HashMap<u64, Vec<Key>>,
}

impl<'a> Plan<'a> {
    pub fn new(sink: &'a dyn NodeSink, our_root: &'a Root, (ours, theirs): (Side, Side), rules: &'a MergeRules<'a>) -> Self {
        Self {
            sink,
            our_root,
            ours,
            theirs,
            rules,
            edits: BTreeMap::new(),
            files: BTreeMap::new(),
            directories: BTreeMap::new(),
            raised: Vec::new(),
            aside: HashMap::new(),
            needed: Vec::new(),
            our_keys: HashMap::new(),
            their_keys: HashMap::new(),
        }
    }

    /// Decides everything; afterwards the edits make a whole tree.
    pub fn decide(&mut self) -> Result<(), TreeError> {
        self.match_new();
        self.index();
        self.decide_names()?;
        self.settle_files()?;
        self.settle_directories()?;
        self.place_directories()?;
        for _ in 0..=self.theirs.directories.len() {
            if !self.break_cycles()? {
                break;
            }
            self.place_directories()?; // What lost its place needs another one, which may close another cycle.
        }
        Ok(())
    }

    /// Takes what both sides made under one name for one file or directory.
    fn match_new(&mut self) {
        let (mut twins, mut matched) = (HashMap::new(), HashSet::new());
        let both: BTreeSet<u64> = self.theirs.directories.keys().copied().collect();
        let mut waiting: Vec<(u64, u64)> = both.into_iter().map(|id| (id, id)).collect();
        while let Some((our_id, their_id)) = waiting.pop() {
            for (key, slot) in self.theirs.names.range(range_of(their_id)) {
                let ours = self.ours.names.get(&(our_id, key.1.clone())).and_then(|slot| slot.side);
                let (Some(ours), Some(theirs)) = (ours, slot.side) else { continue };
                let new = is_new(&self.ours, ours) && is_new(&self.theirs, theirs);
                let free = !twins.contains_key(&theirs.id)
                    && !matched.contains(&ours.id) // One file of ours is not two of theirs.
                    && !self.ours.files.contains_key(&theirs.id);
                if new && free && ours.id != theirs.id && ours.is_directory == theirs.is_directory {
                    twins.insert(theirs.id, ours.id);
                    matched.insert(ours.id);
                    if ours.is_directory {
                        waiting.push((ours.id, theirs.id));
                    }
                }
            }
        }
        self.theirs.rename(&twins);
    }

    fn index(&mut self) {
        let keys: BTreeSet<&Key> = self.ours.names.keys().chain(self.theirs.names.keys()).collect();
        for key in keys {
            if let Some(target) = at(&self.ours, &self.theirs, key) {
                self.our_keys.entry(target.id).or_default().push(key.clone());
            }
            if let Some(target) = at(&self.theirs, &self.ours, key) {
                self.their_keys.entry(target.id).or_default().push(key.clone());
            }
        }
    }

    fn decide_names(&mut self) -> Result<(), TreeError> {
        let names: Vec<_> = self.theirs.names.iter().map(|(key, slot)| (key.clone(), *slot)).collect();
        for (key, slot) in names {
            let ours = self.ours.names.get(&key).map_or(slot.base, |ours| ours.side);
            if slot.side == slot.base || ours == slot.side {
                continue;
            }
            match (ours, slot.side) {
                (Some(_), Some(theirs)) if ours != slot.base => self.make_way(&key, theirs)?,
                (Some(_), None) if ours != slot.base => {} // Something else came there on our side.
                (_, side) => drop(self.edits.insert(key, side)),
            }
        }
        Ok(())
    }

    /// Returns what our state has under a name, as far as the sides know it.
    pub fn ours_at(&self, key: &Key) -> Option<Target> {
        at(&self.ours, &self.theirs, key)
    }

    /// Returns what the result has under a name.
    pub fn result_at(&self, key: &Key) -> Option<Target> {
        self.edits.get(key).copied().unwrap_or_else(|| self.ours_at(key))
    }

    /// Returns the names of a file that are known to differ somewhere.
    pub fn our_keys(&self, id: u64) -> Vec<Key> {
        self.our_keys.get(&id).cloned().unwrap_or_default()
    }

    pub fn their_keys(&self, id: u64) -> Vec<Key> {
        self.their_keys.get(&id).cloned().unwrap_or_default()
    }

    pub fn our_file(&self, id: u64) -> Option<Entry> {
        version(&self.ours.files, &self.theirs.files, id)
    }

    pub fn their_file(&self, id: u64) -> Option<Entry> {
        version(&self.theirs.files, &self.ours.files, id)
    }

    pub fn base_file(&self, id: u64) -> Option<Entry> {
        let base = |files: &HashMap<u64, Versions>| files.get(&id).and_then(|versions| versions.base.clone());
        base(&self.ours.files).or_else(|| base(&self.theirs.files))
    }

    pub fn our_directory(&self, id: u64) -> Option<Entry> {
        version(&self.ours.directories, &self.theirs.directories, id)
    }

    pub fn their_directory(&self, id: u64) -> Option<Entry> {
        version(&self.theirs.directories, &self.ours.directories, id)
    }

    pub fn our_place(&self, id: u64) -> Option<Key> {
        self.ours.places.get(&id).cloned().or_else(|| self.base_place(id)).filter(|_| self.our_directory(id).is_some())
    }

    pub fn their_place(&self, id: u64) -> Option<Key> {
        self.theirs.places.get(&id).cloned().or_else(|| self.base_place(id)).filter(|_| self.their_directory(id).is_some())
    }

    pub fn base_place(&self, id: u64) -> Option<Key> {
        self.ours.base_places.get(&id).or_else(|| self.theirs.base_places.get(&id)).cloned()
    }

    /// Returns where the result has a directory, if it has it.
    pub fn result_place(&self, id: u64) -> Option<Key> {
        let places = [self.aside.get(&id).cloned(), self.their_place(id), self.our_place(id)];
        places.into_iter().flatten().find(|key| self.result_at(key).is_some_and(|target| target.id == id && target.is_directory))
    }

    pub fn raise(&mut self, at: &Key, kind: ConflictKind, other: Option<Key>) {
        self.raised.push(Raised { at: at.clone(), kind, other });
    }

    /// Puts `theirs` under a name that something else of ours has: one of the two gets another name.
    pub fn make_way(&mut self, key: &Key, theirs: Target) -> Result<(), TreeError> {
        let Some(ours) = self.result_at(key) else {
            self.edits.insert(key.clone(), Some(theirs));
            return Ok(());
        };
        let takes = self.rules.policy == MergePolicy::Theirs;
        let (label, moved) = if takes { (self.rules.labels.0, ours) } else { (self.rules.labels.1, theirs) };
        let other = self.free_name(key, label)?;
        if takes {
            self.edits.insert(key.clone(), Some(theirs));
        }
        self.edits.insert(other.clone(), Some(moved));
        self.aside.insert(moved.id, other.clone());
        self.raise(key, ConflictKind::Occupied, Some(other));
        Ok(())
    }

    /// Returns `NAME~LABEL` in the same directory, or that with a number when it is taken.
    fn free_name(&self, key: &Key, label: &str) -> Result<Key, TreeError> {
        let label = label.replace('/', "_");
        let tree = self.our_directory(key.0).as_ref().and_then(tree_of);
        for attempt in 0u32.. {
            let suffix = if attempt == 0 { format!("~{label}") } else { format!("~{label}_{attempt}") };
            let suffix = &suffix.as_bytes()[..suffix.len().min(NAME_BYTES_MAX / 2)];
            let kept = key.1.as_bytes().len().min(NAME_BYTES_MAX - suffix.len());
            let Ok(name) = Name::new(&[&key.1.as_bytes()[..kept], suffix].concat()) else { break };
            let other = (key.0, name);
            let known =
                self.edits.contains_key(&other) || self.ours.names.contains_key(&other) || self.theirs.names.contains_key(&other);
            if !known && lookup(self.sink, tree, &other.1)?.is_none() {
                return Ok(other);
            }
        }
        Err(TreeError::NotADirectory { path: key.1.as_bytes().to_vec() }) // Four billion names are never taken.
    }

    /// Merges the attributes of a directory that both states have.
    pub fn merge_directory(&mut self, id: u64, ours: &Entry, theirs: &Entry) {
        let base = |side: &Side| side.directories.get(&id).and_then(|versions| versions.base.clone());
        let base = base(&self.ours).or_else(|| base(&self.theirs));
        let (mut merged, kinds) = merge_attributes(base.as_ref(), ours, theirs, self.rules.policy);
        if merged != *ours {
            merged.ctime = self.rules.now;
            self.directories.insert(id, merged);
        }
        if let Some(place) = self.our_place(id) {
            kinds.into_iter().for_each(|kind| self.raise(&place, kind, None));
        }
    }
}

/// Bounds all names of a directory.
pub(super) fn range_of(directory: u64) -> std::ops::Range<Key> {
    (directory, Name::bound_behind(0))..(directory.saturating_add(1), Name::bound_behind(0))
}

fn at(side: &Side, other: &Side, key: &Key) -> Option<Target> {
    side.names.get(key).map_or_else(|| other.names.get(key).and_then(|slot| slot.base), |slot| slot.side)
}

/// Returns the version of a side: what it did not change is as in the base, which then the other side knows.
fn version(side: &HashMap<u64, Versions>, other: &HashMap<u64, Versions>, id: u64) -> Option<Entry> {
    match side.get(&id) {
        Some(versions) => versions.side.clone(),
        None => other.get(&id).and_then(|versions| versions.base.clone()),
    }
}

fn is_new(side: &Side, target: Target) -> bool {
    let versions = if target.is_directory { &side.directories } else { &side.files };
    versions.get(&target.id).is_some_and(|versions| versions.base.is_none())
}
