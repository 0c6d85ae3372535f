//! Contents that are in use outside of any live tree: of files of old states that somebody has open.

use super::Repository;
use crate::object::Content;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many hold each content.
pub(super) type HeldTable = Arc<Mutex<HashMap<Content, usize>>>;

/// Keeps a content from gc as long as it lives, also when no checkpoint has it any more.
#[derive(Debug)]
pub struct Held {
    content: Content,
    table: HeldTable,
}

fn locked(table: &HeldTable) -> MutexGuard<'_, HashMap<Content, usize>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut table = locked(&self.table);
        if let Some(count) = table.get_mut(&self.content) {
            *count -= 1;
            if *count == 0 {
                table.remove(&self.content);
            }
        }
    }
}

impl Repository {
    /// Holds a content.
    pub fn hold(&self, content: Content) -> Held {
        *locked(&self.held).entry(content).or_default() += 1;
        Held { content, table: self.held.clone() }
    }

    /// Returns what is held.
    pub(super) fn held(&self) -> Vec<Content> {
        locked(&self.held).keys().copied().collect()
    }
}
