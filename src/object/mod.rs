//! What a blob, a tree node, a commit, a name and an id are, and the one encoding of each.
//!
//! Values only: nothing here does I/O. Every decoder takes bytes that may be hostile and answers
//! with a [`DecodeError`]; lengths are checked before anything is allocated.

mod codec;
mod commit;
mod entry;
mod id;
mod location;
mod manifest;
mod name;
mod root;
mod time;
mod tree_node;
mod xattrs;

pub use codec::{DecodeError, Reader, Writer};
pub use commit::{Author, Commit, CommitKind, ExternalLink};
pub use entry::{Content, Entry, EntryKind, Node};
pub use id::{HexError, ObjectId};
pub use location::{Container, Encoding, Location, ObjectKind};
pub use manifest::{Extent, Manifest};
pub use name::{NAME_BYTES_MAX, Name, NameError};
pub use root::Root;
pub use time::Timestamp;
pub use tree_node::{ChildRef, TreeItem, TreeNode};
pub use xattrs::{Xattrs, decode_xattrs, encode_xattrs};
