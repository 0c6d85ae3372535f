//! Turns the live tree from one sealed state into another, keeping every inode that does not change.

use super::file::FileBody;
use super::inode::{Body, Ino, Inode, ROOT};
use super::live::LiveTree;
use crate::object::{Entry, Name, Node, Root, TreeItem};
use crate::tree::{DirectoryChange, ItemChange, LinkChange, StateDiff};
use std::collections::{HashMap, HashSet};

/// What the kernel has to forget after the tree changed behind its back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stale {
    /// A name in a directory, whether it was known to exist or not to exist.
    Name {
        /// The directory.
        parent: Ino,
        /// The name in it.
        name: Name,
    },
    /// Attributes of a file; for a directory its listing too.
    Attributes {
        /// The file.
        ino: Ino,
    },
}

impl Stale {
    /// Returns the directory whose name it is.
    pub fn parent(&self) -> Option<Ino> {
        match self {
            Self::Name { parent, .. } => Some(*parent),
            Self::Attributes { .. } => None,
        }
    }

    /// Returns the file whose attributes they are.
    pub fn file(&self) -> Option<Ino> {
        match self {
            Self::Name { .. } => None,
            Self::Attributes { ino } => Some(*ino),
        }
    }
}

impl LiveTree {
    /// Makes a clean live tree that shows the old state of `diff` show its new state, `root`; returns what the kernel must forget.
    ///
    /// A directory keeps its inode. A file whose content changed, or whose name goes, loses its name and lives on
    /// for those who have it open.
    pub fn swap(&mut self, root: &Root, diff: &StateDiff) -> Vec<Stale> {
        let mut stale = Vec::new();
        let left = left_with_one_name(diff);
        for change in &diff.links {
            self.swap_link(change, left.get(&change.identity).copied(), &mut stale);
        }
        self.links_base = root.links;
        for change in &diff.directories {
            self.swap_directory(change, &mut stale);
        }
        for (identity, entry) in left {
            self.leave_link_table(identity, entry, &mut stale);
        }
        stale
    }

    /// `left` describes the file in its directory when the link table does not any more.
    fn swap_link(&mut self, change: &LinkChange, left: Option<&Entry>, stale: &mut Vec<Stale>) {
        let Some(ino) = self.loaded(change.identity) else { return };
        let kept = match (change.new.as_ref().or(left), self.inodes.get_mut(ino)) {
            (Some(new), Some(inode)) if same_content(inode, new) => {
                inode.take_attributes(new);
                inode.linked = true; // One that leaves the table does so when all names are what they will be.
                true
            }
            _ => false,
        };
        if kept {
            stale.push(Stale::Attributes { ino });
        } else {
            for place in self.inodes.get(ino).iter().flat_map(|inode| inode.places.iter()) {
                stale.push(Stale::Name { parent: place.parent, name: place.name.clone() });
            }
            self.detach(ino, stale);
        }
    }

    /// Ends what the link table had to say of a file that has one name left.
    fn leave_link_table(&mut self, identity: u64, entry: &Entry, stale: &mut Vec<Stale>) {
        let Some(ino) = self.loaded(identity) else { return };
        let Some(inode) = self.inodes.get_mut(ino) else { return };
        inode.take_attributes(entry);
        inode.linked = false;
        if inode.places.len() != 1 {
            self.detach(ino, stale); // Its name is not loaded: it will be another inode.
        }
    }

    fn swap_directory(&mut self, change: &DirectoryChange, stale: &mut Vec<Stale>) {
        let ino = if change.place.is_none() { Some(ROOT) } else { self.loaded(change.old.identity) };
        let Some(ino) = ino else { return }; // Neither it nor anything below is loaded.
        let Some(inode) = self.inodes.get_mut(ino) else { return };
        inode.take_attributes(&change.new);
        if let (Some(directory), Node::Directory { tree, has_links }) = (inode.directory_mut(), &change.new.node) {
            directory.base = *tree;
            directory.base_has_links = *has_links;
        }
        stale.push(Stale::Attributes { ino });
        for item in &change.items {
            self.swap_item(ino, item, stale);
        }
    }

    fn swap_item(&mut self, parent: Ino, change: &ItemChange, stale: &mut Vec<Stale>) {
        let child = self.inodes.get(parent).and_then(Inode::directory).and_then(|directory| directory.slots.get(&change.name));
        let child = child.and_then(|slot| slot.child());
        if let Some(child) = child.filter(|child| self.keeps(*child, change)) {
            if let (Some(TreeItem::Entry(new)), Some(inode)) = (&change.new, self.inodes.get_mut(child)) {
                inode.take_attributes(new);
            }
            stale.push(Stale::Attributes { ino: child });
            return;
        }
        stale.push(Stale::Name { parent, name: change.name.clone() });
        if let Some(child) = child {
            self.detach_name(parent, &change.name, child, stale);
        }
    }

    /// Says whether the file under a name stays the same file with the same content.
    fn keeps(&self, child: Ino, change: &ItemChange) -> bool {
        let Some(inode) = self.inodes.get(child) else { return false };
        match &change.new {
            Some(TreeItem::Entry(new)) => inode.identity == new.identity && same_content(inode, new),
            Some(TreeItem::Link(identity)) => inode.identity == *identity && inode.linked,
            None => false,
        }
    }

    /// Takes one name from a file; without names left it is an orphan, and so is all below a directory.
    fn detach_name(&mut self, parent: Ino, name: &Name, child: Ino, stale: &mut Vec<Stale>) {
        if let Some(directory) = self.inodes.get_mut(parent).and_then(Inode::directory_mut) {
            directory.slots.remove(name);
        }
        let Some(inode) = self.inodes.get_mut(child) else { return };
        inode.places.retain(|place| place.parent != parent || place.name != *name);
        if inode.linked {
            self.drop_unused(child); // Other names may exist without being loaded; the link table decides.
        } else {
            self.detach(child, stale);
        }
    }

    /// Takes all names from a file and from everything loaded below it.
    ///
    /// The kernel forgets what is below a directory with it, but not what somebody has in use: that would stay, with all that it holds
    /// here, until memory runs short. Of the name of such a file it is told too, after that of its directory.
    fn detach(&mut self, ino: Ino, stale: &mut Vec<Stale>) {
        let mut pending = vec![ino];
        let mut detached = Vec::new();
        while let Some(ino) = pending.pop() {
            let Some(inode) = self.inodes.get_mut(ino) else { continue };
            let places = std::mem::take(&mut inode.places);
            inode.orphan = true;
            inode.nlink = 0;
            inode.changed_in = 0;
            let mut children = Vec::new();
            if let Body::Directory(directory) = &mut inode.body {
                directory.base = None;
                for (name, slot) in std::mem::take(&mut directory.slots) {
                    if let Some(child) = slot.child() {
                        children.push(child);
                        stale.push(Stale::Name { parent: ino, name });
                    }
                }
            }
            for child in children {
                match self.inodes.get_mut(child) {
                    // It may have names elsewhere.
                    Some(inode) if inode.linked => inode.places.retain(|place| place.parent != ino),
                    _ => pending.push(child),
                }
                detached.push(child);
            }
            for place in places.iter() {
                if let Some(directory) = self.inodes.get_mut(place.parent).and_then(Inode::directory_mut) {
                    directory.slots.remove(&place.name);
                }
            }
            detached.push(ino);
        }
        for ino in detached.into_iter().rev() {
            self.drop_unused(ino);
        }
    }
}

/// Returns the files that leave the link table and are described in a directory that differs from now on.
fn left_with_one_name(diff: &StateDiff) -> HashMap<u64, &Entry> {
    let leaving: HashSet<u64> = diff.links.iter().filter(|change| change.new.is_none()).map(|change| change.identity).collect();
    if leaving.is_empty() {
        return HashMap::new();
    }
    let items = diff.directories.iter().flat_map(|directory| &directory.items);
    let entries = items.filter_map(|item| match &item.new {
        Some(TreeItem::Entry(entry)) if leaving.contains(&entry.identity) => Some((entry.identity, entry)),
        _ => None,
    });
    entries.collect()
}

/// Says whether a clean inode shows the bytes (or target, or device) that `entry` describes.
fn same_content(inode: &Inode, entry: &Entry) -> bool {
    match (&inode.body, &entry.node) {
        (Body::File(FileBody::Clean { content, size_bytes, .. }), Node::File { content: new, size_bytes: new_size, .. }) => {
            content == new && size_bytes == new_size
        }
        (Body::File(FileBody::Plain(plain)), Node::File { content, size_bytes, .. }) => {
            plain.sealed.is_some_and(|sealed| (sealed.content, sealed.size_bytes) == (*content, *size_bytes))
        }
        (Body::File(_), _) => false,
        _ => inode.to_entry().node == entry.node,
    }
}
