//! One file of the live tree, as the kernel knows it or as it changed.

use super::apply::CAPABILITY;
use super::cut::SealedFile;
use super::file::FileBody;
use super::places::Places;
use crate::object::{Entry, EntryKind, Name, Node, ObjectId, Timestamp, Xattrs};
use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::Arc;

/// An inode number within one branch: the file's identity, or an alias above it while an older version is in use.
pub type Ino = u64;

/// The top directory.
pub const ROOT: Ino = 1;

/// Counts the cuts of a branch since it was opened. Changes carry the generation in which they were made.
pub type Generation = u32;

/// A file of the live tree.
#[derive(Debug)]
pub struct Inode {
    /// Says which file this is in the branch's history.
    pub identity: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names, or 2 and the subdirectories.
    pub nlink: u32,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of anything.
    pub ctime: Timestamp,
    /// Last access as far as it is kept.
    pub atime: Timestamp,
    /// Extended attributes.
    pub xattrs: Xattrs,
    /// What belongs to its kind.
    pub body: Body,
    /// Its names, as far as they are loaded: all of them unless `linked`.
    pub places: Places,
    /// The link table describes it: it has, or had, several names.
    pub linked: bool,
    /// It has no name in the live tree any more; it lives until the kernel forgets it and is never sealed or journaled.
    pub orphan: bool,
    /// References held by the kernel; those beyond the largest number are not counted.
    pub lookups: u32,
    /// Generation of the last change; 0 when it is as sealed.
    pub changed_in: Generation,
    /// Generation of the last change of the content.
    pub content_changed_in: Generation,
    /// Low half of the number of the journal segment in which a record says where the file is.
    pub bound_in: u32,
}

/// What belongs to the kind of a file.
#[derive(Debug)]
pub enum Body {
    /// A regular file.
    File(FileBody),
    /// A directory. In a box: in place it would make every inode larger.
    Directory(Box<Directory>),
    /// A symbolic link.
    Symlink(Arc<[u8]>),
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A character device.
    CharDevice(u32),
    /// A block device.
    BlockDevice(u32),
}

/// A directory: a sealed tree, and what is loaded from it or differs from it.
#[derive(Debug, Default)]
pub struct Directory {
    /// The sealed entries; absent when there are none.
    pub base: Option<ObjectId>,
    /// Whether the sealed entries, or what is below them, have hard links.
    pub base_has_links: bool,
    /// Names that are loaded or changed.
    pub slots: BTreeMap<Name, Slot>,
}

/// What is known about one name of a directory.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    child: Option<NonZero<Ino>>,
    /// Generation of the last change of the name or of the file; 0 when both are as sealed.
    pub changed_in: Generation,
    /// Whether the sealed entries have this name.
    pub in_base: bool,
}

impl Slot {
    /// Makes a slot that is as sealed.
    pub fn new(child: Ino, in_base: bool) -> Self {
        Self { child: NonZero::new(child), changed_in: 0, in_base }
    }

    /// Returns the file; `None` when the name was removed.
    pub fn child(&self) -> Option<Ino> {
        self.child.map(NonZero::get)
    }

    /// Says that the name was removed.
    pub fn remove_child(&mut self) {
        self.child = None;
    }
}

impl Inode {
    /// Makes an inode from what a sealed directory says.
    pub fn from_entry(entry: Entry, linked: bool) -> Self {
        let body = match entry.node {
            Node::File { size_bytes, data_bytes, content } => Body::File(FileBody::Clean { content, size_bytes, data_bytes }),
            Node::Directory { tree, has_links } => {
                Body::Directory(Box::new(Directory { base: tree, base_has_links: has_links, slots: BTreeMap::new() }))
            }
            Node::Symlink(target) => Body::Symlink(target.into()),
            Node::Fifo => Body::Fifo,
            Node::Socket => Body::Socket,
            Node::CharDevice(number) => Body::CharDevice(number),
            Node::BlockDevice(number) => Body::BlockDevice(number),
        };
        Self {
            identity: entry.identity,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            nlink: entry.nlink,
            mtime: entry.mtime,
            ctime: entry.ctime,
            atime: entry.atime,
            xattrs: entry.xattrs,
            body,
            places: Places::NONE,
            linked,
            orphan: false,
            lookups: 0,
            changed_in: 0,
            content_changed_in: 0,
            bound_in: 0,
        }
    }

    /// Describes the inode as a directory would; the content of a dirty file is left empty, a directory's tree as sealed last.
    pub fn to_entry(&self) -> Entry {
        let node = match &self.body {
            Body::File(body) => {
                let SealedFile { content, size_bytes, data_bytes, .. } =
                    body.sealed().unwrap_or_else(|| SealedFile::unknown(body));
                Node::File { size_bytes, data_bytes, content }
            }
            Body::Directory(directory) => Node::Directory { tree: directory.base, has_links: directory.base_has_links },
            Body::Symlink(target) => Node::Symlink((**target).into()),
            Body::Fifo => Node::Fifo,
            Body::Socket => Node::Socket,
            Body::CharDevice(number) => Node::CharDevice(*number),
            Body::BlockDevice(number) => Node::BlockDevice(*number),
        };
        Entry {
            identity: self.identity,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            nlink: self.nlink,
            mtime: self.mtime,
            ctime: self.ctime,
            atime: self.atime,
            xattrs: self.xattrs.clone(),
            node,
        }
    }

    /// Takes mode, owner, times, link count and xattrs from `entry`.
    pub fn take_attributes(&mut self, entry: &Entry) {
        self.mode = entry.mode;
        self.uid = entry.uid;
        self.gid = entry.gid;
        self.nlink = entry.nlink;
        self.mtime = entry.mtime;
        self.ctime = entry.ctime;
        self.atime = entry.atime;
        self.xattrs = entry.xattrs.clone();
    }

    /// Returns the kind of the file.
    pub fn kind(&self) -> EntryKind {
        match &self.body {
            Body::File(_) => EntryKind::File,
            Body::Directory(_) => EntryKind::Directory,
            Body::Symlink(_) => EntryKind::Symlink,
            Body::Fifo => EntryKind::Fifo,
            Body::Socket => EntryKind::Socket,
            Body::CharDevice(_) => EntryKind::CharDevice,
            Body::BlockDevice(_) => EntryKind::BlockDevice,
        }
    }

    /// Says whether a program in it has capabilities of its own.
    pub fn is_capable(&self) -> bool {
        self.xattrs.as_ref().is_some_and(|xattrs| xattrs.contains_key(CAPABILITY))
    }

    /// Returns the directory, if it is one.
    pub fn directory(&self) -> Option<&Directory> {
        match &self.body {
            Body::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// Returns the directory for changing, if it is one.
    pub fn directory_mut(&mut self) -> Option<&mut Directory> {
        match &mut self.body {
            Body::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// Returns the bytes of the file, if it is a regular one.
    pub fn file(&self) -> Option<&FileBody> {
        match &self.body {
            Body::File(body) => Some(body),
            _ => None,
        }
    }

    /// Returns what `stat` shows.
    pub fn attributes(&self, ino: Ino) -> Attributes {
        let (size_bytes, data_bytes) = match &self.body {
            Body::File(body) => (body.size_bytes(), body.data_bytes()),
            Body::Symlink(target) => (target.len() as u64, 0),
            Body::Directory(_) => (4096, 4096),
            _ => (0, 0),
        };
        let device = match self.body {
            Body::CharDevice(number) | Body::BlockDevice(number) => number,
            _ => 0,
        };
        Attributes {
            ino,
            kind: self.kind(),
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            nlink: self.nlink,
            size_bytes,
            blocks: data_bytes.div_ceil(4096) * 8,
            device,
            mtime: self.mtime,
            ctime: self.ctime,
            atime: self.atime,
            held: false,
        }
    }
}

/// What `stat` shows of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Inode number within the branch.
    pub ino: Ino,
    /// Kind of the file.
    pub kind: EntryKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names.
    pub nlink: u32,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Space taken, in blocks of 512 bytes.
    pub blocks: u64,
    /// Device number of a device node.
    pub device: u32,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of anything.
    pub ctime: Timestamp,
    /// Last access.
    pub atime: Timestamp,
    /// The kernel has the file in hand: what is shown may change without anybody being told.
    pub held: bool,
}

impl Attributes {
    /// Returns what `stat` shows of a sealed entry under the inode number `ino`.
    pub fn of_entry(entry: &Entry, ino: Ino) -> Self {
        Inode::from_entry(entry.clone(), false).attributes(ino)
    }
}
