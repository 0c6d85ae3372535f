//! The real side: a store, its branches, and the tree of one of them as a reader of directories sees it.

use crate::tree::{ModelFile, Picture};
use mementofs::object::{EntryKind, Name};
use mementofs::repository::Repository;
use mementofs::workspace::{Branches, Ino, NewNode, ROOT, Workspace};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

/// A store that is open, as a daemon has it.
pub struct Real {
    store: PathBuf,
    branches: Option<Arc<Branches>>,
    _dir: tempfile::TempDir,
}

impl Real {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let branches = Some(Branches::new(Repository::create(&store).unwrap()));
        Self { store, branches, _dir: dir }
    }

    pub fn branches(&self) -> &Branches {
        self.branches.as_ref().unwrap()
    }

    /// Opens a branch, unless it is open.
    pub fn view(&self, branch: &str) -> View {
        View(self.branches().open(branch).unwrap())
    }

    /// Lets go of everything in memory, as a killed daemon does, and opens the store again; no branch is open then.
    pub fn crash(&mut self) {
        self.branches = None;
        self.branches = Some(Branches::new(Repository::open(&self.store).unwrap()));
    }

    /// The names of the branches, in order.
    pub fn names(&self) -> Vec<String> {
        self.branches().repository().history().branches().unwrap().into_iter().map(|row| row.name).collect()
    }
}

/// One branch that is open.
pub struct View(pub Arc<Workspace>);

impl Deref for View {
    type Target = Workspace;

    fn deref(&self) -> &Workspace {
        &self.0
    }
}

pub fn split(path: &[u8]) -> Vec<Name> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).map(|part| Name::new(part).unwrap()).collect()
}

impl View {
    pub fn ino(&self, path: &[u8]) -> Ino {
        let mut ino = ROOT;
        for name in split(path) {
            ino = self.lookup(ino, &name).unwrap().unwrap_or_else(|| panic!("{path:?} is missing")).ino;
        }
        ino
    }

    pub fn place(&self, path: &[u8]) -> (Ino, Name) {
        let mut names = split(path);
        let name = names.pop().unwrap();
        let parent = names.iter().fold(ROOT, |ino, name| self.lookup(ino, name).unwrap().unwrap().ino);
        (parent, name)
    }

    pub fn make(&self, path: &[u8], kind: EntryKind) {
        let (parent, name) = self.place(path);
        let node = NewNode { kind, mode: 0o755, uid: 1, gid: 2, device: 0, target: Box::default() };
        self.create(parent, &name, node, 0).unwrap();
    }

    pub fn picture(&self) -> Picture {
        let mut first: BTreeMap<Ino, Vec<u8>> = BTreeMap::new();
        let mut picture = Picture::new();
        let mut waiting = vec![(ROOT, Vec::new())];
        let mut found = Vec::new();
        while let Some((ino, path)) = waiting.pop() {
            let mut after = 0;
            loop {
                let names = self.list(ino, after, 3).unwrap();
                let Some(last) = names.last() else { break };
                after = last.name.position();
                for listed in names {
                    let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
                    let path = [&path, separator, listed.name.as_bytes()].concat();
                    let attributes = self.lookup(ino, &listed.name).unwrap().unwrap();
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
            let bytes = if directory { Vec::new() } else { self.read(attributes.ino, 0, u64::MAX).unwrap() };
            assert!(directory || bytes.len() as u64 == attributes.size_bytes);
            let xattr = self.xattr(attributes.ino, b"user.x").ok().map(|value| value[0]);
            picture.insert(path.clone(), (first, ModelFile { directory, bytes: Arc::new(bytes), xattr }));
        }
        for (_, attributes) in found.iter().filter(|(_, attributes)| attributes.kind != EntryKind::Directory) {
            assert_eq!(attributes.nlink, names[&attributes.ino], "link count");
        }
        picture
    }
}
