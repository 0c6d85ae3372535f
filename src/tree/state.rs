//! Whole states: finding a path in one, comparing two.

use super::{ItemChange, NodeSource, TreeError, as_directory, diff, lookup, tree_of};
use crate::object::{Entry, Name, Root, TreeItem};

/// Resolves a path in a state and returns the entry there; no symbolic link is followed, hard links
/// are resolved through the link table. The empty path is the top.
pub fn find(source: &dyn NodeSource, root: &Root, path: &[Name]) -> Result<Option<Entry>, TreeError> {
    find_item(source, root, path)?.map(|item| resolve(source, root, &item)).transpose()
}

/// Resolves a path in a state and returns what the directory has under the last name.
pub fn find_item(source: &dyn NodeSource, root: &Root, path: &[Name]) -> Result<Option<TreeItem>, TreeError> {
    let mut item = TreeItem::Entry(root.directory.clone());
    for name in path {
        let Some(directory) = as_directory(&item) else { return Ok(None) };
        match lookup(source, tree_of(directory), name)? {
            Some(below) => item = below,
            None => return Ok(None),
        }
    }
    Ok(Some(item))
}

/// Returns what the link table of a state says about an inode.
pub fn link_entry(source: &dyn NodeSource, root: &Root, identity: u64) -> Result<Option<Entry>, TreeError> {
    match lookup(source, root.links, &Name::of_identity(identity))? {
        Some(item) => checked_link(&Name::of_identity(identity), item).map(Some),
        None => Ok(None),
    }
}

/// Returns the entry an item stands for.
pub(super) fn resolve(source: &dyn NodeSource, root: &Root, item: &TreeItem) -> Result<Entry, TreeError> {
    match item {
        TreeItem::Entry(entry) => Ok(entry.clone()),
        TreeItem::Link(identity) => link_entry(source, root, *identity)?.ok_or(TreeError::LinkMissing { identity: *identity }),
    }
}

/// Returns the entry of an item of the link table, after checking that it stands under its own name.
fn checked_link(name: &Name, item: TreeItem) -> Result<Entry, TreeError> {
    match item {
        TreeItem::Entry(entry) if Name::of_identity(entry.identity) == *name => Ok(entry),
        _ => Err(TreeError::LinkMismatch { name: name.clone() }),
    }
}

/// What differs between two states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateDiff {
    /// Directories that differ, parents before children.
    pub directories: Vec<DirectoryChange>,
    /// Hard-linked inodes that differ.
    pub links: Vec<LinkChange>,
}

/// A directory present in both states at the same path with the same identity, whose entry differs in
/// attributes or tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryChange {
    /// Where it is: the place of its parent among the directories that differ, and the name there; none for the top. A path
    /// for each would cost the square of the depth.
    pub place: Option<(usize, Name)>,
    /// The entry it had.
    pub old: Entry,
    /// The entry it has.
    pub new: Entry,
    /// The names that changed, in name order. A name that stands for the same directory in both states
    /// is not here: that directory has a change of its own.
    pub items: Vec<ItemChange>,
}

/// A hard-linked inode that differs between two states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkChange {
    /// The inode.
    pub identity: u64,
    /// What the link table said; absent when the inode had one name or none.
    pub old: Option<Entry>,
    /// What the link table says; absent when the inode is gone from it.
    pub new: Option<Entry>,
}

/// Compares two states, going down only where tree ids differ.
pub fn diff_states(source: &dyn NodeSource, old: &Root, new: &Root) -> Result<StateDiff, TreeError> {
    let mut directories = Vec::new();
    let mut waiting = Vec::new();
    if old.directory != new.directory {
        waiting.push((None, old.directory.clone(), new.directory.clone()));
    }
    while let Some((place, old, new)) = waiting.pop() {
        let mut items = diff(source, tree_of(&old), tree_of(&new))?;
        let first = waiting.len();
        items.retain(|change| match same_directory(change) {
            Some((old, new)) => {
                waiting.push((Some((directories.len(), change.name.clone())), old.clone(), new.clone()));
                false
            }
            None => true,
        });
        waiting[first..].reverse(); // The last one waiting comes first.
        directories.push(DirectoryChange { place, old, new, items });
    }
    Ok(StateDiff { directories, links: diff_links(source, old, new)? })
}

/// Compares the link tables of two states, in the order of [`Name::of_identity`].
pub(super) fn diff_links(source: &dyn NodeSource, old: &Root, new: &Root) -> Result<Vec<LinkChange>, TreeError> {
    let mut links = Vec::new();
    for change in diff(source, old.links, new.links)? {
        let old = change.old.map(|item| checked_link(&change.name, item)).transpose()?;
        let new = change.new.map(|item| checked_link(&change.name, item)).transpose()?;
        if let Some(entry) = new.as_ref().or(old.as_ref()) {
            links.push(LinkChange { identity: entry.identity, old, new });
        }
    }
    Ok(links)
}

/// Returns both entries when the name stands for the same directory before and after.
fn same_directory(change: &ItemChange) -> Option<(&Entry, &Entry)> {
    let old = as_directory(change.old.as_ref()?)?;
    let new = as_directory(change.new.as_ref()?)?;
    (old.identity == new.identity).then_some((old, new))
}

#[cfg(test)]
mod tests {
    use super::super::MemoryNodes;
    use super::super::testing::{TestState, names_of};
    use super::*;

    #[test]
    fn a_path_is_found_through_directories_and_hard_links() {
        let nodes = MemoryNodes::new();
        let mut state = TestState::with(&["a/b/file"]);
        state.link("a/b/file", "second");
        let root = state.root(&nodes);
        let file = find(&nodes, &root, &names_of("a/b/file")).unwrap().unwrap();
        assert_eq!(file.nlink, 2);
        assert_eq!(find(&nodes, &root, &names_of("second")).unwrap(), Some(file.clone()));
        assert_eq!(find_item(&nodes, &root, &names_of("second")).unwrap(), Some(TreeItem::Link(file.identity)));
        assert_eq!(find(&nodes, &root, &[]).unwrap(), Some(root.directory.clone()));
        assert_eq!(find(&nodes, &root, &names_of("a/b/file/x")).unwrap(), None);
        assert_eq!(find(&nodes, &root, &names_of("a/c")).unwrap(), None);
    }

    #[test]
    fn a_difference_names_each_directory_once_parents_first() {
        let nodes = MemoryNodes::new();
        let mut state = TestState::with(&["a/b/file", "a/same/file", "c/file", "d/file"]);
        state.link("d/file", "d/other");
        let old = state.root(&nodes);
        state.write("a/b/file", "changed");
        state.write("d/other", "changed");
        state.remove("c/file");
        let new = state.root(&nodes);
        let found = diff_states(&nodes, &old, &new).unwrap();
        let mut paths: Vec<Vec<u8>> = Vec::new();
        for change in &found.directories {
            paths.push(change.place.as_ref().map_or_else(Vec::new, |(parent, name)| super::super::join(&paths[*parent], name)));
        }
        assert_eq!(paths[0], b"");
        let a = paths.iter().position(|path| path == b"a").unwrap();
        assert_eq!(paths[a + 1], b"a/b");
        paths.sort();
        assert_eq!(paths, [&b""[..], b"a", b"a/b", b"c"]);
        assert!(found.directories[0].items.is_empty());
        assert_eq!(found.links.len(), 1);
        assert_eq!(diff_states(&nodes, &new, &new).unwrap(), StateDiff::default());
    }
}
