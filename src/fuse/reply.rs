//! Translates results into what the kernel expects, with the lifetimes that it may rely on.

use super::attr::{file_attr, file_type};
use super::linger::linger;
use super::naming::Done;
use super::number::{NodeNumber, TOP, control_of, files_of};
use super::translate::{denied, guarded};
use super::view::View;
use super::views::ViewTable;
use crate::control::{CommandError, Found};
use crate::object::{EntryKind, Timestamp};
use crate::sys::Space;
use crate::workspace::{Attributes, Ino, ROOT, Stale};
use fuser::{
    Errno, FileHandle, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyStatfs, ReplyWrite, ReplyXattr,
};
use std::sync::Arc;
use std::time::Duration;

/// Everything in the tree changes through us, so what the kernel knows stays true until we say otherwise.
pub(super) const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);
/// Returns how long the kernel may rely on attributes.
pub(super) fn lifetime(attributes: &Attributes) -> Duration {
    if attributes.held { NEVER } else { FOREVER }
}

/// Nothing of the control directory is ever served from a cache.
pub(super) const NEVER: Duration = Duration::ZERO;
pub(super) const GENERATION: Generation = Generation(0);

pub(super) fn entry(reply: ReplyEntry, view: u16, result: Result<Attributes, Errno>) {
    match result {
        Ok(attributes) => reply.entry(&lifetime(&attributes), &file_attr(&attributes, files_of(view)), GENERATION),
        Err(errno) => reply.error(errno),
    }
    linger();
}

/// Says that a name does not exist: a number of 0 lets the kernel remember that.
pub(super) fn no_entry(reply: ReplyEntry) {
    reply.entry(&FOREVER, &nothing(), GENERATION);
    linger();
}

/// Answers with what `find` finds in the control directory; a panic there is an I/O error of this request alone.
pub(super) fn control_entry(reply: ReplyEntry, view: u16, find: impl FnOnce() -> Result<Attributes, CommandError>) {
    match guarded("control directory", || find().map_err(denied)) {
        Ok(attributes) => reply.entry(&NEVER, &file_attr(&attributes, control_of(view)), GENERATION),
        Err(errno) => reply.error(errno),
    }
}

/// Answers with what was made and opened in the control directory, likewise.
pub(super) fn control_created(reply: ReplyCreate, view: u16, make: impl FnOnce() -> Result<Attributes, CommandError>) {
    match guarded("control directory", || make().map_err(denied)) {
        Ok(made) => {
            let attr = file_attr(&made, control_of(view));
            reply.created(&NEVER, &attr, GENERATION, FileHandle(0), FopenFlags::empty());
        }
        Err(errno) => reply.error(errno),
    }
}

/// Answers with the room there is.
pub(super) fn space(reply: ReplyStatfs, space: Result<Space, Errno>) {
    const NAME_BYTES_MAX: u32 = 255;
    match space {
        Ok(Space { block_bytes, blocks, blocks_free, blocks_available, files, files_free }) => {
            reply.statfs(blocks, blocks_free, blocks_available, files, files_free, block_bytes, NAME_BYTES_MAX, block_bytes);
        }
        Err(errno) => reply.error(errno),
    }
}

/// Answers with what was found in the control directory of `view`: something of its own, or the top of a branch.
pub(super) fn found(reply: ReplyEntry, views: &ViewTable, view: &View, find: impl FnOnce() -> Result<Found, CommandError>) {
    match guarded("control directory", || described(views, view, find().map_err(denied)?)) {
        Ok(attr) => reply.entry(&NEVER, &attr, GENERATION),
        Err(errno) => reply.error(errno),
    }
}

/// Describes what was found, to which the kernel then refers.
pub(super) fn described(views: &ViewTable, view: &View, found: Found) -> Result<fuser::FileAttr, Errno> {
    match found {
        Found::Node(attributes) => Ok(file_attr(&attributes, control_of(view.number()))),
        Found::Branch(workspace) => {
            let attributes = workspace.attributes(ROOT).map_err(|err| super::errno::errno_of(&err))?;
            let branch = views.enter(view, workspace).ok_or(Errno::ENFILE)?;
            Ok(file_attr(&attributes, files_of(branch.number())))
        }
    }
}

/// Answers with a file that was made or got a name, when the other views of the branch have forgotten what was there.
pub(super) fn new_entry(reply: ReplyEntry, made: Result<Done<Attributes>, Errno>) {
    match made {
        Ok(done) => done.answer(move |view, attributes| entry(reply, view, Ok(attributes))),
        Err(errno) => reply.error(errno),
    }
}

/// Answers a change of names likewise.
pub(super) fn done(reply: ReplyEmpty, done: Result<Done<()>, Errno>) {
    match done {
        Ok(done) => done.answer(move |_, ()| empty(reply, Ok(()))),
        Err(errno) => reply.error(errno),
    }
}

/// Answers a change of one file likewise.
pub(super) fn changed(reply: ReplyEmpty, changed: Result<(Arc<View>, Ino), Errno>) {
    match changed {
        Ok((view, ino)) => view.after_others(|| vec![Stale::Attributes { ino }], move || empty(reply, Ok(()))),
        Err(errno) => reply.error(errno),
    }
}

/// Answers a write with the number of bytes written.
pub(super) fn written(reply: ReplyWrite, result: Result<u32, Errno>) {
    match result {
        Ok(len) => reply.written(len),
        Err(errno) => reply.error(errno),
    }
    linger();
}

pub(super) fn empty(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
    linger();
}

pub(super) fn attr(reply: ReplyAttr, view: u16, result: Result<Attributes, Errno>) {
    match result {
        Ok(attributes) => reply.attr(&lifetime(&attributes), &file_attr(&attributes, files_of(view))),
        Err(errno) => reply.error(errno),
    }
    linger();
}

/// Answers with the attributes of something in the control directory, likewise.
pub(super) fn control_attr(reply: ReplyAttr, view: u16, describe: impl FnOnce() -> Result<Attributes, CommandError>) {
    match guarded("control directory", || describe().map_err(denied)) {
        Ok(attributes) => reply.attr(&NEVER, &file_attr(&attributes, control_of(view))),
        Err(errno) => reply.error(errno),
    }
}

pub(super) fn data(reply: ReplyData, result: Result<Vec<u8>, Errno>) {
    match result {
        Ok(bytes) => reply.data(&bytes),
        Err(errno) => reply.error(errno),
    }
    linger();
}

pub(super) fn offset(reply: ReplyLseek, found: Result<u64, Errno>) {
    match found {
        Ok(offset) => reply.offset(offset as i64),
        Err(errno) => reply.error(errno),
    }
}

pub(super) fn xattr(reply: ReplyXattr, size: u32, value: Result<Box<[u8]>, Errno>) {
    match value {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() <= size as usize => reply.data(&value),
        Ok(_) => reply.error(Errno::ERANGE),
        Err(errno) => reply.error(errno),
    }
    linger();
}

/// Returns attributes that carry no more than a listing without attributes does.
pub(super) fn name_only(namespace: u16, ino: Ino, kind: EntryKind) -> fuser::FileAttr {
    let mut attr = nothing();
    attr.kind = file_type(kind);
    attr.ino = INodeNo(NodeNumber { namespace, ino }.pack());
    attr
}

/// Returns attributes with the number 0: no file.
pub(super) fn nothing() -> fuser::FileAttr {
    let none = Attributes {
        ino: 0,
        kind: EntryKind::File,
        mode: 0,
        uid: 0,
        gid: 0,
        nlink: 0,
        size_bytes: 0,
        blocks: 0,
        device: 0,
        mtime: Timestamp::default(),
        ctime: Timestamp::default(),
        atime: Timestamp::default(),
        held: false,
    };
    file_attr(&none, files_of(TOP))
}
