//! POSIX access control lists: what the file system has to do about them so that the kernel can enforce them.
//!
//! The kernel reads the lists as extended attributes and checks permissions by itself. Ours is what acl(5) says of new
//! files, of chmod(2) and of the permission bits that mirror a list. The form is that of `linux/posix_acl_xattr.h`: a
//! version of four bytes, then entries of tag, permissions and id, sorted by the kernel.

use crate::object::Xattrs;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Says who may do what with a file.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// What new files of a directory begin with.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";
/// The kernel reads lists up to a page.
pub const ACL_BYTES_MAX: usize = 4096;

const VERSION: [u8; 4] = 2u32.to_le_bytes();
const ENTRY_BYTES: usize = 8;

const USER_OBJ: u16 = 0x01;
const GROUP_OBJ: u16 = 0x04;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AclEntry {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// A list as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl(Vec<AclEntry>);

impl Acl {
    /// Takes a list from its extended attribute; `None` when it is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let entries = bytes.strip_prefix(&VERSION).filter(|rest| rest.len() % ENTRY_BYTES == 0)?;
        let parse = |entry: &[u8]| AclEntry {
            tag: u16::from_le_bytes([entry[0], entry[1]]),
            permissions: u16::from_le_bytes([entry[2], entry[3]]),
            id: u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]),
        };
        let acl = Self(entries.chunks_exact(ENTRY_BYTES).map(parse).collect());
        [USER_OBJ, GROUP_OBJ, OTHER].iter().all(|tag| acl.find(*tag).is_some()).then_some(acl)
    }

    /// Returns the extended attribute.
    pub fn to_bytes(&self) -> Box<[u8]> {
        let mut bytes = VERSION.to_vec();
        for entry in &self.0 {
            bytes.extend(entry.tag.to_le_bytes());
            bytes.extend(entry.permissions.to_le_bytes());
            bytes.extend(entry.id.to_le_bytes());
        }
        bytes.into()
    }

    /// Says whether the permission bits of a mode say all that the list says.
    pub fn is_minimal(&self) -> bool {
        self.0.iter().all(|entry| matches!(entry.tag, USER_OBJ | GROUP_OBJ | OTHER))
    }

    fn find(&self, tag: u16) -> Option<&AclEntry> {
        self.0.iter().find(|entry| entry.tag == tag)
    }

    /// The entry that the group bits of the mode mirror.
    fn group_tag(&self) -> u16 {
        if self.find(MASK).is_some() { MASK } else { GROUP_OBJ }
    }

    fn mirrored(&mut self) -> impl Iterator<Item = (&mut AclEntry, u32)> {
        let group = self.group_tag();
        self.0.iter_mut().filter_map(move |entry| match entry.tag {
            USER_OBJ => Some((entry, 6)),
            OTHER => Some((entry, 0)),
            tag if tag == group => Some((entry, 3)),
            _ => None,
        })
    }

    /// Returns `mode` with the permission bits that mirror the list.
    pub fn mode(&self, mode: u32) -> u32 {
        let bits = |tag| self.find(tag).map_or(0, |entry| u32::from(entry.permissions & 7));
        mode & !0o777 | bits(USER_OBJ) << 6 | bits(self.group_tag()) << 3 | bits(OTHER)
    }

    /// Makes the list say what chmod(2) gave.
    pub fn set_mode(&mut self, mode: u32) {
        for (entry, shift) in self.mirrored() {
            entry.permissions = (mode >> shift & 7) as u16;
        }
    }

    /// Takes away what the creator of a file did not ask for, from the list as from `mode`, which is returned.
    pub fn masked_by_creation(&mut self, mode: u32) -> u32 {
        for (entry, shift) in self.mirrored() {
            entry.permissions &= (mode >> shift & 7) as u16;
        }
        self.mode(mode)
    }
}

/// Returns the list in `xattrs` by its name.
pub fn acl_of(xattrs: &Xattrs, name: &[u8]) -> Option<Acl> {
    Acl::parse(xattrs.as_ref()?.get(name)?)
}

/// Returns mode and lists of a new file in a directory with the default list `default`.
pub fn inherited(mut default: Acl, mode: u32, is_directory: bool) -> (u32, Xattrs) {
    let mut xattrs = BTreeMap::<Box<[u8]>, Box<[u8]>>::new();
    if is_directory {
        xattrs.insert(DEFAULT.into(), default.to_bytes());
    }
    let mode = default.masked_by_creation(mode);
    if !default.is_minimal() {
        xattrs.insert(ACCESS.into(), default.to_bytes());
    }
    (mode, (!xattrs.is_empty()).then(|| Arc::new(xattrs)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16)]) -> Acl {
        Acl(entries.iter().map(|&(tag, permissions)| AclEntry { tag, permissions, id: u32::MAX }).collect())
    }

    #[test]
    fn lists_come_apart_as_they_were_put_together_and_hostile_ones_are_none() {
        let list = acl(&[(USER_OBJ, 6), (2, 7), (GROUP_OBJ, 4), (MASK, 7), (OTHER, 0)]);
        let bytes = list.to_bytes();
        assert_eq!(Acl::parse(&bytes), Some(list));
        for end in 0..bytes.len() {
            assert_eq!(Acl::parse(&bytes[..end]), None, "{end} bytes");
        }
        assert_eq!(Acl::parse(&acl(&[(USER_OBJ, 6), (MASK, 7)]).to_bytes()), None, "what every list has is missing");
    }

    #[test]
    fn the_group_bits_mirror_the_mask_where_there_is_one() {
        let mut list = acl(&[(USER_OBJ, 6), (2, 7), (GROUP_OBJ, 5), (MASK, 4), (OTHER, 1)]);
        assert_eq!(list.mode(0o2777), 0o2641);
        list.set_mode(0o777);
        assert_eq!(list, acl(&[(USER_OBJ, 7), (2, 7), (GROUP_OBJ, 5), (MASK, 7), (OTHER, 7)]));
        assert_eq!(acl(&[(USER_OBJ, 6), (GROUP_OBJ, 5), (OTHER, 1)]).mode(0), 0o651);
    }

    #[test]
    fn new_files_get_no_more_than_their_creator_asked_for() {
        let default = acl(&[(USER_OBJ, 7), (2, 7), (GROUP_OBJ, 5), (MASK, 7), (OTHER, 5)]);
        let (mode, xattrs) = inherited(default.clone(), 0o640, false);
        assert_eq!(mode, 0o640);
        let access = acl_of(&xattrs, ACCESS).unwrap();
        assert_eq!(access, acl(&[(USER_OBJ, 6), (2, 7), (GROUP_OBJ, 5), (MASK, 4), (OTHER, 0)]));
        assert_eq!(acl_of(&xattrs, DEFAULT), None);
        let (_, xattrs) = inherited(default.clone(), 0o777, true);
        assert_eq!(acl_of(&xattrs, DEFAULT), Some(default));
        let (mode, xattrs) = inherited(acl(&[(USER_OBJ, 7), (GROUP_OBJ, 7), (OTHER, 0)]), 0o666, false);
        assert_eq!((mode, xattrs), (0o660, None));
    }
}
