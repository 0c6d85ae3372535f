//! Takes a directory of the host into the workspace: hashed by all cores, published in one step.
//!
//! What is stored is what was hashed, read once. A file that changes while it is read is reported, not silently mixed.

mod host;

use super::error::WorkspaceError;
use super::restore::Restored;
use super::{Workspace, WorkspaceError as Error};
use crate::object::{Author, Entry, EntryKind, Name, Node, ObjectId, Root, Timestamp, TreeItem};
use crate::repository::Repository;
use crate::sys;
use crate::tree::{self, NodeSink, NodeSource};
use host::{Found, Stored};
use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

/// How far an import is; read by whoever shows a progress bar.
#[derive(Debug, Default)]
pub struct ImportProgress {
    /// Files and directories found.
    pub files_found: AtomicU64,
    /// Bytes found.
    pub bytes_found: AtomicU64,
    /// Files stored.
    pub files_done: AtomicU64,
    /// Bytes stored.
    pub bytes_done: AtomicU64,
}

/// What an import did.
#[derive(Debug)]
pub struct Imported {
    /// The change of the tree.
    pub restored: Restored,
    /// Files that changed while they were read, or could not be read.
    pub troubled: Vec<(PathBuf, String)>,
}

impl Workspace {
    /// Makes what is in the directory `from` appear at `into` (the top when empty), over what has the same names there.
    ///
    /// What was not checkpointed is checkpointed first, so that an import can be undone like a restore.
    pub fn import(
        &self,
        from: &Path,
        into: &[Name],
        author: &Author,
        progress: &ImportProgress,
    ) -> Result<Imported, WorkspaceError> {
        self.check_source(from)?;
        let (found, mut troubled) = host::scan(from, &mut || self.fresh_identity(), progress)?;
        let _use = self.repository.using();
        let (stored, failed) = host::store_files(&self.repository, from, &found, progress);
        troubled.extend(failed);
        for (path, _) in &mut troubled {
            *path = from.join(&path);
        }
        let imported = build(&self.repository, &found, &stored)?;
        let restored = self.replace_root("import", author, &|live| self.place(live, &imported, into))?;
        Ok(Imported { restored, troubled })
    }

    /// Refuses what lies within the workspace or the store: reading it would wait for ourselves, or take in what is being written.
    fn check_source(&self, from: &Path) -> Result<(), WorkspaceError> {
        let invalid = |why: &str| WorkspaceError::Invalid(format!("cannot import {}: {why}", from.display()));
        if !from.is_absolute() {
            return Err(invalid("it is not an absolute path"));
        }
        let from = from.canonicalize().map_err(|err| match err.kind() {
            std::io::ErrorKind::NotFound => WorkspaceError::NotFound(format!("the directory to import, {},", from.display())),
            _ => invalid(&err.to_string()),
        })?;
        let store = self.repository.path();
        let mounts = sys::mount_points_of(store);
        match mounts.iter().map(PathBuf::as_path).chain([store]).find(|ours| from.starts_with(ours) || ours.starts_with(&from)) {
            Some(ours) => {
                Err(WorkspaceError::Invalid(format!("{} and {} lie within one another", from.display(), ours.display())))
            }
            None if !from.is_dir() => Err(invalid("it is not a directory")),
            None => Ok(()),
        }
    }

    fn fresh_identity(&self) -> Result<u64, WorkspaceError> {
        self.live().tree.take_identity()
    }

    /// Puts the imported top over the live state.
    fn place(&self, live: &ObjectId, imported: &Root, into: &[Name]) -> Result<ObjectId, WorkspaceError> {
        let repository = &*self.repository;
        let mut root = repository.root(live)?;
        let now = Timestamp::now();
        let mut identities = repository.identities();
        let mut fresh = || identities.fresh();
        if into.is_empty() {
            root = spread(repository, root, imported, now, &mut fresh)?;
        } else {
            let wrapped = wrap(repository, imported, into, &mut fresh)?;
            root = tree::graft(repository, &root, &wrapped, into, now, &mut fresh)?;
        }
        identities.finish()?;
        Ok(repository.put_root(&root)?)
    }
}

/// Puts everything at the top of `imported` at the top of `root`, in place of what has the same names there.
fn spread(
    repository: &Repository,
    mut root: Root,
    imported: &Root,
    now: Timestamp,
    fresh: &mut dyn FnMut() -> u64,
) -> Result<Root, WorkspaceError> {
    let nothing = Root { directory: Entry { node: EMPTY_DIRECTORY, ..root.directory.clone() }, links: None };
    let (mut items, mut subdirectories) = (Vec::new(), 0);
    for item in tree::list(repository, imported.tree(), 0) {
        let (name, item) = item?;
        if tree::lookup(repository, root.tree(), &name)?.is_some() {
            root = tree::graft(repository, &root, &nothing, std::slice::from_ref(&name), now, fresh)?;
        }
        subdirectories += u32::from(matches!(&item, TreeItem::Entry(entry) if entry.node.kind() == EntryKind::Directory));
        items.push((name, Some(item)));
    }
    // Every identity in `imported` is a new one, so nothing in either state has to make way.
    let mut links = Vec::new();
    for item in tree::list(repository, imported.links, 0) {
        let (name, item) = item?;
        links.push((name, Some(item)));
    }
    let built = tree::update(repository, root.tree(), &items)?;
    let node = Node::Directory { tree: built.tree, has_links: built.has_links };
    let nlink = root.directory.nlink.saturating_add(subdirectories);
    let directory = Entry { identity: super::ROOT, node, nlink, ctime: now, ..imported.directory.clone() };
    Ok(Root { directory, links: tree::update(repository, root.links, &links)?.tree })
}

const EMPTY_DIRECTORY: Node = Node::Directory { tree: None, has_links: false };

/// Makes a state in which `imported` is the directory at `path`; each directory on the way is a new one.
fn wrap(repository: &Repository, imported: &Root, path: &[Name], fresh: &mut dyn FnMut() -> u64) -> Result<Root, WorkspaceError> {
    let mut directory = imported.directory.clone();
    for name in path.iter().rev() {
        let mut outer = directory.clone();
        directory.identity = fresh();
        let built = tree::update(repository, None, &[(name.clone(), Some(TreeItem::Entry(directory)))])?;
        outer.node = Node::Directory { tree: built.tree, has_links: built.has_links };
        outer.xattrs = None;
        outer.nlink = 3;
        directory = outer;
    }
    directory.identity = super::ROOT;
    Ok(Root { directory, links: imported.links })
}

/// Builds the directories from the bottom up.
fn build(repository: &Repository, found: &[Found], stored: &[Option<Stored>]) -> Result<Root, WorkspaceError> {
    let mut entries: Vec<Option<Entry>> =
        found.iter().zip(stored).map(|(file, stored)| Some(entry_of(file, stored.clone()?))).collect();
    let mut names: HashMap<u64, u32> = HashMap::new();
    for (file, entry) in found.iter().zip(&entries) {
        if entry.is_some() {
            *names.entry(file.identity).or_default() += 1;
        }
    }
    let mut children: Vec<Vec<(Name, Option<TreeItem>)>> = found.iter().map(|_| Vec::new()).collect();
    let mut links: BTreeMap<Name, Option<TreeItem>> = BTreeMap::new();
    for at in (0..found.len()).rev() {
        let Some(mut entry) = entries[at].take() else { continue };
        if entry.node.kind() == EntryKind::Directory {
            finish_directory(repository, &mut entry, std::mem::take(&mut children[at]))?;
        }
        let Some(name) = found[at].name.clone() else {
            let links: Vec<_> = links.into_iter().collect();
            entry.identity = super::ROOT;
            return Ok(Root { directory: entry, links: tree::update(repository, None, &links)?.tree });
        };
        let count = names.get(&entry.identity).copied().unwrap_or(1);
        let item = if count > 1 {
            entry.nlink = count;
            let identity = entry.identity;
            links.insert(Name::of_identity(identity), Some(TreeItem::Entry(entry)));
            TreeItem::Link(identity)
        } else {
            TreeItem::Entry(entry)
        };
        children[found[at].parent].push((name, Some(item)));
    }
    Err(Error::Invalid("nothing was imported".into()))
}

fn finish_directory(
    repository: &Repository,
    entry: &mut Entry,
    mut children: Vec<(Name, Option<TreeItem>)>,
) -> Result<(), WorkspaceError> {
    children.sort_by(|(a, _), (b, _)| a.cmp(b));
    let is_directory =
        |item: &Option<TreeItem>| matches!(item, Some(TreeItem::Entry(entry)) if entry.node.kind() == EntryKind::Directory);
    entry.nlink = 2 + children.iter().filter(|(_, item)| is_directory(item)).count() as u32;
    let built = tree::update(repository, None, &children)?;
    entry.node = Node::Directory { tree: built.tree, has_links: built.has_links };
    Ok(())
}

fn entry_of(file: &Found, (node, xattrs): Stored) -> Entry {
    let metadata = &file.metadata;
    let time = |secs, nanos| Timestamp { secs, nanos: nanos as u32 };
    let mtime = time(metadata.mtime(), metadata.mtime_nsec());
    Entry {
        identity: file.identity,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        nlink: 1,
        mtime,
        ctime: time(metadata.ctime(), metadata.ctime_nsec()),
        atime: mtime,
        xattrs,
        node,
    }
}
