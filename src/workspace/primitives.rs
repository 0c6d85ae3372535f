//! What the protocols between threads are built from, named in one place: `tests/schedules.rs` builds them from others,
//! with which it tries one order of events after the other.

pub(super) use std::sync::atomic::{AtomicU64, Ordering};
pub(super) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
