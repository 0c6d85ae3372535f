//! States that are in use outside of any live tree: of checkpoints of which somebody has something open.

use super::Repository;
use crate::object::ObjectId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many hold each root.
pub(super) type HeldTable = Arc<Mutex<HashMap<ObjectId, usize>>>;

/// Keeps a state from gc as long as it lives, also when no checkpoint has it any more.
#[derive(Debug)]
pub struct Held {
    root: ObjectId,
    table: HeldTable,
}

fn locked(table: &HeldTable) -> MutexGuard<'_, HashMap<ObjectId, usize>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut table = locked(&self.table);
        if let Some(count) = table.get_mut(&self.root) {
            *count -= 1;
            if *count == 0 {
                table.remove(&self.root);
            }
        }
    }
}

impl Repository {
    /// Holds the state with this root. Whoever looks that its checkpoint is kept after that has all of it.
    pub fn hold(&self, root: ObjectId) -> Held {
        *locked(&self.held).entry(root).or_default() += 1;
        Held { root, table: self.held.clone() }
    }

    /// Returns the roots that are held.
    pub(super) fn held(&self) -> Vec<ObjectId> {
        locked(&self.held).keys().copied().collect()
    }
}
