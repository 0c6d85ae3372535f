//! The hidden directory of files through which everything is commanded and seen.

use super::error::CommandError;
use super::escape::{escaped, unescaped};
use super::execute::{Caller, resolve};
use super::kept::{KeptFiles, Place};
use super::node::{DirectoryKind, FileKind, Node, NodeTable};
use super::requests::Requests;
use super::sealed::SealedFile;
use crate::object::{EntryKind, Name, Node as EntryNode, Timestamp};
use crate::repository::Repository;
use crate::workspace::{Attributes, Branches, Workspace};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The extended attribute of the top of a mount, or of a branch's view, that says what its control directory is called. It is
/// answered when it is asked for, and never listed.
pub const CONTROL_NAME_ATTRIBUTE: &str = "user.mementofs.control";
/// Names of an old directory handed out at a time.
const LIST_STEP: usize = 1024;

/// The control directory of one mounted branch.
pub struct ControlDirectory {
    pub(super) branches: Arc<Branches>,
    pub(super) workspace: Arc<Workspace>,
    owner: u32,
    owner_group: u32,
    state: Mutex<State>,
    events: Mutex<Events>,
}

/// What the directory remembers between requests.
#[derive(Default)]
pub(super) struct State {
    table: NodeTable,
    /// What the files of old states in use are.
    pub(super) sealed: KeptFiles,
    /// What the readable files said last.
    pub(super) texts: HashMap<Node, Text>,
    /// What was said of each number last, so that size, time and bytes belong together.
    pub(super) shown: HashMap<u64, Text>,
    /// What the listings in progress go through: a listing is of one instant.
    listings: HashMap<Node, Arc<Vec<(String, EntryKind)>>>,
    pub(super) said: Said,
}

/// What commands were answered. It outlives what the kernel forgets: a caller may come for its reply later.
#[derive(Default)]
pub struct Said {
    pub(super) requests: Requests,
    pub(super) last_restore: String,
    pub(super) last_gc: String,
    pub(super) last_error: String,
}

#[derive(Clone)]
pub(super) struct Text {
    bytes: Arc<Vec<u8>>,
    /// Moves whenever the bytes change or somebody writes: the kernel then drops what it cached.
    changed: Timestamp,
}

/// The events read so far, as text.
#[derive(Default)]
pub(super) struct Events {
    pub(super) text: String,
    pub(super) last_seq: i64,
}

/// What a name in the directory stands for.
pub enum Found {
    /// Something of the directory's own.
    Node(Attributes),
    /// A branch: the directory tree that it shows.
    Branch(Arc<Workspace>),
}

/// One name of a listing.
pub struct ControlListed {
    /// The name.
    pub name: Vec<u8>,
    /// The node's number.
    pub ino: u64,
    /// The node's kind.
    pub kind: EntryKind,
    /// Where a listing goes on behind it.
    pub position: u64,
}

impl ControlDirectory {
    /// Makes the control directory of `workspace`, for the user `owner` and root.
    pub fn new(branches: Arc<Branches>, workspace: Arc<Workspace>, owner: u32, owner_group: u32) -> Arc<Self> {
        let state = Mutex::default();
        Arc::new(Self { branches, workspace, owner, owner_group, state, events: Mutex::default() })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn repository(&self) -> &Repository {
        self.workspace.repository()
    }

    pub(super) fn admit(&self, caller: &Caller) -> Result<(), CommandError> {
        if caller.uid == self.owner || caller.uid == 0 { Ok(()) } else { Err(CommandError::Denied) }
    }

    /// Keeps the sentence of a failure for `error`, which otherwise shows what a read last found damaged.
    pub(super) fn remembered<T>(&self, result: Result<T, CommandError>) -> Result<T, CommandError> {
        if let Err(err) = &result {
            self.state().said.last_error = format!("{err}\n");
            self.repository().forget_trouble(); // What a read found damaged before is older.
        }
        result
    }

    pub(super) fn node(&self, number: u64) -> Result<Node, CommandError> {
        let gone = || CommandError::NotFound("what the number stood for".into());
        self.state().table.node(number).cloned().ok_or_else(gone)
    }

    /// Opens the directory itself.
    pub fn top(&self, caller: &Caller) -> Result<Attributes, CommandError> {
        self.admit(caller)?;
        self.found(Node::Top, caller)
    }

    /// Gives a node a reference and describes it.
    pub(super) fn found(&self, node: Node, caller: &Caller) -> Result<Attributes, CommandError> {
        let number = {
            let mut state = self.state();
            let number = state.table.number(&node, caller.pid);
            state.table.remember(number);
            number
        };
        let described = self.describe(number, &node);
        if described.is_err() {
            self.forget(number, 1);
        }
        described
    }

    /// Gives back references.
    pub fn forget(&self, number: u64, count: u64) {
        let mut state = self.state();
        if let Some(node) = state.table.forget(number, count) {
            state.shown.remove(&number);
            state.sealed.forget(&node);
            state.listings.remove(&node);
            if !matches!(node, Node::File(_)) {
                state.texts.remove(&node);
            }
        }
    }

    /// Finds a name in a directory.
    pub fn lookup(&self, parent: u64, name: &[u8], caller: &Caller) -> Result<Found, CommandError> {
        self.admit(caller)?;
        let (number, parent) = (parent, self.node(parent)?);
        if parent == Node::Directory(DirectoryKind::Branches) {
            let name = std::str::from_utf8(name).map_err(|_| CommandError::NotFound("a branch of that name".into()))?;
            return Ok(Found::Branch(self.branches.open(name)?));
        }
        let node = self.child(number, &parent, name)?;
        self.found(node, caller).map(Found::Node)
    }

    /// Takes what commands were answered, for the next directory of the same view.
    pub fn take_said(&self) -> Said {
        std::mem::take(&mut self.state().said)
    }

    /// Takes over what commands were answered.
    pub fn recall(&self, said: Said) {
        self.state().said = said;
    }

    /// Says whether nobody refers to anything in the directory any more.
    pub fn is_forgotten(&self) -> bool {
        self.state().table.is_empty()
    }

    fn child(&self, number: u64, parent: &Node, name: &[u8]) -> Result<Node, CommandError> {
        let missing = || CommandError::NotFound(String::from_utf8_lossy(name).into_owned());
        if let Node::Sealed(..) = parent {
            let name = Name::new(name).map_err(|_| missing())?;
            let child = self.sealed_file(parent)?.child(self.repository(), &name)?.ok_or_else(missing)?;
            return Ok(self.keep_sealed(child, (number, name)));
        }
        let text = std::str::from_utf8(name).map_err(|_| missing())?;
        match parent {
            Node::Top => Node::at_top(name).ok_or_else(missing),
            Node::Directory(DirectoryKind::Diff) => Ok(Node::Diff(text.to_owned())),
            Node::Directory(DirectoryKind::Checkpoints) if text == "latest" => {
                self.workspace.newest().map(Node::Latest).ok_or_else(missing)
            }
            Node::Directory(DirectoryKind::Checkpoints) => self.checkpoint_node(number, text),
            Node::Directory(DirectoryKind::Links) => {
                let systems = self.repository().history().link_systems()?;
                systems.iter().any(|system| system == text).then(|| Node::LinkSystem(text.to_owned())).ok_or_else(missing)
            }
            Node::LinkSystem(system) => {
                let external_id = unescaped(text).ok_or_else(missing)?;
                let id = self.repository().history().link(system, &external_id)?.ok_or_else(missing)?;
                Ok(Node::Link(system.clone(), external_id, id))
            }
            Node::Directory(DirectoryKind::Requests) => {
                let known = self.state().said.requests.contains(text);
                known.then(|| Node::Request(text.to_owned())).ok_or_else(missing)
            }
            _ => Err(CommandError::NotDirectory),
        }
    }

    /// Finds a checkpoint by id, prefix or name: what stands in `checkpoints/`, which has the number `parent`.
    pub(super) fn checkpoint_node(&self, parent: u64, text: &str) -> Result<Node, CommandError> {
        let missing = || CommandError::NotFound(text.to_owned());
        if text.starts_with('@') || text.contains([':', '/']) {
            return Err(missing());
        }
        let name = Name::new(text.as_bytes()).map_err(|_| missing())?;
        let commit = resolve(&self.workspace, text)?;
        let top = SealedFile::top(self.repository(), &commit)?;
        Ok(self.keep_sealed(top, (parent, name)))
    }

    /// Returns where the kernel remembers something of deleted checkpoints.
    pub fn places_of_deleted(&self) -> Vec<Place> {
        let mut commits = self.state().sealed.commits();
        let history = self.repository().history();
        commits.retain(|commit| history.check_kept(commit).is_err());
        if commits.is_empty() { Vec::new() } else { self.state().sealed.places_of(&commits) }
    }

    fn keep_sealed(&self, file: SealedFile, place: Place) -> Node {
        let node = Node::Sealed(file.commit, file.entry.identity);
        self.state().sealed.keep(node.clone(), file, place);
        node
    }

    fn sealed_file(&self, node: &Node) -> Result<SealedFile, CommandError> {
        let gone = || CommandError::NotFound("what the number stood for".into());
        self.state().sealed.file(node).ok_or_else(gone)
    }

    /// Describes a node.
    pub fn attributes(&self, number: u64, caller: &Caller) -> Result<Attributes, CommandError> {
        self.admit(caller)?;
        let node = self.node(number)?;
        self.describe(number, &node)
    }

    pub(super) fn describe(&self, number: u64, node: &Node) -> Result<Attributes, CommandError> {
        let (kind, mode, size_bytes, changed) = match node {
            Node::Sealed(..) => {
                return Ok(Attributes::of_entry(&self.sealed_file(node)?.entry, number));
            }
            Node::Top | Node::Directory(_) | Node::LinkSystem(_) => (EntryKind::Directory, 0o700, 0, Timestamp::now()),
            Node::Latest(_) | Node::Link(..) => (EntryKind::Symlink, 0o777, link_target(node)?.len() as u64, Timestamp::now()),
            Node::File(_) | Node::Diff(_) | Node::Request(_) => {
                let text = self.current(node)?;
                self.state().shown.insert(number, text.clone());
                let mode = if node.takes_commands() { 0o600 } else { 0o400 };
                (EntryKind::File, mode, text.bytes.len() as u64, text.changed)
            }
        };
        Ok(Attributes {
            ino: number,
            kind,
            mode,
            uid: self.owner,
            gid: self.owner_group,
            nlink: if kind == EntryKind::Directory { 2 } else { 1 },
            size_bytes,
            blocks: size_bytes.div_ceil(512),
            device: 0,
            mtime: changed,
            ctime: changed,
            atime: changed,
            held: false,
        })
    }

    /// Makes the text of a file anew and keeps it for the reads that follow.
    fn current(&self, node: &Node) -> Result<Text, CommandError> {
        let bytes = self.text(node)?.into_bytes();
        let mut state = self.state();
        if let Some(text) = state.texts.get(node).filter(|text| *text.bytes == bytes) {
            return Ok(text.clone());
        }
        let text = Text { bytes: Arc::new(bytes), changed: Timestamp::now() };
        state.texts.insert(node.clone(), text.clone());
        Ok(text)
    }

    /// Returns the path held by a symbolic link.
    pub fn read_link(&self, number: u64, caller: &Caller) -> Result<Vec<u8>, CommandError> {
        self.admit(caller)?;
        let node = self.node(number)?;
        if let Node::Sealed(..) = node {
            return match &self.sealed_file(&node)?.entry.node {
                EntryNode::Symlink(target) => Ok(target.to_vec()),
                _ => Err(CommandError::Invalid("not a symbolic link".into())),
            };
        }
        link_target(&node).map(String::into_bytes)
    }

    /// Lists a directory from a position on.
    pub fn list(&self, number: u64, after: u64, caller: &Caller) -> Result<Vec<ControlListed>, CommandError> {
        self.admit(caller)?;
        let node = self.node(number)?;
        let mut listed = Vec::new();
        for (position, name) in [(1, "."), (2, "..")] {
            if after < position {
                listed.push(ControlListed { name: name.into(), ino: number, kind: EntryKind::Directory, position });
            }
        }
        if let Node::Sealed(commit, _) = node {
            for found in self.sealed_file(&node)?.list(self.repository(), after, LIST_STEP)? {
                let (name, position) = (found.name.as_bytes().to_vec(), found.name.position());
                let ino = Node::Sealed(commit, found.identity).lasting_number().unwrap_or(found.identity);
                listed.push(ControlListed { name, ino, kind: found.kind, position });
            }
            return Ok(listed);
        }
        let names = self.listing(&node, after)?;
        for (at, (name, kind)) in names.iter().enumerate().skip(after.saturating_sub(2) as usize).take(LIST_STEP) {
            let position = at as u64 + 3;
            listed.push(ControlListed { name: name.clone().into_bytes(), ino: position, kind: *kind, position });
        }
        Ok(listed)
    }

    /// Returns the names of a directory: those of now when a listing begins, the same ones while it goes on.
    fn listing(&self, node: &Node, after: u64) -> Result<Arc<Vec<(String, EntryKind)>>, CommandError> {
        if after > 0
            && let Some(names) = self.state().listings.get(node)
        {
            return Ok(names.clone());
        }
        let names = Arc::new(self.names(node)?);
        self.state().listings.insert(node.clone(), names.clone());
        Ok(names)
    }

    fn names(&self, node: &Node) -> Result<Vec<(String, EntryKind)>, CommandError> {
        let history = self.repository().history();
        let with = |names: Vec<String>, kind| names.into_iter().map(|name| (name, kind)).collect::<Vec<_>>();
        match node {
            Node::Top => {
                let files = FileKind::ALL.iter().map(|(_, name)| ((*name).to_owned(), EntryKind::File));
                let directories = DirectoryKind::ALL.iter().map(|(_, name)| ((*name).to_owned(), EntryKind::Directory));
                Ok(files.chain(directories).collect())
            }
            Node::Directory(DirectoryKind::Checkpoints) => {
                let mut names = Vec::new();
                for row in history.checkpoints()? {
                    names.push((row.id.to_hex(), EntryKind::Directory));
                    names.extend(row.name.map(|name| (name, EntryKind::Directory)));
                }
                names.extend(history.further_names()?.into_iter().map(|(name, _)| (name, EntryKind::Directory)));
                names.extend(self.workspace.newest().map(|_| ("latest".to_owned(), EntryKind::Symlink)));
                Ok(names)
            }
            Node::Directory(DirectoryKind::Links) => Ok(with(history.link_systems()?, EntryKind::Directory)),
            Node::LinkSystem(system) => {
                let ids = history.links_in(system)?.into_iter().map(|(external_id, _)| escaped(&external_id)).collect();
                Ok(with(ids, EntryKind::Symlink))
            }
            Node::Directory(DirectoryKind::Requests) => Ok(with(self.state().said.requests.names(), EntryKind::File)),
            Node::Directory(DirectoryKind::Branches) => {
                Ok(with(history.branches()?.into_iter().map(|branch| branch.name).collect(), EntryKind::Directory))
            }
            Node::Directory(DirectoryKind::Diff) => Ok(Vec::new()),
            _ => Err(CommandError::NotDirectory),
        }
    }

    /// Reads a range of a file.
    pub fn read(&self, number: u64, offset: u64, len: u32, caller: &Caller) -> Result<Vec<u8>, CommandError> {
        // The kernel reads ahead in nobody's name: who may not look never got the number.
        if caller.pid != 0 {
            self.admit(caller)?;
        }
        let node = self.node(number)?;
        if let Node::Sealed(..) = node {
            return self.sealed_file(&node)?.read(self.repository(), offset, len);
        }
        let known = self.state().shown.get(&number).cloned();
        let text = match known {
            Some(text) => text,
            None => self.current(&node)?,
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.bytes.len());
        let end = start.saturating_add(len as usize).min(text.bytes.len());
        Ok(text.bytes[start..end].to_vec())
    }

    /// Finds data or a hole from an offset on: a hole of a file of an old state, else the end.
    pub fn seek(&self, number: u64, offset: u64, hole: bool) -> Result<u64, CommandError> {
        let node = self.node(number)?;
        if let Node::Sealed(..) = node {
            return self.sealed_file(&node)?.seek(self.repository(), offset, hole);
        }
        let end = self.current(&node)?.bytes.len() as u64;
        if offset >= end { Err(CommandError::NoSuchOffset) } else { Ok(if hole { end } else { offset }) }
    }

    /// Returns an extended attribute of a file of an old state.
    pub fn xattr(&self, number: u64, name: &[u8]) -> Result<Box<[u8]>, CommandError> {
        let node = self.node(number)?;
        if !matches!(node, Node::Sealed(..)) {
            return Err(CommandError::NoData);
        }
        let entry = self.sealed_file(&node)?.entry;
        entry.xattrs.as_ref().and_then(|xattrs| xattrs.get(name)).cloned().ok_or(CommandError::NoData)
    }

    /// Returns the names of the extended attributes of a file of an old state.
    pub fn xattrs(&self, number: u64) -> Result<Vec<Box<[u8]>>, CommandError> {
        let node = self.node(number)?;
        if !matches!(node, Node::Sealed(..)) {
            return Ok(Vec::new());
        }
        let entry = self.sealed_file(&node)?.entry;
        Ok(entry.xattrs.as_ref().map(|xattrs| xattrs.keys().cloned().collect()).unwrap_or_default())
    }
}

fn link_target(node: &Node) -> Result<String, CommandError> {
    match node {
        Node::Latest(id) => Ok(id.to_hex()),
        Node::Link(_, _, id) => Ok(format!("../../checkpoints/{id}")),
        _ => Err(CommandError::Invalid("not a symbolic link".into())),
    }
}
