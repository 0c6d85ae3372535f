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

#[cfg(test)]
mod tests {
    use super::super::plain::Stamp;
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::time::Duration;

    /// Each file is changed by somebody who never looked at it: then the kernel stamps it with the time of its last tick.
    #[test]
    fn what_the_kernel_may_write_from_now_on_is_no_older_than_what_was_stamped_before() {
        let temp = tempfile::tempdir().unwrap();
        for round in 0..50 {
            let file = File::create(temp.path().join(round.to_string())).unwrap();
            let mut held = HeldFiles::default();
            let before = clock::now();
            held.insert(round);
            file.write_all_at(b"x", 0).unwrap();
            let stamped = Stamp::of(&file).unwrap().mtime;
            assert!(before <= stamped, "round {round}: {before:?}, {stamped:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
