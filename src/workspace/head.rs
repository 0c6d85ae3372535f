//! Where a branch stands, and who may move it.

use crate::object::ObjectId;
use crate::repository::UseGuard;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the branch stands.
#[derive(Clone, Debug)]
pub struct Head {
    /// Name of the branch.
    pub branch: String,
    /// Its newest checkpoint.
    pub commit: Option<ObjectId>,
    /// The state of that checkpoint.
    pub commit_root: Option<ObjectId>,
    /// The state of the last seal, over which the journal is replayed.
    pub live_root: ObjectId,
}

/// The head for the one who moves it; what others see follows when it is let go.
pub struct HeadGuard<'a> {
    pub(super) head: MutexGuard<'a, Head>,
    pub(super) published: &'a Mutex<Head>,
    /// What a seal under this guard is told is stored must stay.
    pub(super) _use: UseGuard<'a>,
}

impl std::ops::Deref for HeadGuard<'_> {
    type Target = Head;
    fn deref(&self) -> &Head {
        &self.head
    }
}

impl std::ops::DerefMut for HeadGuard<'_> {
    fn deref_mut(&mut self) -> &mut Head {
        &mut self.head
    }
}

impl Drop for HeadGuard<'_> {
    fn drop(&mut self) {
        self.published.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&self.head);
    }
}
