//! The merge of what describes one file: content, permissions, owner, extended attributes, times.

use super::{ConflictKind, ContentMerger, MergePolicy, MergeRules, MergedContent};
use crate::object::{Entry, Node, Xattrs};
use crate::tree::TreeError;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Says whether a side changed a file in anything that a person would miss: times do not count.
pub(super) fn changed(base: &Entry, side: &Entry) -> bool {
    base.node != side.node || attributes_differ(base, side)
}

fn attributes_differ(a: &Entry, b: &Entry) -> bool {
    a.mode != b.mode || a.uid != b.uid || a.gid != b.gid || a.xattrs != b.xattrs
}

/// Merges one value; nothing when both sides changed it differently.
fn three<T: PartialEq + Clone>(base: Option<&T>, ours: &T, theirs: &T) -> Option<T> {
    if ours == theirs || base == Some(theirs) {
        return Some(ours.clone());
    }
    (base == Some(ours)).then(|| theirs.clone())
}

/// Merges two versions of a file under our identity. Conflicts take the side that the policy says.
pub(super) fn merge_files(
    base: Option<&Entry>,
    ours: &Entry,
    theirs: &Entry,
    rules: &MergeRules<'_>,
) -> Result<(Entry, Vec<ConflictKind>), TreeError> {
    let (mut merged, mut conflicts) = merge_attributes(base, ours, theirs, rules.policy);
    let base_node = base.map(|base| &base.node);
    let node = match three(base_node, &ours.node, &theirs.node) {
        Some(node) => node,
        None => merge_nodes(base_node, &ours.node, &theirs.node, rules, &mut conflicts)?,
    };
    merged.mtime = match &node {
        node if *node == ours.node && *node == theirs.node => merge_times(base, ours, theirs).0,
        node if *node == ours.node => ours.mtime,
        node if *node == theirs.node => theirs.mtime,
        _ => rules.now,
    };
    merged.node = node;
    if changed(ours, &merged) || merged.mtime != ours.mtime || merged.atime != ours.atime {
        merged.ctime = rules.now;
    }
    Ok((merged, conflicts))
}

fn merge_nodes(
    base: Option<&Node>,
    ours: &Node,
    theirs: &Node,
    rules: &MergeRules<'_>,
    conflicts: &mut Vec<ConflictKind>,
) -> Result<Node, TreeError> {
    let content: &dyn ContentMerger = rules.content;
    let kind = match (ours, theirs) {
        (Node::File { .. }, Node::File { .. }) => match content.merge(base, ours, theirs)? {
            MergedContent::Text { node, conflicts: 0 } => return Ok(node),
            MergedContent::Text { node, .. } => {
                conflicts.push(ConflictKind::Content);
                return Ok(node);
            }
            MergedContent::Binary => ConflictKind::Binary,
        },
        _ => ConflictKind::Type,
    };
    conflicts.push(kind);
    Ok(if rules.policy == MergePolicy::Theirs { theirs.clone() } else { ours.clone() })
}

/// Merges everything but content. Directories use it too; of theirs neither identity nor number of links is taken.
pub(super) fn merge_attributes(
    base: Option<&Entry>,
    ours: &Entry,
    theirs: &Entry,
    policy: MergePolicy,
) -> (Entry, Vec<ConflictKind>) {
    let mut merged = ours.clone();
    let mut conflicts = Vec::new();
    let preferred = if policy == MergePolicy::Theirs { theirs } else { ours };
    match three(base.map(|base| &base.mode), &ours.mode, &theirs.mode) {
        Some(mode) => merged.mode = mode,
        None => {
            merged.mode = preferred.mode;
            conflicts.push(ConflictKind::Mode);
        }
    }
    let owner = |entry: &Entry| (entry.uid, entry.gid);
    match three(base.map(owner).as_ref(), &owner(ours), &owner(theirs)) {
        Some(owner) => (merged.uid, merged.gid) = owner,
        None => {
            (merged.uid, merged.gid) = owner(preferred);
            conflicts.push(ConflictKind::Owner);
        }
    }
    let (xattrs, agreed) = merge_xattrs(base.map(|base| &base.xattrs), &ours.xattrs, &theirs.xattrs, policy);
    merged.xattrs = xattrs;
    if !agreed {
        conflicts.push(ConflictKind::Xattr);
    }
    (merged.mtime, merged.atime) = merge_times(base, ours, theirs);
    (merged, conflicts)
}

/// Times are never in conflict: when both sides moved one, the later is right.
fn merge_times(base: Option<&Entry>, ours: &Entry, theirs: &Entry) -> (crate::object::Timestamp, crate::object::Timestamp) {
    let later = |time: fn(&Entry) -> crate::object::Timestamp| {
        three(base.map(time).as_ref(), &time(ours), &time(theirs)).unwrap_or_else(|| time(ours).max(time(theirs)))
    };
    (later(|entry| entry.mtime), later(|entry| entry.atime))
}

/// Merges extended attributes one by one; says whether the sides agreed.
fn merge_xattrs(base: Option<&Xattrs>, ours: &Xattrs, theirs: &Xattrs, policy: MergePolicy) -> (Xattrs, bool) {
    if let Some(xattrs) = three(base, ours, theirs) {
        return (xattrs, true);
    }
    let value = |xattrs: &Xattrs, name: &[u8]| xattrs.as_ref().and_then(|xattrs| xattrs.get(name).cloned());
    let names: BTreeSet<&[u8]> =
        [ours, theirs].into_iter().flatten().flat_map(|xattrs| xattrs.keys()).map(|name| &**name).collect();
    let mut merged = BTreeMap::new();
    let mut agreed = true;
    for name in names {
        let base = value(base.unwrap_or(&None), name);
        let (ours, theirs) = (value(ours, name), value(theirs, name));
        let chosen = three(Some(&base), &ours, &theirs).unwrap_or_else(|| {
            agreed = false;
            if policy == MergePolicy::Theirs { theirs } else { ours }
        });
        if let Some(chosen) = chosen {
            merged.insert(Box::from(name), chosen);
        }
    }
    ((!merged.is_empty()).then(|| Arc::new(merged)), agreed)
}
