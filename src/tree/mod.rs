//! Reads, builds, compares and walks directories that are stored as nodes.
//!
//! A directory is the list of its names in the order of [`Name`], cut into leaves behind each name
//! that says so ([`Name::ends_node`]); leaves are cut into index nodes by the same rule one level up,
//! until one node is left. Where to cut depends on the names alone, so equal directories have equal
//! trees whatever their history, one change rewrites one node per level, and two directories are
//! compared by looking only where node ids differ.
//!
//! Nothing here does I/O: nodes come from a [`NodeSource`] and go to a [`NodeSink`]. Stored nodes may
//! be damaged; whatever does not fit together comes back as a [`TreeError`] that names the object.
//! Walks keep their own stack, so the depth of a directory tree is bounded by memory only.

mod error;
mod nodes;

mod cursor;
mod listing;

mod build;
mod update;

mod diff;
mod state;
mod walk;

mod change;
mod moves;
mod report;

mod graft;
mod relabel;

mod merge;

#[cfg(test)]
mod testing;

use crate::object::{Entry, Name, Node, ObjectId, TreeItem};

pub use change::{ChangeKind, PathChange};
pub use diff::{ItemChange, diff};
pub use error::TreeError;
pub use graft::graft;
pub use listing::{Listing, count, list, lookup};
pub use merge::{
    ConflictKind, ContentMerger, Favour, MergeConflict, MergePolicy, MergeRules, MergedContent, MergedState, MergedText, is_text,
    merge, merge_text,
};
pub use nodes::{MemoryNodes, NodeSink, NodeSource};
pub use report::report;
pub use state::{DirectoryChange, LinkChange, StateDiff, diff_states, find, find_item, link_entry};
pub use update::{Built, update};
pub use walk::{Reached, Visitor, reach, walk, walk_links};

/// Returns the entry of a directory; nothing for any other item.
fn as_directory(item: &TreeItem) -> Option<&Entry> {
    match item {
        TreeItem::Entry(entry) if matches!(entry.node, Node::Directory { .. }) => Some(entry),
        _ => None,
    }
}

/// Returns the tree of a directory; nothing for an empty directory and for any other file.
fn tree_of(entry: &Entry) -> Option<ObjectId> {
    match entry.node {
        Node::Directory { tree, .. } => tree,
        _ => None,
    }
}

/// Returns the path of `name` in the directory at `path`, raw bytes joined by `/`.
fn join(path: &[u8], name: &Name) -> Vec<u8> {
    let mut joined = Vec::with_capacity(path.len() + 1 + name.as_bytes().len());
    joined.extend_from_slice(path);
    if !path.is_empty() {
        joined.push(b'/');
    }
    joined.extend_from_slice(name.as_bytes());
    joined
}

/// Returns the path as raw bytes joined by `/`.
fn join_all(path: &[Name]) -> Vec<u8> {
    let parts: Vec<&[u8]> = path.iter().map(Name::as_bytes).collect();
    parts.join(&b'/')
}
