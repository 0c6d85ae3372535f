//! The views of one mount, by number: the branch at its top, and branches that somebody looked at below `branches/`.

use super::mounts::Mounts;
use super::notify::Invalidator;
use super::number::{TOP, VIEW_MAX};
use super::view::View;
use crate::workspace::{ROOT, Workspace};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Branches numbered below this have the view of the same number, in every mount and after every start.
const STEADY_BELOW: i64 = 1 << 14;

/// The views of one mount.
pub struct ViewTable {
    top: Arc<View>,
    lower: RwLock<Lower>,
    mounts: Arc<Mounts>,
    invalidator: Invalidator,
}

/// The views that are not at the top.
#[derive(Default)]
struct Lower {
    views: HashMap<u16, Arc<View>>,
    /// The number of each, by the view through which it is seen and the branch.
    numbers: HashMap<(u16, i64), u16>,
}

impl ViewTable {
    /// Makes the views of a mount that shows `workspace` at its top.
    pub fn new(mounts: Arc<Mounts>, workspace: Arc<Workspace>, invalidator: Invalidator) -> Self {
        let top = mounts.view(workspace, TOP, &invalidator);
        Self { top, lower: RwLock::default(), mounts, invalidator }
    }

    /// Returns the view at the top.
    pub fn top(&self) -> &Arc<View> {
        &self.top
    }

    /// Returns what is common to all mounts of the store.
    pub fn mounts(&self) -> &Arc<Mounts> {
        &self.mounts
    }

    fn read(&self) -> RwLockReadGuard<'_, Lower> {
        self.lower.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Lower> {
        self.lower.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a view by number.
    pub fn get(&self, number: u16) -> Option<Arc<View>> {
        if number == TOP { Some(self.top.clone()) } else { self.read().views.get(&number).cloned() }
    }

    /// Returns the view of a branch below `branches/` of the view `from`, with a reference of the kernel to its top. None
    /// when all numbers are taken.
    pub fn enter(&self, from: &View, workspace: Arc<Workspace>) -> Option<Arc<View>> {
        let mut lower = self.write(); // Held until the reference is noted: nobody takes the view away meanwhile.
        let key = (from.number(), workspace.branch_id());
        let kept = lower.numbers.get(&key).and_then(|number| lower.views.get(number));
        // A branch that was deleted and brought back is another one.
        let kept = kept.filter(|view| Arc::ptr_eq(&view.workspace, &workspace)).cloned();
        let view = match kept {
            Some(view) => view,
            None => {
                let number = lower.free_number(key)?;
                let view = self.mounts.view(workspace, number, &self.invalidator);
                lower.views.insert(number, view.clone());
                lower.numbers.insert(key, number);
                view
            }
        };
        view.remember(ROOT);
        Some(view)
    }

    /// Lets go of a view of which the kernel has forgotten everything.
    pub fn leave(&self, view: &Arc<View>) {
        if view.number() == TOP || !view.is_forgotten() {
            return;
        }
        let mut lower = self.write();
        if view.is_forgotten() {
            lower.views.remove(&view.number());
            lower.numbers.retain(|_, number| *number != view.number());
        }
    }
}

impl Lower {
    fn free_number(&self, (from, branch_id): (u16, i64)) -> Option<u16> {
        let is_free = |number: &u16| !self.views.contains_key(number);
        let steady = (from == TOP && (1..STEADY_BELOW).contains(&branch_id)).then_some(branch_id as u16);
        steady.filter(is_free).or_else(|| (STEADY_BELOW as u16..=VIEW_MAX).find(is_free))
    }
}
