//! Applies the plan of a merge to our state.

use super::plan::{Plan, range_of};
use super::side::{Key, Target};
use super::{MergeConflict, MergedState};
use crate::object::{Entry, Name, Node, Root, TreeItem};
use crate::tree::{TreeError, join_all, link_entry, update};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What the result has for files and directories, and the link table that goes with it.
#[derive(Default)]
struct Results {
    /// What stands in directories for each file concerned.
    files: HashMap<u64, TreeItem>,
    /// Directories that change or are new, finished.
    directories: HashMap<u64, Entry>,
    links: BTreeMap<Name, Option<TreeItem>>,
}

impl Plan<'_> {
    /// Makes the merged state.
    pub fn build(mut self, fresh: &mut dyn FnMut() -> u64) -> Result<MergedState, TreeError> {
        let mut taken: HashMap<u64, u64> = HashMap::new();
        for versions in [&self.ours.files, &self.ours.directories] {
            taken.extend(versions.iter().filter_map(|(id, versions)| Some((versions.side.as_ref()?.identity, *id))));
        }
        let mut identity_for = |id: u64, ours: Option<&Entry>, theirs: u64| match ours {
            Some(ours) => ours.identity,
            None if taken.get(&theirs).is_some_and(|other| *other != id) => fresh(),
            None => theirs,
        };
        let mut results = Results::default();
        for (id, keys) in self.files_concerned() {
            self.finish_file(id, keys, &mut results, &mut identity_for)?;
        }
        self.finish_directories(&mut results, &mut identity_for)?;
        let top = self.our_root.directory.identity;
        let directory = results.directories.remove(&top).unwrap_or_else(|| self.our_root.directory.clone());
        let links: Vec<_> = results.links.into_iter().collect();
        let links = if links.is_empty() { self.our_root.links } else { update(self.sink, self.our_root.links, &links)?.tree };
        let mut conflicts: Vec<MergeConflict> = self
            .raised
            .iter()
            .map(|raised| MergeConflict {
                path: self.path_of(&raised.at),
                kind: raised.kind,
                other: raised.other.as_ref().map(|other| self.path_of(other)),
            })
            .collect();
        conflicts.sort();
        conflicts.dedup();
        Ok(MergedState { root: Root { directory, links }, conflicts })
    }

    /// Returns the files whose names or descriptions change, each with all names that may be concerned.
    fn files_concerned(&self) -> BTreeMap<u64, BTreeSet<Key>> {
        let mut concerned: BTreeMap<u64, BTreeSet<Key>> = self.files.keys().map(|id| (*id, BTreeSet::new())).collect();
        for (key, target) in &self.edits {
            for target in [self.ours_at(key), *target].into_iter().flatten().filter(|target| !target.is_directory) {
                concerned.entry(target.id).or_default().insert(key.clone());
            }
        }
        for (id, keys) in &mut concerned {
            keys.extend(self.our_keys(*id).into_iter().chain(self.their_keys(*id)));
        }
        concerned
    }

    /// Counts the names of a file in the result and says how it stands in directories.
    fn finish_file(
        &mut self,
        id: u64,
        keys: BTreeSet<Key>,
        results: &mut Results,
        identity_for: &mut dyn FnMut(u64, Option<&Entry>, u64) -> u64,
    ) -> Result<(), TreeError> {
        let (ours, theirs) = (self.our_file(id), self.their_file(id));
        let Some(mut entry) = self.files.get(&id).cloned().or_else(|| ours.clone()).or(theirs) else { return Ok(()) };
        let is_it = |target: Option<Target>| target.is_some_and(|target| target.id == id);
        let had = keys.iter().filter(|key| is_it(self.ours_at(key))).count() as u32;
        let has: Vec<&Key> = keys.iter().filter(|key| is_it(self.result_at(key))).collect();
        let before = ours.as_ref().map_or(0, |ours| ours.nlink.max(1));
        let nlink = before.saturating_sub(had).saturating_add(has.len() as u32);
        entry.identity = identity_for(id, ours.as_ref(), entry.identity);
        if nlink != before && ours.is_some() {
            entry.ctime = self.rules.now;
        }
        entry.nlink = nlink;
        let table = match &ours {
            Some(ours) => link_entry(self.sink, self.our_root, ours.identity)?,
            None => None,
        };
        if table.is_none() && nlink < 2 {
            results.files.insert(id, TreeItem::Entry(entry));
        } else {
            let described = (nlink > 0).then_some(entry);
            if table != described {
                let name = Name::of_identity(described.as_ref().or(table.as_ref()).map_or(id, |entry| entry.identity));
                results.links.insert(name, described.clone().map(TreeItem::Entry));
            }
            let identity = described.or(table.clone()).map_or(id, |entry| entry.identity);
            results.files.insert(id, TreeItem::Link(identity));
        }
        if table.is_none() {
            // The names that stay say something else now.
            let has: Vec<Key> = has.into_iter().cloned().collect();
            for key in has {
                self.edits.entry(key).or_insert(Some(Target { id, is_directory: false }));
            }
        }
        Ok(())
    }

    /// Builds every directory that changes, those below first.
    fn finish_directories(
        &self,
        results: &mut Results,
        identity_for: &mut dyn FnMut(u64, Option<&Entry>, u64) -> u64,
    ) -> Result<(), TreeError> {
        let places = self.touched();
        let mut children: HashMap<u64, Vec<(Name, u64)>> = HashMap::new();
        let mut open: HashMap<u64, usize> = HashMap::new();
        for (id, place) in &places {
            if let Some((parent, name)) = place {
                children.entry(*parent).or_default().push((name.clone(), *id));
                *open.entry(*parent).or_default() += 1;
            }
        }
        let mut ready: Vec<u64> = places.keys().copied().filter(|id| !open.contains_key(id)).collect();
        while let Some(id) = ready.pop() {
            let below = children.remove(&id).unwrap_or_default();
            if let Some(entry) = self.finish_directory(id, &below, results, identity_for)? {
                results.directories.insert(id, entry);
            }
            if let Some(Some((parent, _))) = places.get(&id)
                && let Some(count) = open.get_mut(parent)
            {
                *count -= 1;
                ready.extend((*count == 0).then_some(*parent));
            }
        }
        Ok(())
    }

    /// Returns the directories that change with their places in the result, and all above them.
    fn touched(&self) -> BTreeMap<u64, Option<Key>> {
        let top = self.our_root.directory.identity;
        let targets = self.edits.values().flatten().filter(|target| target.is_directory).map(|target| target.id);
        let mut waiting: Vec<u64> =
            self.edits.keys().map(|key| key.0).chain(targets).chain(self.directories.keys().copied()).collect();
        let mut touched = BTreeMap::new();
        let mut seen = HashSet::new();
        while let Some(id) = waiting.pop() {
            if !seen.insert(id) {
                continue;
            }
            if id == top {
                touched.insert(id, None);
            } else if let Some(place) = self.result_place(id) {
                waiting.push(place.0);
                touched.insert(id, Some(place));
            }
        }
        touched
    }

    fn finish_directory(
        &self,
        id: u64,
        below: &[(Name, u64)],
        results: &Results,
        identity_for: &mut dyn FnMut(u64, Option<&Entry>, u64) -> u64,
    ) -> Result<Option<Entry>, TreeError> {
        let (ours, theirs) = (self.our_directory(id), self.their_directory(id));
        let Some(mut entry) = self.directories.get(&id).cloned().or_else(|| ours.clone()).or(theirs) else { return Ok(None) };
        entry.identity = identity_for(id, ours.as_ref(), entry.identity);
        let (tree, has_links) = match &ours.as_ref().map(|ours| &ours.node) {
            Some(Node::Directory { tree, has_links }) => (*tree, *has_links),
            _ => (None, false),
        };
        if ours.is_none() {
            entry.nlink = 2;
        }
        let mut edits: BTreeMap<Name, Option<TreeItem>> = BTreeMap::new();
        let mut moved = false;
        for (key, target) in self.edits.range(range_of(id)) {
            let had = if ours.is_some() { self.ours_at(key) } else { None };
            moved |= had.map(|had| had.id) != target.map(|target| target.id);
            let is_directory = |target: Option<Target>| target.is_some_and(|target| target.is_directory);
            entry.nlink =
                entry.nlink.saturating_sub(u32::from(is_directory(had))).saturating_add(u32::from(is_directory(*target)));
            let item = match target {
                Some(Target { id, is_directory: false }) => results.files.get(id).cloned(),
                Some(Target { id, is_directory: true }) => results.directories.get(id).cloned().map(TreeItem::Entry),
                None => None,
            };
            edits.insert(key.1.clone(), item);
        }
        for (name, child) in below {
            edits.insert(name.clone(), results.directories.get(child).cloned().map(TreeItem::Entry));
        }
        if let (true, Some(ours)) = (moved, &ours) {
            entry.ctime = self.rules.now;
            if self.both_filled(id) {
                entry.mtime = self.rules.now.max(ours.mtime); // Neither side has seen this directory.
            }
        }
        let edits: Vec<_> = edits.into_iter().collect();
        entry.node = if edits.is_empty() {
            Node::Directory { tree, has_links }
        } else {
            let built = update(self.sink, tree, &edits)?;
            Node::Directory { tree: built.tree, has_links: built.has_links }
        };
        Ok(Some(entry))
    }

    /// Says whether names came or went in a directory on both sides.
    fn both_filled(&self, id: u64) -> bool {
        let filled = |side: &super::side::Side| {
            let target = |target: Option<Target>| target.map(|target| target.id);
            side.names.range(range_of(id)).any(|(_, slot)| target(slot.base) != target(slot.side))
        };
        filled(&self.ours) && filled(&self.theirs)
    }

    /// Returns the path of a name in the result, or where it would be.
    fn path_of(&self, key: &Key) -> Vec<u8> {
        let top = self.our_root.directory.identity;
        let mut path = vec![key.1.clone()];
        let mut seen = HashSet::from([top]);
        let mut directory = key.0;
        while seen.insert(directory) {
            let place =
                self.result_place(directory).or_else(|| self.our_place(directory)).or_else(|| self.their_place(directory));
            let Some((parent, name)) = place.or_else(|| self.base_place(directory)) else { break };
            path.push(name);
            directory = parent;
        }
        path.reverse();
        join_all(&path)
    }
}
