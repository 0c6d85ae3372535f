//! Changes of what a file holds and of what is said of it, checked against POSIX.

use super::Workspace;
use super::acl;
use super::apply::CAPABILITY;
use super::changes::Live;
use super::clock;
use super::error::WorkspaceError;
use super::file::{BLOCK_BYTES, FileBody, SMALL_BYTES_MAX, Source};
use super::inode::{Attributes, Body, Ino};
use super::operation::{AttributeChange, Operation, RangeChange, RangeOptions};
use crate::object::Content;
use std::io;
use std::ops::Range;

/// Largest length of a file.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;
/// Most bytes of names and values of the extended attributes of one file.
const XATTRS_BYTES_MAX: usize = 64 << 10;

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

impl Live {
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
        self.staged.note(ino);
        let open = match self.regular(ino)? {
            FileBody::Layered(layered) if !layered.frozen => layered.staging.clone(),
            _ => None,
        };
        if let Some(file) = open.filter(|file| file.may_change()) {
            if let Some(layer) = self.layer(ino) {
                layer.edit(); // Its bytes change also when no record of it can be written.
            }
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

impl Workspace {
    /// Ends what a program may do beyond its caller's rights before it is written to, by anybody (capabilities(7)). The kernel asks for it
    /// by itself where a write goes through its cache.
    pub fn end_capability(&self, ino: Ino) -> Result<(), WorkspaceError> {
        if !self.live().tree.inode(ino)?.is_capable() {
            return Ok(());
        }
        let mut live = self.live_to_change(); // Somebody may have been faster.
        if live.tree.inode(ino)?.is_capable() { live.remove_xattr(ino, CAPABILITY) } else { Ok(()) }
    }
}
