//! Random operations on the live tree without a kernel, compared with a plain model: a map of paths, and its snapshots.
//!
//! MEMENTOFS_MODEL_CASES says how many sequences to try (default 60), PROPTEST_ seeds are kept beside this file.

use mementofs::object::{Author, EntryKind, Name, ObjectId};
use mementofs::repository::{GcRules, Repository};
use mementofs::workspace::{
    AttributeChange, Branches, CheckpointRequest, Ino, NewNode, ROOT, RangeChange, RenameMode, Workspace, XattrMode,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// A step; numbers are taken modulo what exists, so that shrinking keeps every sequence valid.
#[derive(Clone, Debug)]
enum Step {
    Create(usize, u8),
    MakeDirectory(usize, u8),
    Write(usize, u32, u32, u8),
    Truncate(usize, u32),
    Punch(usize, u32, u32),
    Rename(usize, usize, u8),
    Link(usize, usize, u8),
    Remove(usize),
    SetXattr(usize, u8),
    Checkpoint,
    Seal,
    Restore(usize),
    RestorePath(usize, usize),
    Undo,
    Collect,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let any = 0..1000usize;
    // Sizes on both sides of what lies in memory, of a block and of a blob.
    let size = prop_oneof![0..100u32, 4000..4200u32, 262_000..262_300u32, 1_048_000..1_049_000u32];
    prop_oneof![
        5 => (any.clone(), 0..12u8).prop_map(|(at, name)| Step::Create(at, name)),
        2 => (any.clone(), 0..12u8).prop_map(|(at, name)| Step::MakeDirectory(at, name)),
        6 => (any.clone(), size.clone(), size.clone(), 0..=255u8).prop_map(|(at, offset, len, byte)| Step::Write(at, offset, len, byte)),
        2 => (any.clone(), size.clone()).prop_map(|(at, size)| Step::Truncate(at, size)),
        1 => (any.clone(), size.clone(), size).prop_map(|(at, offset, len)| Step::Punch(at, offset, len)),
        4 => (any.clone(), any.clone(), 0..12u8).prop_map(|(at, to, name)| Step::Rename(at, to, name)),
        2 => (any.clone(), any.clone(), 0..12u8).prop_map(|(at, to, name)| Step::Link(at, to, name)),
        3 => any.clone().prop_map(Step::Remove),
        1 => (any.clone(), 0..=255u8).prop_map(|(at, value)| Step::SetXattr(at, value)),
        3 => Just(Step::Checkpoint),
        1 => Just(Step::Seal),
        2 => any.clone().prop_map(Step::Restore),
        1 => (any.clone(), any).prop_map(|(at, path)| Step::RestorePath(at, path)),
        1 => Just(Step::Undo),
        1 => Just(Step::Collect),
        2 => Just(Step::Crash),
    ]
}

/// A file of the model. Hard links share a number.
#[derive(Clone, Debug, PartialEq)]
struct ModelFile {
    directory: bool,
    bytes: Vec<u8>,
    xattr: Option<u8>,
}

/// A state of the model: which file each path leads to, and the files.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    paths: BTreeMap<Vec<u8>, usize>,
    files: BTreeMap<usize, ModelFile>,
    next: usize,
}

/// What both sides look like, in the same form: for each path the first path of the same file, and the file.
type Picture = BTreeMap<Vec<u8>, (Vec<u8>, ModelFile)>;

fn join(directory: &[u8], name: u8) -> Vec<u8> {
    let name = format!("n{name}").into_bytes();
    if directory.is_empty() { name } else { [directory, b"/", &name].concat() }
}

fn is_below(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}

impl Model {
    fn directories(&self) -> Vec<Vec<u8>> {
        let nested = self.paths.iter().filter(|(_, file)| self.files[file].directory).map(|(path, _)| path.clone());
        std::iter::once(Vec::new()).chain(nested).collect()
    }

    fn regular(&self, at: usize) -> Option<Vec<u8>> {
        let files: Vec<_> = self.paths.iter().filter(|(_, file)| !self.files[file].directory).map(|(path, _)| path).collect();
        (!files.is_empty()).then(|| files[at % files.len()].clone())
    }

    fn any(&self, at: usize) -> Option<Vec<u8>> {
        (!self.paths.is_empty()).then(|| self.paths.keys().nth(at % self.paths.len()).unwrap().clone())
    }

    fn add(&mut self, path: Vec<u8>, directory: bool) {
        self.next += 1;
        self.files.insert(self.next, ModelFile { directory, bytes: Vec::new(), xattr: None });
        self.paths.insert(path, self.next);
    }

    fn file(&mut self, path: &[u8]) -> &mut ModelFile {
        self.files.get_mut(&self.paths[path]).unwrap()
    }

    fn is_empty_directory(&self, path: &[u8]) -> bool {
        !self.paths.keys().any(|other| is_below(other, path))
    }

    fn picture(&self) -> Picture {
        let mut first: BTreeMap<usize, &Vec<u8>> = BTreeMap::new();
        let mut picture = Picture::new();
        for (path, file) in &self.paths {
            let first = (*first.entry(*file).or_insert(path)).clone();
            picture.insert(path.clone(), (first, self.files[file].clone()));
        }
        picture
    }
}

/// The real side.
struct Real {
    store: PathBuf,
    /// The branches of the store and the one at work.
    open: Option<(Arc<Branches>, Arc<Workspace>)>,
    _dir: tempfile::TempDir,
}

fn split(path: &[u8]) -> Vec<Name> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).map(|part| Name::new(part).unwrap()).collect()
}

impl Real {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let open = Some(Self::opened(Repository::create(&store).unwrap()));
        Self { store, open, _dir: dir }
    }

    fn opened(repository: Arc<Repository>) -> (Arc<Branches>, Arc<Workspace>) {
        let branches = Branches::new(repository);
        let workspace = branches.open("main").unwrap();
        (branches, workspace)
    }

    fn branches(&self) -> &Branches {
        &self.open.as_ref().unwrap().0
    }

    fn workspace(&self) -> &Workspace {
        &self.open.as_ref().unwrap().1
    }

    /// Lets go of everything in memory, as a killed daemon does, and opens the store again.
    fn crash(&mut self) {
        self.open = None;
        self.open = Some(Self::opened(Repository::open(&self.store).unwrap()));
    }

    fn ino(&self, path: &[u8]) -> Ino {
        let mut ino = ROOT;
        for name in split(path) {
            ino = self.workspace().lookup(ino, &name).unwrap().unwrap_or_else(|| panic!("{path:?} is missing")).ino;
        }
        ino
    }

    fn place(&self, path: &[u8]) -> (Ino, Name) {
        let mut names = split(path);
        let name = names.pop().unwrap();
        let parent = names.iter().fold(ROOT, |ino, name| self.workspace().lookup(ino, name).unwrap().unwrap().ino);
        (parent, name)
    }

    fn create(&self, path: &[u8], kind: EntryKind) {
        let (parent, name) = self.place(path);
        let node = NewNode { kind, mode: 0o755, uid: 1, gid: 2, device: 0, target: Box::default() };
        self.workspace().create(parent, &name, node).unwrap();
    }

    fn picture(&self) -> Picture {
        let mut first: BTreeMap<Ino, Vec<u8>> = BTreeMap::new();
        let mut picture = Picture::new();
        let mut waiting = vec![(ROOT, Vec::new())];
        let mut found = Vec::new();
        while let Some((ino, path)) = waiting.pop() {
            let mut after = 0;
            loop {
                let names = self.workspace().list(ino, after, 3).unwrap();
                let Some(last) = names.last() else { break };
                after = last.name.position();
                for listed in names {
                    let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
                    let path = [&path, separator, listed.name.as_bytes()].concat();
                    let attributes = self.workspace().lookup(ino, &listed.name).unwrap().unwrap();
                    assert_eq!(attributes.ino, listed.ino);
                    if attributes.kind == EntryKind::Directory {
                        waiting.push((attributes.ino, path.clone()));
                    }
                    found.push((path, attributes));
                }
            }
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut names: BTreeMap<Ino, u32> = BTreeMap::new();
        for (path, attributes) in &found {
            let first = first.entry(attributes.ino).or_insert_with(|| path.clone()).clone();
            *names.entry(attributes.ino).or_default() += 1;
            let directory = attributes.kind == EntryKind::Directory;
            let bytes = if directory { Vec::new() } else { self.workspace().read(attributes.ino, 0, u64::MAX).unwrap() };
            assert!(directory || bytes.len() as u64 == attributes.size_bytes);
            let xattr = self.workspace().xattr(attributes.ino, b"user.x").ok().map(|value| value[0]);
            picture.insert(path.clone(), (first, ModelFile { directory, bytes, xattr }));
        }
        for (_, attributes) in found.iter().filter(|(_, attributes)| attributes.kind != EntryKind::Directory) {
            assert_eq!(attributes.nlink, names[&attributes.ino], "link count");
        }
        picture
    }
}

/// Both sides with what the history should be.
struct Pair {
    model: Model,
    real: Real,
    checkpoints: Vec<(ObjectId, Model)>,
    undo: Option<Model>,
}

fn author() -> Author {
    Author { uid: 0, pid: 0, command: "model".into() }
}

impl Pair {
    fn apply(&mut self, step: &Step) {
        match step {
            Step::Create(at, name) => self.add(*at, *name, false),
            Step::MakeDirectory(at, name) => self.add(*at, *name, true),
            Step::Write(at, offset, len, byte) => {
                let Some(path) = self.model.regular(*at) else { return };
                if *len == 0 {
                    return;
                }
                let data: Vec<u8> = (0..*len).map(|index| byte.wrapping_add((index / 7) as u8)).collect();
                let (start, end) = (*offset as usize, *offset as usize + data.len());
                let bytes = &mut self.model.file(&path).bytes;
                bytes.resize(bytes.len().max(end), 0);
                bytes[start..end].copy_from_slice(&data);
                self.real.workspace().write(self.real.ino(&path), u64::from(*offset), &data, false).unwrap();
            }
            Step::Truncate(at, size) => {
                let Some(path) = self.model.regular(*at) else { return };
                self.model.file(&path).bytes.resize(*size as usize, 0);
                let change = AttributeChange { size_bytes: Some(u64::from(*size)), ..AttributeChange::default() };
                self.real.workspace().set_attributes(self.real.ino(&path), change).unwrap();
            }
            Step::Punch(at, offset, len) => {
                let Some(path) = self.model.regular(*at) else { return };
                if *len == 0 {
                    return;
                }
                let bytes = &mut self.model.file(&path).bytes;
                let start = (*offset as usize).min(bytes.len());
                let end = (*offset as usize + *len as usize).min(bytes.len());
                bytes[start..end].fill(0);
                let (offset, len) = (u64::from(*offset), u64::from(*len));
                self.real.workspace().change_range(self.real.ino(&path), offset, len, RangeChange::Punch, true).unwrap();
            }
            Step::Rename(at, to, name) => self.rename(*at, *to, *name),
            Step::Link(at, to, name) => {
                let Some(path) = self.model.regular(*at) else { return };
                let target = self.free_place(*to, *name);
                if self.model.paths.contains_key(&target) {
                    return;
                }
                let (parent, name) = self.real.place(&target);
                self.real.workspace().link(self.real.ino(&path), parent, &name).unwrap();
                let file = self.model.paths[&path];
                self.model.paths.insert(target, file);
            }
            Step::Remove(at) => {
                let Some(path) = self.model.any(*at) else { return };
                let directory = self.model.file(&path).directory;
                if directory && !self.model.is_empty_directory(&path) {
                    return;
                }
                let (parent, name) = self.real.place(&path);
                match directory {
                    true => self.real.workspace().remove_directory(parent, &name).unwrap(),
                    false => self.real.workspace().unlink(parent, &name).unwrap(),
                }
                self.model.paths.remove(&path);
            }
            Step::SetXattr(at, value) => {
                let Some(path) = self.model.any(*at) else { return };
                self.model.file(&path).xattr = Some(*value);
                self.real.workspace().set_xattr(self.real.ino(&path), b"user.x", &[*value], XattrMode::Set).unwrap();
            }
            Step::Checkpoint => {
                let done = self.real.workspace().checkpoint(&CheckpointRequest::new("model", author())).unwrap();
                self.checkpoints.push((done.id, self.model.clone()));
            }
            Step::Seal => drop(self.real.workspace().seal_now().unwrap()),
            Step::Restore(at) => {
                let Some((id, then)) = self.pick(*at) else { return };
                self.real.workspace().restore(&id, None, false, &author()).unwrap();
                self.moved_to(then);
            }
            Step::RestorePath(at, path) => self.restore_path(*at, *path),
            Step::Undo => {
                let Some(before) = self.undo.take() else { return };
                self.real.workspace().undo(&author()).unwrap();
                self.moved_to(before);
            }
            Step::Collect => {
                let rules = GcRules { grace_secs: Some(0), ..GcRules::default() };
                self.real.branches().collect(&rules, &author()).unwrap();
            }
            Step::Crash => self.real.crash(),
        }
    }

    fn pick(&self, at: usize) -> Option<(ObjectId, Model)> {
        (!self.checkpoints.is_empty()).then(|| self.checkpoints[at % self.checkpoints.len()].clone())
    }

    /// A movement that changes nothing is none, and then an undo would take back the one before.
    fn moved_to(&mut self, then: Model) {
        let next = self.model.next.max(then.next);
        self.undo = if self.model.picture() == then.picture() { None } else { Some(self.model.clone()) };
        self.model = Model { next, ..then };
    }

    fn free_place(&self, to: usize, name: u8) -> Vec<u8> {
        let directories = self.model.directories();
        join(&directories[to % directories.len()], name)
    }

    fn add(&mut self, at: usize, name: u8, directory: bool) {
        let path = self.free_place(at, name);
        if self.model.paths.contains_key(&path) {
            return;
        }
        self.real.create(&path, if directory { EntryKind::Directory } else { EntryKind::File });
        self.model.add(path, directory);
    }

    fn rename(&mut self, at: usize, to: usize, name: u8) {
        let Some(path) = self.model.any(at) else { return };
        let target = self.free_place(to, name);
        if target == path || is_below(&target, &path) {
            return;
        }
        let directory = self.model.file(&path).directory;
        if let Some(there) = self.model.paths.get(&target) {
            let other = &self.model.files[there];
            let same = *there == self.model.paths[&path];
            if same || other.directory != directory || (directory && !self.model.is_empty_directory(&target)) {
                return;
            }
        }
        let ((parent, name), (new_parent, new_name)) = (self.real.place(&path), self.real.place(&target));
        self.real.workspace().rename(parent, &name, new_parent, &new_name, RenameMode::Replace).unwrap();
        let moved: Vec<_> = self.model.paths.keys().filter(|other| **other == path || is_below(other, &path)).cloned().collect();
        for old in moved {
            let file = self.model.paths.remove(&old).unwrap();
            self.model.paths.insert([&target, &old[path.len()..]].concat(), file);
        }
    }

    /// Restores a path that holds no hard links, which have rules of their own.
    fn restore_path(&mut self, at: usize, path: usize) {
        let Some((id, then)) = self.pick(at) else { return };
        let Some(path) = then.any(path) else { return };
        let linked = |model: &Model| {
            let picture = model.picture();
            picture.iter().any(|(path, (first, _))| path != first)
        };
        let parents_are_directories = (1..path.len())
            .filter(|end| path[*end] == b'/')
            .all(|end| self.model.paths.get(&path[..end]).is_none_or(|file| self.model.files[file].directory));
        if linked(&then) || linked(&self.model) || !parents_are_directories {
            return;
        }
        self.real.workspace().restore(&id, Some(&split(&path)), false, &author()).unwrap();
        let mut after = self.model.clone();
        after.paths.retain(|other, _| *other != path && !is_below(other, &path));
        for (other, file) in &then.paths {
            let on_the_way = is_below(&path, other) && !after.paths.contains_key(other);
            if *other == path || is_below(other, &path) || on_the_way {
                after.next += 1;
                after.files.insert(after.next, then.files[file].clone());
                after.paths.insert(other.clone(), after.next);
            }
        }
        self.moved_to(after);
    }
}

fn cases() -> u32 {
    std::env::var("MEMENTOFS_MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_live_tree_does_what_the_model_does(steps in proptest::collection::vec(step(), 1..40)) {
        let mut pair = Pair { model: Model::default(), real: Real::new(), checkpoints: Vec::new(), undo: None };
        for step in &steps {
            pair.apply(step);
            let (expected, found) = (pair.model.picture(), pair.real.picture());
            if expected != found {
                let differs = |path: &&Vec<u8>| expected.get(*path) != found.get(*path);
                let paths: Vec<String> =
                    expected.keys().chain(found.keys()).filter(differs).map(|path| String::from_utf8_lossy(path).into_owned()).collect();
                prop_assert!(false, "after {:?} these differ: {:?}", step, paths);
            }
        }
        pair.real.crash();
        prop_assert!(pair.model.picture() == pair.real.picture(), "after a last crash");
    }
}
