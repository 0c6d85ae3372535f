//! Identities of a grafted part: which are taken outside of it, and fresh ones in their place.

use super::state::link_entry;
use super::walk::walk_links;
use super::{NodeSink, NodeSource, TreeError, as_directory, diff, list, lookup, tree_of, update};
use crate::object::{Entry, Name, Node, ObjectId, Root, Timestamp, TreeItem};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Counts the names of each hard-linked inode at an item and below it.
pub(super) fn count_links(source: &dyn NodeSource, item: Option<&TreeItem>) -> Result<BTreeMap<u64, u32>, TreeError> {
    let mut counts = BTreeMap::new();
    let mut count = |item: &TreeItem| {
        if let TreeItem::Link(identity) = item {
            *counts.entry(*identity).or_insert(0u32) += 1;
        }
    };
    let Some(item) = item else { return Ok(counts) };
    count(item);
    if let Some(directory) = as_directory(item) {
        walk_links(source, tree_of(directory), &mut |_, item| {
            count(item);
            Ok(())
        })?;
    }
    Ok(counts)
}

/// Identities that `into` has outside of a path, at places where `from` has something else.
///
/// An identity that `from` has below the path alone can be outside of it in `into` only at such a place.
#[derive(Default)]
pub(super) struct Outside {
    plain: HashSet<u64>,
    links: HashSet<u64>,
}

impl Outside {
    /// Compares everything but `path` in both states, looking only where they differ.
    pub fn find(source: &dyn NodeSource, into: &Root, from: &Root, path: &[Name]) -> Result<Self, TreeError> {
        let mut outside = Self::default();
        // The trees of a directory in both states, and what is left of the path when it leads there.
        let mut waiting = vec![(into.tree(), from.tree(), Some(path))];
        while let Some((into, from, path)) = waiting.pop() {
            for change in diff(source, from, into)? {
                let path = path.and_then(<[Name]>::split_first).filter(|(first, _)| **first == change.name).map(|(_, rest)| rest);
                let Some(item) = change.new.filter(|_| path.is_none_or(|rest| !rest.is_empty())) else { continue };
                outside.add(&item, change.old.as_ref());
                if let Some(directory) = as_directory(&item) {
                    let old = change.old.as_ref().and_then(as_directory).and_then(tree_of);
                    waiting.push((tree_of(directory), old, path));
                }
            }
        }
        Ok(outside)
    }

    fn add(&mut self, item: &TreeItem, old: Option<&TreeItem>) {
        match (item, old) {
            (TreeItem::Entry(entry), Some(TreeItem::Entry(old))) if entry.identity == old.identity => {}
            (TreeItem::Entry(entry), _) => drop(self.plain.insert(entry.identity)),
            (TreeItem::Link(identity), _) => drop(self.links.insert(*identity)),
        }
    }
}

/// Says whether two entries of one inode describe the same file, apart from what links do to it.
fn same_file(a: &Entry, b: &Entry) -> bool {
    a.same_state(&Entry { nlink: a.nlink, ..b.clone() })
}

/// Gives the items of a grafted part the identities they can have in their new state, and keeps the books of its hard links.
pub(super) struct Relabel<'a> {
    sink: &'a dyn NodeSink,
    into: &'a Root,
    from: &'a Root,
    outside: Outside,
    /// Names of each hard-linked inode of `into` at the path, which are going to be dropped.
    dropped: BTreeMap<u64, u32>,
    /// Names of each hard-linked inode of `into` or `from` in the grafted part, as it will be.
    grafted: BTreeMap<u64, u32>,
    /// What stands in the grafted part for a hard-linked inode of `from` that could not stay itself.
    replaced: HashMap<u64, TreeItem>,
    /// Entries of the link table that are new, under fresh identities.
    added: Vec<Entry>,
    fresh: &'a mut dyn FnMut() -> u64,
}

/// A directory on the way back up.
struct Frame {
    name: Option<Name>,
    original: TreeItem,
    entry: Entry,
    /// What may have to change: a name, what the grafted part has there and what `into` has there.
    items: std::vec::IntoIter<(Name, TreeItem, Option<TreeItem>)>,
    edits: Vec<(Name, Option<TreeItem>)>,
}

impl<'a> Relabel<'a> {
    /// Prepares grafting `item` of `from` in place of `replaced` in `into`.
    pub fn new(
        sink: &'a dyn NodeSink,
        (into, replaced): (&'a Root, Option<&TreeItem>),
        (from, item): (&'a Root, Option<&TreeItem>),
        path: &[Name],
        fresh: &'a mut dyn FnMut() -> u64,
    ) -> Result<Self, TreeError> {
        let outside = if item.is_some() { Outside::find(sink, into, from, path)? } else { Outside::default() };
        let dropped = count_links(sink, replaced)?;
        let (grafted, replaced, added) = (BTreeMap::new(), HashMap::new(), Vec::new());
        let mut relabel = Self { sink, into, from, outside, dropped, grafted, replaced, added, fresh };
        for (identity, names) in count_links(sink, item)? {
            relabel.link(identity, names)?;
        }
        Ok(relabel)
    }

    /// Decides under which identity `names` names of a hard-linked inode are grafted.
    fn link(&mut self, identity: u64, names: u32) -> Result<(), TreeError> {
        let theirs = link_entry(self.sink, self.from, identity)?.ok_or(TreeError::LinkMissing { identity })?;
        let ours = link_entry(self.sink, self.into, identity)?;
        // A file that had no name outside then and has none inside now was only renamed: no link to restore.
        let linked = names < theirs.nlink || self.dropped.contains_key(&identity);
        let apart = ours.is_some_and(|ours| self.names_outside(&ours) > 0 && !(linked && same_file(&ours, &theirs)));
        if !apart && !self.outside.plain.contains(&identity) {
            self.grafted.insert(identity, names);
            return Ok(());
        }
        let entry = Entry { identity: (self.fresh)(), nlink: names, ..theirs };
        let item = if names == 1 {
            TreeItem::Entry(entry)
        } else {
            self.added.push(entry.clone());
            TreeItem::Link(entry.identity)
        };
        self.replaced.insert(identity, item);
        Ok(())
    }

    /// Returns how many names an inode of the link table of `into` keeps outside of the path.
    fn names_outside(&self, ours: &Entry) -> u32 {
        ours.nlink.saturating_sub(self.dropped.get(&ours.identity).copied().unwrap_or(0))
    }

    /// Returns the grafted form of one item, not looking below it.
    fn one(&mut self, item: &TreeItem) -> Result<TreeItem, TreeError> {
        match item {
            TreeItem::Link(identity) => Ok(self.replaced.get(identity).unwrap_or(item).clone()),
            TreeItem::Entry(entry) if self.outside.links.contains(&entry.identity) => self.relinked(entry),
            TreeItem::Entry(entry) => Ok(TreeItem::Entry(self.entry(entry))),
        }
    }

    /// Returns the entry under an identity that is not taken.
    pub fn entry(&mut self, entry: &Entry) -> Entry {
        let taken = self.outside.plain.contains(&entry.identity) || self.outside.links.contains(&entry.identity);
        let identity = if taken { (self.fresh)() } else { entry.identity };
        Entry { identity, ..entry.clone() }
    }

    /// A file that got further names in `into` since: it stays one of them if the inode is still what it was.
    fn relinked(&mut self, entry: &Entry) -> Result<TreeItem, TreeError> {
        let ours = link_entry(self.sink, self.into, entry.identity)?;
        if self.dropped.contains_key(&entry.identity) && ours.is_some_and(|ours| same_file(&ours, entry)) {
            *self.grafted.entry(entry.identity).or_insert(0) += 1;
            return Ok(TreeItem::Link(entry.identity));
        }
        Ok(TreeItem::Entry(self.entry(entry)))
    }

    /// Returns the grafted form of an item and everything below it. `ours` is what `into` has there.
    pub fn whole(&mut self, item: &TreeItem, ours: Option<&TreeItem>) -> Result<TreeItem, TreeError> {
        let Some(directory) = as_directory(item) else { return self.one(item) };
        let mut frames = vec![self.frame(None, directory, ours)?];
        let mut done = item.clone();
        while let Some(frame) = frames.last_mut() {
            if let Some((name, item, ours)) = frame.items.next() {
                match as_directory(&item) {
                    Some(directory) => frames.push(self.frame(Some(name), directory, ours.as_ref())?),
                    None => push_edit(&mut frame.edits, name, &item, self.one(&item)?),
                }
            } else if let Some(frame) = frames.pop() {
                let item = self.close(&frame)?;
                match (frames.last_mut(), frame.name) {
                    (Some(parent), Some(name)) => push_edit(&mut parent.edits, name, &frame.original, item),
                    _ => done = item,
                }
            }
        }
        Ok(done)
    }

    fn frame(&mut self, name: Option<Name>, directory: &Entry, ours: Option<&TreeItem>) -> Result<Frame, TreeError> {
        let ours = ours.and_then(as_directory).and_then(tree_of);
        let items = self.suspects(directory, ours)?.into_iter();
        Ok(Frame { name, original: TreeItem::Entry(directory.clone()), entry: self.entry(directory), items, edits: Vec::new() })
    }

    /// Returns the names of a directory whose identities may be taken: those that `into` does not have
    /// at the same place, and, when links are replaced, all.
    fn suspects(&self, directory: &Entry, ours: Option<ObjectId>) -> Result<Vec<(Name, TreeItem, Option<TreeItem>)>, TreeError> {
        let theirs = tree_of(directory);
        if !self.replaced.is_empty() && matches!(directory.node, Node::Directory { has_links: true, .. }) {
            let with_ours = |found: Result<(Name, TreeItem), TreeError>| {
                let (name, item) = found?;
                let ours = lookup(self.sink, ours, &name)?;
                Ok((name, item, ours))
            };
            return list(self.sink, theirs, 0).map(with_ours).collect();
        }
        if self.outside.plain.is_empty() && self.outside.links.is_empty() {
            return Ok(Vec::new());
        }
        let changes = diff(self.sink, ours, theirs)?.into_iter();
        Ok(changes.filter_map(|change| change.new.map(|new| (change.name, new, change.old))).collect())
    }

    fn close(&self, frame: &Frame) -> Result<TreeItem, TreeError> {
        let mut entry = frame.entry.clone();
        if !frame.edits.is_empty() {
            let built = update(self.sink, tree_of(&entry), &frame.edits)?;
            entry.node = Node::Directory { tree: built.tree, has_links: built.has_links };
        }
        Ok(TreeItem::Entry(entry))
    }

    /// Returns the link table of the new state. Call it when all items have got their form.
    pub fn link_table(self, now: Timestamp) -> Result<Option<ObjectId>, TreeError> {
        let mut edits: BTreeMap<Name, Option<TreeItem>> = BTreeMap::new();
        for entry in &self.added {
            edits.insert(Name::of_identity(entry.identity), Some(TreeItem::Entry(entry.clone())));
        }
        let identities: HashSet<u64> = self.dropped.keys().chain(self.grafted.keys()).copied().collect();
        for identity in identities {
            edits.insert(Name::of_identity(identity), self.linked(identity, now)?.map(TreeItem::Entry));
        }
        let edits: Vec<_> = edits.into_iter().collect();
        Ok(update(self.sink, self.into.links, &edits)?.tree)
    }

    /// Returns what the link table says of an inode; nothing when no name of it is left.
    fn linked(&self, identity: u64, now: Timestamp) -> Result<Option<Entry>, TreeError> {
        let ours = link_entry(self.sink, self.into, identity)?;
        let outside = ours.as_ref().map_or(0, |ours| self.names_outside(ours));
        let grafted = self.grafted.get(&identity).copied().unwrap_or(0);
        let nlink = outside.saturating_add(grafted);
        if outside == 0 {
            let theirs = if grafted > 0 { link_entry(self.sink, self.from, identity)? } else { None };
            return Ok(theirs.map(|theirs| Entry { nlink, ..theirs }));
        }
        Ok(ours.map(|ours| Entry { nlink, ctime: if ours.nlink == nlink { ours.ctime } else { now }, ..ours }))
    }
}

fn push_edit(edits: &mut Vec<(Name, Option<TreeItem>)>, name: Name, before: &TreeItem, after: TreeItem) {
    if *before != after {
        edits.push((name, Some(after)));
    }
}
