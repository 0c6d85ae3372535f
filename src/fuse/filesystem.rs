//! A mounted branch: what answers the kernel's requests, and how.

use super::notify::Invalidator;
use super::number::NAMESPACE_TOP;
use super::pool::Pool;
use super::translate::{SETGID, branch_ino, denied, guarded, name_of, refused, stripped};
use crate::control::{CommandError, ControlDirectory};
use crate::object::{EntryKind, Name};
use crate::sys;
use crate::workspace::{AttributeChange, Attributes, Ino, NewNode, ROOT, Stale, Workspace};
use fuser::{Errno, INodeNo, InitFlags, Request};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// What the kernel is asked to do for us.
pub(super) const WANTED: &[InitFlags] = &[
    InitFlags::FUSE_NO_OPEN_SUPPORT,
    InitFlags::FUSE_NO_OPENDIR_SUPPORT,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_AUTO_INVAL_DATA,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_DONT_MASK, // A default ACL counts instead of the umask.
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_MAX_PAGES,
    InitFlags::FUSE_ASYNC_DIO,
];

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

    pub(super) fn make(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mut node: NewNode,
        umask: u32,
    ) -> Result<Attributes, Errno> {
        let parent = branch_ino(parent)?;
        let name = self.new_name(parent, name)?;
        node.uid = request.uid();
        node.gid = request.gid();
        self.workspace.create(parent, &name, node, umask).map_err(refused("create", parent))
    }

    /// Changes attributes, and takes from a program the privileges that end thereby.
    pub(super) fn set_attributes(&self, request: &Request, ino: Ino, mut change: AttributeChange) -> Result<Attributes, Errno> {
        // chown(2) and truncate(2) by others end the privileges of a program; the kernel leaves that to us.
        let owner = change.uid.is_some() || change.gid.is_some();
        let unprivileged_truncate = change.size_bytes.is_some() && request.uid() != 0;
        if change.mode.is_none() && (owner || unprivileged_truncate || change.is_empty()) {
            let now = self.workspace.attributes(ino).map_err(refused("setattr", ino))?;
            // Nothing is asked for by chown(-1, -1) and before fallocate(2), by anybody.
            if change.is_empty() && request.uid() != 0 && request.uid() != now.uid {
                return Ok(now);
            }
            let kept = stripped(now.mode);
            if now.kind != EntryKind::Directory && kept != now.mode {
                change.mode = Some(kept);
            }
        }
        self.workspace.set_attributes(ino, change).map_err(refused("setattr", ino))
    }

    /// Takes setgid from what gets an ACL from somebody outside its group, as the kernel asks file systems to.
    pub(super) fn end_setgid(&self, request: &Request, ino: Ino) -> Result<(), Errno> {
        let now = self.workspace.attributes(ino).map_err(refused("setxattr", ino))?;
        let member = || request.gid() == now.gid || sys::groups_of(request.pid()).contains(&now.gid);
        if now.mode & SETGID == 0 || request.uid() == 0 || member() {
            return Ok(());
        }
        let change = AttributeChange { mode: Some(now.mode & !SETGID), ..Default::default() };
        self.workspace.set_attributes(ino, change).map(drop).map_err(refused("setxattr", ino))
    }

    /// Copies a whole file by sharing what is stored of it; `None` when the kernel is to copy its bytes.
    pub(super) fn share(&self, request: &Request, source: INodeNo, target: INodeNo, len: u64) -> Result<Option<u32>, Errno> {
        let (Ok(source), Ok(target)) = (branch_ino(source), branch_ino(target)) else { return Ok(None) };
        if len > u64::from(u32::MAX) {
            return Ok(None); // The reply could not say that all was copied.
        }
        let copied = self.workspace.share(source, target, len, request.uid() != 0);
        Ok(copied.map_err(refused("copy_file_range", target))?.map(|copied| copied as u32))
    }

    /// Seals in the background when the journal has grown long.
    pub(super) fn seal_later(&self) {
        let workspace = self.workspace.clone();
        self.pool.run_once("seal", move || {
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
