//! Translates results into what the kernel expects, with the lifetimes that it may rely on.

use super::attr::{file_attr, file_type};
use super::linger::linger;
use super::number::{NAMESPACE_CONTROL, NAMESPACE_TOP, NodeNumber};
use super::translate::denied;
use crate::control::CommandError;
use crate::object::{EntryKind, Timestamp};
use crate::workspace::{Attributes, Ino};
use fuser::{Errno, Generation, INodeNo, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyWrite, ReplyXattr};
use std::time::Duration;

/// Everything in the tree changes through us, so what the kernel knows stays true until we say otherwise.
pub(super) const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);
/// Nothing of the control directory is ever served from a cache.
pub(super) const NEVER: Duration = Duration::ZERO;
pub(super) const GENERATION: Generation = Generation(0);
pub(super) fn entry(reply: ReplyEntry, result: Result<Attributes, Errno>) {
    match result {
        Ok(attributes) => reply.entry(&FOREVER, &file_attr(&attributes, NAMESPACE_TOP), GENERATION),
        Err(errno) => reply.error(errno),
    }
    linger();
}

/// Says that a name does not exist: a number of 0 lets the kernel remember that.
pub(super) fn no_entry(reply: ReplyEntry) {
    reply.entry(&FOREVER, &nothing(), GENERATION);
    linger();
}

pub(super) fn written(reply: ReplyWrite, len: u32) {
    reply.written(len);
    linger();
}

pub(super) fn control_entry(reply: ReplyEntry, result: Result<Attributes, CommandError>) {
    match result {
        Ok(attributes) => reply.entry(&NEVER, &file_attr(&attributes, NAMESPACE_CONTROL), GENERATION),
        Err(err) => reply.error(denied(err)),
    }
}

pub(super) fn empty(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
    linger();
}

pub(super) fn attr(reply: ReplyAttr, result: Result<Attributes, Errno>) {
    match result {
        Ok(attributes) => reply.attr(&FOREVER, &file_attr(&attributes, NAMESPACE_TOP)),
        Err(errno) => reply.error(errno),
    }
    linger();
}

pub(super) fn control_attr(reply: ReplyAttr, result: Result<Attributes, CommandError>) {
    match result {
        Ok(attributes) => reply.attr(&NEVER, &file_attr(&attributes, NAMESPACE_CONTROL)),
        Err(err) => reply.error(denied(err)),
    }
}

pub(super) fn data(reply: ReplyData, result: Result<Vec<u8>, Errno>) {
    match result {
        Ok(bytes) => reply.data(&bytes),
        Err(errno) => reply.error(errno),
    }
    linger();
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
    };
    file_attr(&none, NAMESPACE_TOP)
}
