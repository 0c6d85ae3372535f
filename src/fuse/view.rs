//! A branch as one mount shows it, and all views of one branch: what changes through one is forgotten by the others.

use super::notify::{Afterwards, Batch, Invalidator};
use super::number::{control_of, files_of};
use super::retries::Retries;
use crate::control::ControlDirectory;
use crate::object::{EntryKind, Name};
use crate::workspace::{Attributes, Ino, NewNode, ROOT, Stale, Workspace, WorkspaceError};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

/// A branch as one mount shows it: at its top, or below `branches/`.
pub struct View {
    /// The branch.
    pub workspace: Arc<Workspace>,
    /// Its control directory here.
    pub control: Arc<ControlDirectory>,
    number: u16,
    audience: Arc<Audience>,
    invalidator: Invalidator,
    /// The files that the kernel refers to through this view, and how often.
    known: Mutex<HashMap<Ino, u64>>,
    /// Answers about files that are being made: the kernel may come to know something that nobody has noted yet.
    answering: AtomicUsize,
    /// Makers of files for which a name existed unexpectedly.
    retries: Retries,
}

/// A view through which somebody is about to tell the kernel about a file, as long as this lives.
pub struct Answering(Arc<View>);

impl Answering {
    /// Says that an answer about files is being made. To be held until it is sent.
    pub fn of(view: Arc<View>) -> Self {
        view.answering.fetch_add(1, Ordering::SeqCst);
        Self(view)
    }

    /// Returns the view.
    pub fn view(&self) -> Arc<View> {
        self.0.clone()
    }
}

impl std::ops::Deref for Answering {
    type Target = View;
    fn deref(&self) -> &View {
        &self.0
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Ordering::SeqCst);
    }
}

impl View {
    /// Makes the view `number` of a mount.
    pub fn new(
        workspace: Arc<Workspace>,
        control: Arc<ControlDirectory>,
        number: u16,
        audience: Arc<Audience>,
        invalidator: Invalidator,
    ) -> Arc<Self> {
        let (known, answering, retries) = (Mutex::default(), AtomicUsize::new(0), Retries::default());
        let view = Arc::new(Self { workspace, control, number, audience, invalidator, known, answering, retries });
        view.audience.join(&view);
        view
    }

    /// Returns the view's number within its mount.
    pub fn number(&self) -> u16 {
        self.number
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Ino, u64>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self, attributes: Attributes) -> Attributes {
        self.remember(attributes.ino);
        attributes
    }

    /// Notes a reference that the kernel has to a file.
    pub fn remember(&self, ino: Ino) {
        *self.known().entry(ino).or_default() += 1;
    }

    /// Finds a name and adds a reference to the file.
    pub fn lookup(&self, parent: Ino, name: &Name) -> Result<Option<Attributes>, WorkspaceError> {
        Ok(self.workspace.lookup(parent, name)?.map(|found| self.remembered(found)))
    }

    /// Finds a name likewise, for a thread that may have been sent to look again.
    pub fn lookup_for(&self, thread: u32, parent: Ino, name: &Name) -> Result<Option<Attributes>, WorkspaceError> {
        let found = self.lookup(parent, name)?;
        if found.is_some() {
            self.retries.found(thread, parent, name);
        }
        Ok(found)
    }

    /// Returns who was sent to look for a name again.
    pub fn retries(&self) -> &Retries {
        &self.retries
    }

    /// Creates a file and adds a reference to it.
    pub fn create(&self, parent: Ino, name: &Name, node: NewNode, umask: u32) -> Result<Attributes, WorkspaceError> {
        self.workspace.create(parent, name, node, umask).map(|made| self.remembered(made))
    }

    /// Gives a file a further name and adds a reference to it.
    pub fn link(&self, ino: Ino, parent: Ino, name: &Name) -> Result<Attributes, WorkspaceError> {
        self.workspace.link(ino, parent, name).map(|linked| self.remembered(linked))
    }

    /// Gives back references.
    pub fn forget(&self, ino: Ino, count: u64) {
        if let Entry::Occupied(mut references) = self.known().entry(ino) {
            match references.get().checked_sub(count) {
                Some(left @ 1..) => *references.get_mut() = left,
                _ => drop(references.remove()),
            }
        }
        self.workspace.forget(ino, count);
    }

    /// Says whether the kernel refers to nothing of the view any more.
    pub fn is_forgotten(&self) -> bool {
        self.known().is_empty() && self.answering.load(Ordering::SeqCst) == 0 && self.control.is_forgotten()
    }

    fn concerns(&self, stale: &Stale) -> bool {
        let known = self.known();
        let knows = |ino: &Ino| *ino == ROOT || known.contains_key(ino);
        match stale {
            Stale::Name { parent, .. } => knows(parent),
            Stale::Attributes { ino } => knows(ino),
        }
    }

    /// Returns what this view's kernel has to forget of `stale`, if anything.
    fn to_forget(&self, stale: &[Stale], afterwards: Option<Afterwards>) -> Option<Batch> {
        let again = self.answering.load(Ordering::SeqCst) > 0;
        let stale: Vec<Stale> = stale.iter().filter(|stale| again || self.concerns(stale)).cloned().collect();
        (!stale.is_empty()).then(|| Batch { namespace: files_of(self.number), stale, again, afterwards })
    }

    /// Has this view's own kernel forget the listing of a directory that may have come here from another one: `..` is in it.
    pub fn forget_parent_of(&self, parent: Ino, name: &Name) {
        let Ok(Some(ino)) = self.workspace.child(parent, name) else { return };
        if self.workspace.attributes(ino).is_ok_and(|attributes| attributes.kind == EntryKind::Directory) {
            self.invalidator.forget_listing(files_of(self.number), ino);
        }
    }

    /// Has this view's own kernel forget `stale`. Does not wait.
    pub fn forget_own(&self, stale: Vec<Stale>) {
        self.invalidator.send(Batch { namespace: files_of(self.number), stale, again: false, afterwards: None });
    }

    /// Has this view's own kernel forget that a name does not exist in a directory that has none itself. For that it would remember the
    /// directory, and have it remembered here, long after the last who stood in it.
    pub fn forget_missing(&self, parent: Ino, name: &OsStr) {
        if let Ok(name) = Name::new(name.as_bytes()) {
            self.forget_own(vec![Stale::Name { parent, name }]);
        }
    }

    /// Has this view's own kernel forget what it keeps of deleted checkpoints; says whether there is anything. `afterwards` is kept
    /// until it is done.
    pub fn forget_deleted(&self, afterwards: &Afterwards) -> bool {
        let places = self.control.places_of_deleted();
        if places.is_empty() {
            return false;
        }
        let stale = places.into_iter().map(|(parent, name)| Stale::Name { parent, name }).collect();
        let afterwards = Some(afterwards.clone());
        self.invalidator.send(Batch { namespace: control_of(self.number), stale, again: false, afterwards });
        true
    }

    /// Answers a change that was made through this view, when every other view of the branch has forgotten what it made
    /// stale. Without another view it answers at once.
    pub fn after_others(&self, stale: impl FnOnce() -> Vec<Stale>, answer: impl FnOnce() + Send + 'static) {
        if self.is_shared() {
            let changing = self.invalidator.changes(); // Before the other kernels are asked whether they wait for a change.
            let afterwards = Afterwards::new(move || {
                answer();
                drop(changing);
            });
            self.audience.tell_others(self, &stale(), Some(&afterwards));
        } else {
            answer();
        }
    }

    /// Has every other view of the branch forget a change that was made through this view and is answered already.
    pub fn tell_others(&self, stale: impl FnOnce() -> Vec<Stale>) {
        if self.is_shared() {
            self.audience.tell_others(self, &stale(), None);
        }
    }

    /// Says whether the branch has other views.
    pub fn is_shared(&self) -> bool {
        self.audience.is_shared.load(Ordering::SeqCst)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // An unmounted kernel gives nothing back.
        for (ino, count) in self.known.get_mut().unwrap_or_else(PoisonError::into_inner).drain() {
            self.workspace.forget(ino, count);
        }
        self.audience.leave(self);
    }
}

/// All views of one branch.
#[derive(Default)]
pub struct Audience {
    views: RwLock<Vec<Weak<View>>>,
    is_shared: AtomicBool,
}

impl Audience {
    fn join(&self, view: &Arc<View>) {
        let mut views = self.views.write().unwrap_or_else(PoisonError::into_inner);
        views.push(Arc::downgrade(view));
        self.is_shared.store(views.len() > 1, Ordering::SeqCst);
    }

    fn leave(&self, view: &View) {
        let mut views = self.views.write().unwrap_or_else(PoisonError::into_inner);
        views.retain(|other| !std::ptr::eq(other.as_ptr(), view) && other.strong_count() > 0);
        self.is_shared.store(views.len() > 1, Ordering::SeqCst);
    }

    /// Returns the views.
    pub fn views(&self) -> Vec<Arc<View>> {
        self.views.read().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
    }

    /// Has every kernel side forget `stale`; `afterwards` is kept until it is done. For those for whom no kernel side holds
    /// anything that another needs to forget.
    pub fn tell_all(&self, stale: &[Stale], afterwards: &Afterwards) {
        for view in self.views() {
            if let Some(batch) = view.to_forget(stale, Some(afterwards.clone())) {
                view.invalidator.send(batch);
            }
        }
    }

    /// Has every kernel side but that of `own` forget `stale` likewise; one that waits for an answer itself doubts it first.
    fn tell_others(&self, own: &View, stale: &[Stale], afterwards: Option<&Afterwards>) {
        for view in self.views().into_iter().filter(|view| !std::ptr::eq(own, &**view)) {
            if let Some(batch) = view.to_forget(stale, afterwards.cloned()) {
                view.invalidator.send_change(batch, &own.invalidator);
            }
        }
    }
}
