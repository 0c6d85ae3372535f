//! Listings of directories, with and without the attributes of what they hold.

use super::attr::{file_attr, file_type};
use super::filesystem::MementoFilesystem;
use super::filesystem::Place;
use super::number::{NodeNumber, control_of, files_of};
use super::reply::{GENERATION, NEVER, described, lifetime, name_only};
use super::translate::{denied, guarded, name_of, refused};
use super::view::{Answering, View};
use super::views::ViewTable;
use crate::control::Caller;
use crate::object::EntryKind;
use crate::workspace::Ino;
use fuser::{Errno, INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Names handed out per step at most; the kernel's buffer usually ends it sooner.
const LIST_STEP: usize = 256;
/// Positions of the two names that every directory has; those of others are greater.
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;

impl MementoFilesystem {
    /// Answers with names behind `offset`.
    pub(super) fn list_names(&self, caller: Caller, ino: INodeNo, offset: u64, mut reply: ReplyDirectory) {
        match self.place(ino) {
            Ok(Place::Files(view, ino)) => {
                let add = |ino, position, kind, name: &OsStr| {
                    let number = NodeNumber { namespace: files_of(view.number()), ino }.pack();
                    reply.add(INodeNo(number), position, file_type(kind), name)
                };
                match guarded("readdir", || list(&view, ino, offset, add)) {
                    Ok(()) => reply.ok(),
                    Err(errno) => reply.error(errno),
                }
            }
            Ok(Place::Control(view, ino)) => self.mounts().commands().run(move || {
                match guarded("readdir", || list_control_names(&view, &caller, ino, offset, &mut reply)) {
                    Ok(()) => reply.ok(),
                    Err(errno) => reply.error(errno),
                }
            }),
            Err(errno) => reply.error(errno),
        }
    }

    /// Answers with names behind `offset` and what they are.
    pub(super) fn list_attributes(&self, caller: Caller, ino: INodeNo, offset: u64, mut reply: ReplyDirectoryPlus) {
        match self.place(ino) {
            Ok(Place::Files(view, ino)) => {
                let view = Answering::of(view); // Until the answer is sent.
                match guarded("readdirplus", || list_looked_up(&view, ino, offset, &mut reply)) {
                    Ok(()) => reply.ok(),
                    Err(errno) => reply.error(errno),
                }
            }
            Ok(Place::Control(view, ino)) => {
                let views = self.views.clone();
                self.mounts().commands().run(move || {
                    match guarded("readdirplus", || list_control(&views, &caller, &view, ino, offset, &mut reply)) {
                        Ok(()) => reply.ok(),
                        Err(errno) => reply.error(errno),
                    }
                });
            }
            Err(errno) => reply.error(errno),
        }
    }
}

fn list_looked_up(view: &View, ino: Ino, offset: u64, reply: &mut ReplyDirectoryPlus) -> Result<(), Errno> {
    let mut failed = None;
    list(view, ino, offset, |child, position, kind, name| {
        if matches!(name.as_bytes(), b"." | b"..") {
            let attr = name_only(files_of(view.number()), child, kind);
            return reply.add(attr.ino, position, name, &NEVER, &attr, GENERATION); // The kernel skips these two.
        }
        match add_looked_up(view, ino, position, name, reply) {
            Ok(full) => full,
            Err(errno) => {
                failed = Some(errno);
                true
            }
        }
    })?;
    failed.map_or(Ok(()), Err)
}

fn list_control_names(view: &View, caller: &Caller, ino: u64, offset: u64, reply: &mut ReplyDirectory) -> Result<(), Errno> {
    for listed in view.control.list(ino, offset, caller).map_err(denied)? {
        let number = NodeNumber { namespace: control_of(view.number()), ino: listed.ino }.pack();
        if reply.add(INodeNo(number), listed.position, file_type(listed.kind), OsStr::from_bytes(&listed.name)) {
            break;
        }
    }
    Ok(())
}

/// Lists the control directory: each name is looked up, and what the kernel learns is true for this one answer.
fn list_control(
    views: &ViewTable,
    caller: &Caller,
    view: &View,
    ino: u64,
    offset: u64,
    reply: &mut ReplyDirectoryPlus,
) -> Result<(), Errno> {
    for listed in view.control.list(ino, offset, caller).map_err(denied)? {
        let name = OsStr::from_bytes(&listed.name);
        if matches!(&*listed.name, b"." | b"..") {
            let attr = name_only(control_of(view.number()), ino, listed.kind);
            if reply.add(attr.ino, listed.position, name, &NEVER, &attr, GENERATION) {
                break;
            }
            continue;
        }
        let Ok(found) = view.control.lookup(ino, &listed.name, caller) else { continue }; // It went meanwhile.
        let attr = described(views, view, found)?;
        if reply.add(attr.ino, listed.position, name, &NEVER, &attr, GENERATION) {
            views.forget(NodeNumber::unpack(attr.ino.0), 1); // It was not handed out.
            break;
        }
    }
    Ok(())
}

/// Adds one name as a lookup would answer it. Says whether there was no room for it.
fn add_looked_up(view: &View, parent: Ino, position: u64, name: &OsStr, reply: &mut ReplyDirectoryPlus) -> Result<bool, Errno> {
    let found = view.lookup(parent, &name_of(name)?).map_err(refused("readdirplus", parent))?;
    let Some(attributes) = found else { return Ok(false) }; // It went meanwhile.
    let attr = file_attr(&attributes, files_of(view.number()));
    let full = reply.add(attr.ino, position, name, &lifetime(&attributes), &attr, GENERATION);
    if full {
        view.forget(attributes.ino, 1); // It was not handed out.
    }
    Ok(full)
}

fn list(view: &View, ino: Ino, offset: u64, mut add: impl FnMut(Ino, u64, EntryKind, &OsStr) -> bool) -> Result<(), Errno> {
    if offset < DOT && add(ino, DOT, EntryKind::Directory, OsStr::new(".")) {
        return Ok(());
    }
    if offset < DOT_DOT {
        let parent = view.workspace.parent_of(ino).map_err(refused("readdir", ino))?;
        if add(parent, DOT_DOT, EntryKind::Directory, OsStr::new("..")) {
            return Ok(());
        }
    }
    let mut after = offset.max(DOT_DOT);
    loop {
        let names = view.workspace.list(ino, after, LIST_STEP).map_err(refused("readdir", ino))?;
        for listed in &names {
            let position = listed.name.position();
            if add(listed.ino, position, listed.kind, OsStr::from_bytes(listed.name.as_bytes())) {
                return Ok(());
            }
            after = position;
        }
        if names.len() < LIST_STEP {
            return Ok(());
        }
    }
}
