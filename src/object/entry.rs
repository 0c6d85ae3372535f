//! What a directory says about one file.

use super::xattrs::{Xattrs, decode_xattrs, encode_xattrs};
use super::{DecodeError, ObjectId, Reader, Timestamp, Writer};

/// Where the bytes of a regular file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// The file has no bytes.
    Empty,
    /// One blob holds all bytes.
    Blob(ObjectId),
    /// A manifest lists the pieces.
    Manifest(ObjectId),
}

impl Content {
    /// Returns the id of the blob or manifest.
    pub fn object(&self) -> Option<ObjectId> {
        match self {
            Self::Empty => None,
            Self::Blob(id) | Self::Manifest(id) => Some(*id),
        }
    }
}

/// The kind of a file and what belongs to that kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A regular file.
    File {
        /// Length in bytes.
        size_bytes: u64,
        /// Bytes that are data and not holes, as `st_blocks` shows them.
        data_bytes: u64,
        /// Where the bytes are.
        content: Content,
    },
    /// A directory.
    Directory {
        /// The root node of its entries; absent when it is empty.
        tree: Option<ObjectId>,
        /// Whether a name of a hard-linked inode lies anywhere below.
        has_links: bool,
    },
    /// A symbolic link and the path it holds.
    Symlink(Box<[u8]>),
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A character device and its number.
    CharDevice(u32),
    /// A block device and its number.
    BlockDevice(u32),
}

/// The kind of a file alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

impl EntryKind {
    /// Returns the kind that the file type bits of `st_mode` name, if they name one.
    pub const fn from_mode_bits(st_mode: u32) -> Option<Self> {
        Some(match st_mode & 0o170_000 {
            0o100_000 => Self::File,
            0o040_000 => Self::Directory,
            0o120_000 => Self::Symlink,
            0o010_000 => Self::Fifo,
            0o140_000 => Self::Socket,
            0o020_000 => Self::CharDevice,
            0o060_000 => Self::BlockDevice,
            _ => return None,
        })
    }

    /// Returns the file type bits of `st_mode`.
    pub const fn mode_bits(self) -> u32 {
        match self {
            Self::File => 0o100_000,
            Self::Directory => 0o040_000,
            Self::Symlink => 0o120_000,
            Self::Fifo => 0o010_000,
            Self::Socket => 0o140_000,
            Self::CharDevice => 0o020_000,
            Self::BlockDevice => 0o060_000,
        }
    }
}

impl Node {
    /// Returns the kind alone.
    pub const fn kind(&self) -> EntryKind {
        match self {
            Self::File { .. } => EntryKind::File,
            Self::Directory { .. } => EntryKind::Directory,
            Self::Symlink(_) => EntryKind::Symlink,
            Self::Fifo => EntryKind::Fifo,
            Self::Socket => EntryKind::Socket,
            Self::CharDevice(_) => EntryKind::CharDevice,
            Self::BlockDevice(_) => EntryKind::BlockDevice,
        }
    }
}

/// Everything a directory records about one file: what `stat` shows, where its content is, and which file it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Says which file this is, through renames, links and checkpoints. Unique in a branch; below 2^47. The top directory has 1.
    pub identity: u64,
    /// Permission bits with setuid, setgid and sticky: 12 bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names; for a directory 2 and its subdirectories.
    pub nlink: u32,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of anything.
    pub ctime: Timestamp,
    /// Last access, as set by utimensat(2); reads do not move it.
    pub atime: Timestamp,
    /// Extended attributes.
    pub xattrs: Xattrs,
    /// The kind and what belongs to it.
    pub node: Node,
}

const HAS_XATTRS: u8 = 0x80;
/// Identities are below this.
const IDENTITY_END: u64 = 1 << 47;
/// Longest path in a symbolic link: PATH_MAX of Linux without the end.
const SYMLINK_BYTES_MAX: usize = 4095;

impl Entry {
    /// Returns the size that `stat` shows.
    pub fn size_bytes(&self) -> u64 {
        match &self.node {
            Node::File { size_bytes, .. } => *size_bytes,
            Node::Symlink(target) => target.len() as u64,
            _ => 0,
        }
    }

    /// Returns the permission bits together with the file type bits, as in `st_mode`.
    pub fn st_mode(&self) -> u32 {
        self.mode | self.node.kind().mode_bits()
    }

    /// Says whether both describe the same state; the change time does not count, since nobody can restore it.
    pub fn same_state(&self, other: &Self) -> bool {
        self.identity == other.identity
            && self.mode == other.mode
            && self.uid == other.uid
            && self.gid == other.gid
            && self.nlink == other.nlink
            && self.mtime == other.mtime
            && self.atime == other.atime
            && self.xattrs == other.xattrs
            && self.node == other.node
    }

    /// Appends the one encoding.
    pub fn encode(&self, writer: &mut Writer) {
        let flag = if self.xattrs.is_some() { HAS_XATTRS } else { 0 };
        writer.u8(kind_code(self.node.kind()) | flag);
        writer.uint(self.identity);
        writer.uint(u64::from(self.mode));
        writer.uint(u64::from(self.uid));
        writer.uint(u64::from(self.gid));
        writer.uint(u64::from(self.nlink));
        self.mtime.encode(writer);
        self.ctime.encode_relative(self.mtime, writer);
        self.atime.encode_relative(self.mtime, writer);
        if let Some(xattrs) = &self.xattrs {
            encode_xattrs(xattrs, writer);
        }
        self.encode_node(writer);
    }

    fn encode_node(&self, writer: &mut Writer) {
        match &self.node {
            Node::File { size_bytes, data_bytes, content } => {
                writer.uint(*size_bytes);
                match content {
                    Content::Empty => {
                        writer.u8(0);
                        writer.uint(*data_bytes);
                    }
                    Content::Blob(id) => {
                        writer.u8(1);
                        writer.id(id);
                    }
                    Content::Manifest(id) => {
                        writer.u8(2);
                        writer.id(id);
                        writer.uint(*data_bytes);
                    }
                }
            }
            Node::Directory { tree, has_links } => {
                writer.u8(u8::from(tree.is_some()) | u8::from(*has_links) << 1);
                if let Some(id) = tree {
                    writer.id(id);
                }
            }
            Node::Symlink(target) => writer.bytes(target),
            Node::Fifo | Node::Socket => {}
            Node::CharDevice(number) | Node::BlockDevice(number) => writer.uint(u64::from(*number)),
        }
    }

    /// Takes an entry.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let tag = reader.u8()?;
        let identity = decode_identity(reader)?;
        let mode = reader.uint32()?;
        if mode > 0o7777 {
            return Err(DecodeError::new("mode has more than 12 bits"));
        }
        let (uid, gid, nlink) = (reader.uint32()?, reader.uint32()?, reader.uint32()?);
        let mtime = Timestamp::decode(reader)?;
        let ctime = Timestamp::decode_relative(mtime, reader)?;
        let atime = Timestamp::decode_relative(mtime, reader)?;
        let xattrs = if tag & HAS_XATTRS != 0 { decode_xattrs(reader)? } else { None };
        let node = decode_node(tag & !HAS_XATTRS, reader)?;
        Ok(Self { identity, mode, uid, gid, nlink, mtime, ctime, atime, xattrs, node })
    }
}

/// Takes an identity. Larger numbers would be taken for aliases, or for files of other trees.
pub(super) fn decode_identity(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let identity = reader.uint()?;
    if identity == 0 || identity >= IDENTITY_END {
        return Err(DecodeError::new("identity out of range"));
    }
    Ok(identity)
}

fn decode_node(code: u8, reader: &mut Reader<'_>) -> Result<Node, DecodeError> {
    Ok(match code {
        0 => decode_file(reader)?,
        1 => {
            let flags = reader.u8()?;
            if flags > 3 {
                return Err(DecodeError::new("unknown directory form"));
            }
            let tree = if flags & 1 != 0 { Some(reader.id()?) } else { None };
            Node::Directory { tree, has_links: flags & 2 != 0 }
        }
        2 => {
            let target = reader.bytes()?;
            if target.is_empty() || target.len() > SYMLINK_BYTES_MAX || target.contains(&0) {
                return Err(DecodeError::new("bad symlink target"));
            }
            Node::Symlink(target.into())
        }
        3 => Node::Fifo,
        4 => Node::Socket,
        5 => Node::CharDevice(reader.uint32()?),
        6 => Node::BlockDevice(reader.uint32()?),
        _ => return Err(DecodeError::new("unknown file kind")),
    })
}

fn decode_file(reader: &mut Reader<'_>) -> Result<Node, DecodeError> {
    let size_bytes = reader.uint()?;
    if size_bytes > i64::MAX as u64 {
        return Err(DecodeError::new("file size out of range"));
    }
    let (content, data_bytes) = match reader.u8()? {
        0 if size_bytes == 0 => (Content::Empty, reader.uint()?),
        0 => return Err(DecodeError::new("a size without content")),
        1 => (Content::Blob(reader.id()?), size_bytes),
        2 => (Content::Manifest(reader.id()?), reader.uint()?),
        _ => return Err(DecodeError::new("unknown content form")),
    };
    Ok(Node::File { size_bytes, data_bytes, content })
}

const fn kind_code(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::File => 0,
        EntryKind::Directory => 1,
        EntryKind::Symlink => 2,
        EntryKind::Fifo => 3,
        EntryKind::Socket => 4,
        EntryKind::CharDevice => 5,
        EntryKind::BlockDevice => 6,
    }
}
