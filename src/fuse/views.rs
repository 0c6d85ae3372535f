//! The views of one mount, by number: the branch at its top, and branches that somebody looked at below `branches/`.

use super::mounts::Mounts;
use super::notify::Invalidator;
use super::number::{NodeNumber, TOP, VIEW_MAX};
use super::view::View;
use crate::control::Said;
use crate::workspace::{ROOT, Workspace};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Branches numbered below this have the view of the same number, in every mount and after every start.
const STEADY_BELOW: i64 = 1 << 14;

/// Forgotten views of which the answers are kept.
const SAID_MAX: usize = 256;

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
    /// What commands were answered through views that the kernel has forgotten, the longest forgotten first.
    said: VecDeque<((u16, i64), Said)>,
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
                if let Some(at) = lower.said.iter().position(|(of, _)| *of == key)
                    && let Some((_, said)) = lower.said.remove(at)
                {
                    view.control.recall(said);
                }
                lower.views.insert(number, view.clone());
                lower.numbers.insert(key, number);
                view
            }
        };
        view.remember(ROOT);
        Some(view)
    }

    /// Takes back references of the kernel to a node.
    pub fn forget(&self, number: NodeNumber, count: u64) {
        let Some(view) = self.get(number.view()) else { return };
        if number.is_control() {
            view.control.forget(number.ino, count);
        } else {
            view.forget(number.ino, count);
        }
        self.leave(&view);
    }

    /// Lets go of a view of which the kernel has forgotten everything.
    fn leave(&self, view: &Arc<View>) {
        if view.number() == TOP || !view.is_forgotten() {
            return;
        }
        let mut lower = self.write();
        if view.is_forgotten() {
            lower.views.remove(&view.number());
            let keys = lower.numbers.extract_if(|_, number| *number == view.number());
            let said = keys.map(|(key, _)| (key, view.control.take_said())).collect::<Vec<_>>();
            lower.said.extend(said);
            let many = lower.said.len().saturating_sub(SAID_MAX);
            lower.said.drain(..many);
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
