//! Lists a directory: its sealed names and what changed in them, in one order that insertions and deletions do not disturb.

use super::Workspace;
use super::error::WorkspaceError;
use super::inode::{Ino, Slot};
use super::live::LiveTree;
use crate::object::{EntryKind, Name, TreeItem};
use crate::tree;
use std::ops::Bound;

/// One name of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The name; its position is where a listing goes on behind it.
    pub name: Name,
    /// The file's inode number.
    pub ino: Ino,
    /// The file's kind.
    pub kind: EntryKind,
}

impl Workspace {
    /// Returns the directory in which a directory is: for the top, and for one without a name, itself.
    pub fn parent_of(&self, directory: Ino) -> Result<Ino, WorkspaceError> {
        let live = self.live();
        Ok(live.tree.inode(directory)?.places.first().map_or(directory, |place| place.parent))
    }
}

impl LiveTree {
    /// Lists up to `limit` names behind `after_position`; 0 starts.
    pub fn list(&mut self, ino: Ino, after_position: u64, limit: usize) -> Result<Vec<Listed>, WorkspaceError> {
        let directory = self.directory(ino)?;
        let bound = Name::bound_behind(after_position);
        let mut slots = directory.slots.range((Bound::Excluded(&bound), Bound::Unbounded)).peekable();
        let mut sealed = tree::list(&*self.repository, directory.base, after_position).peekable();
        let mut listed: Vec<(Listed, bool)> = Vec::new();
        while listed.len() < limit {
            let slot_first = match (slots.peek(), sealed.peek()) {
                (None, None) => break,
                (_, Some(Err(_))) => {
                    return Err(sealed.next().and_then(Result::err).map_or(WorkspaceError::NotDirectory, Into::into));
                }
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some((name, _)), Some(Ok((other, _)))) => *name <= other,
            };
            if slot_first {
                let Some((name, slot)) = slots.next() else { break };
                if sealed.peek().is_some_and(|item| item.as_ref().is_ok_and(|(other, _)| other == name)) {
                    sealed.next();
                }
                listed.extend(self.listed_slot(name, slot)?.map(|found| (found, true)));
            } else if let Some(Ok((name, item))) = sealed.next() {
                listed.push((self.listed_item(name, &item)?, false));
            }
        }
        Ok(self.numbered(listed))
    }

    /// Gives the names that are not loaded the numbers they will have when they are.
    fn numbered(&mut self, listed: Vec<(Listed, bool)>) -> Vec<Listed> {
        let number = |(mut found, has_number): (Listed, bool)| {
            if !has_number {
                let identity = found.ino;
                found.ino = self.loaded(identity).unwrap_or_else(|| self.number_to_be(identity));
            }
            found
        };
        listed.into_iter().map(number).collect()
    }

    fn listed_slot(&self, name: &Name, slot: &Slot) -> Result<Option<Listed>, WorkspaceError> {
        let Some(ino) = slot.child() else { return Ok(None) };
        Ok(Some(Listed { name: name.clone(), ino, kind: self.inode(ino)?.kind() }))
    }

    /// Describes a name that is not loaded, by identity.
    fn listed_item(&self, name: Name, item: &TreeItem) -> Result<Listed, WorkspaceError> {
        let identity = item.identity();
        let kind = match item {
            TreeItem::Entry(entry) => entry.node.kind(),
            TreeItem::Link(_) => match self.loaded(identity) {
                Some(ino) => self.inode(ino)?.kind(),
                None => match tree::lookup(&*self.repository, self.links_base, &Name::of_identity(identity))? {
                    Some(TreeItem::Entry(entry)) => entry.node.kind(),
                    _ => return Err(WorkspaceError::NotFound(format!("description of the hard-linked file {identity}"))),
                },
            },
        };
        Ok(Listed { name, ino: identity, kind })
    }
}
