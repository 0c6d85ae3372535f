//! The kernel's requests: each is translated, answered by one call, and translated back.

use super::attr::{file_attr, file_type};
use super::errno::{errno_of, errno_of_command};
use super::notify::Invalidator;
use super::number::{NAMESPACE_CONTROL, NAMESPACE_TOP, NodeNumber};
use super::pool::Pool;
use crate::control::{Caller, CommandError, ControlDirectory};
use crate::object::{EntryKind, Name, Timestamp};
use crate::workspace::{
    AttributeChange, Attributes, Ino, NewNode, ROOT, RangeChange, RenameMode, Workspace, WorkspaceError, XattrMode,
};
use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Everything in the tree changes through us, so what the kernel knows stays true until we say otherwise.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);
/// Nothing of the control directory is ever served from a cache.
const NEVER: Duration = Duration::ZERO;
const GENERATION: Generation = Generation(0);
/// Names handed out per readdir step at most; the kernel's buffer usually ends it sooner.
const LIST_STEP: usize = 256;
/// Reads from this size on go to the pool, so that other requests are answered meanwhile.
const LARGE_READ_BYTES: u32 = 64 << 10;
const WRITE_BYTES_MAX: u32 = 1 << 20;
const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o010;

/// A mounted branch with its control directory.
pub struct MementoFilesystem {
    /// What the mount shows.
    pub workspace: Arc<Workspace>,
    /// The hidden control directory.
    pub control: Arc<ControlDirectory>,
    /// Its name at the top of the mount.
    pub control_name: Box<[u8]>,
    /// Threads for what would keep other requests waiting.
    pub pool: Pool,
    /// Tells the kernel what to forget.
    pub invalidator: Invalidator,
}

/// Runs a handler's work; a panic is an I/O error for this request alone.
fn guarded<T>(operation: &'static str, work: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        tracing::error!(operation, "a request failed by a fault of our own");
        Err(Errno::EIO)
    })
}

fn refused(operation: &'static str, ino: Ino) -> impl Fn(WorkspaceError) -> Errno {
    move |err| {
        let errno = errno_of(&err);
        if matches!(errno.code(), libc::EIO | libc::EROFS | libc::ENOSPC) {
            tracing::warn!(operation, ino, %err, "request failed");
        }
        errno
    }
}

fn denied(err: CommandError) -> Errno {
    errno_of_command(&err)
}

fn name_of(name: &OsStr) -> Result<Name, Errno> {
    Name::new(name.as_bytes()).map_err(|err| errno_of(&err.into()))
}

fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}

enum Node {
    Branch(Ino),
    Control(Ino),
}

fn node_of(ino: INodeNo) -> Result<Node, Errno> {
    let number = NodeNumber::unpack(ino.0);
    match number.namespace {
        NAMESPACE_TOP => Ok(Node::Branch(number.ino)),
        NAMESPACE_CONTROL => Ok(Node::Control(number.ino)),
        _ => Err(Errno::ENOENT),
    }
}

/// Returns the number of a file of the branch; the control directory does not do what was asked.
fn branch_ino(ino: INodeNo) -> Result<Ino, Errno> {
    match node_of(ino)? {
        Node::Branch(ino) => Ok(ino),
        Node::Control(_) => Err(Errno::EPERM),
    }
}

impl MementoFilesystem {
    fn is_control_name(&self, parent: Ino, name: &OsStr) -> bool {
        parent == ROOT && *name.as_bytes() == *self.control_name
    }

    /// Returns the place for a new name; the control directory's own is taken.
    fn new_name(&self, parent: Ino, name: &OsStr) -> Result<Name, Errno> {
        if self.is_control_name(parent, name) {
            return Err(Errno::EEXIST);
        }
        name_of(name)
    }

    /// Returns the place of a name that is to change; the control directory stays as it is.
    fn old_name(&self, parent: Ino, name: &OsStr) -> Result<Name, Errno> {
        if self.is_control_name(parent, name) {
            return Err(Errno::EPERM);
        }
        name_of(name)
    }

    fn make(&self, request: &Request, parent: INodeNo, name: &OsStr, mut node: NewNode) -> Result<Attributes, Errno> {
        let parent = branch_ino(parent)?;
        let name = self.new_name(parent, name)?;
        node.uid = request.uid();
        node.gid = request.gid();
        self.workspace.create(parent, &name, node).map_err(refused("create", parent))
    }

    fn list(&self, ino: Ino, offset: u64, mut add: impl FnMut(Ino, u64, EntryKind, &OsStr) -> bool) -> Result<(), Errno> {
        const DOT: u64 = 1;
        const DOT_DOT: u64 = 2;
        if offset < DOT && add(ino, DOT, EntryKind::Directory, OsStr::new(".")) {
            return Ok(());
        }
        if offset < DOT_DOT && add(ino, DOT_DOT, EntryKind::Directory, OsStr::new("..")) {
            return Ok(());
        }
        let mut after = offset.max(DOT_DOT);
        loop {
            let names = self.workspace.list(ino, after, LIST_STEP).map_err(refused("readdir", ino))?;
            for listed in &names {
                let position = listed.name.position();
                if add(listed.ino, position, listed.kind, OsStr::from_bytes(listed.name.as_bytes())) {
                    return Ok(());
                }
                after = position;
            }
            if names.len() < LIST_STEP {
                return Ok(());
            }
        }
    }

    /// Seals in the background when the journal has grown long.
    fn seal_later(&self) {
        let workspace = self.workspace.clone();
        self.pool.run_once("seal", move || {
            if let Err(err) = workspace.seal_now() {
                tracing::warn!(%err, "background seal failed");
            }
        });
    }

    fn entry(reply: ReplyEntry, result: Result<Attributes, Errno>) {
        match result {
            Ok(attributes) => reply.entry(&FOREVER, &file_attr(&attributes, NAMESPACE_TOP), GENERATION),
            Err(errno) => reply.error(errno),
        }
    }

    fn control_entry(reply: ReplyEntry, result: Result<Attributes, CommandError>) {
        match result {
            Ok(attributes) => reply.entry(&NEVER, &file_attr(&attributes, NAMESPACE_CONTROL), GENERATION),
            Err(err) => reply.error(denied(err)),
        }
    }

    fn empty(reply: ReplyEmpty, result: Result<(), Errno>) {
        match result {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    /// Runs a command on the pool: it may be long, and the kernel must be told what it changed before the caller goes on.
    fn command<R: Send + 'static>(
        &self,
        reply: R,
        work: impl FnOnce(&ControlDirectory) -> Result<Vec<crate::workspace::Stale>, CommandError> + Send + 'static,
        answer: impl FnOnce(R, Result<(), Errno>) + Send + 'static,
    ) {
        let (control, invalidator) = (self.control.clone(), self.invalidator.clone());
        self.pool.run(move || {
            let result = guarded("command", || work(&control).map_err(denied));
            let result = result.map(|stale| invalidator.send(NAMESPACE_TOP, stale));
            answer(reply, result);
        });
    }
}

fn attribute_change(
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    atime: Option<TimeOrNow>,
    mtime: Option<TimeOrNow>,
) -> AttributeChange {
    let now = Timestamp::now();
    let time = |time| match time {
        TimeOrNow::SpecificTime(time) => Timestamp::from(time),
        TimeOrNow::Now => now,
    };
    AttributeChange {
        mode: mode.map(|mode| mode & 0o7777),
        uid,
        gid,
        size_bytes: size,
        atime: atime.map(time),
        mtime: mtime.map(time),
    }
}

fn stripped(mode: u32) -> u32 {
    let mode = mode & !SETUID;
    if mode & GROUP_EXECUTE != 0 { mode & !SETGID } else { mode }
}

impl Filesystem for MementoFilesystem {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let wanted = [
            InitFlags::FUSE_NO_OPEN_SUPPORT,
            InitFlags::FUSE_NO_OPENDIR_SUPPORT,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_MAX_PAGES,
            InitFlags::FUSE_ASYNC_DIO,
        ];
        for flag in wanted {
            let _ = config.add_capabilities(flag); // A kernel without one of these is slower, not wrong.
        }
        let _ = config.set_max_write(WRITE_BYTES_MAX);
        let _ = config.set_max_readahead(WRITE_BYTES_MAX);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match node_of(parent) {
            Ok(Node::Branch(parent)) if self.is_control_name(parent, name) => {
                Self::control_entry(reply, self.control.top(&caller(request)));
            }
            Ok(Node::Branch(parent)) => {
                let found =
                    guarded("lookup", || self.workspace.lookup(parent, &name_of(name)?).map_err(refused("lookup", parent)));
                match found {
                    Ok(Some(attributes)) => Self::entry(reply, Ok(attributes)),
                    // A number of 0 says that the name does not exist, and lets the kernel remember that.
                    Ok(None) => reply.entry(&FOREVER, &nothing(), GENERATION),
                    Err(errno) => reply.error(errno),
                }
            }
            Ok(Node::Control(parent)) => {
                let (control, who, name) = (self.control.clone(), caller(request), name.to_owned());
                self.pool.run(move || Self::control_entry(reply, control.lookup(parent, name.as_bytes(), &who)));
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        let _ = guarded("forget", || {
            match node_of(ino)? {
                Node::Branch(ino) => self.workspace.forget(ino, count),
                Node::Control(ino) => self.control.forget(ino, count),
            }
            Ok(())
        });
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match node_of(ino) {
            Ok(Node::Branch(ino)) => {
                match guarded("getattr", || self.workspace.attributes(ino).map_err(refused("getattr", ino))) {
                    Ok(attributes) => reply.attr(&FOREVER, &file_attr(&attributes, NAMESPACE_TOP)),
                    Err(errno) => reply.error(errno),
                }
            }
            Ok(Node::Control(ino)) => {
                let (control, who) = (self.control.clone(), caller(request));
                self.pool.run(move || match control.attributes(ino, &who) {
                    Ok(attributes) => reply.attr(&NEVER, &file_attr(&attributes, NAMESPACE_CONTROL)),
                    Err(err) => reply.error(denied(err)),
                });
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut change = attribute_change(mode, uid, gid, size, atime, mtime);
        match node_of(ino) {
            Ok(Node::Control(ino)) => match self.control.set_attributes(ino, &change, &caller(request)) {
                Ok(attributes) => reply.attr(&NEVER, &file_attr(&attributes, NAMESPACE_CONTROL)),
                Err(err) => reply.error(denied(err)),
            },
            Ok(Node::Branch(ino)) => {
                let result = guarded("setattr", || {
                    // chown(2) and truncate(2) by others end the privileges of a program; the kernel leaves that to us.
                    let unprivileged_truncate = size.is_some() && request.uid() != 0;
                    if change.mode.is_none() && (uid.is_some() || gid.is_some() || unprivileged_truncate) {
                        let now = self.workspace.attributes(ino).map_err(refused("setattr", ino))?;
                        let kept = stripped(now.mode);
                        if now.kind != EntryKind::Directory && kept != now.mode {
                            change.mode = Some(kept);
                        }
                    }
                    self.workspace.set_attributes(ino, change).map_err(refused("setattr", ino))
                });
                match result {
                    Ok(attributes) => reply.attr(&FOREVER, &file_attr(&attributes, NAMESPACE_TOP)),
                    Err(errno) => reply.error(errno),
                }
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        let target = guarded("readlink", || match node_of(ino)? {
            Node::Branch(ino) => self.workspace.read_link(ino).map(|target| target.to_vec()).map_err(refused("readlink", ino)),
            Node::Control(ino) => self.control.read_link(ino, &caller(request)).map_err(denied),
        });
        match target {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(errno),
        }
    }

    fn mknod(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, rdev: u32, reply: ReplyEntry) {
        if let Ok(Node::Control(parent)) = node_of(parent) {
            return Self::control_entry(reply, self.control.create(parent, name.as_bytes(), &caller(request)));
        }
        let result = guarded("mknod", || {
            let kind = EntryKind::from_mode_bits(mode).ok_or(Errno::EINVAL)?;
            let node = NewNode { kind, mode: mode & 0o7777, uid: 0, gid: 0, device: rdev, target: Box::default() };
            self.make(request, parent, name, node)
        });
        Self::entry(reply, result);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        if let Ok(Node::Control(parent)) = node_of(parent) {
            let (control, who, name) = (self.control.clone(), caller(request), name.to_owned());
            return self.pool.run(move || {
                Self::control_entry(reply, control.make_directory(parent, name.as_bytes(), &who));
            });
        }
        let node = NewNode { kind: EntryKind::Directory, mode: mode & 0o7777, uid: 0, gid: 0, device: 0, target: Box::default() };
        Self::entry(reply, guarded("mkdir", || self.make(request, parent, name, node)));
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let result = guarded("unlink", || match node_of(parent)? {
            Node::Branch(parent) => {
                let name = self.old_name(parent, name)?;
                self.workspace.unlink(parent, &name).map_err(refused("unlink", parent))
            }
            Node::Control(parent) => self.control.unlink(parent, name.as_bytes(), &caller(request)).map_err(denied),
        });
        Self::empty(reply, result);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if let Ok(Node::Control(parent)) = node_of(parent) {
            let (who, name) = (caller(request), name.to_owned());
            let work =
                move |control: &ControlDirectory| control.remove_directory(parent, name.as_bytes(), &who).map(|()| Vec::new());
            return self.command(reply, work, Self::empty);
        }
        let result = guarded("rmdir", || {
            let parent = branch_ino(parent)?;
            let name = self.old_name(parent, name)?;
            self.workspace.remove_directory(parent, &name).map_err(refused("rmdir", parent))
        });
        Self::empty(reply, result);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry) {
        let node = NewNode {
            kind: EntryKind::Symlink,
            mode: 0o777,
            uid: 0,
            gid: 0,
            device: 0,
            target: target.as_os_str().as_bytes().into(),
        };
        Self::entry(reply, guarded("symlink", || self.make(request, parent, link_name, node)));
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if let (Ok(Node::Control(parent)), Ok(Node::Control(new_parent))) = (node_of(parent), node_of(new_parent)) {
            let (who, name, new_name) = (caller(request), name.to_owned(), new_name.to_owned());
            let work = move |control: &ControlDirectory| {
                control.rename(parent, name.as_bytes(), new_parent, new_name.as_bytes(), &who).map(|()| Vec::new())
            };
            return self.command(reply, work, Self::empty);
        }
        let result = guarded("rename", || {
            let mode = match flags {
                flags if flags.is_empty() => RenameMode::Replace,
                RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
                RenameFlags::RENAME_EXCHANGE => RenameMode::Exchange,
                _ => return Err(Errno::EINVAL),
            };
            let (parent, new_parent) = (branch_ino(parent)?, branch_ino(new_parent)?);
            let name = self.old_name(parent, name)?;
            let new_name = self.old_name(new_parent, new_name)?;
            self.workspace.rename(parent, &name, new_parent, &new_name, mode).map_err(refused("rename", parent))
        });
        Self::empty(reply, result);
    }

    fn link(&self, _request: &Request, ino: INodeNo, new_parent: INodeNo, new_name: &OsStr, reply: ReplyEntry) {
        let result = guarded("link", || {
            let (ino, parent) = (branch_ino(ino)?, branch_ino(new_parent)?);
            let name = self.new_name(parent, new_name)?;
            self.workspace.link(ino, parent, &name).map_err(refused("link", ino))
        });
        Self::entry(reply, result);
    }

    fn open(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS); // The kernel opens files by itself from now on.
    }

    fn opendir(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let answer = |reply: ReplyData, result: Result<Vec<u8>, Errno>| match result {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(errno),
        };
        match node_of(ino) {
            Ok(Node::Branch(ino)) => {
                let workspace = self.workspace.clone();
                let work = move || guarded("read", || workspace.read(ino, offset, u64::from(size)).map_err(refused("read", ino)));
                if size >= LARGE_READ_BYTES {
                    self.pool.run(move || answer(reply, work()));
                } else {
                    answer(reply, work());
                }
            }
            Ok(Node::Control(ino)) => {
                let (control, who) = (self.control.clone(), caller(request));
                self.pool.run(move || {
                    answer(reply, guarded("read", || control.read(ino, offset, size, &who).map_err(denied)));
                });
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let len = data.len() as u32;
        match node_of(ino) {
            Ok(Node::Branch(ino)) => {
                let strip = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
                match guarded("write", || self.workspace.write(ino, offset, data, strip).map_err(refused("write", ino))) {
                    Ok(seal_due) => {
                        reply.written(len);
                        if seal_due {
                            self.seal_later();
                        }
                    }
                    Err(errno) => reply.error(errno),
                }
            }
            Ok(Node::Control(ino)) => {
                let (who, data) = (caller(request), data.to_vec());
                let work = move |control: &ControlDirectory| control.write(ino, offset, &data, &who);
                self.command(reply, work, move |reply, result| match result {
                    Ok(()) => reply.written(len),
                    Err(errno) => reply.error(errno),
                });
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&self, _request: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS); // Each write has reached us already.
    }

    fn fsync(&self, _request: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        match node_of(ino) {
            Ok(Node::Branch(ino)) => {
                let workspace = self.workspace.clone();
                self.pool.run(move || {
                    Self::empty(reply, guarded("fsync", || workspace.sync_file(ino).map_err(refused("fsync", ino))));
                });
            }
            Ok(Node::Control(_)) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn fsyncdir(&self, request: &Request, ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.fsync(request, ino, fh, datasync, reply);
    }

    fn readdir(&self, request: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let result = guarded("readdir", || match node_of(ino)? {
            Node::Branch(ino) => self.list(ino, offset, |ino, position, kind, name| {
                let number = NodeNumber { namespace: NAMESPACE_TOP, ino }.pack();
                reply.add(INodeNo(number), position, file_type(kind), name)
            }),
            Node::Control(ino) => {
                let names = self.control.list(ino, offset, &caller(request)).map_err(denied)?;
                for listed in names {
                    let number = NodeNumber { namespace: NAMESPACE_CONTROL, ino: listed.ino }.pack();
                    if reply.add(INodeNo(number), listed.position, file_type(listed.kind), OsStr::from_bytes(&listed.name)) {
                        break;
                    }
                }
                Ok(())
            }
        });
        match result {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdirplus(&self, request: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let result = guarded("readdirplus", || {
            let ino = match node_of(ino)? {
                Node::Branch(ino) => ino,
                Node::Control(ino) => {
                    for listed in self.control.list(ino, offset, &caller(request)).map_err(denied)? {
                        let name = OsStr::from_bytes(&listed.name);
                        let attr = name_only(NAMESPACE_CONTROL, listed.ino, listed.kind);
                        if reply.add(INodeNo(0), listed.position, name, &NEVER, &attr, GENERATION) {
                            break;
                        }
                    }
                    return Ok(());
                }
            };
            let mut failed = None;
            self.list(ino, offset, |child, position, kind, name| {
                let looked_up = match name.as_bytes() {
                    b"." | b".." => Ok(None),
                    _ => name_of(name).and_then(|name| self.workspace.lookup(ino, &name).map_err(refused("readdirplus", ino))),
                };
                match looked_up {
                    Ok(Some(attributes)) => {
                        let attr = file_attr(&attributes, NAMESPACE_TOP);
                        let full = reply.add(attr.ino, position, name, &FOREVER, &attr, GENERATION);
                        if full {
                            self.workspace.forget(attributes.ino, 1); // It was not handed out.
                        }
                        full
                    }
                    // Names only: the kernel looks `.` and `..` up by itself, and what went meanwhile not at all.
                    Ok(None) => {
                        let attr = name_only(NAMESPACE_TOP, child, kind);
                        matches!(name.as_bytes(), b"." | b"..")
                            && reply.add(INodeNo(0), position, name, &NEVER, &attr, GENERATION)
                    }
                    Err(errno) => {
                        failed = Some(errno);
                        true
                    }
                }
            })?;
            failed.map_or(Ok(()), Err)
        });
        match result {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.workspace.repository().space() {
            Ok(space) => reply.statfs(
                space.blocks,
                space.blocks_free,
                space.blocks_available,
                space.files,
                space.files_free,
                space.block_bytes,
                255,
                space.block_bytes,
            ),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn setxattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let result = guarded("setxattr", || {
            let mode = match flags {
                0 => XattrMode::Set,
                libc::XATTR_CREATE => XattrMode::Create,
                libc::XATTR_REPLACE => XattrMode::Replace,
                _ => return Err(Errno::EINVAL),
            };
            let ino = branch_ino(ino)?;
            check_xattr_name(name)?;
            self.workspace.set_xattr(ino, name.as_bytes(), value, mode).map_err(refused("setxattr", ino))
        });
        Self::empty(reply, result);
    }

    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let value = guarded("getxattr", || match node_of(ino)? {
            Node::Branch(ino) => {
                check_xattr_name(name)?;
                self.workspace.xattr(ino, name.as_bytes()).map_err(refused("getxattr", ino))
            }
            Node::Control(ino) => self.control.xattr(ino, name.as_bytes()).map_err(denied),
        });
        answer_xattr(reply, size, value);
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = guarded("listxattr", || {
            let names = match node_of(ino)? {
                Node::Branch(ino) => self.workspace.xattrs(ino).map_err(refused("listxattr", ino))?,
                Node::Control(ino) => self.control.xattrs(ino).map_err(denied)?,
            };
            Ok(names.iter().flat_map(|name| name.iter().copied().chain([0])).collect::<Box<[u8]>>())
        });
        answer_xattr(reply, size, names);
    }

    fn removexattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let result = guarded("removexattr", || {
            let ino = branch_ino(ino)?;
            check_xattr_name(name)?;
            self.workspace.remove_xattr(ino, name.as_bytes()).map_err(refused("removexattr", ino))
        });
        Self::empty(reply, result);
    }

    fn create(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, _flags: i32, reply: ReplyCreate) {
        let flags = FopenFlags::FOPEN_KEEP_CACHE;
        if let Ok(Node::Control(parent)) = node_of(parent) {
            return match self.control.create(parent, name.as_bytes(), &caller(request)) {
                Ok(attributes) => {
                    let attr = file_attr(&attributes, NAMESPACE_CONTROL);
                    reply.created(&NEVER, &attr, GENERATION, FileHandle(0), FopenFlags::empty());
                }
                Err(err) => reply.error(denied(err)),
            };
        }
        let node = NewNode { kind: EntryKind::File, mode: mode & 0o7777, uid: 0, gid: 0, device: 0, target: Box::default() };
        match guarded("create", || self.make(request, parent, name, node)) {
            Ok(attributes) => {
                reply.created(&FOREVER, &file_attr(&attributes, NAMESPACE_TOP), GENERATION, FileHandle(0), flags);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn fallocate(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let result = guarded("fallocate", || {
            let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
            let change = match mode & !libc::FALLOC_FL_KEEP_SIZE {
                0 => RangeChange::Allocate,
                libc::FALLOC_FL_PUNCH_HOLE => RangeChange::Punch,
                libc::FALLOC_FL_ZERO_RANGE => RangeChange::Zero,
                _ => return Err(Errno::EOPNOTSUPP),
            };
            let ino = branch_ino(ino)?;
            self.workspace.change_range(ino, offset, length, change, keep_size).map_err(refused("fallocate", ino))
        });
        Self::empty(reply, result);
    }

    fn lseek(&self, _request: &Request, ino: INodeNo, _fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let found = guarded("lseek", || {
            let hole = match whence {
                libc::SEEK_DATA => false,
                libc::SEEK_HOLE => true,
                _ => return Err(Errno::EINVAL),
            };
            let Node::Branch(ino) = node_of(ino)? else { return Err(Errno::EINVAL) };
            let offset = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
            self.workspace.seek(ino, offset, hole).map_err(refused("lseek", ino))
        });
        match found {
            Ok(offset) => reply.offset(offset as i64),
            Err(errno) => reply.error(errno),
        }
    }
}

/// Returns attributes that carry no more than a listing without attributes does.
fn name_only(namespace: u16, ino: Ino, kind: EntryKind) -> fuser::FileAttr {
    let mut attr = nothing();
    attr.kind = file_type(kind);
    attr.ino = INodeNo(NodeNumber { namespace, ino }.pack());
    attr
}

/// Returns attributes with the number 0: no file.
fn nothing() -> fuser::FileAttr {
    let none = Attributes {
        ino: 0,
        kind: EntryKind::File,
        mode: 0,
        uid: 0,
        gid: 0,
        nlink: 0,
        size_bytes: 0,
        blocks: 0,
        device: 0,
        mtime: Timestamp::default(),
        ctime: Timestamp::default(),
        atime: Timestamp::default(),
    };
    file_attr(&none, NAMESPACE_TOP)
}

/// ACLs would have to be enforced by the kernel, which needs more than it offers without privileges.
fn check_xattr_name(name: &OsStr) -> Result<(), Errno> {
    if name.as_bytes().starts_with(b"system.posix_acl_") { Err(Errno::EOPNOTSUPP) } else { Ok(()) }
}

fn answer_xattr(reply: ReplyXattr, size: u32, value: Result<Box<[u8]>, Errno>) {
    match value {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() <= size as usize => reply.data(&value),
        Ok(_) => reply.error(Errno::ERANGE),
        Err(errno) => reply.error(errno),
    }
}
