//! The table of inodes: loaded from the sealed tree on demand, marked when they change, dropped when nobody needs them.

use super::error::WorkspaceError;
use super::file::{FileBody, Source};
use super::held_files::HeldFiles;
use super::inode::{Directory, Generation, Ino, Inode, ROOT, Slot};
use super::places::Place;
use super::table::InodeTable;
use crate::object::{Content, Entry, Name, ObjectId, Root, TreeItem};
use crate::repository::Repository;
use crate::tree;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

/// Inode numbers from here on are aliases: the file's own number is still in use by an older version of it.
const ALIAS_MIN: u64 = 1 << 46;

/// The live tree of one branch: what differs from its sealed state, and what is loaded of it.
///
/// Invariants: a loaded file that is no orphan has its directory loaded, up to the top, and a slot there for each of
/// its places. A file that changed has `changed_in` set on every slot from the top down to it (or an entry in
/// `link_changes`), so that a cut finds all changes by walking changed slots alone.
pub struct LiveTree {
    pub(super) repository: Arc<Repository>,
    pub(super) inodes: InodeTable,
    /// Where the number of a file is not its identity. It stays when the file is dropped: programs compare numbers.
    aliases: HashMap<u64, Ino>,
    identities: Range<u64>,
    next_alias: u64,
    /// Number of the current generation: changes made since the last cut carry it.
    pub(super) generation: Generation,
    /// A cut was taken and is not settled: its names may enter the sealed tree at any time.
    pub(super) sealing: bool,
    /// Plain files that others may have descriptors or mappings of.
    pub(super) held: HeldFiles,
    /// Sealed descriptions of the inodes with several names.
    pub(super) links_base: Option<ObjectId>,
    /// Identities whose description differs from the sealed one, with the generation of the last change.
    pub(super) link_changes: BTreeMap<u64, Generation>,
}

impl LiveTree {
    /// Starts from a sealed state.
    pub fn new(repository: Arc<Repository>, root: &Root) -> Self {
        let mut tree = Self {
            repository,
            inodes: InodeTable::default(),
            aliases: HashMap::new(),
            identities: 0..0, // Taken when the first file is made: most branches are only looked at.
            next_alias: ALIAS_MIN,
            generation: 1,
            sealing: false,
            held: HeldFiles::default(),
            links_base: root.links,
            link_changes: BTreeMap::new(),
        };
        let mut top = Inode::from_entry(root.directory.clone(), false);
        top.lookups = 1; // The kernel never forgets the root.
        tree.inodes.insert(ROOT, top);
        tree
    }

    /// Gives back the room of inodes that are no longer loaded.
    pub fn shrink(&mut self) {
        self.inodes.shrink();
        self.aliases.shrink_to_fit();
    }

    /// Takes an identity for a new file, which no other file of the store has or had.
    pub fn take_identity(&mut self) -> Result<u64, WorkspaceError> {
        if let Some(identity) = self.identities.next() {
            return Ok(identity);
        }
        self.identities = self.repository.take_identities()?;
        self.identities.next().ok_or_else(|| WorkspaceError::Invalid("identities ran out".into()))
    }

    /// Says whether anything changed since the last seal.
    pub fn is_dirty(&self) -> bool {
        self.inodes.get(ROOT).is_some_and(|top| top.changed_in > 0) || !self.link_changes.is_empty()
    }

    /// Returns a loaded inode.
    pub fn inode(&self, ino: Ino) -> Result<&Inode, WorkspaceError> {
        self.inodes.get(ino).ok_or_else(|| WorkspaceError::NotFound(format!("inode {ino}")))
    }

    pub(super) fn inode_mut(&mut self, ino: Ino) -> Result<&mut Inode, WorkspaceError> {
        self.inodes.get_mut(ino).ok_or_else(|| WorkspaceError::NotFound(format!("inode {ino}")))
    }

    pub(super) fn directory(&self, ino: Ino) -> Result<&Directory, WorkspaceError> {
        self.inode(ino)?.directory().ok_or(WorkspaceError::NotDirectory)
    }

    pub(super) fn directory_mut(&mut self, ino: Ino) -> Result<&mut Directory, WorkspaceError> {
        self.inode_mut(ino)?.directory_mut().ok_or(WorkspaceError::NotDirectory)
    }

    /// Returns the number under which the named file `identity` is loaded, if it is.
    pub fn loaded(&self, identity: u64) -> Option<Ino> {
        let ino = self.aliases.get(&identity).copied().unwrap_or(identity);
        self.inodes.get(ino).filter(|inode| inode.identity == identity && !inode.orphan).map(|_| ino)
    }

    /// Returns the number a file has, or would have if it were loaded now.
    pub fn number_of(&self, identity: u64) -> Ino {
        self.aliases.get(&identity).copied().unwrap_or(identity)
    }

    /// Finds `name` in a directory, loading it from the sealed tree when needed.
    pub fn child(&mut self, parent: Ino, name: &Name) -> Result<Option<Ino>, WorkspaceError> {
        let directory = self.directory(parent)?;
        if let Some(slot) = directory.slots.get(name) {
            return Ok(slot.child());
        }
        let Some(item) = tree::lookup(&*self.repository, directory.base, name)? else { return Ok(None) };
        self.load(parent, name, item).map(Some)
    }

    /// Makes a sealed name a loaded one.
    fn load(&mut self, parent: Ino, name: &Name, item: TreeItem) -> Result<Ino, WorkspaceError> {
        let ino = match item {
            TreeItem::Entry(entry) => self.insert(Inode::from_entry(entry, false)),
            TreeItem::Link(identity) => match self.loaded(identity) {
                Some(ino) => ino,
                None => {
                    let entry = self.sealed_link(identity)?;
                    self.insert(Inode::from_entry(entry, true))
                }
            },
        };
        self.inode_mut(ino)?.places.push(Place { parent, name: name.clone() });
        let slot = Slot::new(ino, true);
        self.directory_mut(parent)?.slots.insert(name.clone(), slot);
        Ok(ino)
    }

    /// Loads the linked file `identity` without a name.
    pub(super) fn load_link(&mut self, identity: u64) -> Result<Ino, WorkspaceError> {
        match self.loaded(identity) {
            Some(ino) => Ok(ino),
            None => {
                let entry = self.sealed_link(identity)?;
                Ok(self.insert(Inode::from_entry(entry, true)))
            }
        }
    }

    fn sealed_link(&self, identity: u64) -> Result<Entry, WorkspaceError> {
        match tree::lookup(&*self.repository, self.links_base, &Name::of_identity(identity))? {
            Some(TreeItem::Entry(entry)) => Ok(entry),
            _ => Err(WorkspaceError::NotFound(format!("description of the hard-linked file {identity}"))),
        }
    }

    /// Adds an inode under its identity, or under an alias while an older version holds that number.
    pub(super) fn insert(&mut self, inode: Inode) -> Ino {
        let ino = self.number_to_be(inode.identity);
        if ino == inode.identity {
            self.aliases.remove(&ino);
        }
        self.inodes.insert(ino, inode);
        ino
    }

    /// Returns the number under which a file that is not loaded will be: the one it had, its own, or an alias while older versions
    /// hold those.
    pub(super) fn number_to_be(&mut self, identity: u64) -> Ino {
        match self.aliases.get(&identity) {
            Some(alias) if !self.inodes.contains(*alias) => *alias,
            _ if !self.inodes.contains(identity) => identity,
            _ => {
                let alias = self.next_alias;
                self.next_alias += 1;
                self.aliases.insert(identity, alias);
                alias
            }
        }
    }

    /// Records that a file's description or content changed, on the way from the top down to it.
    pub(super) fn mark(&mut self, ino: Ino) {
        let generation = self.generation;
        let Some(inode) = self.inodes.get_mut(ino) else { return };
        if inode.orphan {
            return;
        }
        let marked = inode.changed_in == generation;
        inode.changed_in = generation;
        if inode.linked {
            self.link_changes.insert(inode.identity, generation);
        } else if !marked && let Some(place) = inode.places.first().cloned() {
            self.mark_name(place.parent, &place.name);
        }
    }

    /// Records that a name of `parent` changed, and so every directory up to the top.
    pub(super) fn mark_name(&mut self, mut parent: Ino, name: &Name) {
        let generation = self.generation;
        let mut name = name.clone();
        loop {
            let Some(inode) = self.inodes.get_mut(parent) else { return };
            let marked = inode.changed_in == generation;
            inode.changed_in = generation;
            let place = inode.places.first().cloned();
            if let Some(slot) = inode.directory_mut().and_then(|directory| directory.slots.get_mut(&name)) {
                slot.changed_in = generation;
            }
            match place {
                Some(place) if !marked => (parent, name) = (place.parent, place.name),
                _ => return,
            }
        }
    }

    /// Puts a child under a name that was free.
    pub(super) fn add_name(&mut self, parent: Ino, name: &Name, child: Ino) -> Result<(), WorkspaceError> {
        let slots = &mut self.directory_mut(parent)?.slots;
        let in_base = slots.get(name).is_some_and(|slot| slot.in_base);
        slots.insert(name.clone(), Slot::new(child, in_base));
        self.inode_mut(child)?.places.push(Place { parent, name: name.clone() });
        self.mark_name(parent, name);
        Ok(())
    }

    /// Takes a name away from its child.
    pub(super) fn take_name(&mut self, parent: Ino, name: &Name) -> Result<Ino, WorkspaceError> {
        let child = self.child(parent, name)?.ok_or_else(|| WorkspaceError::NotFound(name.to_string()))?;
        let sealing = self.sealing;
        let slots = &mut self.directory_mut(parent)?.slots;
        match slots.get_mut(name) {
            // Nothing sealed or being sealed has the name: no trace of it is needed.
            Some(slot) if !slot.in_base && !sealing => {
                slots.remove(name);
            }
            Some(slot) => slot.remove_child(),
            None => {}
        }
        self.inode_mut(child)?.places.retain(|place| place.parent != parent || place.name != *name);
        self.mark_name(parent, name);
        Ok(child)
    }

    /// Says whether a directory has no names.
    pub fn is_empty(&self, ino: Ino) -> Result<bool, WorkspaceError> {
        let directory = self.directory(ino)?;
        let mut count = tree::count(&*self.repository, directory.base)?;
        for slot in directory.slots.values() {
            match (slot.child().is_some(), slot.in_base) {
                (true, false) => return Ok(false),
                (false, true) => count = count.saturating_sub(1),
                _ => {}
            }
        }
        Ok(count == 0)
    }

    /// Adds a reference of the kernel.
    pub fn remember(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.get_mut(ino) {
            inode.lookups = inode.lookups.saturating_add(1);
        }
    }

    /// Takes back `count` references of the kernel; what nobody needs any more is dropped. What had more than can be counted stays.
    pub fn forget(&mut self, ino: Ino, count: u64) {
        if ino == ROOT {
            return;
        }
        if let Some(inode) = self.inodes.get_mut(ino) {
            if inode.lookups < u32::MAX {
                inode.lookups = inode.lookups.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
            }
            self.drop_unused(ino);
        }
    }

    /// Drops an inode that the kernel does not know and that is as sealed (or has no name), and then its directories likewise.
    pub(super) fn drop_unused(&mut self, ino: Ino) {
        let mut candidates = vec![ino];
        while let Some(ino) = candidates.pop() {
            if ino == ROOT || !self.is_unused(ino) {
                continue;
            }
            let Some(inode) = self.inodes.remove(ino) else { continue };
            self.held.remove(ino);
            if inode.orphan && self.aliases.get(&inode.identity) == Some(&ino) {
                self.aliases.remove(&inode.identity);
            }
            for place in inode.places.iter() {
                if let Some(directory) = self.inodes.get_mut(place.parent).and_then(Inode::directory_mut) {
                    directory.slots.remove(&place.name);
                    candidates.push(place.parent);
                }
            }
        }
    }

    /// Drops everything that the kernel does not know and that is as sealed.
    pub fn drop_all_unused(&mut self) {
        for ino in self.inodes.numbers().collect::<Vec<_>>() {
            self.drop_unused(ino);
        }
    }

    /// Returns the sealed contents that loaded files use, of those too that have lost their names.
    pub fn contents(&self) -> Vec<Content> {
        let mut contents = Vec::new();
        for inode in self.inodes.all() {
            if let Some(body) = inode.file() {
                for piece in body.pieces(0..body.size_bytes()) {
                    if let Source::Clean(content, _) = piece.source {
                        contents.push(content);
                    }
                }
            }
        }
        contents
    }

    fn is_unused(&self, ino: Ino) -> bool {
        let Some(inode) = self.inodes.get(ino) else { return false };
        if inode.lookups > 0 {
            return false;
        }
        if inode.orphan {
            return true;
        }
        if matches!(inode.file(), Some(FileBody::Plain(_))) {
            return false; // The journal counts on its staging file.
        }
        let slots_clean = || {
            inode.places.iter().all(|place| {
                let directory = self.inodes.get(place.parent).and_then(Inode::directory);
                directory.and_then(|directory| directory.slots.get(&place.name)).is_none_or(|slot| slot.changed_in == 0)
            })
        };
        inode.changed_in == 0
            && inode.directory().is_none_or(|directory| directory.slots.is_empty())
            && !(inode.linked && self.link_changes.contains_key(&inode.identity))
            && slots_clean()
    }

    /// Says whether `ino` is `top` or lies below it.
    pub(super) fn is_below(&self, mut ino: Ino, top: Ino) -> bool {
        loop {
            if ino == top {
                return true;
            }
            match self.inodes.get(ino).and_then(|inode| inode.places.first()) {
                Some(place) => ino = place.parent,
                None => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests;
