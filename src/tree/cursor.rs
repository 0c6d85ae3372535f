//! A place in the tree of one directory.

use super::nodes::read_child;
use super::{NodeSource, TreeError};
use crate::object::{ChildRef, Name, ObjectId, TreeItem, TreeNode};
use std::sync::Arc;

/// A place in the tree of one directory, moving from its first name to its last.
///
/// It stands before a piece: an item, or a whole subtree that the caller may open or step over
/// unread. The order of names is checked across nodes, so a damaged tree ends in an error.
pub(super) struct Cursor<'a> {
    source: &'a dyn NodeSource,
    /// The nodes from the root down to the piece; each has a piece at its place.
    frames: Vec<Frame>,
}

struct Frame {
    id: ObjectId,
    node: Arc<TreeNode>,
    at: usize,
}

/// What a cursor stands before.
pub(super) enum Piece<'c> {
    /// One name.
    Item(&'c Name, &'c TreeItem),
    /// A node of that level with all its names, not read yet.
    Subtree(&'c ChildRef, u8),
}

impl<'a> Cursor<'a> {
    /// Stands before the first piece of the root node; at the end at once when there is no tree.
    pub fn new(source: &'a dyn NodeSource, tree: Option<ObjectId>) -> Result<Self, TreeError> {
        let mut cursor = Self { source, frames: Vec::new() };
        if let Some(id) = tree {
            let node = source.node(&id)?;
            cursor.enter(id, node)?;
        }
        Ok(cursor)
    }

    /// Returns the piece here; nothing at the end.
    pub fn peek(&self) -> Option<Piece<'_>> {
        let frame = self.frames.last()?;
        match &*frame.node {
            TreeNode::Leaf(items) => items.get(frame.at).map(|(name, item)| Piece::Item(name, item)),
            TreeNode::Index { level, children } => {
                children.get(frame.at).map(|child| Piece::Subtree(child, level.saturating_sub(1)))
            }
        }
    }

    /// Returns a copy of the item here; nothing before a subtree and at the end.
    pub fn item(&self) -> Option<(Name, TreeItem)> {
        match self.peek()? {
            Piece::Item(name, item) => Some((name.clone(), item.clone())),
            Piece::Subtree(..) => None,
        }
    }

    /// Reads the subtree here and stands before its first piece. Does nothing before an item.
    pub fn open(&mut self) -> Result<(), TreeError> {
        let Some(frame) = self.frames.last() else { return Ok(()) };
        let parent = Arc::clone(&frame.node);
        let TreeNode::Index { level, children } = &*parent else { return Ok(()) };
        let Some(child) = children.get(frame.at) else { return Ok(()) };
        let below = level.checked_sub(1).ok_or(TreeError::Structure { id: frame.id, what: "an index node of level 0" })?;
        let node = read_child(self.source, child, below)?;
        self.enter(child.id, node)
    }

    /// Steps over the piece here.
    pub fn advance(&mut self) {
        while let Some(frame) = self.frames.last_mut() {
            frame.at += 1;
            if frame.at < frame.len() {
                return;
            }
            self.frames.pop();
        }
    }

    /// Says whether the piece here is the last one of the directory.
    pub fn is_last(&self) -> bool {
        self.frames.iter().all(|frame| frame.at + 1 == frame.len())
    }

    /// Returns the node that holds the piece here.
    pub fn node(&self) -> Option<(ObjectId, Arc<TreeNode>)> {
        self.frames.last().map(|frame| (frame.id, Arc::clone(&frame.node)))
    }

    fn enter(&mut self, id: ObjectId, node: Arc<TreeNode>) -> Result<(), TreeError> {
        let frame = Frame { id, node, at: 0 };
        let first = frame.name(0).ok_or(TreeError::Structure { id, what: "it is empty" })?;
        if self.before().is_some_and(|before| before >= first) {
            return Err(TreeError::Structure { id, what: "its names are not behind those of the node before it" });
        }
        self.frames.push(frame);
        Ok(())
    }

    /// Returns the last name before the piece here.
    fn before(&self) -> Option<&Name> {
        let frame = self.frames.iter().rev().find(|frame| frame.at > 0)?;
        frame.name(frame.at - 1)
    }
}

impl Frame {
    fn len(&self) -> usize {
        match &*self.node {
            TreeNode::Leaf(items) => items.len(),
            TreeNode::Index { children, .. } => children.len(),
        }
    }

    /// Returns the last name of the piece at a place.
    fn name(&self, at: usize) -> Option<&Name> {
        match &*self.node {
            TreeNode::Leaf(items) => items.get(at).map(|(name, _)| name),
            TreeNode::Index { children, .. } => children.get(at).map(|child| &child.last),
        }
    }
}
