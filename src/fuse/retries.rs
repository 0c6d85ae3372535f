//! Who was sent to look again: a file that is made and is there already was made behind the kernel's back.

use crate::object::Name;
use crate::workspace::Ino;
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many are remembered at once.
const RETRIES_MAX: usize = 1024;

/// The makers of files that were sent to look for the name again.
///
/// open(2) with O_CREAT looks for a name, and makes the file when there is none; the kernel does both and does not say
/// whether the caller would take a file that is there. When another view, or a restore, made it in between, ESTALE has the
/// kernel look once more, and then it knows. When the same happens to the same maker twice, the file exists (EEXIST).
#[derive(Debug, Default)]
pub struct Retries(Mutex<HashSet<(u32, Ino, Name)>>);

impl Retries {
    fn makers(&self) -> MutexGuard<'_, HashSet<(u32, Ino, Name)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether the thread `thread`, for which the name exists unexpectedly, is to look again: not twice in a row.
    pub fn is_to_look_again(&self, thread: u32, parent: Ino, name: &Name) -> bool {
        let mut makers = self.makers();
        let key = (thread, parent, name.clone());
        if makers.remove(&key) {
            return false;
        }
        if makers.len() >= RETRIES_MAX {
            makers.clear(); // Left by those that were ended before they looked.
        }
        makers.insert(key)
    }

    /// Notes that the thread found the name.
    pub fn found(&self, thread: u32, parent: Ino, name: &Name) {
        let mut makers = self.makers();
        if !makers.is_empty() {
            makers.remove(&(thread, parent, name.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maker_looks_again_once_until_it_finds_the_name() {
        let (retries, name) = (Retries::default(), Name::new(b"lock").unwrap());
        assert!(retries.is_to_look_again(1, 5, &name));
        assert!(!retries.is_to_look_again(1, 5, &name));
        assert!(retries.is_to_look_again(1, 5, &name) && retries.is_to_look_again(2, 5, &name));
        retries.found(1, 5, &name);
        assert!(retries.is_to_look_again(1, 5, &name) && !retries.is_to_look_again(2, 5, &name));
    }
}
