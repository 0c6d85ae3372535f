//! Turns a cut into objects: contents first, then directories from the bottom up, then the root.

use super::cut::{Cut, DirectoryCut, Edit, EntryCut, FileCut, SealedFile};
use super::error::WorkspaceError;
use super::file::{FileBody, Layered, Source};
use super::plain::{Plain, Stamp};
use super::reading;
use crate::object::{Content, Entry, Extent, Name, Node, ObjectId, ObjectKind, Root, TreeItem};
use crate::repository::{ByteSource, Repository, RepositoryError, Run, side_by_side};
use crate::tree::{self, NodeSink};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Below this many bytes a second thread costs more than it gives.
const PARALLEL_BYTES_MIN: u64 = 256 << 10;

/// The same for directories.
const PARALLEL_DIRECTORIES_MIN: usize = 16;

/// What a cut became.
#[derive(Debug)]
pub struct Sealed {
    /// Id of the root.
    pub root_id: ObjectId,
    /// The root.
    pub root: Root,
    /// The changed directories as they are described now, in the order of the cut.
    pub directories: Vec<Entry>,
    /// The changed contents, in the order of the cut.
    pub files: Vec<SealedFile>,
}

/// Stores what `cut` holds. The objects are durable only after the repository's next sync.
pub fn seal(repository: &Repository, cut: &Cut) -> Result<Sealed, WorkspaceError> {
    let files = seal_files(repository, cut)?;
    let directories = seal_directories(repository, cut, &files)?;
    let links = seal_links(repository, cut, &files)?;
    let root = Root { directory: directories[0].clone(), links };
    let root_id = repository.put_root(&root)?;
    Ok(Sealed { root_id, root, directories, files })
}

fn seal_files(repository: &Repository, cut: &Cut) -> Result<Vec<SealedFile>, WorkspaceError> {
    let total: u64 = cut.files.iter().map(|file| file.body.size_bytes()).sum();
    let next = AtomicUsize::new(0);
    let mut sealed = side_by_side(total >= PARALLEL_BYTES_MIN && cut.files.len() > 1, || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = cut.files.get(at) else { return Ok::<_, WorkspaceError>(done) };
            done.push((at, seal_cut(repository, file)?));
        }
    })?;
    sealed.sort_unstable_by_key(|(at, _)| *at);
    Ok(sealed.into_iter().map(|(_, file)| file).collect())
}

/// Stores the bytes of one file.
pub fn seal_file(repository: &Repository, body: &FileBody) -> Result<SealedFile, WorkspaceError> {
    let size_bytes = body.size_bytes();
    let content = match body {
        FileBody::Clean { content, .. } => *content,
        FileBody::Plain(plain) => return seal_plain(repository, plain),
        _ if size_bytes == 0 => Content::Empty,
        FileBody::Small(bytes) => Content::Blob(repository.put(ObjectKind::Blob, bytes)?),
        FileBody::Layered(_) => {
            let base = BaseExtents::of(repository, body)?;
            repository.put_content(&DirtyBytes { repository, body, base })?
        }
    };
    let data_bytes = match content {
        Content::Manifest(_) => body.data_bytes(),
        _ => size_bytes,
    };
    Ok(SealedFile { content, size_bytes, data_bytes, stamp: None })
}

/// Names the pieces of a file that lies in a layer alone, and stores nothing. Fails when `goes_on` says no.
pub fn pieces_of(
    repository: &Repository,
    layered: &Layered,
    goes_on: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<Extent>, WorkspaceError> {
    let body = FileBody::Layered(Box::new(layered.clone()));
    let bytes = DirtyBytes { repository, body: &body, base: BaseExtents::default() };
    Ok(repository.pieces_of(&AsLongAs { bytes, goes_on })?)
}

/// A dirty file that is read as long as it is worth it.
struct AsLongAs<'a> {
    bytes: DirtyBytes<'a>,
    goes_on: &'a (dyn Fn() -> bool + Sync),
}

impl ByteSource for AsLongAs<'_> {
    fn size_bytes(&self) -> u64 {
        self.bytes.size_bytes()
    }

    fn runs(&self) -> Vec<Run> {
        self.bytes.runs()
    }

    fn read(&self, range: Range<u64>, bytes: &mut Vec<u8>) -> Result<(), RepositoryError> {
        if (self.goes_on)() {
            self.bytes.read(range, bytes)
        } else {
            Err(RepositoryError::Other("it is not wanted any more".into()))
        }
    }
}

fn seal_cut(repository: &Repository, file: &FileCut) -> Result<SealedFile, WorkspaceError> {
    match (&file.body, &file.copy) {
        (FileBody::Plain(plain), Some(copy)) => seal_copy(repository, plain, copy),
        (body, _) => seal_file(repository, body),
    }
}

/// Makes what a plain file holds survive a power cut: the segment that names it now must not be the first one before. It also makes
/// pages of mappings read-only, so that whatever is stored in them later moves the file's times.
fn sync_plain(plain: &Plain) -> Result<(), WorkspaceError> {
    plain.file.sync().and_then(|()| plain.file.sync_name()).map_err(WorkspaceError::io("staging file"))
}

/// Stores what a plain file held at the cut.
fn seal_copy(repository: &Repository, plain: &Plain, copy: &FileBody) -> Result<SealedFile, WorkspaceError> {
    sync_plain(plain)?;
    let size_bytes = copy.size_bytes();
    let content = repository.put_content(&DirtyBytes { repository, body: copy, base: BaseExtents::default() })?;
    let data_bytes = if let Content::Manifest(_) = content { copy.data_bytes() } else { size_bytes };
    let bytes = reading::read(repository, copy, 0..size_bytes)?;
    let same = plain.holds(&bytes).map_err(WorkspaceError::io("staging file"))?;
    let moved = !plain.file.stamp().map_err(WorkspaceError::io("staging file"))?.is_as(&plain.seen);
    // What was stored in pages that had been writable since before the cut moved no time; any other change shows at the next look.
    let stamp = if same || moved { plain.seen } else { plain.seen.of_the_past() };
    Ok(SealedFile { content, size_bytes, data_bytes, stamp: Some(stamp) })
}

/// Stores the bytes of a file that others may be writing, up to the length that it had at the cut. When it changed meanwhile it is read
/// again, but not for ever: what is stored then has all that was there when the reading began, and some of what was later written over it.
fn seal_plain(repository: &Repository, plain: &Plain) -> Result<SealedFile, WorkspaceError> {
    const READINGS_MAX: usize = 3;
    let cut = plain.seen;
    let stamp_now = || plain.file.stamp().map_err(WorkspaceError::io("staging file"));
    let mut readings = 0;
    loop {
        let begun = stamp_now()?;
        sync_plain(plain)?;
        let size_bytes = begun.size_bytes.min(cut.size_bytes);
        let seen = Stamp { size_bytes, ..begun };
        let body = FileBody::Layered(Box::new(Plain { seen, ..plain.clone() }.to_layer()));
        let content = repository.put_content(&DirtyBytes { repository, body: &body, base: BaseExtents::default() })?;
        let data_bytes = if let Content::Manifest(_) = content { body.data_bytes() } else { size_bytes };
        readings += 1;
        if readings == READINGS_MAX || stamp_now()?.is_as(&begun) {
            // That it grew shows at the next look.
            let stamp = if size_bytes < begun.size_bytes { cut } else { begun };
            return Ok(SealedFile { content, size_bytes, data_bytes, stamp: Some(stamp) });
        }
    }
}

/// A dirty file as the repository reads it to store it.
struct DirtyBytes<'a> {
    repository: &'a Repository,
    body: &'a FileBody,
    base: BaseExtents,
}

impl ByteSource for DirtyBytes<'_> {
    fn size_bytes(&self) -> u64 {
        self.body.size_bytes()
    }

    fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for piece in self.body.pieces(0..self.body.size_bytes()) {
            let hole = matches!(piece.source, Source::Hole);
            match runs.last_mut() {
                Some(last) if last.hole == hole => last.range.end = piece.range.end,
                _ => runs.push(Run { range: piece.range, hole }),
            }
        }
        runs
    }

    fn read(&self, range: Range<u64>, bytes: &mut Vec<u8>) -> Result<(), RepositoryError> {
        reading::read_into(self.repository, self.body, range, bytes).map_err(|err| match err {
            WorkspaceError::Repository(err) => err,
            WorkspaceError::Io { what, source } => RepositoryError::Io { what, source },
            other => RepositoryError::Other(other.to_string()),
        })
    }

    fn take_file(&self) -> Option<PathBuf> {
        let FileBody::Layered(layered) = self.body else { return None };
        let (file, in_memory) = layered.whole()?;
        let path = file.give_away()?;
        // The journal has these bytes, and the staging file room for them, where nobody reads.
        for (range, bytes, offset) in in_memory {
            let part = bytes.get(offset..offset + (range.end - range.start) as usize)?;
            file.write_at(range.start, part).ok().filter(|written| *written == part.len())?;
        }
        Some(path)
    }

    fn named(&self) -> Option<Arc<Vec<Extent>>> {
        match self.body {
            FileBody::Layered(layered) => layered.named.clone(),
            _ => None,
        }
    }

    fn stored(&self, at: u64, end: u64) -> Option<Extent> {
        self.base.reusable(at, end)
    }
}

/// The pieces of the sealed version below a file: those that still show unchanged need not be read.
#[derive(Default)]
struct BaseExtents {
    /// Start of each extent in the file and the extent, in order.
    extents: Vec<(u64, Extent)>,
    /// Ranges of the file that still show the sealed version.
    unchanged: Vec<Range<u64>>,
}

impl BaseExtents {
    fn of(repository: &Repository, body: &FileBody) -> Result<Self, WorkspaceError> {
        let mut base = Self::default();
        let mut sealed = None;
        for piece in body.pieces(0..body.size_bytes()) {
            if let Source::Clean(content, _) = piece.source {
                sealed = Some(content);
                match base.unchanged.last_mut() {
                    Some(last) if last.end == piece.range.start => last.end = piece.range.end,
                    _ => base.unchanged.push(piece.range),
                }
            }
        }
        if let Some(Content::Manifest(id)) = sealed {
            let mut at = 0;
            for extent in &repository.manifest(&id)?.extents {
                base.extents.push((at, *extent));
                at += extent.len;
            }
        }
        Ok(base)
    }

    /// Returns the extent that starts at `at` if all of it shows unchanged and ends by `end`.
    fn reusable(&self, at: u64, end: u64) -> Option<Extent> {
        let index = self.extents.binary_search_by_key(&at, |(start, _)| *start).ok()?;
        let extent = self.extents[index].1;
        let stop = at + extent.len;
        let index = self.unchanged.partition_point(|range| range.end < stop);
        let whole = self.unchanged.get(index).is_some_and(|range| range.start <= at && stop <= range.end);
        (whole && stop <= end && extent.blob.is_some()).then_some(extent)
    }
}

/// Stores the changed directories, from the lowest level to the top. Those of one level have nothing to do with each other.
fn seal_directories(repository: &Repository, cut: &Cut, files: &[SealedFile]) -> Result<Vec<Entry>, WorkspaceError> {
    let mut directories: Vec<Entry> = cut.directories.iter().map(|directory| directory.entry.clone()).collect();
    for level in levels(&cut.directories).into_iter().rev() {
        let next = AtomicUsize::new(level.start);
        let sealed = side_by_side(level.len() >= PARALLEL_DIRECTORIES_MIN, || {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if !level.contains(&at) {
                    return Ok::<_, WorkspaceError>(done);
                }
                done.push((at, seal_directory(repository, &cut.directories[at], &directories, files)?));
            }
        })?;
        for (at, (tree, has_links)) in sealed {
            directories[at].node = Node::Directory { tree, has_links };
        }
    }
    Ok(directories)
}

/// Returns the places of the directories of each level: each directory stands before those in it, a level before the next.
fn levels(directories: &[DirectoryCut]) -> Vec<Range<usize>> {
    let mut levels = Vec::new();
    let mut level = 0..1;
    while level.start < directories.len() {
        let below = directories[level.clone()].iter().flat_map(|directory| &directory.edits);
        let next = level.end + below.filter(|(_, edit)| matches!(edit, Edit::Directory(_))).count();
        levels.push(level.clone());
        level = level.end..next;
    }
    levels
}

fn seal_directory(
    repository: &Repository,
    directory: &DirectoryCut,
    sealed: &[Entry],
    files: &[SealedFile],
) -> Result<(Option<ObjectId>, bool), WorkspaceError> {
    let Node::Directory { tree: base, has_links } = directory.entry.node else {
        return Err(WorkspaceError::NotDirectory);
    };
    let mut edits: Vec<(Name, Option<TreeItem>)> = Vec::with_capacity(directory.edits.len());
    for (name, edit) in &directory.edits {
        let item = match edit {
            Edit::Removed => None,
            Edit::Link(identity) => Some(TreeItem::Link(*identity)),
            Edit::Directory(at) => Some(TreeItem::Entry(sealed[*at].clone())),
            Edit::Entry(entry) => Some(TreeItem::Entry(finished(entry, files))),
        };
        if let Some(TreeItem::Entry(entry)) = &item
            && is_as_sealed(repository, base, name, entry)?
        {
            continue;
        }
        edits.push((name.clone(), item));
    }
    if edits.is_empty() {
        return Ok((base, has_links));
    }
    let built = tree::update(repository, base, &edits)?;
    Ok((built.tree, built.has_links))
}

/// Says whether the sealed directory describes the same state; a change time alone makes no new tree.
fn is_as_sealed(repository: &Repository, base: Option<ObjectId>, name: &Name, entry: &Entry) -> Result<bool, WorkspaceError> {
    let old = tree::lookup(repository, base, name)?;
    Ok(matches!(old, Some(TreeItem::Entry(old)) if old.same_state(entry)))
}

fn finished(cut: &EntryCut, files: &[SealedFile]) -> Entry {
    let mut entry = cut.entry.clone();
    if let Some(SealedFile { content, size_bytes, data_bytes, stamp }) = cut.file.map(|at| files[at]) {
        entry.node = Node::File { size_bytes, data_bytes, content };
        entry.mtime = stamp.map_or(entry.mtime, |stamp| stamp.mtime);
    }
    entry
}

fn seal_links(repository: &Repository, cut: &Cut, files: &[SealedFile]) -> Result<Option<ObjectId>, WorkspaceError> {
    let mut edits = Vec::with_capacity(cut.links.len());
    for (identity, entry) in &cut.links {
        let name = Name::of_identity(*identity);
        let entry = entry.as_ref().map(|entry| finished(entry, files));
        if let Some(entry) = &entry
            && is_as_sealed(repository, cut.links_base, &name, entry)?
        {
            continue;
        }
        edits.push((name, entry.map(TreeItem::Entry)));
    }
    if edits.is_empty() {
        return Ok(cut.links_base);
    }
    edits.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(tree::update(repository, cut.links_base, &edits)?.tree)
}
