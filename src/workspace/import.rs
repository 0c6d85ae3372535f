//! Takes a directory of the host into the workspace: hashed by all cores, published in one step.
//!
//! What is stored is what was hashed, read once. A file that changes while it is read is reported, not silently mixed.

use super::acl;
use super::error::WorkspaceError;
use super::restore::Restored;
use super::{Workspace, WorkspaceError as Error};
use crate::object::{Author, Content, Entry, EntryKind, Name, Node, ObjectId, Root, Timestamp, TreeItem, Xattrs};
use crate::repository::{ByteSource, Repository, RepositoryError, Run};
use crate::sys;
use crate::tree::{self, NodeSink, NodeSource};
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Metadata, OpenOptions};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

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

/// A file found on the host.
struct Found {
    path: PathBuf,
    name: Option<Name>,
    parent: usize,
    metadata: Metadata,
    identity: u64,
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
        let found = self.scan(from, progress)?;
        let _use = self.repository.using();
        let (stored, troubled) = store_files(&self.repository, &found, progress);
        let imported = build(&self.repository, &found, &stored)?;
        let restored = self.replace_root("import", author, &|live| self.place(live, &imported, into))?;
        Ok(Imported { restored, troubled })
    }

    /// Refuses what lies within the workspace or the store: reading it would wait for ourselves, or take in what is being written.
    fn check_source(&self, from: &Path) -> Result<(), WorkspaceError> {
        let from = from.canonicalize().map_err(WorkspaceError::io("the directory to import"))?;
        let store = self.repository.path();
        let mounts = sys::mount_points_of(store);
        match mounts.iter().map(PathBuf::as_path).chain([store]).find(|ours| from.starts_with(ours) || ours.starts_with(&from)) {
            Some(ours) => {
                Err(WorkspaceError::Invalid(format!("{} and {} lie within one another", from.display(), ours.display())))
            }
            None => Ok(()),
        }
    }

    fn scan(&self, from: &Path, progress: &ImportProgress) -> Result<Vec<Found>, WorkspaceError> {
        let top = std::fs::metadata(from).map_err(Error::io("import"))?;
        if !top.is_dir() {
            return Err(Error::NotDirectory);
        }
        let mut links: HashMap<(u64, u64), u64> = HashMap::new();
        let mut found =
            vec![Found { path: from.to_owned(), name: None, parent: 0, metadata: top, identity: self.fresh_identity()? }];
        let mut next = 0;
        while next < found.len() {
            if found[next].metadata.is_dir() {
                let path = found[next].path.clone();
                for entry in std::fs::read_dir(&path).map_err(Error::io("import"))? {
                    let entry = entry.map_err(Error::io("import"))?;
                    let Ok(metadata) = entry.path().symlink_metadata() else { continue }; // It went meanwhile.
                    let name = Name::new(entry.file_name().as_bytes())?;
                    let linked = metadata.nlink() > 1 && !metadata.is_dir();
                    let identity = match linked.then(|| links.get(&(metadata.dev(), metadata.ino()))).flatten() {
                        Some(identity) => *identity,
                        None => self.fresh_identity()?,
                    };
                    if linked {
                        links.insert((metadata.dev(), metadata.ino()), identity);
                    }
                    progress.files_found.fetch_add(1, Ordering::Relaxed);
                    progress.bytes_found.fetch_add(if metadata.is_file() { metadata.len() } else { 0 }, Ordering::Relaxed);
                    found.push(Found { path: entry.path(), name: Some(name), parent: next, metadata, identity });
                }
            }
            next += 1;
        }
        Ok(found)
    }

    fn fresh_identity(&self) -> Result<u64, WorkspaceError> {
        self.live().tree.take_identity()
    }

    /// Puts the imported top over the live state.
    fn place(&self, live: &ObjectId, imported: &Root, into: &[Name]) -> Result<ObjectId, WorkspaceError> {
        let repository = &*self.repository;
        let mut root = repository.root(live)?;
        let now = Timestamp::now();
        let mut identities = repository.take_identities()?;
        let mut fresh = || identities.next().unwrap_or(0);
        if into.is_empty() {
            root = spread(repository, root, imported, now, &mut fresh)?;
        } else {
            let wrapped = wrap(repository, imported, into, &mut fresh)?;
            root = tree::graft(repository, &root, &wrapped, into, now, &mut fresh)?;
        }
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

type Troubles = Vec<(PathBuf, String)>;

/// Stores the contents of all regular files; one place a file, empty for other kinds.
fn store_files(repository: &Repository, found: &[Found], progress: &ImportProgress) -> (Vec<Option<Node>>, Troubles) {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        let mut troubled = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = found.get(at) else { return (done, troubled) };
            match node_of(repository, file) {
                Ok((node, changed)) => {
                    done.push((at, node));
                    if changed {
                        troubled.push((file.path.clone(), "changed while it was read".to_owned()));
                    }
                }
                Err(err) => troubled.push((file.path.clone(), err.to_string())),
            }
            progress.files_done.fetch_add(1, Ordering::Relaxed);
            if file.metadata.is_file() {
                progress.bytes_done.fetch_add(file.metadata.len(), Ordering::Relaxed);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut nodes = vec![None; found.len()];
    let mut troubled = Vec::new();
    std::thread::scope(|scope| {
        let helpers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for helper in helpers {
            let Ok((done, troubles)) = helper.join() else { continue };
            for (at, node) in done {
                nodes[at] = Some(node);
            }
            troubled.extend(troubles);
        }
    });
    (nodes, troubled)
}

fn node_of(repository: &Repository, file: &Found) -> Result<(Node, bool), WorkspaceError> {
    use std::os::unix::fs::FileTypeExt;
    let kind = file.metadata.file_type();
    let device = file.metadata.rdev() as u32;
    let node = if kind.is_dir() {
        Node::Directory { tree: None, has_links: false }
    } else if kind.is_symlink() {
        let target = std::fs::read_link(&file.path).map_err(Error::io("import"))?;
        Node::Symlink(target.as_os_str().as_bytes().into())
    } else if kind.is_fifo() {
        Node::Fifo
    } else if kind.is_socket() {
        Node::Socket
    } else if kind.is_char_device() {
        Node::CharDevice(device)
    } else if kind.is_block_device() {
        Node::BlockDevice(device)
    } else {
        return regular(repository, file);
    };
    Ok((node, false))
}

fn regular(repository: &Repository, file: &Found) -> Result<(Node, bool), WorkspaceError> {
    // Whatever the name stands for by now: no link is followed, and no pipe is waited for.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(&file.path).map_err(Error::io("import"))?;
    let before = opened.metadata().map_err(Error::io("import"))?;
    if !before.is_file() {
        return Err(Error::Invalid("is not a regular file any more".into()));
    }
    let source = HostFile::new(opened, before.len(), before.blocks() * 512 < before.len());
    let content = repository.put_content(&source)?;
    let after = source.file.metadata().map_err(Error::io("import"))?;
    let changed = after.len() != before.len()
        || (after.mtime(), after.mtime_nsec()) != (before.mtime(), before.mtime_nsec())
        || (before.mtime(), before.mtime_nsec()) != (file.metadata.mtime(), file.metadata.mtime_nsec());
    let size_bytes = source.size_bytes;
    let data_bytes = match content {
        Content::Manifest(_) => source.runs.iter().filter(|run| !run.hole).map(|run| run.range.end - run.range.start).sum(),
        _ => size_bytes,
    };
    Ok((Node::File { size_bytes, data_bytes, content }, changed))
}

/// A regular file of the host, opened.
struct HostFile {
    file: File,
    size_bytes: u64,
    runs: Vec<Run>,
}

impl HostFile {
    fn new(file: File, size_bytes: u64, sparse: bool) -> Self {
        let dense = || vec![Run { range: 0..size_bytes, hole: false }];
        let runs = if sparse {
            crate::sys::data_ranges(&file, size_bytes).map_or_else(|_| dense(), |data| runs_of(&data, size_bytes))
        } else {
            dense()
        };
        Self { file, size_bytes, runs }
    }
}

/// Fills the gaps between ranges of data with holes.
fn runs_of(data: &[Range<u64>], size_bytes: u64) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut at = 0;
    for range in data {
        if range.start > at {
            runs.push(Run { range: at..range.start, hole: true });
        }
        runs.push(Run { range: range.clone(), hole: false });
        at = range.end;
    }
    if at < size_bytes {
        runs.push(Run { range: at..size_bytes, hole: true });
    }
    runs
}

impl ByteSource for HostFile {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn runs(&self) -> Vec<Run> {
        self.runs.clone()
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<u8>, RepositoryError> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let read = self.file.read_exact_at(&mut bytes, range.start);
        read.map_err(|source| RepositoryError::Io { what: "import", source })?;
        Ok(bytes)
    }
}

/// Builds the directories from the bottom up.
fn build(repository: &Repository, found: &[Found], stored: &[Option<Node>]) -> Result<Root, WorkspaceError> {
    let mut entries: Vec<Option<Entry>> =
        found.iter().zip(stored).map(|(file, node)| Some(entry_of(file, node.clone()?))).collect();
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

fn entry_of(file: &Found, node: Node) -> Entry {
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
        xattrs: xattrs_of(&file.path),
        node,
    }
}

fn xattrs_of(path: &Path) -> Xattrs {
    let mut xattrs = BTreeMap::new();
    for name in xattr::list(path).ok()? {
        if let Ok(Some(value)) = xattr::get(path, &name)
            && (!name.as_bytes().starts_with(b"system.") || [acl::ACCESS, acl::DEFAULT].contains(&name.as_bytes()))
        {
            xattrs.insert(Box::from(name.as_bytes()), value.into_boxed_slice());
        }
    }
    (!xattrs.is_empty()).then(|| Arc::new(xattrs))
}
