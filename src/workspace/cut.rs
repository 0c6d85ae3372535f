//! The instant that decides what a checkpoint holds, and the return of what was sealed into the live tree.

use super::error::WorkspaceError;
use super::file::FileBody;
use super::inode::{Body, Generation, Ino, Inode, ROOT};
use super::live::LiveTree;
use super::plain::Stamp;
use super::share::Shared;
use crate::object::{Content, Entry, Name, ObjectId};

/// Most bytes of plain files that are read at a cut, while changes wait.
const COPIES_BYTES_MAX: u64 = 16 << 20;

/// What a description takes in a sealed directory, about.
const ENTRY_BYTES: u64 = 128;
/// What the nodes of a directory take besides, with those that are written again for their neighbours, about.
const DIRECTORY_BYTES: u64 = 8 << 10;

/// Everything that changed up to an instant, taken out of the live tree in memory.
#[derive(Debug)]
pub struct Cut {
    /// Changes of this generation and older are in.
    pub generation: Generation,
    /// The changed directories, each before those in it; the top is first.
    pub directories: Vec<DirectoryCut>,
    /// The files with changed content.
    pub files: Vec<FileCut>,
    /// Sealed descriptions of files with several names, before the cut.
    pub links_base: Option<ObjectId>,
    /// What changed in them; `None` for a file that lost its last name.
    pub links: Vec<(u64, Option<EntryCut>)>,
}

impl Cut {
    /// Returns about how many bytes a seal of this writes at most, but for large files, which count as if they were copied.
    pub fn bytes_to_save(&self) -> u64 {
        let contents: u64 = self.files.iter().map(|file| file.body.data_bytes()).sum();
        let names: usize = self.directories.iter().map(|directory| directory.edits.len()).sum();
        contents + (names + self.links.len()) as u64 * ENTRY_BYTES + self.directories.len() as u64 * DIRECTORY_BYTES
    }
}

/// One changed directory.
#[derive(Debug)]
pub struct DirectoryCut {
    /// The directory.
    pub ino: Ino,
    /// Its description; the tree in it is the sealed one.
    pub entry: Entry,
    /// Its changed names, in order.
    pub edits: Vec<(Name, Edit)>,
}

/// What became of a name.
#[derive(Debug)]
pub enum Edit {
    /// It was removed.
    Removed,
    /// It names this file.
    Entry(EntryCut),
    /// It names the changed directory at this place of [`Cut::directories`].
    Directory(usize),
    /// It names a file of the link table.
    Link(u64),
}

/// A description whose content may still have to be sealed.
#[derive(Debug)]
pub struct EntryCut {
    /// The file.
    pub ino: Ino,
    /// The description.
    pub entry: Entry,
    /// Its place in [`Cut::files`] when the content changed.
    pub file: Option<usize>,
}

/// A file with changed content.
#[derive(Debug)]
pub struct FileCut {
    /// The file.
    pub ino: Ino,
    /// Its bytes at the cut; later writes do not change them, but in a plain file.
    pub body: FileBody,
    /// What a plain file held at the cut, unless it was too large for that or its writers never paused.
    pub copy: Option<FileBody>,
}

/// Sealed content of a file.
#[derive(Clone, Copy, Debug)]
pub struct SealedFile {
    /// Where the bytes are.
    pub content: Content,
    /// Length of the file.
    pub size_bytes: u64,
    /// Bytes that are not holes.
    pub data_bytes: u64,
    /// How the plain file looked when its bytes were read, if it is one.
    pub stamp: Option<Stamp>,
}

impl From<SealedFile> for Shared {
    fn from(SealedFile { content, size_bytes, data_bytes, .. }: SealedFile) -> Self {
        Self { content, size_bytes, data_bytes }
    }
}

impl SealedFile {
    /// Describes a file whose content is not sealed yet.
    pub fn unknown(body: &FileBody) -> Self {
        Self { content: Content::Empty, size_bytes: body.size_bytes(), data_bytes: body.data_bytes(), stamp: None }
    }
}

/// Files that were cut so far.
struct FileCuts {
    cuts: Vec<FileCut>,
    /// How many bytes of plain files may still be read.
    copy_room: u64,
}

impl LiveTree {
    /// Takes out everything that changed so far. Costs memory work in proportion to what changed.
    pub fn cut(&mut self) -> Result<Cut, WorkspaceError> {
        let mut cut = Cut {
            generation: self.generation,
            directories: Vec::new(),
            files: Vec::new(),
            links_base: self.links_base,
            links: Vec::new(),
        };
        self.generation += 1;
        self.sealing = true;
        let mut files = FileCuts { cuts: Vec::new(), copy_room: COPIES_BYTES_MAX };
        let mut queue = vec![ROOT];
        let mut next = 0;
        while next < queue.len() {
            let directory = self.cut_directory(queue[next], &mut queue, &mut files)?;
            cut.directories.push(directory);
            next += 1;
        }
        let changed: Vec<u64> = self.link_changes.keys().copied().collect();
        for identity in changed {
            let entry = match self.loaded(identity) {
                Some(ino) => Some(self.cut_entry(ino, &mut files)?),
                None => None,
            };
            cut.links.push((identity, entry));
        }
        cut.files = files.cuts;
        Ok(cut)
    }

    fn cut_directory(&mut self, ino: Ino, queue: &mut Vec<Ino>, files: &mut FileCuts) -> Result<DirectoryCut, WorkspaceError> {
        let inode = self.inode(ino)?;
        let entry = inode.to_entry();
        let changed: Vec<(Name, Option<Ino>)> = self
            .directory(ino)?
            .slots
            .iter()
            .filter(|(_, slot)| slot.changed_in > 0)
            .map(|(name, slot)| (name.clone(), slot.child()))
            .collect();
        let mut edits = Vec::with_capacity(changed.len());
        for (name, child) in changed {
            let edit = match child {
                None => Edit::Removed,
                Some(child) => self.cut_child(child, queue, files)?,
            };
            edits.push((name, edit));
        }
        Ok(DirectoryCut { ino, entry, edits })
    }

    fn cut_child(&mut self, child: Ino, queue: &mut Vec<Ino>, files: &mut FileCuts) -> Result<Edit, WorkspaceError> {
        let inode = self.inode(child)?;
        if inode.linked {
            return Ok(Edit::Link(inode.identity));
        }
        if inode.directory().is_some() {
            queue.push(child);
            return Ok(Edit::Directory(queue.len() - 1));
        }
        self.cut_entry(child, files).map(Edit::Entry)
    }

    fn cut_entry(&mut self, ino: Ino, files: &mut FileCuts) -> Result<EntryCut, WorkspaceError> {
        let held = self.held.contains(ino);
        let unsealed = self.inode(ino)?.file().is_some_and(|body| body.sealed().is_none());
        let copy = if held && unsealed { self.copy(ino, &mut files.copy_room) } else { None };
        let inode = self.inode_mut(ino)?;
        let entry = inode.to_entry();
        let mut file = None;
        if let Body::File(body) = &mut inode.body
            && body.sealed().is_none()
        {
            if let FileBody::Plain(plain) = body
                && !held
            {
                *body = FileBody::Layered(Box::new(plain.to_layer()));
            }
            if let FileBody::Layered(layered) = body {
                layered.frozen = true; // Later writes go to a layer of their own.
            }
            file = Some(files.cuts.len());
            files.cuts.push(FileCut { ino, body: body.clone(), copy });
        }
        Ok(EntryCut { ino, entry, file })
    }

    /// Takes back what a durable seal made of a cut: what did not change since is clean now.
    pub fn settle(&mut self, cut: &Cut, trees: &[Entry], contents: &[SealedFile], links: Option<ObjectId>) {
        self.sealing = false;
        self.links_base = links;
        for (file, sealed) in cut.files.iter().zip(contents) {
            self.settle_file(file, sealed, cut.generation);
        }
        for (directory, entry) in cut.directories.iter().zip(trees) {
            self.settle_directory(directory, entry, cut.generation);
        }
        self.link_changes.retain(|_, changed_in| *changed_in > cut.generation);
        for ino in touched(cut) {
            if let Some(inode) = self.inodes.get_mut(ino)
                && inode.changed_in <= cut.generation
            {
                inode.changed_in = 0;
            }
        }
        for ino in touched(cut).collect::<Vec<_>>().into_iter().rev() {
            self.drop_unused(ino);
        }
    }

    fn settle_file(&mut self, file: &FileCut, sealed: &SealedFile, generation: Generation) {
        let Some(inode) = self.inodes.get_mut(file.ino) else { return };
        let unchanged = inode.content_changed_in <= generation;
        let Body::File(body) = &mut inode.body else { return };
        if let FileBody::Layered(layered) = &file.body {
            layered.each_staging(&mut |staging| staging.mark_sealed());
        }
        if let FileBody::Plain(plain) = body {
            let FileBody::Plain(then) = &file.body else { return };
            self.held.insert(file.ino); // Somebody asks whether it can rest now.
            if then.file.number() != plain.file.number() {
                return;
            }
            let Some(stamp) = sealed.stamp.filter(|stamp| stamp.ctime >= plain.seen.ctime) else {
                return self.mark(file.ino); // It is not what was sealed any more.
            };
            // What was written while the bytes were read and after that shows at the next look.
            plain.seen = stamp;
            plain.sealed = Some(*sealed);
            inode.mtime = stamp.mtime;
            inode.ctime = inode.ctime.max(stamp.ctime);
        } else if unchanged {
            let SealedFile { content, size_bytes, data_bytes, .. } = *sealed;
            *body = FileBody::Clean { content, size_bytes, data_bytes };
        } else if let FileBody::Layered(layered) = body {
            layered.rest_on(sealed.content);
        }
    }

    fn settle_directory(&mut self, sealed: &DirectoryCut, entry: &Entry, generation: Generation) {
        let Some(directory) = self.inodes.get_mut(sealed.ino).and_then(Inode::directory_mut) else { return };
        if let crate::object::Node::Directory { tree, has_links } = entry.node {
            directory.base = tree;
            directory.base_has_links = has_links;
        }
        for (name, edit) in &sealed.edits {
            let Some(slot) = directory.slots.get_mut(name) else { continue };
            slot.in_base = !matches!(edit, Edit::Removed);
            if slot.changed_in > generation {
                continue;
            }
            slot.changed_in = 0;
            if slot.child().is_none() {
                directory.slots.remove(name);
            }
        }
    }

    /// Gives up on a cut: everything in it is as dirty as before.
    pub fn abandon_cut(&mut self) {
        self.sealing = false;
    }
}

/// Returns every file that the cut describes.
fn touched(cut: &Cut) -> impl Iterator<Item = Ino> + '_ {
    let directories = cut.directories.iter().flat_map(|directory| {
        let children = directory.edits.iter().filter_map(|(_, edit)| match edit {
            Edit::Entry(entry) => Some(entry.ino),
            _ => None,
        });
        std::iter::once(directory.ino).chain(children)
    });
    let links = cut.links.iter().filter_map(|(_, entry)| entry.as_ref().map(|entry| entry.ino));
    directories.chain(links)
}

#[cfg(test)]
mod tests {
    use crate::object::{Author, Content, EntryKind, Name};
    use crate::repository::Repository;
    use crate::workspace::{AttributeChange, Branches, CheckpointRequest, Ino, NewNode, Opened, Purpose, ROOT, Workspace, seal};
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    const HOLE_BYTES: u64 = 1 << 30;

    fn with_sparse_file() -> (tempfile::TempDir, Arc<Workspace>, Ino) {
        let temp = tempfile::tempdir().unwrap();
        let branches = Branches::new(Repository::create(&temp.path().join("store")).unwrap());
        let workspace = branches.open("main").unwrap();
        let node = NewNode { kind: EntryKind::File, mode: 0o644, uid: 0, gid: 0, device: 0, target: Box::default() };
        let ino = workspace.create(ROOT, &Name::new(b"sparse").unwrap(), node, 0).unwrap().ino;
        workspace.write(ino, 0, b"start", false).unwrap();
        workspace.set_attributes(ino, AttributeChange { size_bytes: Some(HOLE_BYTES), ..Default::default() }).unwrap();
        (temp, workspace, ino)
    }

    /// What was below the new bytes was taken for data from then on: the next checkpoint read and stored all of its zeros.
    #[test]
    fn a_file_that_is_written_to_while_it_is_sealed_keeps_its_holes() {
        let (_temp, workspace, ino) = with_sparse_file();
        let pending = workspace.seal().unwrap();
        workspace.write(ino, 10 << 20, b"meanwhile", false).unwrap();
        workspace.record_seal(&mut workspace.head(), pending).unwrap();
        assert_eq!(workspace.attributes(ino).unwrap().blocks, 16, "two blocks of data, in sectors");
        workspace.set_attributes(ino, AttributeChange { size_bytes: Some(20 << 20), ..Default::default() }).unwrap();
        workspace.checkpoint(&CheckpointRequest::new("", Author { uid: 0, pid: 0, command: String::new() })).unwrap();
        let content = match workspace.live().tree.inode(ino).unwrap().file() {
            Some(super::FileBody::Clean { content, .. }) => *content,
            other => panic!("{other:?}"),
        };
        assert!(matches!(content, Content::Manifest(_)));
        let holes = workspace.repository().holes_of(&content).unwrap();
        assert_eq!(holes, [5..10 << 20, (10 << 20) + 4096..20 << 20]);
        assert_eq!(workspace.read(ino, 10 << 20, 9).unwrap(), b"meanwhile");
        assert_eq!(workspace.read(ino, 0, 5).unwrap(), b"start");
    }

    /// What was sealed of it was marked as changed at once: beside a writer that never paused, a restore was refused as busy.
    #[test]
    fn a_file_that_is_written_to_while_it_is_sealed_is_changed_for_who_looks_at_it() {
        for size_bytes in [6, super::COPIES_BYTES_MAX + 1] {
            let (_temp, workspace, _) = with_sparse_file();
            let node = NewNode { kind: EntryKind::File, mode: 0o644, uid: 0, gid: 0, device: 0, target: Box::default() };
            let ino = workspace.create(ROOT, &Name::new(b"open").unwrap(), node, 0).unwrap().ino;
            let Opened::Handed(file) = workspace.open_file(ino, Purpose { write: true, as_root: true, small: false }).unwrap()
            else {
                panic!("not handed over")
            };
            let kernel = file.to_change().unwrap();
            kernel.set_len(size_bytes).unwrap();
            let cut = {
                let mut live = workspace.live();
                assert!(live.is_dirty());
                live.tree.cut().unwrap()
            };
            kernel.write_all_at(b"after the cut", size_bytes).unwrap();
            let sealed = seal::seal(workspace.repository(), &cut).unwrap();
            let at = cut.files.iter().position(|file| file.ino == ino).unwrap();
            assert_eq!(sealed.files[at].size_bytes, size_bytes);
            let mut live = workspace.live();
            live.tree.settle(&cut, &sealed.directories, &sealed.files, sealed.root.links);
            assert!(!live.tree.is_dirty(), "{size_bytes} bytes");
            assert!(live.is_dirty(), "{size_bytes} bytes");
        }
    }
}
