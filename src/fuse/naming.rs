//! Requests that make, move and remove names: done in one call, then forgotten by the other views of the branch.

use super::filesystem::MementoFilesystem;
use super::translate::{refused, rename_mode, whiteout};
use super::view::{Answering, View};
use crate::object::{EntryKind, Name};
use crate::workspace::{Attributes, Ino, NewNode, Stale};
use fuser::{Errno, INodeNo, RenameFlags, Request};
use std::ffi::OsStr;

/// A change that was made, with what it made stale for the other views of its branch.
pub(super) struct Done<T> {
    view: Answering,
    result: T,
    stale: Vec<Stale>,
}

impl<T: Send + 'static> Done<T> {
    /// Describes a change of these names, which led to `children`.
    fn new(view: Answering, result: T, places: &[(Ino, &Name)], children: &[Ino]) -> Self {
        let mut stale = Vec::new();
        if view.is_shared() {
            for (parent, name) in places {
                stale.push(Stale::Name { parent: *parent, name: (*name).clone() });
                stale.push(Stale::Attributes { ino: *parent });
            }
            stale.extend(children.iter().map(|ino| Stale::Attributes { ino: *ino }));
        }
        Self { view, result, stale }
    }

    /// Returns what was made.
    pub fn result(&self) -> &T {
        &self.result
    }

    /// Gives the answer when the other views have forgotten.
    pub fn answer(self, give: impl FnOnce(u16, T) + Send + 'static) {
        let Self { view, result, stale } = self;
        let own = view.view();
        own.after_others(
            || stale,
            move || {
                give(view.number(), result);
                drop(view); // The kernel has been told.
            },
        );
    }
}

/// Returns the file that a name leads to, if anybody else looks at the branch.
fn child_if_shared(view: &View, parent: Ino, name: &Name) -> Option<Ino> {
    view.is_shared().then(|| view.workspace.child(parent, name).ok().flatten()).flatten()
}

impl MementoFilesystem {
    /// Creates a file that belongs to the caller.
    pub(super) fn make(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mut node: NewNode,
        umask: u32,
    ) -> Result<Done<Attributes>, Errno> {
        let (view, parent) = self.file(parent)?;
        let name = self.new_name(parent, name)?;
        node.uid = request.uid();
        node.gid = request.gid();
        let view = Answering::of(view);
        let made = view.create(parent, &name, node, umask).map_err(refused("create", parent))?;
        Ok(Done::new(view, made, &[(parent, &name)], &[]))
    }

    /// Makes an empty file for open(2) or mknod(2). Where one came to be behind the kernel's back, the kernel looks again,
    /// and finds out whether the caller wants it.
    pub(super) fn make_file(
        &self,
        request: &Request,
        (parent, name): (INodeNo, &OsStr),
        (mode, umask): (u32, u32),
    ) -> Result<Done<Attributes>, Errno> {
        let node = NewNode { kind: EntryKind::File, mode: mode & 0o7777, uid: 0, gid: 0, device: 0, target: Box::default() };
        let exists = match self.make(request, parent, name, node, umask) {
            Err(errno) if errno.code() == libc::EEXIST => errno,
            made => return made,
        };
        let (view, parent) = self.file(parent)?;
        let again = view.retries().is_to_look_again(request.pid(), parent, &self.new_name(parent, name)?);
        Err(if again { Errno::ESTALE } else { exists })
    }

    pub(super) fn remove(&self, parent: INodeNo, name: &OsStr, directory: bool) -> Result<Done<()>, Errno> {
        let (view, parent) = self.file(parent)?;
        let name = self.old_name(parent, name)?;
        let child = child_if_shared(&view, parent, &name);
        if directory {
            view.workspace.remove_directory(parent, &name).map_err(refused("rmdir", parent))?;
        } else {
            view.workspace.unlink(parent, &name).map_err(refused("unlink", parent))?;
        }
        Ok(Done::new(Answering::of(view), (), &[(parent, &name)], child.as_slice()))
    }

    pub(super) fn move_name(
        &self,
        request: &Request,
        (parent, name): (INodeNo, &OsStr),
        (new_parent, new_name): (INodeNo, &OsStr),
        flags: RenameFlags,
    ) -> Result<Done<()>, Errno> {
        let (mode, leaves_whiteout) = rename_mode(flags)?;
        let left = leaves_whiteout.then(|| whiteout(request));
        let ((view, parent), (other, new_parent)) = (self.file(parent)?, self.file(new_parent)?);
        if view.number() != other.number() {
            return Err(Errno::EXDEV); // Two branches are two file systems.
        }
        let name = self.old_name(parent, name)?;
        let new_name = self.old_name(new_parent, new_name)?;
        let places = [(parent, &name), (new_parent, &new_name)];
        let children: Vec<Ino> = places.iter().filter_map(|(parent, name)| child_if_shared(&view, *parent, name)).collect();
        view.workspace.rename(parent, &name, new_parent, &new_name, mode, left).map_err(refused("rename", parent))?;
        if parent != new_parent {
            for (parent, name) in places {
                view.forget_parent_of(parent, name);
            }
        }
        Ok(Done::new(Answering::of(view), (), &places, &children))
    }

    pub(super) fn add_link(&self, ino: INodeNo, new_parent: INodeNo, new_name: &OsStr) -> Result<Done<Attributes>, Errno> {
        let ((view, ino), (other, parent)) = (self.file(ino)?, self.file(new_parent)?);
        if view.number() != other.number() {
            return Err(Errno::EXDEV);
        }
        let name = self.new_name(parent, new_name)?;
        let view = Answering::of(view);
        let linked = view.link(ino, parent, &name).map_err(refused("link", ino))?;
        Ok(Done::new(view, linked, &[(parent, &name)], &[ino]))
    }
}
