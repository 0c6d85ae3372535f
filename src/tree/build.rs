//! The builder that cuts a sorted stream of names into nodes.

use super::nodes::read_child;
use super::{Built, NodeSink, TreeError};
use crate::object::{ChildRef, Name, ObjectId, TreeItem, TreeNode};
use std::sync::Arc;

/// Cuts a sorted stream of names and whole subtrees into nodes, one open node per level.
///
/// A node is closed only when something follows it: until then it may turn out to be the root,
/// and an index node above it would never be needed.
pub(super) struct Builder<'a> {
    sink: &'a dyn NodeSink,
    leaf: Vec<(Name, TreeItem)>,
    /// The open index nodes, level 1 first.
    indexes: Vec<Vec<ChildRef>>,
    /// By level, the nodes read last: what comes out equal to one of them is not stored again.
    known: Vec<Vec<(ObjectId, Arc<TreeNode>)>>,
}

/// A node comes out equal to the one just read or, when it was closed late, the one before.
const KNOWN_MAX: usize = 2;

impl<'a> Builder<'a> {
    /// Starts without a name.
    pub fn new(sink: &'a dyn NodeSink) -> Self {
        Self { sink, leaf: Vec::new(), indexes: Vec::new(), known: Vec::new() }
    }

    /// Tells of a stored node whose names are going to be pushed.
    pub fn remember(&mut self, id: ObjectId, node: Arc<TreeNode>) {
        let level = usize::from(node.level());
        if self.known.len() <= level {
            self.known.resize_with(level + 1, Vec::new);
        }
        let known = &mut self.known[level];
        known.insert(0, (id, node));
        known.truncate(KNOWN_MAX);
    }

    /// Appends a name; it is behind all that was pushed before.
    pub fn push(&mut self, name: Name, item: TreeItem) -> Result<(), TreeError> {
        if self.leaf.last().is_some_and(|(last, _)| last.ends_node(0)) {
            self.close(0)?;
        }
        self.leaf.push((name, item));
        Ok(())
    }

    /// Says whether a stored node of `level` would begin here in the canonical form too.
    pub fn begins_node(&self, level: u8) -> bool {
        self.last().is_none_or(|last| last.ends_node(level))
    }

    /// Appends a stored node of `level` with all its names. It must begin a node here, see [`Self::begins_node`].
    pub fn take(&mut self, child: ChildRef, level: u8) -> Result<(), TreeError> {
        for open in 0..=level {
            self.close(open)?;
        }
        self.push_child(child, level + 1)
    }

    /// Closes all nodes and returns the tree: the lowest level that has one node only.
    pub fn finish(mut self) -> Result<Built, TreeError> {
        let mut level = 0u8;
        while self.indexes.iter().skip(usize::from(level)).any(|above| !above.is_empty()) {
            self.close(level)?;
            level += 1;
        }
        let root = self.open_node(level);
        if root.last().is_none() {
            return Ok(Built::default());
        }
        if let TreeNode::Index { children, .. } = &root
            && let [only] = children.as_slice()
        {
            return self.lower(only.clone(), level - 1);
        }
        Ok(Built { tree: Some(self.store(&root)?), has_links: root.has_links(), count: root.count() })
    }

    /// Goes down from a lone node of `level` to the lowest level that still has one node only.
    fn lower(&self, mut only: ChildRef, mut level: u8) -> Result<Built, TreeError> {
        while level > 0 {
            let node = read_child(self.sink, &only, level)?;
            let TreeNode::Index { children, .. } = &*node else { break };
            let [child] = children.as_slice() else { break };
            only = child.clone();
            level -= 1;
        }
        Ok(Built { tree: Some(only.id), has_links: only.has_links, count: only.count })
    }

    /// Returns the last name so far: lower levels hold what came later.
    fn last(&self) -> Option<&Name> {
        let of_indexes = || self.indexes.iter().find_map(|children| children.last()).map(|child| &child.last);
        self.leaf.last().map(|(name, _)| name).or_else(of_indexes)
    }

    /// Takes the open node of `level` out of the builder; it may be empty.
    fn open_node(&mut self, level: u8) -> TreeNode {
        match level.checked_sub(1) {
            None => TreeNode::Leaf(std::mem::take(&mut self.leaf)),
            Some(at) => {
                let children = self.indexes.get_mut(usize::from(at)).map(std::mem::take).unwrap_or_default();
                TreeNode::Index { level, children }
            }
        }
    }

    /// Closes the node that is open on `level`, if one is.
    fn close(&mut self, level: u8) -> Result<(), TreeError> {
        let node = self.open_node(level);
        let Some(last) = node.last().cloned() else { return Ok(()) };
        let child = ChildRef { last, id: self.store(&node)?, count: node.count(), has_links: node.has_links() };
        self.push_child(child, level + 1)
    }

    /// Appends a node to the open node of `level`. Calls itself through [`Self::close`], once per level at most.
    fn push_child(&mut self, child: ChildRef, level: u8) -> Result<(), TreeError> {
        let at = usize::from(level) - 1;
        if self.indexes.len() <= at {
            self.indexes.resize_with(at + 1, Vec::new);
        }
        if self.indexes[at].last().is_some_and(|before| before.last.ends_node(level)) {
            self.close(level)?;
        }
        self.indexes[at].push(child);
        Ok(())
    }

    fn store(&self, node: &TreeNode) -> Result<ObjectId, TreeError> {
        let known = self.known.get(usize::from(node.level())).and_then(|known| known.iter().find(|(_, old)| **old == *node));
        match known {
            Some((id, _)) => Ok(*id),
            None => self.sink.put_node(node),
        }
    }
}
