//! Changes of names: making, linking, removing and renaming files, checked against POSIX.

use super::acl;
use super::changes::Live;
use super::clock;
use super::error::WorkspaceError;
use super::inode::{Ino, Inode};
use super::operation::{Left, NewNode, Operation};
use super::staging::StagingFile;
use super::syncing::unsynced;
use crate::object::{EntryKind, Name, Xattrs};
use std::sync::Arc;

/// Most names a file can have, as on ext4.
const LINKS_MAX: u32 = 65_000;
const SETGID: u32 = 0o2000;

/// How rename(2) treats an existing target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// Replaces it.
    Replace,
    /// Refuses.
    NoReplace,
    /// Changes places with it.
    Exchange,
}

impl Live {
    /// Returns a directory that still has a name, ready to take entries.
    fn open_directory(&self, ino: Ino) -> Result<&Inode, WorkspaceError> {
        let inode = self.tree.inode(ino)?;
        if inode.directory().is_none() {
            return Err(WorkspaceError::NotDirectory);
        }
        if inode.orphan {
            return Err(WorkspaceError::NotFound("the directory".into()));
        }
        Ok(inode)
    }

    /// Creates a file of any kind; `umask` counts unless the directory has a default ACL.
    pub fn create(&mut self, parent: Ino, name: &Name, mut node: NewNode, umask: u32) -> Result<Ino, WorkspaceError> {
        let xattrs = self.inherit(parent, &mut node, umask)?;
        if self.tree.child(parent, name)?.is_some() {
            return Err(WorkspaceError::Exists(name.to_string()));
        }
        let identity = self.tree.take_identity()?;
        let (parent_identity, time) = (self.identity(parent)?, clock::now());
        let operation = Operation::Create { parent: parent_identity, name: name.clone(), identity, node, xattrs, time };
        self.perform(&operation, &[parent])?;
        let segment = self.bound_now();
        let ino = self.tree.number_of(identity);
        self.tree.inode_mut(ino)?.bound_in = segment;
        Ok(ino)
    }

    /// Gives a new file what it has from its directory: the group, and modes and lists from a default ACL.
    fn inherit(&self, parent: Ino, node: &mut NewNode, umask: u32) -> Result<Xattrs, WorkspaceError> {
        let directory = self.open_directory(parent)?;
        if directory.mode & SETGID != 0 {
            node.gid = directory.gid;
            if node.kind == EntryKind::Directory {
                node.mode |= SETGID;
            }
        }
        let mut xattrs = None;
        match acl::acl_of(&directory.xattrs, acl::DEFAULT) {
            _ if node.kind == EntryKind::Symlink => {}
            Some(default) => (node.mode, xattrs) = acl::inherited(default, node.mode, node.kind == EntryKind::Directory),
            None => node.mode &= !umask,
        }
        Ok(xattrs)
    }

    /// Gives a file a further name.
    pub fn link(&mut self, ino: Ino, parent: Ino, name: &Name) -> Result<(), WorkspaceError> {
        let inode = self.tree.inode(ino)?;
        if inode.kind() == EntryKind::Directory {
            return Err(WorkspaceError::NotPermitted);
        }
        if inode.orphan {
            return Err(WorkspaceError::NotFound("the file".into()));
        }
        if inode.nlink >= LINKS_MAX {
            return Err(WorkspaceError::TooManyLinks);
        }
        self.open_directory(parent)?;
        if self.tree.child(parent, name)?.is_some() {
            return Err(WorkspaceError::Exists(name.to_string()));
        }
        let (identity, parent_identity) = (self.identity(ino)?, self.identity(parent)?);
        let operation = Operation::Link { identity, parent: parent_identity, name: name.clone(), time: clock::now() };
        self.perform(&operation, &[ino, parent])
    }

    /// Removes a name: of a directory when `directory`, which must be empty, else of anything else.
    pub fn remove(&mut self, parent: Ino, name: &Name, directory: bool) -> Result<(), WorkspaceError> {
        let ino = self.existing(parent, name)?;
        let is_directory = self.tree.inode(ino)?.kind() == EntryKind::Directory;
        match (directory, is_directory) {
            (true, false) => return Err(WorkspaceError::NotDirectory),
            (false, true) => return Err(WorkspaceError::IsDirectory),
            (true, true) if !self.tree.is_empty(ino)? => return Err(WorkspaceError::NotEmpty),
            _ => {}
        }
        let operation = Operation::Remove { parent: self.identity(parent)?, name: name.clone(), time: clock::now() };
        self.perform(&operation, &[parent])
    }

    fn existing(&mut self, parent: Ino, name: &Name) -> Result<Ino, WorkspaceError> {
        self.tree.child(parent, name)?.ok_or_else(|| WorkspaceError::NotFound(name.to_string()))
    }

    /// Moves a name, and leaves `whiteout` in its place if there is one.
    pub fn rename(
        &mut self,
        parent: Ino,
        name: &Name,
        new_parent: Ino,
        new_name: &Name,
        mode: RenameMode,
        whiteout: Option<NewNode>,
    ) -> Result<(), WorkspaceError> {
        let ino = self.existing(parent, name)?;
        self.open_directory(new_parent)?;
        let target = self.tree.child(new_parent, new_name)?;
        if self.tree.is_below(new_parent, ino) {
            return Err(WorkspaceError::Invalid("a directory cannot move below itself".into()));
        }
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(WorkspaceError::Exists(new_name.to_string())),
            (RenameMode::Exchange, None) => return Err(WorkspaceError::NotFound(new_name.to_string())),
            (RenameMode::Exchange, Some(other)) if self.tree.is_below(parent, other) => {
                return Err(WorkspaceError::Invalid("a directory cannot move below itself".into()));
            }
            (_, Some(other)) if other == ino => return Ok(()), // rename(2): two names of one file stay.
            (RenameMode::Replace, Some(other)) => self.check_replace(ino, other)?,
            _ => {}
        }
        let (from, to) = (self.identity(parent)?, self.identity(new_parent)?);
        let (name, new_name, time) = (name.clone(), new_name.clone(), clock::now());
        let operation = match (mode, whiteout) {
            (RenameMode::Exchange, _) => Operation::Exchange { parent: from, name, new_parent: to, new_name, time },
            (_, None) => Operation::Rename { parent: from, name, new_parent: to, new_name, time },
            (_, Some(mut node)) => {
                let xattrs = self.inherit(parent, &mut node, 0)?;
                let left = Left { identity: self.tree.take_identity()?, node, xattrs };
                Operation::RenameLeaving { parent: from, name, new_parent: to, new_name, left, time }
            }
        };
        let mut ahead = target.map_or(Ok(Vec::new()), |_| self.tree.inode(ino).map(unsynced))?;
        if let (RenameMode::Exchange, Some(other)) = (mode, target) {
            ahead.extend(unsynced(self.tree.inode(other)?));
        }
        self.perform_behind(&ahead, &operation, &[parent, new_parent])
    }

    /// Performs an operation that must not survive a power cut without the bytes of `ahead`. Programs save by putting a new file
    /// in the place of the old one, often without fsync(2): afterwards one of the two has to be there, as on ext4.
    fn perform_behind(&mut self, ahead: &[Arc<StagingFile>], operation: &Operation, inos: &[Ino]) -> Result<(), WorkspaceError> {
        if ahead.is_empty() {
            return self.perform(operation, inos);
        }
        self.journal.sync().put_ahead(ahead);
        let performed = self.perform(operation, inos);
        self.journal.sync().hurry();
        performed
    }

    fn check_replace(&self, ino: Ino, target: Ino) -> Result<(), WorkspaceError> {
        let directory = |ino| Ok::<_, WorkspaceError>(self.tree.inode(ino)?.kind() == EntryKind::Directory);
        match (directory(ino)?, directory(target)?) {
            (true, false) => Err(WorkspaceError::NotDirectory),
            (false, true) => Err(WorkspaceError::IsDirectory),
            (true, true) if !self.tree.is_empty(target)? => Err(WorkspaceError::NotEmpty),
            _ => Ok(()),
        }
    }
}
