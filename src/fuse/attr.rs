//! Translates attributes and kinds into the kernel's form.

use super::number::NodeNumber;
use crate::object::EntryKind;
use crate::workspace::Attributes;
use fuser::{FileAttr, FileType, INodeNo};
use std::time::SystemTime;

/// Returns the kernel's form of `attributes` for a file of the given namespace.
pub fn file_attr(attributes: &Attributes, namespace: u16) -> FileAttr {
    FileAttr {
        ino: INodeNo(NodeNumber { namespace, ino: attributes.ino }.pack()),
        size: attributes.size_bytes,
        blocks: attributes.blocks,
        atime: attributes.atime.into(),
        mtime: attributes.mtime.into(),
        ctime: attributes.ctime.into(),
        crtime: SystemTime::UNIX_EPOCH,
        kind: file_type(attributes.kind),
        perm: attributes.mode as u16,
        nlink: attributes.nlink,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: attributes.device,
        blksize: 4096,
        flags: 0,
    }
}

/// Returns the kernel's form of a kind.
pub fn file_type(kind: EntryKind) -> FileType {
    match kind {
        EntryKind::File => FileType::RegularFile,
        EntryKind::Directory => FileType::Directory,
        EntryKind::Symlink => FileType::Symlink,
        EntryKind::Fifo => FileType::NamedPipe,
        EntryKind::Socket => FileType::Socket,
        EntryKind::CharDevice => FileType::CharDevice,
        EntryKind::BlockDevice => FileType::BlockDevice,
    }
}
