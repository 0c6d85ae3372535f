//! A mounted branch: what answers the kernel's requests, and how.

use super::notify::Invalidator;
use super::number::NAMESPACE_TOP;
use super::pool::Pool;
use super::translate::{Node, branch_ino, denied, guarded, name_of, node_of, refused};
use crate::control::{CommandError, ControlDirectory};
use crate::object::{EntryKind, Name};
use crate::workspace::{Attributes, Ino, NewNode, ROOT, Stale, Workspace};
use fuser::{AccessFlags, Errno, INodeNo, Request};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// A mounted branch with its control directory.
pub struct MementoFilesystem {
    /// What the mount shows.
    pub workspace: Arc<Workspace>,
    /// The hidden control directory.
    pub control: Arc<ControlDirectory>,
    /// Its name at the top of the mount.
    pub control_name: Box<[u8]>,
    /// Threads for what would keep other requests waiting.
    pub pool: Pool,
    /// A thread for what nobody waits for.
    pub background: Pool,
    /// Tells the kernel what to forget.
    pub invalidator: Invalidator,
}

impl MementoFilesystem {
    pub(super) fn is_control_name(&self, parent: Ino, name: &OsStr) -> bool {
        parent == ROOT && *name.as_bytes() == *self.control_name
    }

    /// Returns the place for a new name; the control directory's own is taken.
    pub(super) fn new_name(&self, parent: Ino, name: &OsStr) -> Result<Name, Errno> {
        if self.is_control_name(parent, name) {
            return Err(Errno::EEXIST);
        }
        name_of(name)
    }

    /// Returns the place of a name that is to change; the control directory stays as it is.
    pub(super) fn old_name(&self, parent: Ino, name: &OsStr) -> Result<Name, Errno> {
        if self.is_control_name(parent, name) {
            return Err(Errno::EPERM);
        }
        name_of(name)
    }

    pub(super) fn make(&self, request: &Request, parent: INodeNo, name: &OsStr, mut node: NewNode) -> Result<Attributes, Errno> {
        let parent = branch_ino(parent)?;
        let name = self.new_name(parent, name)?;
        node.uid = request.uid();
        node.gid = request.gid();
        self.workspace.create(parent, &name, node).map_err(refused("create", parent))
    }

    /// Answers access(2) where the kernel does not check modes: root may do anything but execute what nobody may.
    pub(super) fn check_access(&self, _request: &Request, ino: INodeNo, mask: AccessFlags) -> Result<(), Errno> {
        const EXECUTE: u32 = 0o111;
        let Node::Branch(ino) = node_of(ino)? else { return Ok(()) };
        if mask.contains(AccessFlags::X_OK) {
            let attributes = self.workspace.attributes(ino).map_err(refused("access", ino))?;
            if attributes.kind == EntryKind::File && attributes.mode & EXECUTE == 0 {
                return Err(Errno::EACCES);
            }
        }
        Ok(())
    }

    /// Seals in the background when the journal has grown long.
    pub(super) fn seal_later(&self) {
        let workspace = self.workspace.clone();
        self.background.run_once("seal", move || {
            if let Err(err) = workspace.seal_now() {
                tracing::warn!(%err, "background seal failed");
            }
        });
    }

    /// Runs a command on the pool: it may be long, and the kernel must be told what it changed before the caller goes on.
    pub(super) fn command<R: Send + 'static>(
        &self,
        reply: R,
        work: impl FnOnce(&ControlDirectory) -> Result<Vec<Stale>, CommandError> + Send + 'static,
        answer: impl FnOnce(R, Result<(), Errno>) + Send + 'static,
    ) {
        let (control, invalidator) = (self.control.clone(), self.invalidator.clone());
        self.pool.run(move || {
            let result = guarded("command", || work(&control).map_err(denied));
            let result = result.map(|stale| invalidator.send(NAMESPACE_TOP, stale));
            answer(reply, result);
        });
    }
}
