//! What one side of a merge changed since the base.

use super::super::moves::{Comparisons, Moves};
use super::super::state::{diff_links, resolve};
use super::super::{NodeSource, TreeError, as_directory, link_entry, list, tree_of};
use crate::object::{Entry, Name, Root, TreeItem};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A name in a directory, by the directory's id.
pub(super) type Key = (u64, Name);

/// What a name stands for. The id is the identity in the base where there is one, so that it is the same in all states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub id: u64,
    pub is_directory: bool,
}

/// A name that the side does not have as the base has it, or whose file it changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub base: Option<Target>,
    pub side: Option<Target>,
}

/// A file or directory in the base and in the side; absent where it does not exist.
#[derive(Clone, Debug, Default)]
pub(super) struct Versions {
    pub base: Option<Entry>,
    pub side: Option<Entry>,
}

/// What one side changed. What is not in here, it left as it was.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub names: BTreeMap<Key, Slot>,
    pub directories: HashMap<u64, Versions>,
    pub files: HashMap<u64, Versions>,
    /// Where directories stand in the side, and where they stood in the base.
    pub places: HashMap<u64, Key>,
    pub base_places: HashMap<u64, Key>,
    /// Ids of files and directories that replaced others of the base: they go by the id of what they replaced.
    replaced: HashMap<u64, u64>,
}

enum Task {
    Pair { id: u64, base: Entry, side: Entry },
    Gone(Entry),
    Came(Entry),
}

struct Walk<'a> {
    source: &'a dyn NodeSource,
    comparisons: Comparisons<'a>,
    moves: Moves,
    tasks: Vec<Task>,
    items: BTreeMap<Key, (Option<TreeItem>, Option<TreeItem>)>,
    side: Side,
}

impl Side {
    /// Compares a side with the base, looking only where they differ.
    pub fn find(source: &dyn NodeSource, base: &Root, side: &Root) -> Result<Self, TreeError> {
        let mut comparisons = Comparisons::new(source);
        let moves = Moves::find(&mut comparisons, base, side)?;
        let top = Task::Pair { id: base.directory.identity, base: base.directory.clone(), side: side.directory.clone() };
        let mut walk = Walk { source, comparisons, moves, tasks: vec![top], items: BTreeMap::new(), side: Self::default() };
        while let Some(task) = walk.tasks.pop() {
            match task {
                Task::Pair { id, base, side } => walk.pair(id, base, side)?,
                Task::Gone(entry) => walk.gone(entry)?,
                Task::Came(entry) => walk.came(entry)?,
            }
        }
        let (items, mut found) = (walk.items, walk.side);
        found.find_replaced(source, base, side, &items)?;
        found.take_files(source, base, side, &items)?;
        Ok(found)
    }

    /// Returns the id under which an identity of the side goes.
    fn id_of(&self, identity: u64) -> u64 {
        self.replaced.get(&identity).copied().unwrap_or(identity)
    }

    /// Finds files that were replaced by new ones of the same name, as editors save: by path they are the same file.
    fn find_replaced(
        &mut self,
        source: &dyn NodeSource,
        base: &Root,
        side: &Root,
        items: &BTreeMap<Key, (Option<TreeItem>, Option<TreeItem>)>,
    ) -> Result<(), TreeError> {
        let identities = |items: &mut dyn Iterator<Item = &Option<TreeItem>>| -> HashSet<u64> {
            items.flatten().filter(|item| as_directory(item).is_none()).map(TreeItem::identity).collect()
        };
        let in_base = identities(&mut items.values().map(|(old, _)| old));
        let in_side = identities(&mut items.values().map(|(_, new)| new));
        let mut taken = HashSet::new();
        for (old, new) in items.values() {
            let (Some(old), Some(new)) = (old, new) else { continue };
            if as_directory(old).is_some() || as_directory(new).is_some() || old.identity() == new.identity() {
                continue;
            }
            let lives = |root: &Root, item: &TreeItem| match item {
                TreeItem::Link(identity) => Ok(link_entry(source, root, *identity)?.is_some()),
                TreeItem::Entry(_) => Ok::<_, TreeError>(false),
            };
            let old_is_gone = !in_side.contains(&old.identity()) && !lives(side, old)?;
            let new_is_new = !in_base.contains(&new.identity()) && !lives(base, new)?;
            if old_is_gone && new_is_new && !self.replaced.contains_key(&new.identity()) && taken.insert(old.identity()) {
                self.replaced.insert(new.identity(), old.identity());
            }
        }
        Ok(())
    }

    /// Turns items into ids, and collects both versions of every file concerned.
    fn take_files(
        &mut self,
        source: &dyn NodeSource,
        base: &Root,
        side: &Root,
        items: &BTreeMap<Key, (Option<TreeItem>, Option<TreeItem>)>,
    ) -> Result<(), TreeError> {
        for (key, (old, new)) in items {
            let old_target = old.as_ref().map(|item| target(item.identity(), item));
            let new_target = new.as_ref().map(|item| target(self.id_of(item.identity()), item));
            self.names.insert(key.clone(), Slot { base: old_target, side: new_target });
            if let (Some(item), Some(Target { id, is_directory: false })) = (old, old_target) {
                let entry = resolve(source, base, item)?;
                self.files.entry(id).or_default().base = Some(entry);
                if let TreeItem::Link(identity) = item
                    && self.files.get(&id).is_none_or(|versions| versions.side.is_none())
                {
                    self.files.entry(id).or_default().side = link_entry(source, side, *identity)?; // It may have other names.
                }
            }
            if let (Some(item), Some(Target { id, is_directory: false })) = (new, new_target) {
                let entry = resolve(source, side, item)?;
                let versions = self.files.entry(id).or_default();
                versions.side = Some(entry);
                if versions.base.is_none() {
                    versions.base = link_entry(source, base, id)?;
                }
            }
        }
        for link in diff_links(source, base, side)? {
            let id = self.id_of(link.identity);
            let versions = self.files.entry(id).or_default();
            versions.base = versions.base.take().or(link.old);
            versions.side = versions.side.take().or(link.new);
        }
        Ok(())
    }

    /// Gives new files and directories of this side the ids that `twins` has for them.
    pub fn rename(&mut self, twins: &HashMap<u64, u64>) {
        let id = |id: u64| twins.get(&id).copied().unwrap_or(id);
        let renamed = |target: Option<Target>| target.map(|target| Target { id: id(target.id), ..target });
        let key = |(directory, name): Key| (id(directory), name);
        let names = std::mem::take(&mut self.names).into_iter();
        self.names = names.map(|(at, slot)| (key(at), Slot { base: renamed(slot.base), side: renamed(slot.side) })).collect();
        self.directories = std::mem::take(&mut self.directories).into_iter().map(|(at, versions)| (id(at), versions)).collect();
        self.files = std::mem::take(&mut self.files).into_iter().map(|(at, versions)| (id(at), versions)).collect();
        self.places = std::mem::take(&mut self.places).into_iter().map(|(at, place)| (id(at), key(place))).collect();
    }
}

impl Walk<'_> {
    fn pair(&mut self, id: u64, base: Entry, side: Entry) -> Result<(), TreeError> {
        for change in self.comparisons.take(&base, &side)?.iter() {
            let key = (id, change.name.clone());
            let old = change.old.as_ref().and_then(as_directory).cloned();
            let new = change.new.as_ref().and_then(as_directory).cloned();
            match (old, new) {
                (Some(old), Some(new)) if self.comparable(&old, &new) => {
                    if old.identity != new.identity {
                        self.side.replaced.insert(new.identity, old.identity);
                    }
                    self.side.base_places.insert(old.identity, key.clone());
                    self.side.places.insert(old.identity, key.clone());
                    self.tasks.push(Task::Pair { id: old.identity, base: old, side: new });
                }
                (old, new) => {
                    old.into_iter().for_each(|old| self.see_gone(&key, old));
                    new.into_iter().for_each(|new| self.see_came(&key, new));
                }
            }
            self.items.insert(key, (change.old.clone(), change.new.clone()));
        }
        self.side.directories.insert(id, Versions { base: Some(base), side: Some(side) });
        Ok(())
    }

    /// Says whether two directories of one name are the same, or one was made anew in place of the other.
    fn comparable(&self, old: &Entry, new: &Entry) -> bool {
        let moved = || self.moves.arrived(old.identity) || self.moves.origin(new.identity).is_some();
        old.identity == new.identity || !moved()
    }

    fn see_gone(&mut self, key: &Key, entry: Entry) {
        self.side.base_places.insert(entry.identity, key.clone());
        if !self.moves.arrived(entry.identity) {
            self.tasks.push(Task::Gone(entry)); // One that arrived elsewhere is compared there.
        }
    }

    fn see_came(&mut self, key: &Key, entry: Entry) {
        self.side.places.insert(entry.identity, key.clone());
        self.tasks.push(match self.moves.origin(entry.identity) {
            Some(origin) => Task::Pair { id: entry.identity, base: origin.entry.clone(), side: entry },
            None => Task::Came(entry),
        });
    }

    fn gone(&mut self, entry: Entry) -> Result<(), TreeError> {
        for found in list(self.source, tree_of(&entry), 0) {
            let (name, item) = found?;
            let key = (entry.identity, name);
            as_directory(&item).cloned().into_iter().for_each(|below| self.see_gone(&key, below));
            self.items.insert(key, (Some(item), None));
        }
        self.side.directories.insert(entry.identity, Versions { base: Some(entry), side: None });
        Ok(())
    }

    fn came(&mut self, entry: Entry) -> Result<(), TreeError> {
        for found in list(self.source, tree_of(&entry), 0) {
            let (name, item) = found?;
            let key = (entry.identity, name);
            as_directory(&item).cloned().into_iter().for_each(|below| self.see_came(&key, below));
            self.items.insert(key, (None, Some(item)));
        }
        self.side.directories.insert(entry.identity, Versions { base: None, side: Some(entry) });
        Ok(())
    }
}

fn target(id: u64, item: &TreeItem) -> Target {
    Target { id, is_directory: as_directory(item).is_some() }
}
