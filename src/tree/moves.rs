//! Which directories of one state stand elsewhere in another.

use super::{ItemChange, NodeSource, TreeError, as_directory, count, diff, join, list, tree_of};
use crate::object::{Entry, ObjectId, Root};
use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// The trees of two versions of a directory.
type TreePair = (Option<ObjectId>, Option<ObjectId>);

/// Directory comparisons, each kept until it was asked for twice: once by the search for moves, once by the report.
pub(super) struct Comparisons<'a> {
    source: &'a dyn NodeSource,
    kept: HashMap<TreePair, Rc<Vec<ItemChange>>>,
}

impl<'a> Comparisons<'a> {
    pub fn new(source: &'a dyn NodeSource) -> Self {
        Self { source, kept: HashMap::new() }
    }

    /// Compares two directories and keeps the result.
    fn keep(&mut self, old: &Entry, new: &Entry) -> Result<Rc<Vec<ItemChange>>, TreeError> {
        let key = (tree_of(old), tree_of(new));
        if let Some(kept) = self.kept.get(&key) {
            return Ok(Rc::clone(kept));
        }
        let changes = Rc::new(diff(self.source, key.0, key.1)?);
        self.kept.insert(key, Rc::clone(&changes));
        Ok(changes)
    }

    /// Compares two directories or gives back the result kept.
    pub fn take(&mut self, old: &Entry, new: &Entry) -> Result<Rc<Vec<ItemChange>>, TreeError> {
        let key = (tree_of(old), tree_of(new));
        match self.kept.remove(&key) {
            Some(kept) => Ok(kept),
            None => Ok(Rc::new(diff(self.source, key.0, key.1)?)),
        }
    }
}

/// A directory of the old state and where it was.
#[derive(Clone)]
pub(super) struct Place {
    pub path: Vec<u8>,
    pub entry: Entry,
}

/// The directories that left their place in the old state, and those that are new at their place in the new one.
///
/// A directory in both was moved. Directories below a moved one are here only if they left it.
pub(super) struct Moves {
    gone: HashMap<u64, Place>,
    came: HashMap<u64, Entry>,
}

impl Moves {
    /// Returns where a directory that is new at its place was before.
    pub fn origin(&self, identity: u64) -> Option<&Place> {
        self.gone.get(&identity)
    }

    /// Says whether a directory that left its place is somewhere else now.
    pub fn arrived(&self, identity: u64) -> bool {
        self.came.contains_key(&identity)
    }

    /// Finds the moved directories between two states.
    ///
    /// Directories that went or came without a counterpart have to be searched, since what they held
    /// may have been moved out, and what they hold may have been moved in: small ones first, so that
    /// a large directory moved into a new small one is never listed.
    pub fn find(comparisons: &mut Comparisons<'_>, old: &Root, new: &Root) -> Result<Self, TreeError> {
        let moves = Self { gone: HashMap::new(), came: HashMap::new() };
        let pairs = vec![(Vec::new(), old.directory.clone(), new.directory.clone())];
        let mut search = Search { comparisons, moves, pairs, waiting: BTreeMap::new(), serial: 0, gone_alone: 0, came_alone: 0 };
        search.run()?;
        Ok(search.moves)
    }
}

struct Search<'s, 'a> {
    comparisons: &'s mut Comparisons<'a>,
    moves: Moves,
    /// The same directory in both states, with its old path, not compared yet.
    pairs: Vec<(Vec<u8>, Entry, Entry)>,
    /// Directories without a counterpart, not looked into yet, by number of names.
    waiting: BTreeMap<(u64, u64), Waiting>,
    serial: u64,
    /// How many of `gone` are not in `came`, and the reverse.
    gone_alone: usize,
    came_alone: usize,
}

enum Waiting {
    Gone(u64),
    Came(u64),
}

impl Search<'_, '_> {
    fn run(&mut self) -> Result<(), TreeError> {
        loop {
            while let Some((path, old, new)) = self.pairs.pop() {
                self.pair(&path, &old, &new)?;
            }
            if self.gone_alone == 0 || self.came_alone == 0 {
                return Ok(()); // Nothing is left that could match.
            }
            match self.waiting.pop_first() {
                Some((_, Waiting::Gone(identity))) => self.open_gone(identity)?,
                Some((_, Waiting::Came(identity))) => self.open_came(identity)?,
                None => return Ok(()),
            }
        }
    }

    fn pair(&mut self, path: &[u8], old: &Entry, new: &Entry) -> Result<(), TreeError> {
        for change in self.comparisons.keep(old, new)?.iter() {
            let old = change.old.as_ref().and_then(as_directory);
            let new = change.new.as_ref().and_then(as_directory);
            match (old, new) {
                (Some(old), Some(new)) if old.identity == new.identity => {
                    self.pairs.push((join(path, &change.name), old.clone(), new.clone()));
                }
                _ => {
                    old.map_or(Ok(()), |old| self.see_gone(join(path, &change.name), old))?;
                    new.map_or(Ok(()), |new| self.see_came(new))?;
                }
            }
        }
        Ok(())
    }

    fn see_gone(&mut self, path: Vec<u8>, entry: &Entry) -> Result<(), TreeError> {
        let Slot::Vacant(slot) = self.moves.gone.entry(entry.identity) else { return Ok(()) };
        slot.insert(Place { path: path.clone(), entry: entry.clone() });
        if let Some(new) = self.moves.came.get(&entry.identity) {
            self.pairs.push((path, entry.clone(), new.clone()));
            self.came_alone -= 1;
            return Ok(());
        }
        self.gone_alone += 1;
        self.wait(Waiting::Gone(entry.identity), entry)
    }

    fn see_came(&mut self, entry: &Entry) -> Result<(), TreeError> {
        let Slot::Vacant(slot) = self.moves.came.entry(entry.identity) else { return Ok(()) };
        slot.insert(entry.clone());
        if let Some(old) = self.moves.gone.get(&entry.identity) {
            self.pairs.push((old.path.clone(), old.entry.clone(), entry.clone()));
            self.gone_alone -= 1;
            return Ok(());
        }
        self.came_alone += 1;
        self.wait(Waiting::Came(entry.identity), entry)
    }

    fn wait(&mut self, waiting: Waiting, entry: &Entry) -> Result<(), TreeError> {
        let names = count(self.comparisons.source, tree_of(entry))?;
        self.serial += 1;
        self.waiting.insert((names, self.serial), waiting);
        Ok(())
    }

    fn open_gone(&mut self, identity: u64) -> Result<(), TreeError> {
        let place = match self.moves.gone.get(&identity) {
            Some(place) if !self.moves.came.contains_key(&identity) => place.clone(),
            _ => return Ok(()), // Matched while it waited.
        };
        for found in list(self.comparisons.source, tree_of(&place.entry), 0) {
            let (name, item) = found?;
            if let Some(entry) = as_directory(&item) {
                self.see_gone(join(&place.path, &name), entry)?;
            }
        }
        Ok(())
    }

    fn open_came(&mut self, identity: u64) -> Result<(), TreeError> {
        let entry = match self.moves.came.get(&identity) {
            Some(entry) if !self.moves.gone.contains_key(&identity) => entry.clone(),
            _ => return Ok(()), // Matched while it waited.
        };
        for found in list(self.comparisons.source, tree_of(&entry), 0) {
            let (_, item) = found?;
            if let Some(entry) = as_directory(&item) {
                self.see_came(entry)?;
            }
        }
        Ok(())
    }
}
