//! Copies of whole files that share what is stored.

use super::changes::Live;
use super::clock;
use super::error::WorkspaceError;
use super::file::FileBody;
use super::inode::{Body, Ino, Inode};
use super::live::LiveTree;
use super::operation::Operation;
use crate::object::{Content, Timestamp};

/// A stored content with what a file of it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// What is stored.
    pub content: Content,
    /// Length of the file.
    pub size_bytes: u64,
    /// Bytes that are not holes.
    pub data_bytes: u64,
}

impl Live {
    /// Makes all of `target` the stored content of `source` and returns its length; `None` when that is not what copying
    /// `len_bytes` from the start of one to the start of the other means.
    ///
    /// Only a file with a name is a source: what is sealed of it stays while the copy is not sealed, whatever gc does.
    pub fn share(
        &mut self,
        source: Ino,
        target: Ino,
        len_bytes: u64,
        strip_privileges: bool,
    ) -> Result<Option<u64>, WorkspaceError> {
        let Some(shared) = stored(self.tree.inode(source)?) else { return Ok(None) };
        if self.tree.plain(target).is_some() {
            return Ok(None); // The kernel has its bytes in hand, and copies into them.
        }
        let inode = self.tree.inode(target)?;
        let replaced = inode.file().is_some_and(|body| body.size_bytes() <= shared.size_bytes);
        if !replaced || source == target || len_bytes < shared.size_bytes {
            return Ok(None);
        }
        let (identity, time) = (inode.identity, clock::now());
        self.perform(&Operation::Share { identity, shared, strip_privileges, time }, &[target])?;
        Ok(Some(shared.size_bytes))
    }
}

/// Returns the content of a file that is as sealed.
fn stored(inode: &Inode) -> Option<Shared> {
    match inode.body {
        Body::File(FileBody::Clean { content, size_bytes, data_bytes }) if !inode.orphan && content != Content::Empty => {
            Some(Shared { content, size_bytes, data_bytes })
        }
        _ => None,
    }
}

impl LiveTree {
    pub(super) fn apply_share(
        &mut self,
        ino: Ino,
        shared: &Shared,
        strip_privileges: bool,
        time: Timestamp,
    ) -> Result<(), WorkspaceError> {
        let Shared { content, size_bytes, data_bytes } = *shared;
        self.set_body(ino, FileBody::Clean { content, size_bytes, data_bytes })?;
        self.touch_file(ino, strip_privileges, time)
    }
}
