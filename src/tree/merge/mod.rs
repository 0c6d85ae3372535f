//! The three-way merge of two states against what they come from.
//!
//! `side` says what each side changed, looking only where it differs from the base. `plan` decides name by name what the
//! result has, and file by file whether both sides changed the same; `entries` merges what describes one file; `build`
//! applies the plan to our state. Names are matched by path, files and directories by identity, so that a rename on one
//! side carries what the other side changed.

mod build;
mod entries;
mod plan;
mod settle;
mod side;
mod text;

use super::{NodeSink, TreeError};
use crate::object::{Node, Root, Timestamp};
use plan::Plan;
use side::Side;

pub use text::{Favour, MergedText, is_text, merge_text};

/// Which side a conflict takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergePolicy {
    /// Texts get both versions between markers; for anything else ours stays.
    Markers,
    /// Ours.
    Ours,
    /// Theirs.
    Theirs,
}

/// What both sides changed differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConflictKind {
    /// The same lines of a text.
    Content,
    /// Content that is no text, or too large to be merged as one.
    Binary,
    /// The kind of the file, or where a symbolic link leads.
    Type,
    /// Permission bits.
    Mode,
    /// Owner or group.
    Owner,
    /// An extended attribute.
    Xattr,
    /// One side changed what the other deleted.
    Deleted,
    /// One side renamed what the other deleted.
    RenamedDeleted,
    /// Both sides renamed it, to different names.
    Renamed,
    /// Two different things came to one name.
    Occupied,
    /// Two directories were moved into each other.
    Cycle,
}

impl ConflictKind {
    /// Returns the words used in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Binary => "binary",
            Self::Type => "type",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Xattr => "xattr",
            Self::Deleted => "modify/delete",
            Self::RenamedDeleted => "rename/delete",
            Self::Renamed => "rename/rename",
            Self::Occupied => "path",
            Self::Cycle => "directory cycle",
        }
    }
}

/// A place where the sides disagree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MergeConflict {
    /// The path in the result, raw bytes joined by `/`.
    pub path: Vec<u8>,
    /// What they disagree on.
    pub kind: ConflictKind,
    /// Another path concerned: where the other thing of that name is, or the other new name.
    pub other: Option<Vec<u8>>,
}

/// What became of the content of a file that both sides changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergedContent {
    /// It is text and was merged by line; both sides had changed `conflicts` places differently.
    Text {
        /// The merged file.
        node: Node,
        /// How many places are in conflict.
        conflicts: usize,
    },
    /// It cannot be merged by line.
    Binary,
}

/// Merges the content of regular files, which the tree itself cannot read.
pub trait ContentMerger {
    /// Merges two versions of a file; without a base both sides made it.
    fn merge(&self, base: Option<&Node>, ours: &Node, theirs: &Node) -> Result<MergedContent, TreeError>;
}

/// How a merge is to be done.
pub struct MergeRules<'a> {
    /// Which side conflicts take.
    pub policy: MergePolicy,
    /// What our side and theirs are called, for names of what has to make way.
    pub labels: (&'a str, &'a str),
    /// The time of what the merge changes.
    pub now: Timestamp,
    /// Merges content.
    pub content: &'a dyn ContentMerger,
}

/// A merged state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergedState {
    /// The state; not stored itself.
    pub root: Root,
    /// What was in conflict, by path.
    pub conflicts: Vec<MergeConflict>,
}

/// Merges what `theirs` changed since `base` into `ours`. Costs what the sides changed.
///
/// The states are of one store, so an identity means the same file in all of them; `fresh` gives new ones.
pub fn merge(
    sink: &dyn NodeSink,
    (base, ours, theirs): (&Root, &Root, &Root),
    rules: &MergeRules<'_>,
    fresh: &mut dyn FnMut() -> u64,
) -> Result<MergedState, TreeError> {
    if base == ours || ours == theirs {
        return Ok(MergedState { root: theirs.clone(), conflicts: Vec::new() });
    }
    if base == theirs {
        return Ok(MergedState { root: ours.clone(), conflicts: Vec::new() });
    }
    let sides = (Side::find(sink, base, ours)?, Side::find(sink, base, theirs)?);
    let mut plan = Plan::new(sink, ours, sides, rules);
    plan.decide()?;
    plan.build(fresh)
}

#[cfg(test)]
mod tests;
