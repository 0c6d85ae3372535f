//! Changes of plain files that reach the daemon: done to the staging file itself, where the kernel's own changes are too.

use super::apply::{CAPABILITY, without_privileges};
use super::changes::Live;
use super::clock;
use super::error::WorkspaceError;
use super::inode::Ino;
use super::operation::{AttributeChange, Operation, RangeChange, RangeOptions};
use super::plain::Plain;
use super::staging::write_part;
use crate::sys;
use std::ops::Range;

impl Live {
    /// Returns a plain file that is to be changed, after what the kernel changed in it: that ends no privileges which it gets now, and what
    /// we change is no change of the kernel's.
    fn plain_to_change(&mut self, ino: Ino) -> Result<&Plain, WorkspaceError> {
        if self.poisoned {
            return Err(WorkspaceError::ReadOnly);
        }
        if self.closed {
            return Err(WorkspaceError::NotFound("the branch".into()));
        }
        self.tree.look(ino);
        clock::move_on(); // The kernel stamps what we change there too.
        self.tree.plain(ino).ok_or_else(|| WorkspaceError::Invalid("the file has no staging file of its own".into()))
    }

    /// Does what `change` says of the bytes and their time, and says whether it says anything else.
    pub(super) fn change_plain(&mut self, ino: Ino, change: &mut AttributeChange) -> Result<bool, WorkspaceError> {
        let plain = self.plain_to_change(ino)?;
        let size_bytes = change.size_bytes.take();
        let done = size_bytes.map_or(Ok(()), |size_bytes| plain.file.to_change()?.set_len(size_bytes));
        let done = done.and_then(|()| change.mtime.map_or(Ok(()), |time| plain.file.set_modified(time)));
        done.map_err(WorkspaceError::io("staging file"))?;
        self.tree.note(ino);
        Ok(size_bytes.is_none() || !change.is_empty())
    }

    /// Writes as much of `data` as there is room for, at least something.
    pub(super) fn write_plain(
        &mut self,
        ino: Ino,
        offset: u64,
        data: &[u8],
        strip_privileges: bool,
    ) -> Result<usize, WorkspaceError> {
        let file = self.plain_to_change(ino)?.file.to_change();
        let written = file.and_then(|file| write_part(&file, offset, data)).map_err(WorkspaceError::io("staging file"))?;
        self.tree.note(ino);
        self.strip(ino, strip_privileges)?;
        Ok(written)
    }

    /// Changes a range as fallocate(2) does.
    pub(super) fn change_plain_range(
        &mut self,
        ino: Ino,
        range: Range<u64>,
        change: RangeChange,
        options: RangeOptions,
    ) -> Result<(), WorkspaceError> {
        let mode = match change {
            RangeChange::Punch => libc::FALLOC_FL_PUNCH_HOLE,
            RangeChange::Zero => libc::FALLOC_FL_ZERO_RANGE,
            RangeChange::Allocate => 0,
        };
        let mode = if options.keep_size { mode | libc::FALLOC_FL_KEEP_SIZE } else { mode };
        let file = self.plain_to_change(ino)?.file.to_change();
        let changed = file.and_then(|file| sys::change_range(&file, mode, range.start, range.end - range.start));
        changed.map_err(WorkspaceError::io("staging file"))?;
        self.tree.note(ino);
        self.strip(ino, options.strip_privileges)
    }

    /// Ends the privileges that a program had.
    fn strip(&mut self, ino: Ino, strip_privileges: bool) -> Result<(), WorkspaceError> {
        let inode = self.tree.inode(ino)?;
        let (identity, time, mode) = (inode.identity, clock::now(), without_privileges(inode.mode));
        let capable = inode.is_capable();
        if !strip_privileges {
            return Ok(());
        }
        if mode != inode.mode {
            let change = AttributeChange { mode: Some(mode), ..AttributeChange::default() };
            self.perform(&Operation::SetAttributes { identity, change, time }, &[ino])?;
        }
        if capable {
            self.perform(&Operation::SetXattr { identity, name: CAPABILITY.into(), value: None, time }, &[ino])?;
        }
        Ok(())
    }
}
