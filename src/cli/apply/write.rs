//! The writing: each file appears in one step, deletions come last, directories get their times at the end.

use super::States;
use super::plan::{Plan, Seen, Standing, Step, described};
use super::target::{Parent, Target};
use crate::cli::export;
use crate::sys;
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What a new file is called before it has its name. One that an interrupted apply left is replaced.
pub const TEMPORARY: &str = ".mementofs-apply.tmp";

/// Does every step that is due.
pub fn write(plan: &Plan, target: &Target, states: &States) -> io::Result<()> {
    let mut writer = Writer { target, states, links: HashMap::new(), touched: BTreeSet::new() };
    for step in plan.steps.iter().filter(|step| step.new) {
        writer.make(step, plan).map_err(|err| about(&step.path, err))?;
    }
    for step in plan.steps.iter().rev().filter(|step| !step.new) {
        writer.remove(step).map_err(|err| about(&step.path, err))?;
    }
    writer.finish_directories(plan)
}

fn about(path: &Path, err: io::Error) -> io::Error {
    io::Error::new(err.kind(), format!("{}: {err}", path.display()))
}

struct Writer<'a> {
    target: &'a Target,
    states: &'a States,
    /// Files of the new state with several names that the target has by now: one of their paths there.
    links: HashMap<u64, PathBuf>,
    /// Directories in which names came or went.
    touched: BTreeSet<PathBuf>,
}

impl Writer<'_> {
    fn make(&mut self, step: &Step, plan: &Plan) -> io::Result<()> {
        let source = self.states.new.join(&step.path);
        let Some(wanted) = described(&source)? else { return Ok(()) };
        let linked = wanted.nlink() > 1 && !wanted.is_dir();
        if let Standing::Due = step.standing {
            let made_way = self.make_way(step, &wanted, plan)?;
            let parent = self.parent(&step.path)?;
            if wanted.is_dir() {
                fs::create_dir(parent.path())?;
            } else {
                let first = if linked { self.links.get(&wanted.ino()).cloned() } else { None };
                self.prepare(&parent, &source, &wanted, first.as_deref())?;
                if !made_way {
                    self.check_unchanged(step)?;
                }
                fs::rename(parent.sibling(TEMPORARY), parent.path())?;
            }
            self.touch(&step.path);
        } else if !wanted.is_dir() {
            self.dress_in_place(&step.path, &source, &wanted)?;
        }
        if linked {
            self.links.entry(wanted.ino()).or_insert_with(|| step.path.clone());
        }
        Ok(())
    }

    /// Removes what cannot be replaced in one step: a directory for a file, a file for a directory. Says whether it did.
    fn make_way(&mut self, step: &Step, wanted: &Metadata, plan: &Plan) -> io::Result<bool> {
        let Some(found) = self.target.describe(&step.path)? else { return Ok(false) };
        if found.is_dir() && !wanted.is_dir() {
            for below in plan.steps.iter().rev().filter(|below| below.path.starts_with(&step.path) && below.path != step.path) {
                self.remove(below)?;
            }
        } else if found.is_dir() == wanted.is_dir() {
            return Ok(false);
        } else {
            self.check_unchanged(step)?;
        }
        self.remove_found(&step.path)?;
        Ok(true)
    }

    fn remove(&mut self, step: &Step) -> io::Result<()> {
        match self.target.describe(&step.path)? {
            Some(found) if !found.is_dir() => self.check_unchanged(step)?,
            Some(_) => {}
            None => return Ok(()),
        }
        self.remove_found(&step.path)
    }

    fn remove_found(&mut self, path: &Path) -> io::Result<()> {
        let parent = self.parent(path)?;
        if parent.path().symlink_metadata()?.is_dir() {
            let _ = fs::remove_file(parent.path().join(TEMPORARY));
            fs::remove_dir(parent.path())?;
        } else {
            fs::remove_file(parent.path())?;
        }
        self.touch(path);
        Ok(())
    }

    fn parent(&self, path: &Path) -> io::Result<Parent> {
        self.target.parent(path)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn touch(&mut self, path: &Path) {
        self.touched.insert(path.parent().map(Path::to_owned).unwrap_or_default());
    }

    /// Fails if somebody changed the path since it was compared.
    fn check_unchanged(&self, step: &Step) -> io::Result<()> {
        let found = self.target.describe(&step.path)?.as_ref().map(Seen::of);
        match found == step.seen {
            true => Ok(()),
            false => Err(io::Error::other("it was changed while the apply was going on")),
        }
    }

    /// Makes the new file under a temporary name, complete and durable.
    fn prepare(&self, parent: &Parent, source: &Path, wanted: &Metadata, first: Option<&Path>) -> io::Result<()> {
        let temporary = parent.sibling(TEMPORARY);
        match fs::remove_file(&temporary) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => {}
        }
        if let Some(first) = first {
            return fs::hard_link(self.parent(first)?.path(), &temporary);
        }
        let kind = wanted.file_type();
        if kind.is_file() {
            let file = File::create_new(&temporary)?;
            export::copy(&File::open(source)?, &file, wanted.len())?;
            dress(source, &temporary, wanted)?;
            file.set_permissions(fs::Permissions::from_mode(wanted.mode() & 0o7777))?;
            return file.sync_all();
        }
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(source)?, &temporary)?;
        } else {
            sys::make_node(&temporary, wanted.mode(), wanted.rdev())?;
        }
        dress(source, &temporary, wanted)
    }

    /// Gives what has the right content already the attributes it is to have.
    fn dress_in_place(&self, path: &Path, source: &Path, wanted: &Metadata) -> io::Result<()> {
        let parent = self.parent(path)?;
        let found = parent.path().symlink_metadata()?;
        dress(source, &parent.path(), wanted)?;
        let regular = found.is_file() || found.is_dir();
        if regular && found.mode() & 0o7777 != wanted.mode() & 0o7777 {
            let opened = self.target.read(path)?;
            opened.set_permissions(fs::Permissions::from_mode(wanted.mode() & 0o7777))?;
        }
        Ok(())
    }

    /// Gives directories their attributes, those below first: what happens in them moves their times.
    fn finish_directories(&self, plan: &Plan) -> io::Result<()> {
        let steps = plan.steps.iter().filter(|step| step.new).map(|step| &step.path);
        let directories: BTreeSet<&PathBuf> = self.touched.iter().chain(steps).collect();
        for path in directories.into_iter().rev() {
            let source = self.states.new.join(path);
            let Some(wanted) = described(&source)?.filter(Metadata::is_dir) else { continue };
            let opened = self.target.read(path).map_err(|err| about(path, err))?;
            if path.as_os_str().is_empty() {
                opened.set_times(times_of(&wanted)?)?; // The rest of it is its owner's.
            } else {
                self.dress_in_place(path, &source, &wanted).map_err(|err| about(path, err))?;
            }
            opened.sync_all()?;
        }
        Ok(())
    }
}

fn times_of(wanted: &Metadata) -> io::Result<fs::FileTimes> {
    Ok(fs::FileTimes::new().set_accessed(wanted.accessed()?).set_modified(wanted.modified()?))
}

/// Gives a file its owner (where we may), extended attributes and times. Nothing here follows a symbolic link.
fn dress(source: &Path, to: &Path, wanted: &Metadata) -> io::Result<()> {
    let owned = std::os::unix::fs::lchown(to, Some(wanted.uid()), Some(wanted.gid()));
    if let Err(err) = owned
        && sys::effective_uid() == 0
    {
        return Err(err);
    }
    let names: Vec<_> = xattr::list(source)?.collect();
    for name in xattr::list(to)?.filter(|name| !names.contains(name)) {
        let _ = xattr::remove(to, &name); // Some namespaces are not ours to change.
    }
    for name in names {
        if let Some(value) = xattr::get(source, &name)? {
            let _ = xattr::set(to, &name, &value); // The directory may not know the namespace.
        }
    }
    sys::set_times(to, (wanted.atime(), wanted.atime_nsec()), (wanted.mtime(), wanted.mtime_nsec()))
}
