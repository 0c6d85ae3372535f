//! The name of a directory entry, and the order in which directories keep names.

use sha2::{Digest, Sha256};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// Longest name of an entry, in bytes (NAME_MAX of Linux).
pub const NAME_BYTES_MAX: usize = 255;

/// The name of a directory entry: 1 to 255 bytes, any but `/` and NUL, and neither `.` nor `..`.
///
/// Names are ordered by a hash of their bytes first, as in ext4's directory index: the position of a
/// name never depends on its neighbours, so a listing may go on from a name that was deleted meanwhile.
#[derive(Clone, PartialEq, Eq)]
pub struct Name {
    position: u64,
    boundary: u8,
    /// Shared: the live tree keeps each name in its directory and at the file, and the caches of trees have it too.
    bytes: Arc<[u8]>,
}

/// Positions 0 to 2 are left to the start of a listing, `.` and `..`.
const POSITION_MIN: u64 = 3;
/// Every further level of a directory's tree takes this many more zero bits: nodes hold 16 names on average.
const BOUNDARY_BITS: u32 = 4;

impl Name {
    /// Checks `bytes` and makes a name of them.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        if bytes.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.iter().any(|b| matches!(b, b'/' | 0)) {
            return Err(NameError::Forbidden);
        }
        let hash: [u8; 32] = Sha256::digest(bytes).into();
        let word = |at: usize| hash[at..at + 8].iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
        Ok(Self {
            position: (word(0) >> 2).max(POSITION_MIN),
            boundary: (word(8).trailing_zeros() / BOUNDARY_BITS) as u8,
            bytes: bytes.into(),
        })
    }

    /// Returns the name under which the link table keeps the inode `identity`.
    pub fn of_identity(identity: u64) -> Self {
        Self::new(format!("{identity:x}").as_bytes()).expect("hex digits are a valid name")
    }

    /// Returns a bound that sorts behind every name at `position` and before every name behind it. It names nothing.
    pub fn bound_behind(position: u64) -> Self {
        Self { position, boundary: 0, bytes: [0xff; NAME_BYTES_MAX + 1].into() }
    }

    /// Returns the bytes as the user wrote them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns where the name stands in its directory: 62 bits, 3 or more, equal for equal names.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Says whether a tree node at `level` (0 is a leaf) ends after this name.
    pub fn ends_node(&self, level: u8) -> bool {
        self.boundary > level
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.position.cmp(&other.position).then_with(|| self.bytes.cmp(&other.bytes))
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl std::hash::Hash for Name {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.position);
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.bytes))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.bytes))
    }
}

/// Says why bytes cannot name an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Longer than [`NAME_BYTES_MAX`].
    TooLong,
    /// Empty, `.`, `..`, or with `/` or NUL in it.
    Forbidden,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "name is longer than {NAME_BYTES_MAX} bytes"),
            Self::Forbidden => f.write_str("name is empty, `.`, `..`, or holds `/` or NUL"),
        }
    }
}

impl std::error::Error for NameError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forbidden_names_are_refused_and_odd_bytes_are_not() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b"] {
            assert_eq!(Name::new(bad), Err(NameError::Forbidden));
        }
        assert_eq!(Name::new(&[b'x'; 256]), Err(NameError::TooLong));
        assert!(Name::new(&[0xff, b'\n', 0xfe]).is_ok());
    }

    #[test]
    fn one_name_in_sixteen_ends_a_leaf() {
        let ends = (0..16_000).filter(|n| Name::of_identity(*n).ends_node(0)).count();
        assert!((800..1200).contains(&ends), "{ends} of 16000");
    }
}
