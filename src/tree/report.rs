//! The changes between two states as a person wants to read them.

use super::change::{compare, compare_directories};
use super::moves::{Comparisons, Moves};
use super::state::{diff_links, find_item, resolve};
use super::walk::walk_links;
use super::{ChangeKind, ItemChange, NodeSource, PathChange, TreeError, as_directory, join, join_all, list, tree_of};
use crate::object::{Entry, Name, Root, TreeItem};
use std::collections::{HashMap, HashSet, VecDeque};

/// Compares two states and returns the changes sorted by path.
///
/// Added and deleted directories are spelled out, moved ones are one line and cost nothing. `Added` and
/// `Deleted` mean that the path was or is absent; what stands at a path before and after is compared
/// whoever put it there. Change times, numbers of links and identities alone are no change, nor are
/// the times of a directory in which a name came or went.
pub fn report(source: &dyn NodeSource, old: &Root, new: &Root) -> Result<Vec<PathChange>, TreeError> {
    let mut comparisons = Comparisons::new(source);
    let moves = Moves::find(&mut comparisons, old, new)?;
    let mut report = Report {
        source,
        old,
        new,
        moves,
        comparisons,
        tasks: vec![Task::Pair(Pair::top(old, new))],
        gone: Vec::new(),
        came: Vec::new(),
        settled: HashSet::new(),
        lines: Vec::new(),
    };
    while let Some(task) = report.tasks.pop() {
        match task {
            Task::Pair(pair) => report.pair(&pair)?,
            Task::Gone(gone) => report.gone(gone)?,
            Task::Came(came) => report.came(came)?,
        }
    }
    report.match_files()?;
    report.changed_links()?;
    report.lines.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(report.lines)
}

/// A directory compared with what it was, perhaps elsewhere.
struct Pair {
    old_path: Vec<u8>,
    new_path: Vec<u8>,
    old: Entry,
    new: Entry,
    /// Its line was written already: it was renamed.
    listed: bool,
}

/// Something that left its place in the old state.
struct Gone {
    path: Vec<u8>,
    item: TreeItem,
    /// Something else is at the path now, so there is no line for it.
    replaced: bool,
    /// The path may exist in the new state after all: a directory on the way was replaced or moved.
    doubtful: bool,
}

/// Something that is new at its place in the new state.
struct Came {
    path: Vec<u8>,
    item: TreeItem,
    /// What the path stood for before.
    over: Option<TreeItem>,
    /// The path may exist in the old state after all.
    doubtful: bool,
}

enum Task {
    Pair(Pair),
    Gone(Gone),
    Came(Came),
}

struct Report<'a> {
    source: &'a dyn NodeSource,
    old: &'a Root,
    new: &'a Root,
    moves: Moves,
    comparisons: Comparisons<'a>,
    tasks: Vec<Task>,
    /// Files and links that left their place, to be matched when all are known.
    gone: Vec<Gone>,
    came: Vec<Came>,
    /// Paths of the new state that need no further look at their inode.
    settled: HashSet<Vec<u8>>,
    lines: Vec<PathChange>,
}

impl Pair {
    fn top(old: &Root, new: &Root) -> Self {
        let (old, new) = (old.directory.clone(), new.directory.clone());
        Self { old_path: Vec::new(), new_path: Vec::new(), old, new, listed: false }
    }

    fn moved(&self) -> bool {
        self.old_path != self.new_path
    }

    /// The pair of directories that `name` stands for.
    fn below(&self, name: &Name, old: &Entry, new: &Entry) -> Self {
        let (old_path, new_path) = (join(&self.old_path, name), join(&self.new_path, name));
        Self { old_path, new_path, old: old.clone(), new: new.clone(), listed: false }
    }
}

impl Report<'_> {
    fn line(&mut self, kind: ChangeKind, path: &[u8], old: Option<Entry>, new: Option<Entry>) {
        let path = if path.is_empty() { b".".to_vec() } else { path.to_vec() };
        self.lines.push(PathChange { kind, path, old, new });
    }

    fn pair(&mut self, pair: &Pair) -> Result<(), TreeError> {
        let changes = self.comparisons.take(&pair.old, &pair.new)?;
        let explained = changes.iter().any(|change| identity(&change.old) != identity(&change.new));
        if !pair.listed
            && let Some(kind) = compare_directories(&pair.old, &pair.new, explained)
        {
            self.line(kind, &pair.new_path, Some(pair.old.clone()), Some(pair.new.clone()));
        }
        changes.iter().try_for_each(|change| self.change(pair, change))
    }

    fn change(&mut self, pair: &Pair, change: &ItemChange) -> Result<(), TreeError> {
        if let (Some(old), Some(new)) = (&change.old, &change.new) {
            match (as_directory(old), as_directory(new)) {
                (Some(old), Some(new)) if self.comparable(old, new) => {
                    self.tasks.push(Task::Pair(pair.below(&change.name, old, new)));
                    return Ok(());
                }
                (None, None) if old.identity() == new.identity() => {
                    return self.same_file(join(&pair.new_path, &change.name), old, new);
                }
                _ => {}
            }
        }
        if let Some(item) = change.old.clone() {
            let path = join(&pair.old_path, &change.name);
            self.tasks.push(Task::Gone(Gone { path, item, replaced: change.new.is_some(), doubtful: pair.moved() }));
        }
        if let Some(item) = change.new.clone() {
            let path = join(&pair.new_path, &change.name);
            self.tasks.push(Task::Came(Came { path, item, over: change.old.clone(), doubtful: pair.moved() }));
        }
        Ok(())
    }

    /// Says whether two directories of one name are compared name by name: they are the same, or one was made anew.
    fn comparable(&self, old: &Entry, new: &Entry) -> bool {
        let moved = || self.moves.arrived(old.identity) || self.moves.origin(new.identity).is_some();
        old.identity == new.identity || !moved()
    }

    fn same_file(&mut self, path: Vec<u8>, old: &TreeItem, new: &TreeItem) -> Result<(), TreeError> {
        let old = resolve(self.source, self.old, old)?;
        let new = resolve(self.source, self.new, new)?;
        if let Some(kind) = compare(&old, &new) {
            self.line(kind, &path, Some(old), Some(new));
        }
        self.settled.insert(path);
        Ok(())
    }

    fn gone(&mut self, gone: Gone) -> Result<(), TreeError> {
        let Some(directory) = as_directory(&gone.item).cloned() else {
            self.gone.push(gone);
            return Ok(());
        };
        if self.moves.arrived(directory.identity) {
            return Ok(()); // Compared and listed at the path it has now.
        }
        for found in list(self.source, tree_of(&directory), 0) {
            let (name, item) = found?;
            let doubtful = gone.doubtful || gone.replaced;
            self.tasks.push(Task::Gone(Gone { path: join(&gone.path, &name), item, replaced: false, doubtful }));
        }
        self.deleted(gone)
    }

    fn deleted(&mut self, gone: Gone) -> Result<(), TreeError> {
        let exists = gone.replaced || gone.doubtful && self.find(self.new, &gone.path)?.is_some();
        if !exists {
            let old = resolve(self.source, self.old, &gone.item)?;
            self.line(ChangeKind::Deleted, &gone.path, Some(old), None);
        }
        Ok(())
    }

    fn came(&mut self, came: Came) -> Result<(), TreeError> {
        let Some(directory) = as_directory(&came.item).cloned() else {
            self.came.push(came);
            return Ok(());
        };
        if let Some(origin) = self.moves.origin(directory.identity).cloned() {
            let kind = ChangeKind::Renamed { from: origin.path.clone() };
            self.line(kind, &came.path, Some(origin.entry.clone()), Some(directory.clone()));
            let pair = Pair { old_path: origin.path, new_path: came.path, old: origin.entry, new: directory, listed: true };
            self.tasks.push(Task::Pair(pair));
            return Ok(());
        }
        for found in list(self.source, tree_of(&directory), 0) {
            let (name, item) = found?;
            let doubtful = came.doubtful || came.over.is_some();
            self.tasks.push(Task::Came(Came { path: join(&came.path, &name), item, over: None, doubtful }));
        }
        self.added(came)
    }

    fn added(&mut self, came: Came) -> Result<(), TreeError> {
        let over = match came.over {
            None if came.doubtful => self.find(self.old, &came.path)?,
            over => over,
        };
        let old = over.map(|item| resolve(self.source, self.old, &item)).transpose()?;
        let new = resolve(self.source, self.new, &came.item)?;
        let kind = match &old {
            None => Some(ChangeKind::Added),
            Some(old) => compare(old, &new),
        };
        if let Some(kind) = kind {
            self.line(kind, &came.path, old, Some(new));
        }
        Ok(())
    }

    fn find(&self, root: &Root, path: &[u8]) -> Result<Option<TreeItem>, TreeError> {
        let names: Result<Vec<Name>, _> = path.split(|byte| *byte == b'/').map(Name::new).collect();
        names.map_or(Ok(None), |names| find_item(self.source, root, &names))
    }

    /// Joins files that left a path and came to another, both in the order of paths: a hard-linked
    /// inode may have done so several times.
    fn match_files(&mut self) -> Result<(), TreeError> {
        let mut gone = std::mem::take(&mut self.gone);
        let mut came = std::mem::take(&mut self.came);
        gone.sort_by(|a, b| a.path.cmp(&b.path));
        came.sort_by(|a, b| a.path.cmp(&b.path));
        let mut gone_by_identity: HashMap<u64, VecDeque<Gone>> = HashMap::new();
        for gone in gone {
            gone_by_identity.entry(gone.item.identity()).or_default().push_back(gone);
        }
        for came in came {
            self.settled.insert(came.path.clone());
            match gone_by_identity.get_mut(&came.item.identity()).and_then(VecDeque::pop_front) {
                Some(gone) => self.renamed(gone, &came)?,
                None => self.added(came)?,
            }
        }
        gone_by_identity.into_values().flatten().try_for_each(|gone| self.deleted(gone))
    }

    fn renamed(&mut self, gone: Gone, came: &Came) -> Result<(), TreeError> {
        let old = resolve(self.source, self.old, &gone.item)?;
        let new = resolve(self.source, self.new, &came.item)?;
        self.line(ChangeKind::Renamed { from: gone.path }, &came.path, Some(old), Some(new));
        Ok(())
    }

    /// Lists the names of hard-linked inodes that changed, where the name itself did not.
    fn changed_links(&mut self) -> Result<(), TreeError> {
        let mut changed = HashMap::new();
        for link in diff_links(self.source, self.old, self.new)? {
            if let (Some(old), Some(new)) = (link.old, link.new)
                && let Some(kind) = compare(&old, &new)
            {
                changed.insert(link.identity, (kind, old, new));
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        walk_links(self.source, self.new.tree(), &mut |path, item| {
            let TreeItem::Link(identity) = item else { return Ok(()) };
            let Some((kind, old, new)) = changed.get(identity) else { return Ok(()) };
            let path = join_all(path);
            if !self.settled.contains(&path) {
                self.line(kind.clone(), &path, Some(old.clone()), Some(new.clone()));
            }
            Ok(())
        })
    }
}

fn identity(item: &Option<TreeItem>) -> Option<u64> {
    item.as_ref().map(TreeItem::identity)
}

#[cfg(test)]
mod tests;
