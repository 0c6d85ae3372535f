//! File operations that change the tree: checked against POSIX, journaled, applied.

use super::acl;
use super::clock;
use super::error::WorkspaceError;
use super::file::{BLOCK_BYTES, FileBody, SMALL_BYTES_MAX, Source};
use super::inode::{Attributes, Body, Ino, Inode, ROOT};
use super::journal::Journal;
use super::live::LiveTree;
use super::opens::Opens;
use super::operation::{AttributeChange, Left, NewNode, Operation, RangeChange, RangeOptions};
use super::staging::StagingFile;
use super::staging_dir::StagingDir;
use super::syncing::unsynced;
use crate::object::{Content, EntryKind, Name, Xattrs};
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Largest length of a file.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;
/// Most names a file can have, as on ext4.
const LINKS_MAX: u32 = 65_000;
/// Most bytes of names and values of the extended attributes of one file.
const XATTRS_BYTES_MAX: usize = 64 << 10;
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

/// What setxattr(2) expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrMode {
    /// Nothing.
    Set,
    /// That the attribute does not exist.
    Create,
    /// That it exists.
    Replace,
    /// Both, which never is.
    CreateAndReplace,
}

/// The live tree with the journal that protects it: what the workspace's one lock covers.
pub struct Live {
    /// The tree.
    pub tree: LiveTree,
    /// Records of the changes since the last seal.
    pub journal: Journal,
    /// Where large new data goes.
    pub staging: Arc<StagingDir>,
    /// A change was journaled but could not be applied: nothing may change any more.
    pub poisoned: bool,
    /// The branch was deleted: nothing may change any more.
    pub closed: bool,
    /// Bytes of small dirty files taken into memory since the last cut.
    pub dirty_bytes: u64,
    /// What the last seal had to save and could not, about; `u64::MAX` while nobody knows.
    pub unsaved_bytes: u64,
    /// How often files are open, where opens are told.
    pub opens: HashMap<Ino, Opens>,
    /// Files that the kernel had still when they were closed.
    pub closed_and_held: Vec<Ino>,
}

/// When the journal segment is longer than this, the branch is sealed in the background, so that recovery stays short.
const JOURNAL_BYTES_MAX: u64 = 128 << 20;

impl Live {
    /// Says whether the journal has grown so long, or so many staging files are open, that a seal is due.
    pub fn is_seal_due(&self) -> bool {
        self.journal.segment_bytes() > JOURNAL_BYTES_MAX || self.staging.is_crowded()
    }

    /// Journals and applies `operation` unless all files it concerns lost their names: nobody could find those after a restart.
    pub(super) fn perform(&mut self, operation: &Operation, files: &[Ino]) -> Result<(), WorkspaceError> {
        if self.poisoned {
            return Err(WorkspaceError::ReadOnly);
        }
        if self.closed {
            return Err(WorkspaceError::NotFound("the branch".into()));
        }
        let named = files.iter().all(|ino| self.tree.inode(*ino).is_ok_and(|inode| !inode.orphan));
        if named {
            for ino in files {
                self.bind(*ino)?;
            }
            self.journal.append(operation).map_err(WorkspaceError::io("journal"))?;
        }
        let applied = self.tree.apply_to(files, operation, &self.staging);
        if let (Err(err), true) = (&applied, named) {
            tracing::error!(?err, "a journaled operation cannot be applied; the workspace becomes read-only");
            self.poisoned = true;
        }
        applied
    }

    /// Makes sure that the current journal segment says where a file is, so that a replay can load it.
    pub(super) fn bind(&mut self, ino: Ino) -> Result<(), WorkspaceError> {
        let segment = self.journal.segment();
        let mut unbound = Vec::new();
        let mut next = ino;
        while next != ROOT {
            let inode = self.tree.inode(next)?;
            if inode.bound_in == segment {
                break;
            }
            unbound.push(next);
            match inode.places.first() {
                Some(place) if !inode.linked => next = place.parent,
                _ => break,
            }
        }
        for ino in unbound.into_iter().rev() {
            let record = self.binding(ino)?;
            self.journal.append(&record).map_err(WorkspaceError::io("journal"))?;
            self.tree.inode_mut(ino)?.bound_in = segment;
        }
        Ok(())
    }

    fn binding(&self, ino: Ino) -> Result<Operation, WorkspaceError> {
        let inode = self.tree.inode(ino)?;
        if inode.linked {
            return Ok(Operation::BindLink { identity: inode.identity });
        }
        let place = inode.places.first().ok_or_else(|| WorkspaceError::NotFound(format!("name of file {ino}")))?;
        let parent = self.tree.inode(place.parent)?.identity;
        Ok(Operation::Bind { identity: inode.identity, parent, name: place.name.clone() })
    }

    pub(super) fn identity(&self, ino: Ino) -> Result<u64, WorkspaceError> {
        Ok(self.tree.inode(ino)?.identity)
    }

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
        let segment = self.journal.segment();
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

    /// Changes mode, owner, times or size, and returns what `stat` then shows.
    pub fn set_attributes(&mut self, ino: Ino, mut change: AttributeChange) -> Result<Attributes, WorkspaceError> {
        let inode = self.tree.inode(ino)?;
        if let Some(size_bytes) = change.size_bytes {
            match inode.body {
                Body::File(_) if size_bytes <= FILE_BYTES_MAX => {}
                Body::File(_) => return Err(WorkspaceError::FileTooLarge),
                Body::Directory(_) => return Err(WorkspaceError::IsDirectory),
                _ => return Err(WorkspaceError::Invalid("only a regular file has a size".into())),
            }
        }
        if change.size_bytes.is_some_and(|size_bytes| size_bytes > 0) {
            self.fetch(ino)?;
        }
        if self.tree.plain(ino).is_some() && !self.change_plain(ino, &mut change)? {
            return self.tree.attributes(ino);
        }
        let inode = self.tree.inode(ino)?;
        let time = clock::now();
        if change.size_bytes.is_some() && change.mtime.is_none() {
            change.mtime = Some(time);
        }
        let operation = Operation::SetAttributes { identity: inode.identity, change, time };
        self.perform(&operation, &[ino])?;
        self.tree.attributes(ino)
    }

    /// Sets an extended attribute.
    pub fn set_xattr(&mut self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), WorkspaceError> {
        self.tree.look(ino); // What was written before a program got its privileges does not end them.
        let inode = self.tree.inode(ino)?;
        let xattrs = inode.xattrs.as_deref();
        let old = xattrs.and_then(|xattrs| xattrs.get(name));
        match (mode, old) {
            (XattrMode::Create | XattrMode::CreateAndReplace, Some(_)) => {
                return Err(WorkspaceError::Exists("extended attribute".into()));
            }
            (XattrMode::Replace | XattrMode::CreateAndReplace, None) => return Err(WorkspaceError::NoData("extended attribute")),
            _ => {}
        }
        if matches!(name, acl::ACCESS | acl::DEFAULT) {
            let Some(list) = acl::Acl::parse(value) else {
                return Err(WorkspaceError::Invalid("not an access control list".into()));
            };
            if name == acl::ACCESS && old.is_none() && list.is_minimal() && list.mode(inode.mode) == inode.mode {
                return Ok(()); // It says what the mode says: not even ctime moves, as on ext4.
            }
            if value.len() > acl::ACL_BYTES_MAX {
                return Err(WorkspaceError::TooLarge);
            }
        } else if old.is_some_and(|old| **old == *value) {
            return Ok(()); // Not even ctime moves, as on ext4.
        }
        let others: usize = xattrs.map_or(0, |all| {
            all.iter().filter(|(other, _)| ***other != *name).map(|(name, value)| name.len() + value.len()).sum()
        });
        if others + name.len() + value.len() > XATTRS_BYTES_MAX {
            return Err(WorkspaceError::TooLarge);
        }
        let value = Some(value.into());
        let operation = Operation::SetXattr { identity: inode.identity, name: name.into(), value, time: clock::now() };
        self.perform(&operation, &[ino])
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&mut self, ino: Ino, name: &[u8]) -> Result<(), WorkspaceError> {
        let inode = self.tree.inode(ino)?;
        if !inode.xattrs.as_ref().is_some_and(|xattrs| xattrs.contains_key(name)) {
            if matches!(name, acl::ACCESS | acl::DEFAULT) {
                return Ok(()); // A file without a list is as one that lost it.
            }
            return Err(WorkspaceError::NoData("extended attribute"));
        }
        let operation = Operation::SetXattr { identity: inode.identity, name: name.into(), value: None, time: clock::now() };
        self.perform(&operation, &[ino])
    }

    /// Writes `data` at `offset`.
    ///
    /// Returns how much of it was written: less than all when the disk filled on the way.
    pub fn write(&mut self, ino: Ino, offset: u64, data: &[u8], strip_privileges: bool) -> Result<usize, WorkspaceError> {
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= FILE_BYTES_MAX);
        let end = end.ok_or(WorkspaceError::FileTooLarge)?;
        let body = self.regular(ino)?;
        let old = body.size_bytes();
        if data.is_empty() {
            return Ok(0);
        }
        if self.tree.plain(ino).is_some() {
            return self.write_plain(ino, offset, data, strip_privileges);
        }
        self.fetch(ino)?;
        let (identity, time) = (self.identity(ino)?, clock::now());
        let hole = offset / BLOCK_BYTES * BLOCK_BYTES > old.next_multiple_of(BLOCK_BYTES);
        if !hole && self.tree.stays_small(ino, old.max(end))? {
            self.dirty_bytes += data.len() as u64;
            let operation = Operation::Write { identity, offset, data: data.into(), strip_privileges, time };
            return self.perform(&operation, &[ino]).map(|()| data.len());
        }
        self.expect_record(ino)?; // Bytes in place of older ones cannot be taken back when their record finds no room.
        let written = self.stage(ino, identity, offset, data)?;
        let operation = Operation::WriteStaged { identity, offset, len: written as u64, strip_privileges, time };
        self.perform(&operation, &[ino]).map(|()| written)
    }

    /// Takes the room in the journal for a record without data about a file.
    fn expect_record(&mut self, ino: Ino) -> Result<(), WorkspaceError> {
        if !self.tree.inode(ino)?.orphan {
            self.bind(ino)?;
            self.journal.expect_record().map_err(WorkspaceError::io("journal"))?;
        }
        Ok(())
    }

    /// Puts data into the file's staging file, starting one when the file has none that may change. Returns how much of it.
    fn stage(&mut self, ino: Ino, identity: u64, offset: u64, data: &[u8]) -> Result<usize, WorkspaceError> {
        let open = match self.regular(ino)? {
            FileBody::Layered(layered) if !layered.frozen => layered.staging.clone(),
            _ => None,
        };
        if let Some(file) = open.filter(|file| file.may_change()) {
            return file.write_at(offset, data).map_err(WorkspaceError::io("staging file"));
        }
        let file = self.staging.create().map_err(WorkspaceError::io("staging file"))?;
        let written = file.write_at(offset, data).map_err(WorkspaceError::io("staging file"))?; // Before the record that names it.
        self.perform(&Operation::Layer { identity, staging: file.number() }, &[ino])?;
        Ok(written)
    }

    /// Changes a range without data, as fallocate(2) does.
    pub fn change_range(
        &mut self,
        ino: Ino,
        offset: u64,
        len: u64,
        change: RangeChange,
        options: RangeOptions,
    ) -> Result<(), WorkspaceError> {
        let end = offset.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX).ok_or(WorkspaceError::FileTooLarge)?;
        self.regular(ino)?;
        if end == offset {
            return Ok(());
        }
        if change != RangeChange::Punch {
            self.check_room(ino, offset..end)?;
        }
        if self.tree.plain(ino).is_some() {
            return self.change_plain_range(ino, offset..end, change, options);
        }
        self.fetch(ino)?;
        let (identity, time) = (self.identity(ino)?, clock::now());
        self.perform(&Operation::ChangeRange { identity, offset, len, change, options, time }, &[ino])
    }

    /// Refuses to give space to what has none in `range` when the disk has less than that.
    fn check_room(&self, ino: Ino, range: Range<u64>) -> Result<(), WorkspaceError> {
        let body = self.regular(ino)?;
        let pieces = match body {
            FileBody::Plain(plain) => FileBody::Layered(Box::new(plain.to_layer())).pieces(range.clone()),
            body => body.pieces(range.clone()),
        };
        let holes = pieces.into_iter().filter(|piece| matches!(piece.source, Source::Hole));
        let holes: u64 = holes.map(|piece| piece.range.end - piece.range.start).sum();
        let needed = holes + range.end.saturating_sub(body.size_bytes().max(range.start));
        let space = self.tree.repository.space()?;
        if needed > space.bytes_available() {
            let full = io::Error::from_raw_os_error(libc::ENOSPC);
            return Err(WorkspaceError::io("room for a range")(full));
        }
        Ok(())
    }

    /// Makes sure that the sealed content of a file can be had, before a change of it is journaled: one that could not be
    /// applied afterwards would stop all others, and the next mount.
    fn fetch(&self, ino: Ino) -> Result<(), WorkspaceError> {
        match self.regular(ino)? {
            FileBody::Clean { content: Content::Blob(_), size_bytes, .. } if *size_bytes > SMALL_BYTES_MAX => Ok(()),
            FileBody::Clean { content, size_bytes, .. } => {
                self.tree.repository.fetch(content)?;
                // What is kept in memory from now on must be all there.
                if *size_bytes > 0 && *size_bytes <= SMALL_BYTES_MAX {
                    self.tree.repository.read_content(content, *size_bytes - 1..*size_bytes)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn regular(&self, ino: Ino) -> Result<&FileBody, WorkspaceError> {
        let inode = self.tree.inode(ino)?;
        match &inode.body {
            Body::File(body) => Ok(body),
            Body::Directory(_) => Err(WorkspaceError::IsDirectory),
            _ => Err(WorkspaceError::Invalid("not a regular file".into())),
        }
    }
}
