//! Walks over everything a state holds: its paths, or its objects.

use super::listing::{Listing, list, list_links};
use super::{NodeSource, TreeError, as_directory, tree_of};
use crate::object::{Content, Entry, Name, Node, ObjectId, Root, TreeItem, TreeNode};

/// What a walk calls with each path from the top and what stands there; an error ends the walk.
pub type Visitor<'v> = dyn FnMut(&[Name], &TreeItem) -> Result<(), TreeError> + 'v;

/// Visits everything below the top of a state, each directory before what is in it, names in their order.
///
/// Directories may be nested as deep as memory allows.
pub fn walk(source: &dyn NodeSource, root: &Root, visit: &mut Visitor<'_>) -> Result<(), TreeError> {
    walk_with(&|tree| list(source, tree, 0), root.tree(), visit)
}

/// Visits the names of hard-linked inodes below `tree`, and the directories that lead to them.
pub fn walk_links(source: &dyn NodeSource, tree: Option<ObjectId>, visit: &mut Visitor<'_>) -> Result<(), TreeError> {
    walk_with(&|tree| list_links(source, tree), tree, visit)
}

fn walk_with<'a>(
    list: &dyn Fn(Option<ObjectId>) -> Listing<'a>,
    tree: Option<ObjectId>,
    visit: &mut Visitor<'_>,
) -> Result<(), TreeError> {
    let mut path = Vec::new();
    let mut listings = vec![list(tree)];
    while let Some(listing) = listings.last_mut() {
        let Some(found) = listing.next() else {
            listings.pop();
            path.pop();
            continue;
        };
        let (name, item) = found?;
        path.push(name);
        visit(&path, &item)?;
        match as_directory(&item) {
            Some(directory) => listings.push(list(tree_of(directory))),
            None => drop(path.pop()),
        }
    }
    Ok(())
}

/// The kind of an object met by [`reach`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reached {
    /// A node of a directory or of the link table.
    Node,
    /// The content of a file.
    Blob,
    /// The list of the pieces of a file. The pieces themselves are not visited: they stand in the manifest.
    Manifest,
}

/// Visits the id of every node and content object of a state.
///
/// Where `enter` returns false for a node, nothing below it is visited on its account: a caller that
/// remembers what it saw visits each object once, over any number of states.
pub fn reach(source: &dyn NodeSource, root: &Root, enter: &mut dyn FnMut(&ObjectId, Reached) -> bool) -> Result<(), TreeError> {
    let mut waiting: Vec<ObjectId> = root.links.into_iter().chain(root.tree()).collect();
    while let Some(id) = waiting.pop() {
        if !enter(&id, Reached::Node) {
            continue;
        }
        match &*source.node(&id)? {
            TreeNode::Index { children, .. } => waiting.extend(children.iter().map(|child| child.id)),
            TreeNode::Leaf(items) => {
                for (_, item) in items {
                    if let TreeItem::Entry(entry) = item {
                        waiting.extend(reach_entry(entry, enter));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Visits the content of an entry; returns the tree when it is a directory.
fn reach_entry(entry: &Entry, enter: &mut dyn FnMut(&ObjectId, Reached) -> bool) -> Option<ObjectId> {
    match &entry.node {
        Node::Directory { tree, .. } => return *tree,
        Node::File { content: Content::Blob(id), .. } => enter(id, Reached::Blob),
        Node::File { content: Content::Manifest(id), .. } => enter(id, Reached::Manifest),
        _ => false,
    };
    None
}

#[cfg(test)]
mod tests {
    use super::super::testing::{TestState, name};
    use super::super::{MemoryNodes, join_all, update};
    use super::*;
    use std::collections::HashSet;

    fn paths(nodes: &MemoryNodes, root: &Root) -> Vec<String> {
        let mut paths = Vec::new();
        walk(nodes, root, &mut |path, _| {
            paths.push(String::from_utf8(join_all(path)).unwrap());
            Ok(())
        })
        .unwrap();
        paths
    }

    #[test]
    fn a_walk_meets_every_path_and_parents_first() {
        let nodes = MemoryNodes::new();
        let mut state = TestState::with(&["a/b/file", "a/b/other", "c/file"]);
        state.directory("empty");
        let found = paths(&nodes, &state.root(&nodes));
        let mut sorted = found.clone();
        sorted.sort();
        assert_eq!(sorted, ["a", "a/b", "a/b/file", "a/b/other", "c", "c/file", "empty"]);
        let place = |path: &str| found.iter().position(|other| other == path).unwrap();
        assert!(place("a") < place("a/b") && place("a/b") < place("a/b/file"));
    }

    #[test]
    fn ten_thousand_levels_are_walked() {
        let nodes = MemoryNodes::new();
        let mut root = TestState::default().root(&nodes);
        for level in 0..10_000u64 {
            let mut below = root.directory.clone();
            below.identity = 100_000 + level;
            let tree = update(&nodes, None, &[(name("d"), Some(TreeItem::Entry(below)))]).unwrap().tree;
            root.directory.node = Node::Directory { tree, has_links: false };
        }
        let mut deepest = 0;
        walk(&nodes, &root, &mut |path, _| {
            deepest = deepest.max(path.len());
            Ok(())
        })
        .unwrap();
        assert_eq!(deepest, 10_000);
        let mut seen = HashSet::new();
        reach(&nodes, &root, &mut |id, _| seen.insert(*id)).unwrap();
        assert_eq!(seen.len(), 10_000);
    }

    #[test]
    fn reach_meets_nodes_and_content_once() {
        let nodes = MemoryNodes::new();
        let mut state = TestState::with(&["a/file", "a/linked"]);
        state.link("a/linked", "b");
        let root = state.root(&nodes);
        let mut seen = HashSet::new();
        let mut blobs = 0;
        reach(&nodes, &root, &mut |id, kind| {
            blobs += usize::from(kind == Reached::Blob && !seen.contains(id));
            seen.insert(*id)
        })
        .unwrap();
        assert_eq!((seen.len(), blobs), (5, 2)); // Top, `a` and the link table; two contents.
    }
}
