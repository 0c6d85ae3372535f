//! The one function that changes the live tree, in work and in recovery alike.

use super::acl;
use super::error::WorkspaceError;
use super::extents::Fill;
use super::file::{BLOCK_BYTES, Base, FileBody, Layered, SMALL_BYTES_MAX};
use super::inode::{Body, Ino, Inode, ROOT};
use super::live::LiveTree;
use super::operation::{AttributeChange, NewNode, Operation, RangeChange, RangeOptions};
use super::places::Places;
use super::staging_dir::StagingDir;
use crate::object::{EntryKind, Name, Timestamp, Xattrs};
use std::ops::Range;
use std::sync::Arc;

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o010;
/// Name of the attribute that holds the capabilities of a program.
pub(super) const CAPABILITY: &[u8] = b"security.capability";

impl LiveTree {
    /// Applies `operation`, finding its files by identity. A replay calls this; it meets the tree that the work met.
    pub fn apply(&mut self, operation: &Operation, staging: &Arc<StagingDir>) -> Result<(), WorkspaceError> {
        let mut files = Vec::with_capacity(2);
        for identity in operation.files() {
            let ino = self.loaded(identity).ok_or_else(|| WorkspaceError::NotFound(format!("file {identity}")))?;
            files.push(ino);
        }
        self.apply_to(&files, operation, staging)
    }

    /// Applies `operation` to `files`, in the order of [`Operation::files`]. The caller checked that it is possible.
    pub fn apply_to(&mut self, files: &[Ino], operation: &Operation, staging: &Arc<StagingDir>) -> Result<(), WorkspaceError> {
        let first = files.first().copied().unwrap_or(ROOT);
        let second = files.get(1).copied().unwrap_or(first);
        match operation {
            Operation::Bind { name, .. } => self.child(first, name).map(drop),
            Operation::BindLink { identity } => self.load_link(*identity).map(drop),
            Operation::Create { name, identity, node, xattrs, time, .. } => {
                self.apply_create(first, name, new_inode(*identity, node, xattrs, *time))
            }
            Operation::Link { name, time, .. } => self.apply_link(first, second, name, *time),
            Operation::Remove { name, time, .. } => self.apply_remove(first, name, *time),
            Operation::Rename { name, new_name, time, .. } => self.apply_rename(first, name, second, new_name, *time),
            Operation::RenameLeaving { name, new_name, left, time, .. } => {
                self.apply_rename(first, name, second, new_name, *time)?;
                self.apply_create(first, name, new_inode(left.identity, &left.node, &left.xattrs, *time))
            }
            Operation::Exchange { name, new_name, time, .. } => self.apply_exchange(first, name, second, new_name, *time),
            Operation::SetAttributes { change, time, .. } => self.apply_attributes(first, change, *time),
            Operation::SetXattr { name, value, time, .. } => self.apply_xattr(first, name, value.as_deref(), *time),
            Operation::Write { offset, data, strip_privileges, time, .. } => {
                self.apply_write(first, *offset, data, *strip_privileges, *time)
            }
            Operation::Layer { staging: number, .. } => self.apply_layer(first, Some(staging.reopen(*number)?)),
            Operation::Hand { staging: number, changed, .. } => self.apply_hand(first, staging.reopen_plain(*number)?, *changed),
            Operation::Rest { content, mtime, ctime, .. } => self.apply_rest(first, content, (*mtime, *ctime)),
            Operation::WriteStaged { offset, len, strip_privileges, time, .. } => {
                self.apply_write_staged(first, *offset..*offset + *len, *strip_privileges, *time)
            }
            Operation::ChangeRange { offset, len, change, options, time, .. } => {
                self.apply_range(first, *offset..*offset + *len, *change, *options, *time)
            }
            Operation::Share { shared, strip_privileges, time, .. } => self.apply_share(first, shared, *strip_privileges, *time),
        }
    }

    fn apply_create(&mut self, parent: Ino, name: &Name, mut inode: Inode) -> Result<(), WorkspaceError> {
        if self.child(parent, name)?.is_some() {
            return Err(WorkspaceError::Exists(name.to_string()));
        }
        let (directory, time) = (inode.kind() == EntryKind::Directory, inode.mtime);
        inode.changed_in = self.generation;
        inode.content_changed_in = self.generation;
        let ino = self.insert(inode);
        self.add_name(parent, name, ino)?;
        self.touch_directory(parent, time, i64::from(directory))
    }

    fn apply_link(&mut self, ino: Ino, parent: Ino, name: &Name, time: Timestamp) -> Result<(), WorkspaceError> {
        self.child(parent, name)?; // Loads what is known of the name: a removed one leaves its mark.
        let inode = self.inode_mut(ino)?;
        inode.nlink += 1;
        inode.ctime = time;
        let first_place = if inode.linked { None } else { inode.places.first().cloned() };
        inode.linked = true;
        if let Some(place) = first_place {
            self.mark_name(place.parent, &place.name); // Its directory describes it no more.
        }
        self.mark(ino);
        self.add_name(parent, name, ino)?;
        self.touch_directory(parent, time, 0)
    }

    fn apply_remove(&mut self, parent: Ino, name: &Name, time: Timestamp) -> Result<(), WorkspaceError> {
        let ino = self.take_name(parent, name)?;
        let directory = self.lose_name(ino, time)?;
        self.touch_directory(parent, time, -i64::from(directory))
    }

    /// Counts one name less; returns whether it was a directory.
    fn lose_name(&mut self, ino: Ino, time: Timestamp) -> Result<bool, WorkspaceError> {
        let inode = self.inode_mut(ino)?;
        let directory = inode.kind() == EntryKind::Directory;
        inode.nlink = if directory { 0 } else { inode.nlink.saturating_sub(1) };
        inode.ctime = time;
        let gone = inode.nlink == 0;
        self.mark(ino);
        if gone {
            self.inode_mut(ino)?.orphan = true;
            self.drop_unused(ino);
        }
        Ok(directory)
    }

    fn apply_rename(
        &mut self,
        parent: Ino,
        name: &Name,
        new_parent: Ino,
        new_name: &Name,
        time: Timestamp,
    ) -> Result<(), WorkspaceError> {
        let mut new_links = 0;
        if self.child(new_parent, new_name)?.is_some() {
            let replaced = self.take_name(new_parent, new_name)?;
            new_links -= i64::from(self.lose_name(replaced, time)?);
        }
        let ino = self.take_name(parent, name)?;
        self.add_name(new_parent, new_name, ino)?;
        let directory = i64::from(self.inode(ino)?.kind() == EntryKind::Directory);
        self.inode_mut(ino)?.ctime = time;
        self.mark(ino);
        self.mark_name(new_parent, new_name);
        if parent == new_parent {
            return self.touch_directory(parent, time, new_links);
        }
        self.touch_directory(parent, time, -directory)?;
        self.touch_directory(new_parent, time, new_links + directory)
    }

    fn apply_exchange(
        &mut self,
        parent: Ino,
        name: &Name,
        new_parent: Ino,
        new_name: &Name,
        time: Timestamp,
    ) -> Result<(), WorkspaceError> {
        let first = self.take_name(parent, name)?;
        let second = self.take_name(new_parent, new_name)?;
        self.add_name(parent, name, second)?;
        self.add_name(new_parent, new_name, first)?;
        let mut links = [0, 0];
        for (ino, gain, loss) in [(first, 1, 0), (second, 0, 1)] {
            let inode = self.inode_mut(ino)?;
            inode.ctime = time;
            let directory = i64::from(inode.kind() == EntryKind::Directory);
            links[gain] += directory;
            links[loss] -= directory;
            self.mark(ino);
        }
        self.mark_name(parent, name);
        self.mark_name(new_parent, new_name);
        if parent == new_parent {
            return self.touch_directory(parent, time, 0);
        }
        self.touch_directory(parent, time, links[0])?;
        self.touch_directory(new_parent, time, links[1])
    }

    fn touch_directory(&mut self, ino: Ino, time: Timestamp, links: i64) -> Result<(), WorkspaceError> {
        let inode = self.inode_mut(ino)?;
        inode.mtime = time;
        inode.ctime = time;
        inode.nlink = inode.nlink.saturating_add_signed(links as i32);
        self.mark(ino);
        Ok(())
    }

    fn apply_attributes(&mut self, ino: Ino, change: &AttributeChange, time: Timestamp) -> Result<(), WorkspaceError> {
        if let Some(size_bytes) = change.size_bytes {
            self.resize(ino, size_bytes)?;
        }
        let inode = self.inode_mut(ino)?;
        if let Some(mode) = change.mode {
            inode.mode = mode;
            if let Some(mut list) = acl::acl_of(&inode.xattrs, acl::ACCESS) {
                list.set_mode(mode);
                set_xattr(inode, acl::ACCESS, Some(&list.to_bytes()));
            }
        }
        inode.uid = change.uid.unwrap_or(inode.uid);
        inode.gid = change.gid.unwrap_or(inode.gid);
        inode.atime = change.atime.unwrap_or(inode.atime);
        inode.mtime = change.mtime.unwrap_or(inode.mtime);
        inode.ctime = time;
        self.mark(ino);
        Ok(())
    }

    fn apply_xattr(&mut self, ino: Ino, name: &[u8], value: Option<&[u8]>, time: Timestamp) -> Result<(), WorkspaceError> {
        let inode = self.inode_mut(ino)?;
        let list = value.filter(|_| name == acl::ACCESS).and_then(acl::Acl::parse);
        if let Some(list) = &list {
            inode.mode = list.mode(inode.mode);
        }
        let told_by_mode = list.is_some_and(|list| list.is_minimal());
        set_xattr(inode, name, value.filter(|_| !told_by_mode));
        inode.ctime = time;
        self.mark(ino);
        Ok(())
    }

    fn apply_write(
        &mut self,
        ino: Ino,
        offset: u64,
        data: &[u8],
        strip_privileges: bool,
        time: Timestamp,
    ) -> Result<(), WorkspaceError> {
        let mut bytes = self.take_small(ino)?;
        let end = offset as usize + data.len();
        let buffer = Arc::make_mut(&mut bytes);
        if buffer.len() < end {
            buffer.resize(end, 0);
        }
        buffer[offset as usize..end].copy_from_slice(data);
        self.set_body(ino, FileBody::Small(bytes))?;
        self.touch_file(ino, strip_privileges, time)
    }

    /// Returns the whole small file, loading it if it is clean. What it shares with a cut is copied at the change.
    pub(super) fn take_small(&mut self, ino: Ino) -> Result<Arc<Vec<u8>>, WorkspaceError> {
        let repository = self.repository.clone();
        match &mut self.inode_mut(ino)?.body {
            Body::File(FileBody::Small(bytes)) => Ok(std::mem::take(bytes)),
            Body::File(FileBody::Clean { content, size_bytes, .. }) if *size_bytes <= SMALL_BYTES_MAX => {
                Ok(Arc::new(repository.read_content(content, 0..*size_bytes)?))
            }
            _ => Err(WorkspaceError::Invalid("the file is not a small one".into())),
        }
    }

    pub(super) fn set_body(&mut self, ino: Ino, body: FileBody) -> Result<(), WorkspaceError> {
        let generation = self.generation;
        let inode = self.inode_mut(ino)?;
        inode.body = Body::File(body);
        inode.content_changed_in = generation;
        Ok(())
    }

    pub(super) fn touch_file(&mut self, ino: Ino, strip_privileges: bool, time: Timestamp) -> Result<(), WorkspaceError> {
        let inode = self.inode_mut(ino)?;
        inode.mtime = time;
        inode.ctime = time;
        if strip_privileges {
            end_privileges(inode);
        }
        self.mark(ino);
        Ok(())
    }

    /// Takes from a program the privileges that end with a write.
    pub(super) fn end_privileges(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.get_mut(ino) {
            end_privileges(inode);
        }
    }

    /// Puts a layer for new bytes over the file.
    pub(super) fn apply_layer(&mut self, ino: Ino, file: Option<Arc<super::staging::StagingFile>>) -> Result<(), WorkspaceError> {
        if let Body::File(FileBody::Layered(top)) = &mut self.inode_mut(ino)?.body
            && !top.frozen
            && top.staging.is_none()
        {
            top.staging = file;
            return Ok(());
        }
        let below = self.inode(ino)?.file().ok_or_else(|| WorkspaceError::Invalid("not a regular file".into()))?;
        let mut layered = Layered::over(below);
        if let Base::Clean(content) = layered.base {
            for hole in self.repository.holes_of(&content)? {
                layered.extents.set(hole, Fill::Hole); // So that holes are seen without asking the store.
            }
        }
        layered.staging = file;
        self.set_body(ino, FileBody::Layered(Box::new(layered)))?;
        self.mark(ino);
        Ok(())
    }

    fn apply_write_staged(
        &mut self,
        ino: Ino,
        range: Range<u64>,
        strip_privileges: bool,
        time: Timestamp,
    ) -> Result<(), WorkspaceError> {
        let layered = self.layered_mut(ino)?;
        layered.written(range);
        self.touch_file(ino, strip_privileges, time)
    }

    fn layered_mut(&mut self, ino: Ino) -> Result<&mut Layered, WorkspaceError> {
        let generation = self.generation;
        let inode = self.inode_mut(ino)?;
        inode.content_changed_in = generation;
        match &mut inode.body {
            Body::File(FileBody::Layered(layered)) => {
                layered.edit();
                Ok(layered)
            }
            _ => Err(WorkspaceError::Invalid("the file has no layer".into())),
        }
    }

    /// Makes sure that the file's metadata of ranges may change: a layer that no cut holds is on top.
    fn open_layer(&mut self, ino: Ino) -> Result<(), WorkspaceError> {
        match self.inode(ino)?.file() {
            Some(FileBody::Layered(layered)) if !layered.frozen => Ok(()),
            _ => self.apply_layer(ino, None),
        }
    }

    /// Changes the length of a file, as truncate(2) does.
    fn resize(&mut self, ino: Ino, size_bytes: u64) -> Result<(), WorkspaceError> {
        let old = self.inode(ino)?.file().ok_or_else(|| WorkspaceError::Invalid("not a regular file".into()))?.size_bytes();
        if size_bytes == 0 {
            return self.set_body(ino, FileBody::empty());
        }
        let hole = size_bytes > old.next_multiple_of(BLOCK_BYTES);
        if !hole && self.stays_small(ino, old.max(size_bytes))? {
            let mut bytes = self.take_small(ino)?;
            Arc::make_mut(&mut bytes).resize(size_bytes as usize, 0);
            return self.set_body(ino, FileBody::Small(bytes));
        }
        self.open_layer(ino)?;
        self.layered_mut(ino)?.resize(size_bytes);
        Ok(())
    }

    /// Says whether a file is kept in memory when it is `size_bytes` long at most: it is small and has no holes.
    pub(super) fn stays_small(&self, ino: Ino, size_bytes: u64) -> Result<bool, WorkspaceError> {
        let small = match self.inode(ino)?.file() {
            Some(FileBody::Small(_)) => true,
            Some(FileBody::Clean { size_bytes, data_bytes, .. }) => data_bytes >= size_bytes,
            _ => false,
        };
        Ok(small && size_bytes <= SMALL_BYTES_MAX)
    }

    fn apply_range(
        &mut self,
        ino: Ino,
        range: Range<u64>,
        change: RangeChange,
        options: RangeOptions,
        time: Timestamp,
    ) -> Result<(), WorkspaceError> {
        let size_bytes = self.inode(ino)?.file().map_or(0, FileBody::size_bytes);
        let end = if options.keep_size { range.end.min(size_bytes) } else { range.end };
        if range.start >= end {
            return self.touch_file(ino, options.strip_privileges, time); // Space beyond the end is not kept, but times move.
        }
        self.open_layer(ino)?;
        let layered = self.layered_mut(ino)?;
        layered.size_bytes = layered.size_bytes.max(end);
        match change {
            RangeChange::Punch => layered.punch(range),
            RangeChange::Zero => layered.extents.set(range.start..end, Fill::Zero),
            RangeChange::Allocate => layered.allocate(range.start..end),
        }
        self.touch_file(ino, options.strip_privileges, time)
    }
}

fn new_inode(identity: u64, node: &NewNode, xattrs: &Xattrs, time: Timestamp) -> Inode {
    Inode {
        identity,
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        nlink: if node.kind == EntryKind::Directory { 2 } else { 1 },
        mtime: time,
        ctime: time,
        atime: time,
        xattrs: xattrs.clone(),
        body: new_body(node),
        places: Places::NONE,
        linked: false,
        orphan: false,
        lookups: 0,
        changed_in: 0,
        content_changed_in: 0,
        bound_in: 0,
    }
}

fn new_body(node: &NewNode) -> Body {
    match node.kind {
        EntryKind::File => Body::File(FileBody::empty()),
        EntryKind::Directory => Body::Directory(Box::default()),
        EntryKind::Symlink => Body::Symlink(node.target.clone().into()),
        EntryKind::Fifo => Body::Fifo,
        EntryKind::Socket => Body::Socket,
        EntryKind::CharDevice => Body::CharDevice(node.device),
        EntryKind::BlockDevice => Body::BlockDevice(node.device),
    }
}

/// Clears what must not survive a change by somebody else: setuid, and setgid where the group may execute.
pub(super) fn without_privileges(mode: u32) -> u32 {
    let mode = mode & !SETUID;
    if mode & GROUP_EXECUTE != 0 { mode & !SETGID } else { mode }
}

fn end_privileges(inode: &mut Inode) {
    inode.mode = without_privileges(inode.mode);
    set_xattr(inode, CAPABILITY, None);
}

fn set_xattr(inode: &mut Inode, name: &[u8], value: Option<&[u8]>) {
    let has = inode.xattrs.as_ref().is_some_and(|xattrs| xattrs.contains_key(name));
    if value.is_none() && !has {
        return;
    }
    let mut xattrs = inode.xattrs.as_deref().cloned().unwrap_or_default();
    match value {
        Some(value) => xattrs.insert(name.into(), value.into()),
        None => xattrs.remove(name),
    };
    inode.xattrs = if xattrs.is_empty() { None } else { Some(Arc::new(xattrs)) };
}
