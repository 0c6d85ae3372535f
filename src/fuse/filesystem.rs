//! A mount: what answers the kernel's requests, and how.

use super::linger::Device;
use super::mounts::Mounts;
use super::number::NodeNumber;
use super::opens::OpenFiles;
use super::reply;
use super::translate::{SETGID, denied, guarded, name_of, refused, stripped};
use super::view::View;
use super::views::ViewTable;
use crate::control::{CommandError, ControlDirectory, Effects};
use crate::object::{EntryKind, Name};
use crate::sys;
use crate::watchdog::{self, Ticket};
use crate::workspace::{ACL_ACCESS, AttributeChange, Attributes, Ino, ROOT, Stale, WorkspaceError};
use fuser::{AccessFlags, Errno, INodeNo, InitFlags, ReplyEmpty, Request};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// What the kernel is asked to do for us.
const WANTED: &[InitFlags] = &[
    InitFlags::FUSE_NO_OPEN_SUPPORT,
    InitFlags::FUSE_NO_OPENDIR_SUPPORT,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_AUTO_INVAL_DATA,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_DONT_MASK, // A default ACL counts instead of the umask.
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_MAX_PAGES,
    InitFlags::FUSE_ASYNC_DIO,
];

/// What else it is asked for when files are handed to it. Whether it can be had is tried before the mount is used.
const WANTED_FOR_PASSTHROUGH: &[InitFlags] = &[InitFlags::FUSE_PASSTHROUGH, InitFlags::FUSE_ATOMIC_O_TRUNC];

/// A mount with its views.
pub struct MementoFilesystem {
    /// The branch at its top, and those that are seen below it.
    pub views: Arc<ViewTable>,
    /// Name of the control directory at the top of each view.
    pub control_name: Box<[u8]>,
    /// Where its requests come from.
    pub device: Device,
    /// The kernel checks modes and access control lists; otherwise root alone is admitted.
    pub kernel_checks: bool,
    /// What is open; absent where opens are not told and no file is handed to the kernel.
    pub(super) open_files: Option<OpenFiles>,
}

/// What a node number stands for.
pub(super) enum Place {
    /// A file of a branch.
    Files(Arc<View>, Ino),
    /// Something in the control directory.
    Control(Arc<View>, u64),
}

impl MementoFilesystem {
    /// Returns what the kernel is asked to do for this mount.
    pub(super) fn wanted(&self) -> impl Iterator<Item = InitFlags> {
        let for_passthrough = self.open_files.iter().flat_map(|_| WANTED_FOR_PASSTHROUGH.iter().copied());
        let for_modes = self.kernel_checks.then_some(InitFlags::FUSE_POSIX_ACL);
        WANTED.iter().copied().chain(for_modes).chain(for_passthrough)
    }

    /// Finds what a node number stands for.
    pub(super) fn place(&self, ino: INodeNo) -> Result<Place, Errno> {
        self.device.serves();
        let number = NodeNumber::unpack(ino.0);
        watchdog::about(number.ino);
        let view = self.views.get(number.view()).ok_or(Errno::ENOENT)?;
        Ok(if number.is_control() { Place::Control(view, number.ino) } else { Place::Files(view, number.ino) })
    }

    /// Finds a file of a branch; the control directory does not do what was asked.
    pub(super) fn file(&self, ino: INodeNo) -> Result<(Arc<View>, Ino), Errno> {
        match self.place(ino)? {
            Place::Files(view, ino) => Ok((view, ino)),
            Place::Control(..) => Err(Errno::EPERM),
        }
    }

    pub(super) fn mounts(&self) -> &Arc<Mounts> {
        self.views.mounts()
    }

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

    /// Answers access(2) where the kernel does not check modes: root may do anything but execute what nobody may.
    pub(super) fn check_access(&self, ino: INodeNo, mask: AccessFlags) -> Result<(), Errno> {
        const EXECUTE: u32 = 0o111;
        let Place::Files(view, ino) = self.place(ino)? else { return Ok(()) };
        if mask.contains(AccessFlags::X_OK) {
            let attributes = view.workspace.attributes(ino).map_err(refused("access", ino))?;
            if attributes.kind != EntryKind::Directory && attributes.mode & EXECUTE == 0 {
                return Err(Errno::EACCES);
            }
        }
        Ok(())
    }

    /// Changes attributes, and takes from a program the privileges that end thereby.
    pub(super) fn set_attributes(
        &self,
        request: &Request,
        view: &View,
        ino: Ino,
        mut change: AttributeChange,
    ) -> Result<Attributes, Errno> {
        // chown(2) and truncate(2) by others end the privileges of a program; the kernel leaves that to us.
        let owner = change.uid.is_some() || change.gid.is_some();
        let unprivileged_truncate = change.size_bytes.is_some() && request.uid() != 0;
        if change.mode.is_none() && (owner || unprivileged_truncate || change.is_empty()) {
            let now = view.workspace.attributes(ino).map_err(refused("setattr", ino))?;
            // Nothing is asked for by chown(-1, -1) and before fallocate(2), by anybody.
            if change.is_empty() && request.uid() != 0 && request.uid() != now.uid {
                return Ok(now);
            }
            let mut kept = stripped(now.mode);
            if loses_setgid(request, &now) {
                kept &= !SETGID;
            }
            if now.kind != EntryKind::Directory && kept != now.mode {
                change.mode = Some(kept);
            }
        }
        view.workspace.set_attributes(ino, change).map_err(refused("setattr", ino))
    }

    /// Takes setgid from what somebody outside its group writes to or gives an ACL, as the kernel asks file systems to.
    pub(super) fn end_setgid(&self, request: &Request, view: &View, ino: Ino) -> Result<(), Errno> {
        let now = view.workspace.attributes(ino).map_err(refused("setgid", ino))?;
        if !loses_setgid(request, &now) {
            return Ok(());
        }
        let change = AttributeChange { mode: Some(now.mode & !SETGID), ..Default::default() };
        view.workspace.set_attributes(ino, change).map(drop).map_err(refused("setgid", ino))
    }

    /// Answers a change of extended attributes. An access control list changes the mode too; a kernel that does not check
    /// lists takes it for any attribute, and has to be told.
    pub(super) fn xattr_changed(&self, name: &OsStr, reply: ReplyEmpty, changed: Result<(Arc<View>, Ino), Errno>) {
        match changed {
            Ok((view, ino)) if name.as_bytes() == ACL_ACCESS && !self.kernel_checks => {
                let stale = [(view.workspace.branch_id(), vec![Stale::Attributes { ino }])];
                self.mounts().after_all(&stale, move || reply.ok());
            }
            changed => reply::changed(reply, changed),
        }
    }

    /// Copies a whole file by sharing what is stored of it; `None` when the kernel is to copy its bytes.
    pub(super) fn share(
        &self,
        request: &Request,
        source: INodeNo,
        target: INodeNo,
        len: u64,
    ) -> Result<Option<(Arc<View>, Ino, u32)>, Errno> {
        let (Ok((from, source)), Ok((view, target))) = (self.file(source), self.file(target)) else { return Ok(None) };
        if len > u64::from(u32::MAX) || from.number() != view.number() {
            return Ok(None); // The reply could not say that all was copied; or they are files of two branches.
        }
        let copied = view.workspace.share(source, target, len, request.uid() != 0);
        let copied = copied.map_err(refused("copy_file_range", target))?;
        Ok(copied.map(|copied| (view, target, copied as u32)))
    }

    /// Replies when a file survives a power cut. Whoever waits for the journal alone takes no thread: one sync serves them all.
    pub(super) fn sync(&self, view: &View, ino: Ino, reply: ReplyEmpty) {
        match guarded("fsync", || view.workspace.sync_of(ino).map_err(refused("fsync", ino))) {
            Ok(sync) => {
                let ticket = Ticket::new("fsync", "the disk: its bytes, then the sync of the journal");
                let answer = move |done: Result<(), WorkspaceError>| {
                    drop(ticket);
                    reply::empty(reply, done.map_err(refused("fsync", ino)));
                };
                if sync.blocks() {
                    self.mounts().pool().run(move || sync.then(answer));
                } else {
                    sync.then(answer);
                }
            }
            Err(errno) => reply.error(errno),
        }
    }

    /// Runs a command on the pool: it may be long, and the kernel must be told what it changed before the caller goes on.
    pub(super) fn command<R: Send + 'static>(
        &self,
        view: Arc<View>,
        reply: R,
        work: impl FnOnce(&ControlDirectory) -> Result<Effects, CommandError> + Send + 'static,
        answer: impl FnOnce(R, Result<(), Errno>) + Send + 'static,
    ) {
        let mounts = self.mounts().clone();
        self.mounts().commands().run(move || match guarded("command", || work(&view.control).map_err(denied)) {
            Err(errno) => answer(reply, Err(errno)),
            Ok(effects) => {
                let mounted = effects.mount.map_or(Ok(()), |mount| {
                    let refusal = |err| denied(view.control.deny(&mount.request, err));
                    mounts.grant(&mount.wish).map_err(refusal)
                });
                // No thread of the pool waits for the kernel, which may itself wait for an answer from the pool.
                mounts.after_all(&effects.stale, move || answer(reply, mounted));
            }
        });
    }
}

/// Says whether the caller is outside the group that a file's setgid bit gives rights of: a change by such a one ends it.
fn loses_setgid(request: &Request, now: &Attributes) -> bool {
    let is_member = || request.gid() == now.gid || sys::groups_of(request.pid()).contains(&now.gid);
    now.mode & SETGID != 0 && request.uid() != 0 && !is_member()
}
