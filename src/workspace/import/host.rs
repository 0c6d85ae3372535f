//! The directory of the host that is imported. It may change meanwhile, and whoever changes it is not trusted: everything is
//! opened below the top, no link is followed, no pipe is waited for, and what is not as it was found is reported.

use super::super::acl;
use super::{Error, ImportProgress, WorkspaceError};
use crate::object::{Content, Name, Node, Xattrs};
use crate::repository::{ByteSource, Repository, RepositoryError, Run};
use crate::sys::{self, Below};
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Metadata};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A file found on the host.
pub struct Found {
    /// Where, below the top.
    path: PathBuf,
    /// Its name; none for the top itself.
    pub name: Option<Name>,
    /// The place of its directory among those found.
    pub parent: usize,
    /// What it was when it was found.
    pub metadata: Metadata,
    /// Which file it is going to be.
    pub identity: u64,
}

/// What a file holds, stored, and its extended attributes.
pub type Stored = (Node, Xattrs);

/// Files that could not be taken as they were, and why.
pub type Troubles = Vec<(PathBuf, String)>;

/// Finds everything below `from`, each directory before what is in it. A directory that cannot be read comes empty, as trouble.
pub fn scan(
    from: &Path,
    fresh: &mut dyn FnMut() -> Result<u64, WorkspaceError>,
    progress: &ImportProgress,
) -> Result<(Vec<Found>, Troubles), WorkspaceError> {
    let mut below = Below::open(from).map_err(Error::io("import"))?;
    let top = below.directory(Path::new("")).and_then(|top| top.metadata()).map_err(Error::io("import"))?;
    let mut links: HashMap<(u64, u64), u64> = HashMap::new();
    let mut found = vec![Found { path: PathBuf::new(), name: None, parent: 0, metadata: top, identity: fresh()? }];
    let mut troubled = Troubles::new();
    let mut next = 0;
    while next < found.len() {
        if found[next].metadata.is_dir() {
            let path = found[next].path.clone();
            let listed = list(&mut below, &found[next]).unwrap_or_else(|why| {
                troubled.push((path.clone(), why.to_string()));
                Vec::new()
            });
            for (name, metadata) in listed {
                let linked = metadata.nlink() > 1 && !metadata.is_dir();
                let identity = match linked.then(|| links.get(&(metadata.dev(), metadata.ino()))).flatten() {
                    Some(identity) => *identity,
                    None => fresh()?,
                };
                if linked {
                    links.insert((metadata.dev(), metadata.ino()), identity);
                }
                progress.files_found.fetch_add(1, Ordering::Relaxed);
                progress.bytes_found.fetch_add(if metadata.is_file() { metadata.len() } else { 0 }, Ordering::Relaxed);
                let path = path.join(std::ffi::OsStr::from_bytes(name.as_bytes()));
                found.push(Found { path, name: Some(name), parent: next, metadata, identity });
            }
        }
        next += 1;
    }
    Ok((found, troubled))
}

fn list(below: &mut Below, found: &Found) -> Result<Vec<(Name, Metadata)>, WorkspaceError> {
    let directory = below.directory(&found.path).map_err(Error::io("import"))?;
    if !is_same(&directory.metadata().map_err(Error::io("import"))?, &found.metadata) {
        return Err(Error::Invalid("became another directory".into()));
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(sys::path_of_open(&directory)).map_err(Error::io("import"))? {
        let entry = entry.map_err(Error::io("import"))?;
        let Ok(metadata) = entry.metadata() else { continue }; // It went meanwhile.
        names.push((Name::new(entry.file_name().as_bytes())?, metadata));
    }
    Ok(names)
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Stores the contents of all regular files, and reads what belongs to each file; none where that failed.
pub fn store_files(
    repository: &Repository,
    from: &Path,
    found: &[Found],
    progress: &ImportProgress,
) -> (Vec<Option<Stored>>, Troubles) {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        let mut troubled = Troubles::new();
        let mut below = Below::open(from);
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = found.get(at) else { return (done, troubled) };
            let taken = match &mut below {
                Ok(below) => take(repository, below, file),
                Err(err) => Err(Error::Invalid(format!("cannot be opened: {err}"))),
            };
            match taken {
                Ok((stored, changed)) => {
                    done.push((at, stored));
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
    let mut stored = vec![None; found.len()];
    let mut troubled = Troubles::new();
    std::thread::scope(|scope| {
        let helpers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for helper in helpers {
            let Ok((done, troubles)) = helper.join() else { continue };
            for (at, file) in done {
                stored[at] = Some(file);
            }
            troubled.extend(troubles);
        }
    });
    (stored, troubled)
}

fn take(repository: &Repository, below: &mut Below, file: &Found) -> Result<(Stored, bool), WorkspaceError> {
    let kind = file.metadata.file_type();
    let empty = Node::Directory { tree: None, has_links: false };
    let Some(name) = file.path.file_name() else {
        return Ok(((empty, xattrs_of(&*below.directory(Path::new("")).map_err(Error::io("import"))?)), false));
    };
    let (parent, _) = below.parent_of(&file.path).map_err(Error::io("import"))?;
    if kind.is_file() {
        // Whatever the name stands for by now: no link is followed, and no pipe is waited for.
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let opened = sys::open_beneath(&parent, Path::new(name), flags, 0).map_err(Error::io("import"))?;
        let xattrs = xattrs_of(&opened);
        let (node, changed) = regular(repository, file, opened)?;
        return Ok(((node, xattrs), changed));
    }
    let pinned = sys::pin(&parent, name).map_err(Error::io("import"))?;
    let now = pinned.metadata().map_err(Error::io("import"))?;
    if !is_same(&now, &file.metadata) || now.file_type() != kind {
        return Err(Error::Invalid("became another file".into()));
    }
    let device = file.metadata.rdev() as u32;
    let node = if kind.is_dir() {
        empty
    } else if kind.is_symlink() {
        let target = std::fs::read_link(sys::path_within(&parent, name)).map_err(Error::io("import"))?;
        Node::Symlink(target.as_os_str().as_bytes().into())
    } else if kind.is_fifo() {
        Node::Fifo
    } else if kind.is_socket() {
        Node::Socket
    } else if kind.is_char_device() {
        Node::CharDevice(device)
    } else {
        Node::BlockDevice(device)
    };
    Ok(((node, xattrs_of(&pinned)), false))
}

fn regular(repository: &Repository, file: &Found, opened: File) -> Result<(Node, bool), WorkspaceError> {
    let before = opened.metadata().map_err(Error::io("import"))?;
    if !before.is_file() {
        return Err(Error::Invalid("is not a regular file any more".into()));
    }
    let source = HostFile::new(opened, before.len(), before.blocks() * 512 < before.len());
    let content = repository.put_content(&source)?;
    let after = source.file.metadata().map_err(Error::io("import"))?;
    let time = |metadata: &Metadata| (metadata.mtime(), metadata.mtime_nsec());
    let changed = after.len() != before.len()
        || time(&after) != time(&before)
        || time(&before) != time(&file.metadata)
        || !is_same(&before, &file.metadata);
    let size_bytes = source.size_bytes;
    let data_bytes = match content {
        Content::Manifest(_) => source.runs.iter().filter(|run| !run.hole).map(|run| run.range.end - run.range.start).sum(),
        _ => size_bytes,
    };
    Ok((Node::File { size_bytes, data_bytes, content }, changed))
}

/// Reads extended attributes; those that the kernel makes up itself are left out.
fn xattrs_of(file: &File) -> Xattrs {
    let path = sys::path_of_open(file);
    let mut xattrs = BTreeMap::new();
    for name in xattr::list_deref(&path).ok()? {
        if let Ok(Some(value)) = xattr::get_deref(&path, &name)
            && (!name.as_bytes().starts_with(b"system.") || [acl::ACCESS, acl::DEFAULT].contains(&name.as_bytes()))
        {
            xattrs.insert(Box::from(name.as_bytes()), value.into_boxed_slice());
        }
    }
    (!xattrs.is_empty()).then(|| Arc::new(xattrs))
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
            sys::data_ranges(&file, size_bytes).map_or_else(|_| dense(), |data| runs_of(&data, size_bytes))
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

    fn read(&self, range: Range<u64>, bytes: &mut Vec<u8>) -> Result<(), RepositoryError> {
        let start = bytes.len();
        bytes.resize(start + (range.end - range.start) as usize, 0);
        let read = self.file.read_exact_at(&mut bytes[start..], range.start);
        read.map_err(|source| RepositoryError::Io { what: "import", source })
    }
}
