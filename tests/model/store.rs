//! The steps about checkpoints and branches, done on both sides.

use crate::files::Sides;
use crate::real::{Real, View, split};
use crate::steps::Step;
use crate::tree::{Model, is_below};
use mementofs::object::{Author, ObjectId};
use mementofs::repository::{Check, GcRules};
use mementofs::workspace::{CheckpointRequest, WorkspaceError};

/// What an undo on a branch takes back.
#[derive(Clone)]
enum Undo {
    Nothing,
    /// It is not certain: a movement that changes nothing is none, and then the one before counts.
    Unknown,
    Movement(Model),
    /// That branch was deleted from here.
    Deletion(usize),
    /// The deletion of that branch was undone here.
    Revival(usize),
}

/// A branch as it should be.
#[derive(Clone)]
struct Branch {
    name: String,
    model: Model,
    undo: Undo,
    deleted: bool,
}

impl Branch {
    fn new(name: String, model: Model) -> Self {
        Self { name, model, undo: Undo::Nothing, deleted: false }
    }

    /// Says what is in the branch now, and what it takes to go back.
    fn moved_to(&mut self, then: Model) {
        let next = self.model.next.max(then.next);
        let before = std::mem::replace(&mut self.model, Model { next, ..then });
        self.undo = if before.picture() == self.model.picture() { Undo::Unknown } else { Undo::Movement(before) };
    }
}

/// Both sides with what the history should be.
pub struct Pair {
    real: Real,
    /// Every branch that ever was.
    branches: Vec<Branch>,
    /// The one at work.
    at: usize,
    checkpoints: Vec<(ObjectId, Model)>,
}

fn author() -> Author {
    Author { uid: 0, pid: 0, command: "model".into() }
}

fn branch_name(number: u8) -> String {
    format!("branch{number}")
}

impl Pair {
    pub fn new() -> Self {
        let branches = vec![Branch::new("main".into(), Model::default())];
        Self { real: Real::new(), branches, at: 0, checkpoints: Vec::new() }
    }

    fn here(&mut self) -> &mut Branch {
        &mut self.branches[self.at]
    }

    fn view(&self) -> View {
        self.real.view(&self.branches[self.at].name)
    }

    /// The numbers of the branches that are not deleted.
    fn living(&self) -> Vec<usize> {
        (0..self.branches.len()).filter(|at| !self.branches[*at].deleted).collect()
    }

    fn is_taken(&self, name: &str) -> bool {
        self.living().iter().any(|at| self.branches[*at].name == name)
    }

    fn pick(&self, at: usize) -> Option<(ObjectId, Model)> {
        (!self.checkpoints.is_empty()).then(|| self.checkpoints[at % self.checkpoints.len()].clone())
    }

    /// Does a step; nothing when there is nothing to do it to.
    pub fn apply(&mut self, step: &Step) -> Option<()> {
        match *step {
            Step::Checkpoint => {
                let done = self.view().checkpoint(&CheckpointRequest::new("model", author())).unwrap();
                let model = self.here().model.clone();
                self.checkpoints.push((done.id, model));
            }
            Step::DeleteCheckpoint(at) => return self.delete_checkpoint(at),
            Step::Restore(at) => {
                let (id, then) = self.pick(at)?;
                self.view().restore(&id, None, false, &author()).unwrap();
                self.here().moved_to(then);
            }
            Step::RestorePath(at, path) => return self.restore_path(at, path),
            Step::Undo => return self.undo(),
            Step::Collect => {
                let rules = GcRules { grace_secs: Some(0), ..GcRules::default() };
                self.real.branches().collect(&rules, &author()).unwrap();
            }
            Step::Crash => self.real.crash(),
            Step::Switch(to) => self.at = self.living()[to % self.living().len()],
            Step::ForkLive(name) => self.fork(None, name),
            Step::ForkAt(at, name) => {
                let checkpoint = self.pick(at)?;
                self.fork(Some(checkpoint), name);
            }
            Step::RenameBranch(which, name) => self.rename_branch(which, name),
            Step::DeleteBranch(which) => self.delete_branch(which),
            Step::RestoreSeveral(bits, at) => return self.restore_several(bits, at),
            _ => {
                let view = self.view();
                return Sides { model: &mut self.here().model, view }.apply(step);
            }
        }
        Some(())
    }

    /// Deletes a checkpoint, unless a branch stands on it.
    fn delete_checkpoint(&mut self, at: usize) -> Option<()> {
        let (id, _) = self.pick(at)?;
        if self.real.branches().repository().delete_checkpoint(&id, &author()).is_err() {
            let stands = self.real.branches().repository().history().branches().unwrap().iter().any(|row| row.head == Some(id));
            assert!(stands, "a checkpoint on which no branch stands could not be deleted");
            return None;
        }
        self.checkpoints.retain(|(other, _)| *other != id);
        self.view().restore(&id, None, false, &author()).unwrap_err();
        Some(())
    }

    /// Restores a path that holds no hard links, which have rules of their own.
    fn restore_path(&mut self, at: usize, path: usize) -> Option<()> {
        let (id, then) = self.pick(at)?;
        let path = then.any(path)?;
        let model = &self.branches[self.at].model;
        let parents_are_directories = (1..path.len())
            .filter(|end| path[*end] == b'/')
            .all(|end| model.paths.get(&path[..end]).is_none_or(|file| model.files[file].directory));
        if then.has_hard_links() || model.has_hard_links() || !parents_are_directories {
            return None;
        }
        self.view().restore(&id, Some(&split(&path)), false, &author()).unwrap();
        let mut after = model.clone();
        after.paths.retain(|other, _| *other != path && !is_below(other, &path));
        for (other, file) in &then.paths {
            let on_the_way = is_below(&path, other) && !after.paths.contains_key(other);
            if *other == path || is_below(other, &path) || on_the_way {
                after.next += 1;
                after.files.insert(after.next, then.files[file].clone());
                after.paths.insert(other.clone(), after.next);
            }
        }
        self.here().moved_to(after);
        Some(())
    }

    fn undo(&mut self) -> Option<()> {
        let undo = self.here().undo.clone();
        if matches!(undo, Undo::Unknown) {
            return None;
        }
        let done = self.real.branches().undo(&self.view(), &author());
        match undo {
            Undo::Movement(before) => {
                done.unwrap();
                self.here().moved_to(before);
            }
            Undo::Deletion(which) if !self.is_taken(&self.branches[which].name) => {
                done.unwrap();
                self.branches[which].deleted = false;
                self.here().undo = Undo::Revival(which);
            }
            Undo::Revival(which) if !self.branches[which].deleted => {
                done.unwrap();
                self.branches[which].deleted = true;
                self.here().undo = Undo::Deletion(which);
            }
            // Nothing to undo; the name has gone to another; somebody else deleted it since.
            _ => drop(done.unwrap_err()),
        }
        Some(())
    }

    fn fork(&mut self, checkpoint: Option<(ObjectId, Model)>, name: u8) {
        let name = branch_name(name);
        let taken = self.is_taken(&name);
        let id = checkpoint.as_ref().map(|(id, _)| id);
        let forked = self.real.branches().fork(&self.view(), id, &name, &author());
        if taken {
            assert!(matches!(forked, Err(WorkspaceError::Exists(_))), "{forked:?}");
            return;
        }
        let forked = forked.unwrap();
        let model = checkpoint.map_or_else(|| self.here().model.clone(), |(_, model)| model);
        if let Some(head) = forked.head {
            self.checkpoints.push((head, model.clone())); // The one that the fork took, perhaps.
        }
        self.branches.push(Branch::new(name, model));
    }

    fn rename_branch(&mut self, which: usize, name: u8) {
        let which = self.living()[which % self.living().len()];
        let new = branch_name(name);
        let old = &self.branches[which].name;
        let renamed = self.real.branches().rename(old, &new, &author());
        if *old != new && self.is_taken(&new) {
            renamed.unwrap_err();
            return;
        }
        renamed.unwrap();
        self.branches[which].name = new;
    }

    fn delete_branch(&mut self, which: usize) {
        let which = self.living()[which % self.living().len()];
        let number = self.real.branches().repository().branch(&self.branches[which].name).unwrap().id;
        let deleted = self.real.branches().delete(&self.branches[which].name, &self.view(), &author());
        if which == self.at {
            assert!(matches!(deleted, Err(WorkspaceError::Busy(_))), "{deleted:?}");
            return;
        }
        deleted.unwrap();
        self.branches[which].deleted = true;
        self.here().undo = Undo::Deletion(which);
        if let Some(head) = self.real.branches().repository().history().branch_by_id(number).unwrap().head {
            let model = self.branches[which].model.clone();
            self.checkpoints.push((head, model)); // The one that the deletion took, perhaps.
        }
    }

    fn restore_several(&mut self, bits: u8, at: usize) -> Option<()> {
        self.pick(at)?;
        let chosen: Vec<usize> =
            self.living().into_iter().enumerate().filter(|(bit, _)| bits >> (bit % 8) & 1 == 1).map(|(_, at)| at).collect();
        let targets: Vec<_> = chosen.iter().zip(at..).filter_map(|(_, at)| self.pick(at)).collect();
        let workspaces = chosen.iter().map(|which| self.real.view(&self.branches[*which].name).0);
        let moves: Vec<_> = workspaces.zip(targets.iter().map(|(id, _)| *id)).collect();
        self.real.branches().restore(&moves, &author()).unwrap();
        for (which, (_, then)) in chosen.into_iter().zip(targets) {
            self.branches[which].moved_to(then);
        }
        Some(())
    }

    /// Says where the branch at work differs from what it should be.
    pub fn check_here(&self) -> Result<(), String> {
        self.check(self.at)
    }

    /// Says where any branch, or the list of them, differs from what it should be.
    pub fn check_all(&self) -> Result<(), String> {
        let mut names: Vec<_> = self.living().iter().map(|at| self.branches[*at].name.clone()).collect();
        names.sort();
        if names != self.real.names() {
            return Err(format!("the branches are {:?} instead of {names:?}", self.real.names()));
        }
        let broken = self.real.branches().repository().history().broken_references();
        if !broken.is_empty() {
            return Err(broken.join("; "));
        }
        self.living().into_iter().try_for_each(|at| self.check(at))
    }

    fn check(&self, at: usize) -> Result<(), String> {
        let branch = &self.branches[at];
        let (expected, found) = (branch.model.picture(), self.real.view(&branch.name).picture());
        if expected == found {
            return Ok(());
        }
        let differs = |path: &&Vec<u8>| expected.get(*path) != found.get(*path);
        let paths = expected.keys().chain(found.keys()).filter(differs).map(|path| String::from_utf8_lossy(path).into_owned());
        Err(format!("in the branch {} these differ: {:?}", branch.name, paths.collect::<Vec<_>>()))
    }

    /// Says what a check of every byte of the store finds; nothing should be wrong.
    pub fn check_store(&self) -> Result<(), String> {
        let check = Check { read_data: true, progress: &|_, _, _| {} };
        let found = self.real.branches().repository().verify(&check).findings;
        if found.is_empty() { Ok(()) } else { Err(format!("{found:?}")) }
    }

    /// As a crash does, and then all must be there.
    pub fn crash(&mut self) {
        self.real.crash();
    }
}
