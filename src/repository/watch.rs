//! What a run of gc must leave because somebody counts on it.

use std::collections::HashSet;
use std::hash::Hash;

/// What is in use while a run of gc goes on.
///
/// Who stores an object notes it here *before* looking whether it is stored already, and gc removes under the same lock
/// only what is not noted: either it sees the note and leaves the object, or the other finds it gone and stores it anew.
#[derive(Debug)]
pub struct Watch<Id> {
    running: bool,
    /// Seals that are going on: what they were told is stored must stay until their transaction names it.
    users: usize,
    /// Objects that were stored or found stored since the run, or the oldest of those seals, began.
    touched: HashSet<Id>,
    /// States that were named in that time.
    roots: HashSet<Id>,
}

impl<Id> Default for Watch<Id> {
    fn default() -> Self {
        Self { running: false, users: 0, touched: HashSet::new(), roots: HashSet::new() }
    }
}

impl<Id: Eq + Hash + Copy> Watch<Id> {
    /// Notes that a run begins or ends.
    pub fn run(&mut self, running: bool) {
        self.running = running;
        self.rest();
    }

    /// Notes that a seal begins.
    pub fn begin_use(&mut self) {
        self.users += 1;
    }

    /// Notes that a seal is named, or given up.
    pub fn end_use(&mut self) {
        self.users -= 1;
        self.rest();
    }

    fn is_needed(&self) -> bool {
        self.running || self.users > 0
    }

    /// Forgets what nobody can ask for any more.
    fn rest(&mut self) {
        if !self.is_needed() {
            self.touched = HashSet::new();
            self.roots = HashSet::new();
        }
    }

    /// Notes that somebody counts on an object, before it is looked up.
    pub fn touch(&mut self, id: Id) {
        if self.is_needed() {
            self.touched.insert(id);
        }
    }

    /// Says whether somebody counts on an object.
    pub fn is_touched(&self, id: &Id) -> bool {
        self.touched.contains(id)
    }

    /// Notes that a state is about to be named.
    pub fn note_root(&mut self, id: Id) {
        if self.is_needed() {
            self.roots.insert(id);
        }
    }

    /// Returns the states named meanwhile.
    pub fn roots(&self) -> Vec<Id> {
        self.roots.iter().copied().collect()
    }
}
