//! The loaded inodes by number.

use super::inode::{Ino, Inode};
use std::collections::HashMap;

/// Inodes by number. Each lies in a box of its own: a table has up to twice the places that it needs.
#[derive(Debug, Default)]
pub struct InodeTable(HashMap<Ino, Box<Inode>>);

impl InodeTable {
    /// Returns an inode.
    pub fn get(&self, ino: Ino) -> Option<&Inode> {
        self.0.get(&ino).map(Box::as_ref)
    }

    /// Returns an inode to change it.
    pub fn get_mut(&mut self, ino: Ino) -> Option<&mut Inode> {
        self.0.get_mut(&ino).map(Box::as_mut)
    }

    /// Says whether a number is in use.
    pub fn contains(&self, ino: Ino) -> bool {
        self.0.contains_key(&ino)
    }

    /// Puts an inode in, in the place of what had its number.
    pub fn insert(&mut self, ino: Ino, inode: Inode) {
        self.0.insert(ino, Box::new(inode));
    }

    /// Takes an inode out.
    pub fn remove(&mut self, ino: Ino) -> Option<Inode> {
        self.0.remove(&ino).map(|inode| *inode)
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Lists the numbers.
    pub fn numbers(&self) -> impl Iterator<Item = Ino> {
        self.0.keys().copied()
    }

    /// Lists the inodes.
    pub fn all(&self) -> impl Iterator<Item = &Inode> {
        self.0.values().map(Box::as_ref)
    }

    /// Gives back the room of those that are gone.
    pub fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }
}
