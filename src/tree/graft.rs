//! The restore of one path: what one state has there, taken into another.

use super::relabel::Relabel;
use super::{NodeSink, TreeError, as_directory, find_item, join_all, lookup, tree_of, update};
use crate::object::{Entry, Name, Node, Root, Timestamp, TreeItem};

/// Takes what `from` has at `path`, or its absence, into the state `into` and returns the new state.
///
/// Directories missing on the way come from `from` with their attributes, holding this path only. A
/// directory in which a name came or went gets `now` as times. No identity is twice in the result:
/// what is elsewhere in `into` by now comes under an identity from `fresh`. Names of a hard-linked
/// inode stay names of it, unless `into` has others outside of the path and the inode changed: then they
/// become names of an inode of their own. The empty path takes all. The root is not stored.
pub fn graft(
    sink: &dyn NodeSink,
    into: &Root,
    from: &Root,
    path: &[Name],
    now: Timestamp,
    fresh: &mut dyn FnMut() -> u64,
) -> Result<Root, TreeError> {
    let Some((name, parents)) = path.split_last() else { return Ok(from.clone()) };
    let item = find_item(sink, from, path)?;
    let mut way = Way::find(sink, into, parents)?;
    let ours = way.lookup(sink, parents, name)?;
    if item.is_none() && ours.is_none() {
        return Ok(into.clone());
    }
    way.check(parents)?;
    let mut relabel = Relabel::new(sink, (into, ours.as_ref()), (from, item.as_ref()), path, fresh)?;
    let kept = way.directories.len();
    if kept <= parents.len() {
        let theirs = Way::find(sink, from, parents)?.directories;
        way.directories.extend(theirs.iter().skip(kept).map(|directory| missing(directory, &mut relabel)));
    }
    let item = item.map(|item| relabel.whole(&item, ours.as_ref())).transpose()?;
    let links = relabel.link_table(now)?;
    let directory = way.splice(sink, path, item, &Place { ours, kept, now })?;
    Ok(Root { directory, links })
}

/// The directories of `into` from the top to the parent of a path, as many as there are.
struct Way {
    directories: Vec<Entry>,
    /// Something that is not a directory stands where the next one should.
    blocked: bool,
}

/// What the path was before, and how to mark that a name came or went.
struct Place {
    ours: Option<TreeItem>,
    /// How many of the directories were there before.
    kept: usize,
    now: Timestamp,
}

impl Way {
    fn find(sink: &dyn NodeSink, into: &Root, parents: &[Name]) -> Result<Self, TreeError> {
        let mut directories = vec![into.directory.clone()];
        for name in parents {
            let tree = directories.last().and_then(tree_of);
            match lookup(sink, tree, name)? {
                None => return Ok(Self { directories, blocked: false }),
                Some(item) => match as_directory(&item) {
                    Some(directory) => directories.push(directory.clone()),
                    None => return Ok(Self { directories, blocked: true }),
                },
            }
        }
        Ok(Self { directories, blocked: false })
    }

    /// Returns what is at the end of the way now.
    fn lookup(&self, sink: &dyn NodeSink, parents: &[Name], name: &Name) -> Result<Option<TreeItem>, TreeError> {
        match self.directories.get(parents.len()) {
            Some(parent) => lookup(sink, tree_of(parent), name),
            None => Ok(None),
        }
    }

    fn check(&self, parents: &[Name]) -> Result<(), TreeError> {
        if self.blocked {
            let path = join_all(parents.get(..self.directories.len()).unwrap_or(parents));
            return Err(TreeError::NotADirectory { path });
        }
        Ok(())
    }

    /// Puts `item` at the end of the way and returns the new top.
    fn splice(self, sink: &dyn NodeSink, path: &[Name], item: Option<TreeItem>, place: &Place) -> Result<Entry, TreeError> {
        let mut item = item;
        let mut top = None;
        for (depth, (mut directory, name)) in self.directories.into_iter().zip(path).enumerate().rev() {
            let at_end = depth + 1 == path.len();
            let existed = if at_end { place.ours.is_some() } else { depth + 1 < place.kept };
            let was_directory = if at_end { is_directory(&place.ours) } else { existed };
            directory.nlink =
                directory.nlink.saturating_sub(u32::from(was_directory)).saturating_add(u32::from(is_directory(&item)));
            if existed != item.is_some() && depth < place.kept {
                (directory.mtime, directory.ctime) = (place.now, place.now);
            }
            let built = update(sink, tree_of(&directory), &[(name.clone(), item)])?;
            directory.node = Node::Directory { tree: built.tree, has_links: built.has_links };
            top = Some(directory.clone());
            item = Some(TreeItem::Entry(directory));
        }
        top.ok_or(TreeError::NotADirectory { path: Vec::new() }) // The way has the top at least.
    }
}

fn is_directory(item: &Option<TreeItem>) -> bool {
    item.as_ref().and_then(as_directory).is_some()
}

/// Returns a directory of `from` as it comes into the new state: empty.
fn missing(directory: &Entry, relabel: &mut Relabel<'_>) -> Entry {
    let node = Node::Directory { tree: None, has_links: false };
    Entry { nlink: 2, node, ..relabel.entry(directory) }
}

#[cfg(test)]
mod tests;
