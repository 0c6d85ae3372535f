//! One change of the live tree, as a value: it is journaled, then applied by one function, and replayed by the same.

mod left;
mod resting;

pub(crate) use left::Left;
pub use resting::Resting;

use super::share::Shared;
use crate::object::{DecodeError, EntryKind, Name, Reader, Timestamp, Writer, Xattrs, decode_xattrs, encode_xattrs};

/// Which attributes a `SetAttributes` changes; absent ones stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttributeChange {
    /// Permission bits with setuid, setgid and sticky.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// New length of a regular file.
    pub size_bytes: Option<u64>,
    /// Access time.
    pub atime: Option<Timestamp>,
    /// Modification time.
    pub mtime: Option<Timestamp>,
}

/// What a new file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNode {
    /// Its kind.
    pub kind: EntryKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub device: u32,
    /// Path held by a symbolic link.
    pub target: Box<[u8]>,
}

/// How a range of a file changes without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeChange {
    /// Becomes a hole.
    Punch,
    /// Becomes zeros that take space.
    Zero,
    /// Holes become zeros that take space; data stays.
    Allocate,
}

/// What else a change of a range does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeOptions {
    /// The file does not grow.
    pub keep_size: bool,
    /// Setuid, setgid and capabilities end: the caller has no right to them.
    pub strip_privileges: bool,
}

/// One change of the live tree. Files are named by identity; every change carries its time, so that replaying gives the same tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Says where the file `identity` is found, so that a replay can load it; changes nothing.
    Bind { identity: u64, parent: u64, name: Name },
    /// Says that `identity` is described by the link table; changes nothing.
    BindLink { identity: u64 },
    /// A new file of any kind.
    Create { parent: u64, name: Name, identity: u64, node: NewNode, xattrs: Xattrs, time: Timestamp },
    /// A further name of a file.
    Link { identity: u64, parent: u64, name: Name, time: Timestamp },
    /// A name goes; a directory under it is empty.
    Remove { parent: u64, name: Name, time: Timestamp },
    /// A name moves, over an existing one if there is one.
    Rename { parent: u64, name: Name, new_parent: u64, new_name: Name, time: Timestamp },
    /// A name moves likewise, and a new file takes its place.
    RenameLeaving { parent: u64, name: Name, new_parent: u64, new_name: Name, left: Left, time: Timestamp },
    /// Two names change places.
    Exchange { parent: u64, name: Name, new_parent: u64, new_name: Name, time: Timestamp },
    /// Mode, owner, times or size.
    SetAttributes { identity: u64, change: AttributeChange, time: Timestamp },
    /// Sets (or, without a value, removes) an extended attribute.
    SetXattr { identity: u64, name: Box<[u8]>, value: Option<Box<[u8]>>, time: Timestamp },
    /// Small data, carried here.
    Write { identity: u64, offset: u64, data: Box<[u8]>, strip_privileges: bool, time: Timestamp },
    /// From now on the file's new data lies in the staging file `staging`, over what it had.
    Layer { identity: u64, staging: u64 },
    /// Data that was written into the file's staging file at the same offset.
    WriteStaged { identity: u64, offset: u64, len: u64, strip_privileges: bool, time: Timestamp },
    /// A range changes without data.
    ChangeRange { identity: u64, offset: u64, len: u64, change: RangeChange, options: RangeOptions, time: Timestamp },
    /// From now on all of the file is the staging file `staging`, in which whatever happens to its bytes and size is found. The
    /// two were alike when that changed last, at `changed`.
    Hand { identity: u64, staging: u64, changed: Timestamp },
    /// The file is all of a staging file no more; this is what it holds, and its times.
    Rest { identity: u64, content: Resting, mtime: Timestamp, ctime: Timestamp },
    /// The file becomes a copy of another one that is as sealed.
    Share { identity: u64, shared: Shared, strip_privileges: bool, time: Timestamp },
}

impl Operation {
    /// Returns the identities of the existing files that the operation concerns.
    pub fn files(&self) -> impl Iterator<Item = u64> {
        let (first, second) = match self {
            Self::BindLink { .. } => (None, None),
            Self::Bind { parent, .. } | Self::Create { parent, .. } | Self::Remove { parent, .. } => (Some(*parent), None),
            Self::Link { identity, parent, .. } => (Some(*identity), Some(*parent)),
            Self::Rename { parent, new_parent, .. }
            | Self::RenameLeaving { parent, new_parent, .. }
            | Self::Exchange { parent, new_parent, .. } => (Some(*parent), Some(*new_parent)),
            Self::SetAttributes { identity, .. }
            | Self::SetXattr { identity, .. }
            | Self::Write { identity, .. }
            | Self::Layer { identity, .. }
            | Self::Hand { identity, .. }
            | Self::Rest { identity, .. }
            | Self::WriteStaged { identity, .. }
            | Self::ChangeRange { identity, .. }
            | Self::Share { identity, .. } => (Some(*identity), None),
        };
        first.into_iter().chain(second)
    }

    /// Says whether the operation may use the room that is kept free for a full disk.
    pub fn frees_space(&self) -> bool {
        match self {
            Self::Bind { .. } | Self::BindLink { .. } | Self::Remove { .. } | Self::SetAttributes { .. } => true,
            Self::ChangeRange { change, .. } => *change == RangeChange::Punch,
            _ => false,
        }
    }

    /// Appends the encoding.
    pub fn encode(&self, w: &mut Writer) {
        match self {
            Self::Bind { identity, parent, name } => {
                w.u8(1);
                w.uint(*identity);
                encode_place(*parent, name, w);
            }
            Self::BindLink { identity } => {
                w.u8(2);
                w.uint(*identity);
            }
            Self::Create { parent, name, identity, node, xattrs, time } => {
                w.u8(if xattrs.is_some() { 14 } else { 3 });
                encode_place(*parent, name, w);
                w.uint(*identity);
                node.encode(w);
                if let Some(xattrs) = xattrs {
                    encode_xattrs(xattrs, w);
                }
                time.encode(w);
            }
            Self::Link { identity, parent, name, time } => {
                w.u8(4);
                w.uint(*identity);
                encode_place(*parent, name, w);
                time.encode(w);
            }
            Self::Remove { parent, name, time } => {
                w.u8(5);
                encode_place(*parent, name, w);
                time.encode(w);
            }
            Self::Rename { parent, name, new_parent, new_name, time } => {
                w.u8(6);
                encode_place(*parent, name, w);
                encode_place(*new_parent, new_name, w);
                time.encode(w);
            }
            Self::RenameLeaving { parent, name, new_parent, new_name, left, time } => {
                w.u8(19);
                encode_place(*parent, name, w);
                encode_place(*new_parent, new_name, w);
                left.encode(w);
                time.encode(w);
            }
            Self::Exchange { parent, name, new_parent, new_name, time } => {
                w.u8(7);
                encode_place(*parent, name, w);
                encode_place(*new_parent, new_name, w);
                time.encode(w);
            }
            Self::SetAttributes { identity, change, time } => {
                w.u8(8);
                w.uint(*identity);
                change.encode(w);
                time.encode(w);
            }
            Self::SetXattr { identity, name, value, time } => {
                w.u8(9);
                w.uint(*identity);
                w.bytes(name);
                w.u8(u8::from(value.is_some()));
                w.bytes(value.as_deref().unwrap_or_default());
                time.encode(w);
            }
            Self::Write { identity, offset, data, strip_privileges, time } => {
                w.u8(10);
                w.uint(*identity);
                w.uint(*offset);
                w.u8(u8::from(*strip_privileges));
                time.encode(w);
                w.bytes(data);
            }
            Self::Layer { identity, staging } => {
                w.u8(11);
                w.uint(*identity);
                w.uint(*staging);
            }
            Self::WriteStaged { identity, offset, len, strip_privileges, time } => {
                w.u8(12);
                w.uint(*identity);
                w.uint(*offset);
                w.uint(*len);
                w.u8(u8::from(*strip_privileges));
                time.encode(w);
            }
            Self::ChangeRange { identity, offset, len, change, options, time } => {
                w.u8(13);
                w.uint(*identity);
                w.uint(*offset);
                w.uint(*len);
                w.u8(*change as u8);
                w.u8(u8::from(options.keep_size) | u8::from(options.strip_privileges) << 1);
                time.encode(w);
            }
            Self::Hand { identity, staging, changed } => {
                w.u8(16);
                w.uint(*identity);
                w.uint(*staging);
                changed.encode(w);
            }
            Self::Rest { identity, content, mtime, ctime } => {
                w.u8(content.tag());
                w.uint(*identity);
                mtime.encode(w);
                ctime.encode(w);
                content.encode(w);
            }
            Self::Share { identity, shared, strip_privileges, time } => {
                w.u8(15);
                w.uint(*identity);
                shared.encode(w);
                w.u8(u8::from(*strip_privileges));
                time.encode(w);
            }
        }
    }

    /// Takes an operation.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match r.u8()? {
            1 => {
                let identity = r.uint()?;
                let (parent, name) = decode_place(r)?;
                Self::Bind { identity, parent, name }
            }
            2 => Self::BindLink { identity: r.uint()? },
            tag @ (3 | 14) => {
                let (parent, name) = decode_place(r)?;
                let identity = r.uint()?;
                let node = NewNode::decode(r)?;
                let xattrs = if tag == 14 { decode_xattrs(r)? } else { None };
                Self::Create { parent, name, identity, node, xattrs, time: Timestamp::decode(r)? }
            }
            4 => {
                let identity = r.uint()?;
                let (parent, name) = decode_place(r)?;
                Self::Link { identity, parent, name, time: Timestamp::decode(r)? }
            }
            5 => {
                let (parent, name) = decode_place(r)?;
                Self::Remove { parent, name, time: Timestamp::decode(r)? }
            }
            tag @ (6 | 7) => {
                let (parent, name) = decode_place(r)?;
                let (new_parent, new_name) = decode_place(r)?;
                let time = Timestamp::decode(r)?;
                if tag == 6 {
                    Self::Rename { parent, name, new_parent, new_name, time }
                } else {
                    Self::Exchange { parent, name, new_parent, new_name, time }
                }
            }
            19 => {
                let (parent, name) = decode_place(r)?;
                let (new_parent, new_name) = decode_place(r)?;
                let left = Left::decode(r)?;
                Self::RenameLeaving { parent, name, new_parent, new_name, left, time: Timestamp::decode(r)? }
            }
            8 => Self::SetAttributes { identity: r.uint()?, change: AttributeChange::decode(r)?, time: Timestamp::decode(r)? },
            9 => {
                let identity = r.uint()?;
                let name = r.bytes()?.into();
                let present = decode_bool(r)?;
                let value = r.bytes()?;
                if !present && !value.is_empty() {
                    return Err(DecodeError::new("a value that is absent"));
                }
                let value = present.then(|| value.into());
                Self::SetXattr { identity, name, value, time: Timestamp::decode(r)? }
            }
            10 => {
                let (identity, offset) = (r.uint()?, r.uint()?);
                let strip_privileges = decode_bool(r)?;
                let time = Timestamp::decode(r)?;
                let data: Box<[u8]> = r.bytes()?.into();
                check_range(offset, data.len() as u64)?;
                Self::Write { identity, offset, data, strip_privileges, time }
            }
            11 => Self::Layer { identity: r.uint()?, staging: r.uint()? },
            12 => {
                let (identity, offset, len) = (r.uint()?, r.uint()?, r.uint()?);
                check_range(offset, len)?;
                let strip_privileges = decode_bool(r)?;
                Self::WriteStaged { identity, offset, len, strip_privileges, time: Timestamp::decode(r)? }
            }
            13 => {
                let (identity, offset, len) = (r.uint()?, r.uint()?, r.uint()?);
                check_range(offset, len)?;
                let change = match r.u8()? {
                    0 => RangeChange::Punch,
                    1 => RangeChange::Zero,
                    2 => RangeChange::Allocate,
                    _ => return Err(DecodeError::new("unknown range change")),
                };
                let options = match r.u8()? {
                    bits @ 0..4 => RangeOptions { keep_size: bits & 1 != 0, strip_privileges: bits & 2 != 0 },
                    _ => return Err(DecodeError::new("unknown option of a range")),
                };
                Self::ChangeRange { identity, offset, len, change, options, time: Timestamp::decode(r)? }
            }
            15 => {
                let identity = r.uint()?;
                let shared = Shared::decode(r)?;
                Self::Share { identity, shared, strip_privileges: decode_bool(r)?, time: Timestamp::decode(r)? }
            }
            16 => Self::Hand { identity: r.uint()?, staging: r.uint()?, changed: Timestamp::decode(r)? },
            tag @ (Resting::BYTES | Resting::SEALED) => {
                let identity = r.uint()?;
                let (mtime, ctime) = (Timestamp::decode(r)?, Timestamp::decode(r)?);
                Self::Rest { identity, content: Resting::decode(tag, r)?, mtime, ctime }
            }
            _ => return Err(DecodeError::new("unknown operation")),
        })
    }
}

impl NewNode {
    fn encode(&self, w: &mut Writer) {
        w.uint(u64::from(self.mode | self.kind.mode_bits()));
        w.uint(u64::from(self.uid));
        w.uint(u64::from(self.gid));
        w.uint(u64::from(self.device));
        w.bytes(&self.target);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let st_mode = r.uint32()?;
        let kind = EntryKind::from_mode_bits(st_mode).ok_or(DecodeError::new("unknown file kind"))?;
        if st_mode > 0o177_777 {
            return Err(DecodeError::new("mode has more than 16 bits"));
        }
        let (uid, gid, device) = (r.uint32()?, r.uint32()?, r.uint32()?);
        Ok(Self { kind, mode: st_mode & 0o7777, uid, gid, device, target: r.bytes()?.into() })
    }
}

impl AttributeChange {
    /// Says whether nothing changes but ctime.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn encode(&self, w: &mut Writer) {
        let present = [
            self.mode.is_some(),
            self.uid.is_some(),
            self.gid.is_some(),
            self.size_bytes.is_some(),
            self.atime.is_some(),
            self.mtime.is_some(),
        ];
        w.u8(present.iter().enumerate().fold(0, |bits, (at, set)| bits | u8::from(*set) << at));
        for value in [self.mode, self.uid, self.gid].into_iter().flatten() {
            w.uint(u64::from(value));
        }
        if let Some(size_bytes) = self.size_bytes {
            w.uint(size_bytes);
        }
        for time in [self.atime, self.mtime].into_iter().flatten() {
            time.encode(w);
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bits = r.u8()?;
        if bits > 0x3f {
            return Err(DecodeError::new("unknown attribute"));
        }
        let has = |at: u8| bits & (1 << at) != 0;
        let mut change = Self::default();
        if has(0) {
            change.mode = Some(r.uint32()?).filter(|mode| *mode <= 0o7777);
            change.mode.ok_or(DecodeError::new("mode has more than 12 bits"))?;
        }
        if has(1) {
            change.uid = Some(r.uint32()?);
        }
        if has(2) {
            change.gid = Some(r.uint32()?);
        }
        if has(3) {
            let size_bytes = r.uint()?;
            check_range(0, size_bytes)?;
            change.size_bytes = Some(size_bytes);
        }
        if has(4) {
            change.atime = Some(Timestamp::decode(r)?);
        }
        if has(5) {
            change.mtime = Some(Timestamp::decode(r)?);
        }
        Ok(change)
    }
}

fn encode_place(parent: u64, name: &Name, w: &mut Writer) {
    w.uint(parent);
    w.bytes(name.as_bytes());
}

fn decode_place(r: &mut Reader<'_>) -> Result<(u64, Name), DecodeError> {
    let parent = r.uint()?;
    let name = Name::new(r.bytes()?).map_err(|_| DecodeError::new("forbidden name"))?;
    Ok((parent, name))
}

fn decode_bool(r: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::new("neither true nor false")),
    }
}

fn check_range(offset: u64, len: u64) -> Result<(), DecodeError> {
    match offset.checked_add(len) {
        Some(end) if end <= i64::MAX as u64 => Ok(()),
        _ => Err(DecodeError::new("file range out of bounds")),
    }
}

#[cfg(test)]
mod tests;
