//! A value under a lock, at which those who want to change it can be held up while everybody else goes on.

use super::primitives::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::ops::{Deref, DerefMut};

/// A value under a lock, with a gate for those who change it.
pub struct Gate<T> {
    inside: Mutex<Inside<T>>,
    /// The gate was opened again.
    opened: Condvar,
}

struct Inside<T> {
    value: T,
    /// How many hold the gate closed.
    holds: usize,
}

/// The value, locked.
pub struct Entered<'a, T> {
    inside: MutexGuard<'a, Inside<T>>,
    /// Somebody panicked while changing the value.
    pub doubtful: bool,
}

/// Holds the gate closed until dropped.
#[must_use]
pub struct Hold<'a, T> {
    gate: &'a Gate<T>,
}

impl<T> Gate<T> {
    /// Puts a value behind an open gate.
    pub fn new(value: T) -> Self {
        Self { inside: Mutex::new(Inside { value, holds: 0 }), opened: Condvar::new() }
    }

    /// Locks the value, whether the gate is open or not.
    pub fn enter(&self) -> Entered<'_, T> {
        match self.inside.lock() {
            Ok(inside) => Entered { inside, doubtful: false },
            Err(poisoned) => Entered { inside: poisoned.into_inner(), doubtful: true },
        }
    }

    /// Locks the value unless somebody else has it.
    pub fn try_enter(&self) -> Option<Entered<'_, T>> {
        match self.inside.try_lock() {
            Ok(inside) => Some(Entered { inside, doubtful: false }),
            Err(TryLockError::Poisoned(poisoned)) => Some(Entered { inside: poisoned.into_inner(), doubtful: true }),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Locks the value for a change unless somebody else has it or the gate is closed.
    pub fn try_enter_to_change(&self) -> Option<Entered<'_, T>> {
        self.try_enter().filter(|entered| entered.inside.holds == 0)
    }

    /// Locks the value for a change: waits while the gate is closed.
    pub fn enter_to_change(&self) -> Entered<'_, T> {
        let Entered { mut inside, doubtful } = self.enter();
        while inside.holds > 0 {
            inside = self.opened.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
        Entered { inside, doubtful }
    }

    /// Closes the gate until the value returned is dropped. Who is inside already finishes first.
    pub fn hold(&self) -> Hold<'_, T> {
        self.enter().inside.holds += 1;
        Hold { gate: self }
    }
}

impl<T> Drop for Hold<'_, T> {
    fn drop(&mut self) {
        self.gate.enter().inside.holds -= 1;
        self.gate.opened.notify_all();
    }
}

impl<T> Deref for Entered<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inside.value
    }
}

impl<T> DerefMut for Entered<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inside.value
    }
}
