//! Writing behind the end of a file, wherever that is.

use super::error::WorkspaceError;
use super::inode::Ino;
use super::{Workspace, Written};

impl Workspace {
    /// Writes `data` at the end of the file, as much of it as there is room for, at least something; says where that was.
    pub fn append(&self, ino: Ino, data: &[u8], strip_privileges: bool) -> Result<(u64, Written), WorkspaceError> {
        self.making_room(|| {
            let mut live = self.live_to_change();
            let end = live.tree.attributes(ino)?.size_bytes;
            let len = live.write(ino, end, data, strip_privileges)?;
            Ok((end, Written { len, seal_due: live.is_seal_due() }))
        })
    }
}
