//! What an apply has to do: each changed path with what is expected there, what is to be there and what is there.

use super::States;
use super::target::Target;
use crate::control::unquoted_path;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Bytes compared at a time.
const COMPARED_BYTES: usize = 256 << 10;

/// How a path stands.
#[derive(Debug)]
pub enum Standing {
    /// It holds what it is to hold already; at most its attributes are to be set.
    Done,
    /// It holds what was expected.
    Due,
    /// It holds something else.
    Drifted(String),
}

/// One path.
#[derive(Debug)]
pub struct Step {
    /// The path in the directory.
    pub path: PathBuf,
    /// Whether something was expected there.
    pub expected: bool,
    /// Whether something is to be there.
    pub new: bool,
    /// How it stands.
    pub standing: Standing,
    /// What was there when it was compared.
    pub seen: Option<Seen>,
}

/// Tells whether a file was changed between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
}

impl Seen {
    /// Takes down what a file looks like.
    pub fn of(found: &Metadata) -> Self {
        // Not the change time: replacing one name of a hard-linked file moves that of the others.
        Self { inode: found.ino(), size_bytes: found.size(), modified: (found.mtime(), found.mtime_nsec()) }
    }
}

/// All steps, in the order of paths.
#[derive(Debug)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Compares each path with what is there.
    pub fn make(target: &Target, states: &States, paths: BTreeSet<PathBuf>) -> io::Result<Self> {
        let steps = paths.into_iter().map(|path| step(target, states, path)).collect::<io::Result<_>>()?;
        Ok(Self { steps })
    }

    /// Returns the paths at which something else is than was expected, and what.
    pub fn drifted(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.steps.iter().filter_map(|step| match &step.standing {
            Standing::Drifted(why) => Some((step.path.as_path(), why.as_str())),
            _ => None,
        })
    }
}

/// Adds the paths that `changes` concern. A directory that was moved stands for all that is in it, at both places.
pub fn collect(changes: &Value, states: &States, paths: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let path_of = |text: &Value| text.as_str().map(|text| PathBuf::from(OsStr::from_bytes(&unquoted_path(text.as_bytes()))));
    for change in changes.as_array().into_iter().flatten() {
        let Some(path) = path_of(&change["path"]).filter(|path| path != Path::new(".")) else { continue };
        if let Some(from) = path_of(&change["from"]) {
            for expected in &states.expected {
                whole(expected, &from, paths)?;
            }
            whole(&states.new, &path, paths)?;
        }
        paths.insert(path);
    }
    Ok(())
}

fn whole(state: &Path, path: &Path, paths: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let mut waiting = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        if described(&state.join(&path))?.is_some_and(|found| found.is_dir()) {
            for entry in fs::read_dir(state.join(&path))? {
                waiting.push(path.join(entry?.file_name()));
            }
        }
        paths.insert(path);
    }
    Ok(())
}

/// Describes what a state has at a path.
pub fn described(path: &Path) -> io::Result<Option<Metadata>> {
    match path.symlink_metadata() {
        Ok(found) => Ok(Some(found)),
        Err(err) if super::target::is_absent(&err) => Ok(None),
        Err(err) => Err(err),
    }
}

fn step(target: &Target, states: &States, path: PathBuf) -> io::Result<Step> {
    let new = states.new.join(&path);
    let expected: Vec<PathBuf> = states.expected.iter().map(|state| state.join(&path)).collect();
    let (is_new, was) = (described(&new)?.is_some(), described(&expected[0])?.is_some());
    let found = match target.describe(&path) {
        Ok(found) => found,
        Err(err) if err.raw_os_error() == Some(libc::ELOOP) => {
            let standing = Standing::Drifted("a symbolic link is on the way".into());
            return Ok(Step { path, expected: was, new: is_new, standing, seen: None });
        }
        Err(err) => return Err(err),
    };
    let seen = found.as_ref().map(Seen::of);
    let standing = standing(target, &path, found.as_ref(), &new, &expected)?;
    Ok(Step { path, expected: was, new: is_new, standing, seen })
}

fn standing(target: &Target, path: &Path, found: Option<&Metadata>, new: &Path, expected: &[PathBuf]) -> io::Result<Standing> {
    if holds(target, path, found, new)? {
        return Ok(Standing::Done);
    }
    for state in expected {
        if holds(target, path, found, state)? {
            let stays = described(new)?.is_some_and(|new| new.is_dir());
            let foreign = if found.is_some_and(Metadata::is_dir) && !stays { foreign(target, path, expected)? } else { None };
            return Ok(foreign.map_or(Standing::Due, |name| Standing::Drifted(format!("it holds {name}, which nobody expected"))));
        }
    }
    let was = described(&expected[0])?;
    Ok(Standing::Drifted(match (found, was) {
        (None, _) => "it was removed".to_owned(),
        (Some(_), None) => "something else is there".to_owned(),
        (Some(found), Some(was)) if found.file_type() != was.file_type() => "it is of another kind".to_owned(),
        _ => "its content changed".to_owned(),
    }))
}

/// Returns a name in a directory that is to go and that is not expected there.
fn foreign(target: &Target, path: &Path, expected: &[PathBuf]) -> io::Result<Option<String>> {
    let Some(parent) = target.parent(path)? else { return Ok(None) };
    for entry in fs::read_dir(parent.path())? {
        let name = entry?.file_name();
        let known = expected.iter().any(|state| state.join(&name).symlink_metadata().is_ok());
        if !known && name != super::write::TEMPORARY {
            return Ok(Some(name.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

/// Says whether the target has at a path what a state has there: kind, size, bytes.
fn holds(target: &Target, path: &Path, found: Option<&Metadata>, state: &Path) -> io::Result<bool> {
    let (Some(found), Some(wanted)) = (found, described(state)?) else {
        return Ok(found.is_none() && described(state)?.is_none());
    };
    let kind = wanted.file_type();
    if found.file_type() != kind {
        return Ok(false);
    }
    if kind.is_file() {
        return Ok(found.len() == wanted.len() && same_bytes(target.read(path)?, File::open(state)?)?);
    }
    if kind.is_symlink() {
        let Some(parent) = target.parent(path)? else { return Ok(false) };
        return Ok(fs::read_link(parent.path())? == fs::read_link(state)?);
    }
    let is_device = kind.is_char_device() || kind.is_block_device();
    Ok(!is_device || found.rdev() == wanted.rdev())
}

fn same_bytes(mut one: File, mut other: File) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; COMPARED_BYTES], vec![0; COMPARED_BYTES]);
    loop {
        let len = one.read(&mut left)?;
        if len == 0 {
            return Ok(other.read(&mut right[..1])? == 0);
        }
        match other.read_exact(&mut right[..len]) {
            Ok(()) if left[..len] == right[..len] => {}
            Ok(()) => return Ok(false),
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(err) => return Err(err),
        }
    }
}
