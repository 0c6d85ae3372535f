//! Writing, and what is tried when there is no room.

use super::error::WorkspaceError;
use super::inode::Ino;
use super::{Workspace, Written};

impl Workspace {
    /// Writes `data` at `offset`, as much of it as there is room for, at least something. Where too many files are open for another
    /// ([`WorkspaceError::is_out_of_descriptors`]), a seal gives some back.
    pub fn write(&self, ino: Ino, offset: u64, data: &[u8], strip_privileges: bool) -> Result<Written, WorkspaceError> {
        self.making_room(|| {
            let mut live = self.live_to_change();
            let len = live.write(ino, offset, data, strip_privileges)?;
            Ok(Written { len, seal_due: live.is_seal_due() })
        })
    }

    /// Writes all of `data` at `offset`, or says why not; a part of it may be there then.
    pub fn write_all(&self, ino: Ino, offset: u64, data: &[u8], strip_privileges: bool) -> Result<Written, WorkspaceError> {
        let mut written = self.write(ino, offset, data, strip_privileges)?;
        while written.len < data.len() {
            let at = written.len;
            let more = self.write(ino, offset + at as u64, &data[at..], strip_privileges)?;
            written = Written { len: at + more.len, seal_due: more.seal_due };
        }
        Ok(written)
    }

    /// Writes `data` at the end of the file, as much of it as there is room for, at least something; says where that was.
    pub fn append(&self, ino: Ino, data: &[u8], strip_privileges: bool) -> Result<(u64, Written), WorkspaceError> {
        self.making_room(|| {
            let mut live = self.live_to_change();
            let end = live.tree.attributes(ino)?.size_bytes;
            let len = live.write(ino, end, data, strip_privileges)?;
            Ok((end, Written { len, seal_due: live.is_seal_due() }))
        })
    }

    /// Does something that takes space; on a full disk once more, after the staging files that nobody needs are gone.
    pub(super) fn making_room<T>(&self, mut work: impl FnMut() -> Result<T, WorkspaceError>) -> Result<T, WorkspaceError> {
        let done = work();
        let full = done.as_ref().is_err_and(WorkspaceError::is_full);
        if full && self.live().staging.has_released() && self.sync().is_ok() { work() } else { done }
    }
}
