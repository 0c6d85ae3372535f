//! A change of one path, as a person reads it.

use crate::object::{Entry, EntryKind};

/// What happened to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was absent before.
    Added,
    /// Its content or its times changed.
    Modified,
    /// It is absent now.
    Deleted,
    /// What is here was elsewhere.
    Renamed {
        /// The path it had, in the form of [`PathChange::path`].
        from: Vec<u8>,
    },
    /// Only mode, owner, group or extended attributes changed.
    Mode,
    /// A file of another kind is here.
    Type,
}

impl ChangeKind {
    /// Returns the letter used in listings.
    pub fn letter(&self) -> char {
        match self {
            Self::Added => 'A',
            Self::Modified => 'M',
            Self::Deleted => 'D',
            Self::Renamed { .. } => 'R',
            Self::Mode => 'M',
            Self::Type => 'T',
        }
    }

    /// Returns the word used in tables and JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Modified => "modified",
            Self::Deleted => "deleted",
            Self::Renamed { .. } => "renamed",
            Self::Mode => "mode",
            Self::Type => "type",
        }
    }
}

/// A change of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathChange {
    /// What happened.
    pub kind: ChangeKind,
    /// The path from the top, raw bytes joined by `/`; the top itself is `.`.
    pub path: Vec<u8>,
    /// What was there, for a rename what was at the path it came from. Hard links are resolved.
    pub old: Option<Entry>,
    /// What is there now. Hard links are resolved.
    pub new: Option<Entry>,
}

/// Compares what a path stood for, apart from identity, number of links and change time, none of which
/// a person set. Of two directories neither times nor what is in them counts.
pub(super) fn compare(old: &Entry, new: &Entry) -> Option<ChangeKind> {
    let kind = new.node.kind();
    if old.node.kind() != kind {
        return Some(ChangeKind::Type);
    }
    if kind != EntryKind::Directory && (old.node != new.node || times_differ(old, new)) {
        return Some(ChangeKind::Modified);
    }
    let same = old.mode == new.mode && old.uid == new.uid && old.gid == new.gid && old.xattrs == new.xattrs;
    (!same).then_some(ChangeKind::Mode)
}

/// Compares two directories. New times count unless they are `explained` by a name that came or went.
pub(super) fn compare_directories(old: &Entry, new: &Entry, explained: bool) -> Option<ChangeKind> {
    if !explained && times_differ(old, new) {
        return Some(ChangeKind::Modified);
    }
    compare(old, new)
}

fn times_differ(old: &Entry, new: &Entry) -> bool {
    old.mtime != new.mtime || old.atime != new.atime
}
