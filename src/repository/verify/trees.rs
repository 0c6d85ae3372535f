//! Are the directories of every kept state whole? Each node is read once, however many states share it.

use super::{Check, Finding, Holder, KeptRoots, Verified, failed};
use crate::object::{ChildRef, Content, Entry, Manifest, Node, ObjectId, Root, Timestamp, TreeItem, TreeNode};
use crate::repository::{Repository, RepositoryError};
use std::collections::HashMap;

/// What is known of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark(u8);

impl Mark {
    /// The index names it.
    pub const KNOWN: Self = Self(1);
    /// It cannot be read.
    pub const DAMAGED: Self = Self(2);
    /// It was looked into.
    pub const VISITED: Self = Self(4);
    /// It is damaged, or something below it.
    pub const TAINTED: Self = Self(8);

    /// Says whether the mark has `other`.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl std::ops::BitOrAssign for Mark {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// What is known of each object, by id.
pub type Marks = HashMap<ObjectId, Mark>;

/// How an object is to be looked into.
#[derive(Clone, Debug)]
enum Kind {
    Root,
    /// A node, and what its parent says about it.
    Node(Option<(ChildRef, u8)>),
    Manifest(u64),
    Blob,
}

struct Frame {
    id: ObjectId,
    below: Vec<(ObjectId, Kind)>,
    tainted: bool,
}

/// The walk over all states.
struct Walk<'a> {
    repository: &'a Repository,
    marks: &'a mut Marks,
    found: &'a mut Verified,
    /// Largest identity met.
    identity: u64,
}

impl Repository {
    /// Marks what is damaged and everything above it. Returns the states that are kept.
    pub(super) fn verify_trees(&self, check: &Check<'_>, marks: &mut Marks, found: &mut Verified) -> KeptRoots {
        let roots = self.roots_to_verify(found);
        let total = roots.len() as u64;
        let mut walk = Walk { repository: self, marks, found, identity: 0 };
        for (at, (_, root)) in roots.iter().enumerate() {
            (check.progress)("states", at as u64, total);
            walk.visit(*root);
        }
        let identity = walk.identity;
        match self.history.next_identity() {
            Ok(next) if next <= identity => {
                let sentence = format!("identity {next} is to be given to a new file, and {identity} is in use");
                found.findings.push(Finding::new("database", sentence));
            }
            Ok(_) => {}
            Err(err) => found.findings.push(failed("database", &err.into())),
        }
        roots
    }

    fn roots_to_verify(&self, found: &mut Verified) -> KeptRoots {
        let mut roots: KeptRoots = Vec::new();
        let failure = |err| failed("database", &RepositoryError::from(err));
        match self.history.branches() {
            Ok(rows) => roots.extend(rows.into_iter().map(|row| (Holder::Branch(row.name), row.live_root))),
            Err(err) => found.findings.push(failure(err)),
        }
        let scanned = self.history.each_commit(|row| {
            // Rows that say nothing are looked at with the records.
            if let Ok((row, false)) = row {
                roots.push((Holder::Checkpoint(row.id), row.root_tree));
            }
        });
        if let Err(err) = scanned {
            found.findings.push(failure(err));
        }
        match self.history.kept_roots(Timestamp::now()) {
            Ok(kept) => {
                let known: std::collections::HashSet<ObjectId> = roots.iter().map(|(_, root)| *root).collect();
                roots.extend(kept.into_iter().filter(|root| !known.contains(root)).map(|root| (Holder::Operation, root)));
            }
            Err(err) => found.findings.push(failure(err)),
        }
        roots
    }
}

impl Walk<'_> {
    /// Looks at everything below a state that was not looked at yet.
    fn visit(&mut self, root: ObjectId) {
        let mut frames: Vec<Frame> = Vec::new();
        let mut next = Some((root, Kind::Root));
        loop {
            if let Some((id, kind)) = next.take() {
                match self.enter(id, kind) {
                    Ok(frame) => frames.push(frame),
                    Err(tainted) => {
                        if let Some(above) = frames.last_mut() {
                            above.tainted |= tainted;
                        }
                    }
                }
            }
            let Some(frame) = frames.last_mut() else { return };
            next = frame.below.pop();
            if next.is_none() {
                let (id, tainted) = (frame.id, frame.tainted);
                frames.pop();
                if tainted {
                    *self.marks.entry(id).or_default() |= Mark::TAINTED;
                    if let Some(above) = frames.last_mut() {
                        above.tainted = true;
                    }
                }
            }
        }
    }

    /// Returns what is below an object, or whether it is tainted when there is nothing to look into.
    fn enter(&mut self, id: ObjectId, kind: Kind) -> Result<Frame, bool> {
        let mark = self.marks.entry(id).or_default();
        if !mark.has(Mark::KNOWN) && !mark.has(Mark::DAMAGED) {
            *mark |= Mark::DAMAGED;
            self.found.findings.push(Finding::of_object(id, format!("object {id} is missing: the index does not name it")));
        }
        if mark.has(Mark::DAMAGED) {
            *mark |= Mark::TAINTED;
        }
        if mark.has(Mark::TAINTED) || mark.has(Mark::VISITED) || matches!(kind, Kind::Blob) {
            return Err(mark.has(Mark::TAINTED));
        }
        *mark |= Mark::VISITED;
        match self.below(&id, kind) {
            Ok(below) => Ok(Frame { id, below, tainted: false }),
            Err(sentence) => {
                let mark = self.marks.entry(id).or_default();
                *mark |= Mark::DAMAGED;
                *mark |= Mark::TAINTED;
                self.found.findings.push(Finding::of_object(id, sentence));
                Err(true)
            }
        }
    }

    fn below(&mut self, id: &ObjectId, kind: Kind) -> Result<Vec<(ObjectId, Kind)>, String> {
        let bytes = self.repository.read_stored(id).map_err(|err| err.to_string())?;
        let undecodable = |err| format!("object {id} is damaged: {err}");
        match kind {
            Kind::Blob => Ok(Vec::new()),
            Kind::Root => {
                let root = Root::decode(&bytes).map_err(undecodable)?;
                self.identity = self.identity.max(root.directory.identity);
                Ok(root.links.into_iter().chain(root.tree()).map(|id| (id, Kind::Node(None))).collect())
            }
            Kind::Manifest(size_bytes) => {
                let manifest = Manifest::decode(&bytes).map_err(undecodable)?;
                if manifest.size_bytes() != size_bytes {
                    return Err(format!("object {id} lists {} bytes of a file of {size_bytes}", manifest.size_bytes()));
                }
                Ok(manifest.extents.iter().filter_map(|extent| extent.blob).map(|id| (id, Kind::Blob)).collect())
            }
            Kind::Node(expected) => {
                self.found.nodes += 1;
                let node = TreeNode::decode(&bytes).map_err(undecodable)?;
                if let Some((child, level)) = expected
                    && (node.level(), node.last(), node.count(), node.has_links())
                        != (level, Some(&child.last), child.count, child.has_links)
                {
                    return Err(format!("object {id} is not the directory node that its parent describes"));
                }
                Ok(self.below_node(node))
            }
        }
    }

    fn below_node(&mut self, node: TreeNode) -> Vec<(ObjectId, Kind)> {
        match node {
            TreeNode::Index { level, children } => {
                let below = |child: ChildRef| (child.id, Kind::Node(Some((child, level.saturating_sub(1)))));
                children.into_iter().map(below).collect()
            }
            TreeNode::Leaf(items) => {
                for (_, item) in &items {
                    self.identity = self.identity.max(item.identity());
                }
                items.iter().filter_map(|(_, item)| below_item(item)).collect()
            }
        }
    }
}

fn below_item(item: &TreeItem) -> Option<(ObjectId, Kind)> {
    let TreeItem::Entry(Entry { node, .. }) = item else { return None };
    match node {
        Node::Directory { tree, .. } => tree.map(|id| (id, Kind::Node(None))),
        Node::File { content: Content::Blob(id), .. } => Some((*id, Kind::Blob)),
        Node::File { content: Content::Manifest(id), size_bytes, .. } => Some((*id, Kind::Manifest(*size_bytes))),
        _ => None,
    }
}
