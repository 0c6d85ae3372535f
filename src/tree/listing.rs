//! The names of one directory: one of them, how many, or all in order.

use super::cursor::{Cursor, Piece};
use super::nodes::read_child;
use super::{NodeSource, TreeError};
use crate::object::{Name, ObjectId, TreeItem, TreeNode};

/// Returns what the directory has under `name`.
pub fn lookup(source: &dyn NodeSource, tree: Option<ObjectId>, name: &Name) -> Result<Option<TreeItem>, TreeError> {
    let Some(id) = tree else { return Ok(None) };
    let mut node = source.node(&id)?;
    loop {
        node = match &*node {
            TreeNode::Leaf(items) => {
                let found = items.binary_search_by(|(other, _)| other.cmp(name));
                return Ok(found.ok().and_then(|at| items.get(at)).map(|(_, item)| item.clone()));
            }
            TreeNode::Index { level, children } => {
                let at = children.partition_point(|child| child.last < *name);
                let Some(child) = children.get(at) else { return Ok(None) };
                let below = level.checked_sub(1).ok_or(TreeError::Structure { id, what: "an index node of level 0" })?;
                read_child(source, child, below)?
            }
        };
    }
}

/// Returns how many names the directory has.
pub fn count(source: &dyn NodeSource, tree: Option<ObjectId>) -> Result<u64, TreeError> {
    tree.map_or(Ok(0), |id| Ok(source.node(&id)?.count()))
}

/// Lists the names of a directory in order, from the first with a position above `after_position`.
///
/// Position 0 lists all. Nodes are read when the listing gets to them. After an error it ends.
pub fn list<'a>(source: &'a dyn NodeSource, tree: Option<ObjectId>, after_position: u64) -> Listing<'a> {
    Listing { source, tree, cursor: None, after_position, links_only: false, ended: false }
}

/// Lists only names of hard-linked inodes and directories that have such names below them.
pub(super) fn list_links<'a>(source: &'a dyn NodeSource, tree: Option<ObjectId>) -> Listing<'a> {
    Listing { links_only: true, ..list(source, tree, 0) }
}

/// The names of a directory in order, with what they stand for. Made by [`list`].
pub struct Listing<'a> {
    source: &'a dyn NodeSource,
    tree: Option<ObjectId>,
    /// Absent until the first item is asked for.
    cursor: Option<Cursor<'a>>,
    after_position: u64,
    links_only: bool,
    ended: bool,
}

impl<'a> Listing<'a> {
    fn step(&mut self) -> Result<Option<(Name, TreeItem)>, TreeError> {
        let cursor = match &mut self.cursor {
            Some(cursor) => cursor,
            none => none.insert(Cursor::new(self.source, self.tree)?),
        };
        while let Some(piece) = cursor.peek() {
            let (last, has_links) = match &piece {
                Piece::Item(name, item) => (*name, item.has_links()),
                Piece::Subtree(child, _) => (&child.last, child.has_links),
            };
            if last.position() <= self.after_position || self.links_only && !has_links {
                cursor.advance();
            } else if matches!(piece, Piece::Subtree(..)) {
                cursor.open()?;
            } else {
                let found = cursor.item();
                cursor.advance();
                return Ok(found);
            }
        }
        Ok(None)
    }
}

impl Iterator for Listing<'_> {
    type Item = Result<(Name, TreeItem), TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step().transpose();
        self.ended = !matches!(step, Some(Ok(_)));
        step
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{file, name};
    use super::super::{MemoryNodes, NodeSink, update};
    use super::*;
    use crate::object::ChildRef;

    fn names(count: u64) -> Vec<(Name, Option<TreeItem>)> {
        let mut edits: Vec<_> = (0..count).map(|n| (Name::of_identity(n), Some(file(n + 2, "x")))).collect();
        edits.sort_by(|(a, _), (b, _)| a.cmp(b));
        edits
    }

    #[test]
    fn a_listing_goes_on_behind_any_position() {
        let nodes = MemoryNodes::new();
        let edits = names(500);
        let tree = update(&nodes, None, &edits).unwrap().tree;
        for (at, (after, _)) in edits.iter().enumerate() {
            for position in [after.position(), after.position() - 1] {
                let listed: Vec<Name> = list(&nodes, tree, position).map(|found| found.unwrap().0).collect();
                let skipped = if position == after.position() { at + 1 } else { at };
                assert!(listed.iter().eq(edits[skipped..].iter().map(|(name, _)| name)));
            }
        }
        assert_eq!(list(&nodes, tree, 0).count(), 500);
        assert_eq!(count(&nodes, tree).unwrap(), 500);
    }

    #[test]
    fn lookup_finds_each_name_and_no_other() {
        let nodes = MemoryNodes::new();
        let edits = names(300);
        let tree = update(&nodes, None, &edits).unwrap().tree;
        for (name, item) in &edits {
            assert_eq!(lookup(&nodes, tree, name).unwrap(), *item);
        }
        assert_eq!(lookup(&nodes, tree, &name("absent")).unwrap(), None);
        assert_eq!(lookup(&nodes, None, &name("absent")).unwrap(), None);
    }

    #[test]
    fn nodes_out_of_order_end_a_listing_with_an_error() {
        let nodes = MemoryNodes::new();
        let (low, high) = (names(20), names(20)[10].0.clone());
        let leaf = |items: &[(Name, Option<TreeItem>)]| {
            let items = items.iter().map(|(name, item)| (name.clone(), item.clone().unwrap())).collect();
            TreeNode::Leaf(items)
        };
        let (first, second) = (leaf(&low[..11]), leaf(&low[5..]));
        let child = |node: &TreeNode| ChildRef {
            last: node.last().unwrap().clone(),
            id: nodes.put_node(node).unwrap(),
            count: node.count(),
            has_links: false,
        };
        let index = TreeNode::Index { level: 1, children: vec![child(&first), child(&second)] };
        let tree = nodes.put_node(&index).unwrap();
        let listed: Vec<_> = list(&nodes, Some(tree), 0).collect();
        assert_eq!(listed.len(), 12);
        assert_eq!(listed[10].as_ref().unwrap().0, high);
        assert!(matches!(listed[11], Err(TreeError::Structure { .. })));
    }

    #[test]
    fn a_node_below_itself_is_an_error() {
        let nodes = MemoryNodes::new();
        let id = ObjectId::of(b"loop");
        let child = ChildRef { last: name("a"), id, count: 1, has_links: false };
        nodes.corrupt(id, TreeNode::Index { level: 1, children: vec![child] });
        assert!(list(&nodes, Some(id), 0).any(|found| found.is_err()));
        assert!(lookup(&nodes, Some(id), &name("a")).is_err());
    }
}
