//! A mount: what answers the kernel's requests, and how.

use super::mounts::Mounts;
use super::number::NodeNumber;
use super::translate::{denied, guarded, name_of};
use super::view::View;
use super::views::ViewTable;
use crate::control::{CommandError, ControlDirectory, Effects};
use crate::object::Name;
use crate::workspace::{Ino, ROOT};
use fuser::{Errno, INodeNo};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// A mount with its views.
pub struct MementoFilesystem {
    /// The branch at its top, and those that are seen below it.
    pub views: Arc<ViewTable>,
    /// Name of the control directory at the top of each view.
    pub control_name: Box<[u8]>,
}

/// What a node number stands for.
pub(super) enum Place {
    /// A file of a branch.
    Files(Arc<View>, Ino),
    /// Something in the control directory.
    Control(Arc<View>, u64),
}

impl MementoFilesystem {
    /// Finds what a node number stands for.
    pub(super) fn place(&self, ino: INodeNo) -> Result<Place, Errno> {
        let number = NodeNumber::unpack(ino.0);
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

    /// Takes back references of the kernel.
    pub(super) fn forget_number(&self, ino: INodeNo, count: u64) {
        match self.place(ino) {
            Ok(Place::Files(view, ino)) => {
                view.forget(ino, count);
                self.views.leave(&view);
            }
            Ok(Place::Control(view, number)) => {
                view.control.forget(number, count);
                self.views.leave(&view);
            }
            Err(_) => {}
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

    /// Seals in the background when the journal has grown long.
    pub(super) fn seal_later(&self, view: &View) {
        let workspace = view.workspace.clone();
        self.mounts().pool().run_once(("seal", workspace.branch_id()), move || {
            if let Err(err) = workspace.seal_now() {
                tracing::warn!(%err, "background seal failed");
            }
        });
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
        self.mounts().pool().run(move || match guarded("command", || work(&view.control).map_err(denied)) {
            Err(errno) => answer(reply, Err(errno)),
            Ok(effects) => {
                let mounted = effects.mount.map_or(Ok(()), |mount| {
                    let refusal = |sentence| denied(view.control.deny(&mount.request, CommandError::Invalid(sentence)));
                    mounts.grant(&mount.wish).map_err(refusal)
                });
                // No thread of the pool waits for the kernel, which may itself wait for an answer from the pool.
                mounts.after_all(&effects.stale, move || answer(reply, mounted));
            }
        });
    }
}
