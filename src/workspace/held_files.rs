//! Which plain files somebody may have: what the kernel writes in them it does not tell.

use super::clock;
use super::inode::Ino;
use std::collections::HashSet;

/// The plain files of one tree that the kernel, or who took them from a process before this one, may be writing. While there is one, changes
/// are stamped by the clock of files.
#[derive(Debug, Default)]
pub struct HeldFiles(HashSet<Ino>);

impl HeldFiles {
    /// Takes up a file.
    pub fn insert(&mut self, ino: Ino) {
        if self.0.insert(ino) {
            clock::go_by_files();
        }
    }

    /// Takes out a file, if it is there.
    pub fn remove(&mut self, ino: Ino) {
        if self.0.remove(&ino) {
            clock::go_by_files_no_more();
        }
    }

    /// Says whether a file is among them.
    pub fn contains(&self, ino: Ino) -> bool {
        self.0.contains(&ino)
    }

    /// Returns them all.
    pub fn to_vec(&self) -> Vec<Ino> {
        self.0.iter().copied().collect()
    }
}

impl Drop for HeldFiles {
    fn drop(&mut self) {
        self.0.iter().for_each(|_| clock::go_by_files_no_more());
    }
}
