//! The kernel's requests: each is translated, answered by one call, and translated back.

use super::attr::file_attr;
use super::filesystem::{MementoFilesystem, Place};
use super::number::{control_of, files_of};
use super::reply;
use super::translate::{
    attribute_change, caller, check_xattr_name, denied, guarded, name_of, range_change, refused, stripped, xattr_mode,
};
use super::view::Answering;
use crate::control::{ControlDirectory, Effects};
use crate::object::EntryKind;
use crate::workspace::{NewNode, Stale};
use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

/// Reads from this size on go to the pool, so that other requests are answered meanwhile.
const LARGE_READ_BYTES: u32 = 64 << 10;
const WRITE_BYTES_MAX: u32 = 1 << 20;

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
        match self.place(parent) {
            Ok(Place::Files(view, parent)) if self.is_control_name(parent, name) => {
                reply::control_entry(reply, view.number(), view.control.top(&caller(request)));
            }
            Ok(Place::Files(view, parent)) => {
                let view = Answering::of(view);
                match guarded("lookup", || view.lookup(parent, &name_of(name)?).map_err(refused("lookup", parent))) {
                    Ok(Some(attributes)) => reply::entry(reply, view.number(), Ok(attributes)),
                    // A number of 0 says that the name does not exist, and lets the kernel remember that.
                    Ok(None) => reply.entry(&reply::FOREVER, &reply::nothing(), reply::GENERATION),
                    Err(errno) => reply.error(errno),
                }
            }
            Ok(Place::Control(view, parent)) => {
                let (views, who, name) = (self.views.clone(), caller(request), name.to_owned());
                self.mounts().pool().run(move || {
                    reply::found(reply, &views, &view, view.control.lookup(parent, name.as_bytes(), &who));
                });
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        let _ = guarded("forget", || {
            self.forget_number(ino, count);
            Ok(())
        });
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.place(ino) {
            Ok(Place::Files(view, ino)) => {
                let view = Answering::of(view);
                let now = guarded("getattr", || view.workspace.attributes(ino).map_err(refused("getattr", ino)));
                reply::attr(reply, view.number(), now);
            }
            Ok(Place::Control(view, ino)) => {
                let who = caller(request);
                self.mounts().pool().run(move || {
                    reply::control_attr(reply, view.number(), view.control.attributes(ino, &who));
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
        match self.place(ino) {
            Ok(Place::Control(view, ino)) => {
                let result = view.control.set_attributes(ino, &change, &caller(request));
                reply::control_attr(reply, view.number(), result);
            }
            Ok(Place::Files(view, ino)) => {
                let view = Answering::of(view);
                let result = guarded("setattr", || {
                    // chown(2) and truncate(2) by others end the privileges of a program; the kernel leaves that to us.
                    let unprivileged_truncate = size.is_some() && request.uid() != 0;
                    if change.mode.is_none() && (uid.is_some() || gid.is_some() || unprivileged_truncate) {
                        let now = view.workspace.attributes(ino).map_err(refused("setattr", ino))?;
                        let kept = stripped(now.mode);
                        if now.kind != EntryKind::Directory && kept != now.mode {
                            change.mode = Some(kept);
                        }
                    }
                    view.workspace.set_attributes(ino, change).map_err(refused("setattr", ino))
                });
                let stale = move || vec![Stale::Attributes { ino }];
                view.view().after_others(stale, move || reply::attr(reply, view.number(), result));
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        let target = guarded("readlink", || match self.place(ino)? {
            Place::Files(view, ino) => {
                view.workspace.read_link(ino).map(|target| target.to_vec()).map_err(refused("readlink", ino))
            }
            Place::Control(view, ino) => view.control.read_link(ino, &caller(request)).map_err(denied),
        });
        reply::data(reply, target);
    }

    fn mknod(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, rdev: u32, reply: ReplyEntry) {
        if let Ok(Place::Control(view, parent)) = self.place(parent) {
            let made = view.control.create(parent, name.as_bytes(), &caller(request));
            return reply::control_entry(reply, view.number(), made);
        }
        let made = guarded("mknod", || {
            let kind = EntryKind::from_mode_bits(mode).ok_or(Errno::EINVAL)?;
            let node = NewNode { kind, mode: mode & 0o7777, uid: 0, gid: 0, device: rdev, target: Box::default() };
            self.make(request, parent, name, node)
        });
        reply::new_entry(reply, made);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        if let Ok(Place::Control(view, parent)) = self.place(parent) {
            let (views, who, name) = (self.views.clone(), caller(request), name.to_owned());
            return self.mounts().pool().run(move || {
                reply::found(reply, &views, &view, view.control.make_directory(parent, name.as_bytes(), &who));
            });
        }
        let node = NewNode { kind: EntryKind::Directory, mode: mode & 0o7777, uid: 0, gid: 0, device: 0, target: Box::default() };
        reply::new_entry(reply, guarded("mkdir", || self.make(request, parent, name, node)));
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if let Ok(Place::Control(view, parent)) = self.place(parent) {
            let removed = view.control.unlink(parent, name.as_bytes(), &caller(request)).map_err(denied);
            return reply::empty(reply, removed);
        }
        reply::done(reply, guarded("unlink", || self.remove(parent, name, false)));
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if let Ok(Place::Control(view, parent)) = self.place(parent) {
            let (who, name) = (caller(request), name.to_owned());
            let work = move |control: &ControlDirectory| {
                control.remove_directory(parent, name.as_bytes(), &who).map(|()| Effects::default())
            };
            return self.command(view, reply, work, reply::empty);
        }
        reply::done(reply, guarded("rmdir", || self.remove(parent, name, true)));
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
        reply::new_entry(reply, guarded("symlink", || self.make(request, parent, link_name, node)));
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
        if let (Ok(Place::Control(view, parent)), Ok(Place::Control(other, new_parent))) =
            (self.place(parent), self.place(new_parent))
            && view.number() == other.number()
        {
            let (who, name, new_name) = (caller(request), name.to_owned(), new_name.to_owned());
            let work = move |control: &ControlDirectory| {
                let renamed = control.rename(parent, name.as_bytes(), new_parent, new_name.as_bytes(), &who);
                renamed.map(|()| Effects::default())
            };
            return self.command(view, reply, work, reply::empty);
        }
        reply::done(reply, guarded("rename", || self.move_name((parent, name), (new_parent, new_name), flags)));
    }

    fn link(&self, _request: &Request, ino: INodeNo, new_parent: INodeNo, new_name: &OsStr, reply: ReplyEntry) {
        reply::new_entry(reply, guarded("link", || self.add_link(ino, new_parent, new_name)));
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
        match self.place(ino) {
            Ok(Place::Files(view, ino)) => {
                let work =
                    move || guarded("read", || view.workspace.read(ino, offset, u64::from(size)).map_err(refused("read", ino)));
                if size >= LARGE_READ_BYTES {
                    self.mounts().pool().run(move || reply::data(reply, work()));
                } else {
                    reply::data(reply, work());
                }
            }
            Ok(Place::Control(view, ino)) => {
                let who = caller(request);
                self.mounts().pool().run(move || {
                    reply::data(reply, guarded("read", || view.control.read(ino, offset, size, &who).map_err(denied)));
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
        match self.place(ino) {
            Ok(Place::Files(view, ino)) => {
                let strip = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
                let written = guarded("write", || view.workspace.write(ino, offset, data, strip).map_err(refused("write", ino)));
                let seal_due = written.is_ok_and(|due| due);
                let stale = move || vec![Stale::Attributes { ino }];
                let answer = move || reply::written(reply, len, written);
                if write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
                    // A page of a mapping is written back, perhaps because another view makes this one forget it: nobody
                    // may wait for the other view here.
                    answer();
                    view.after_others(stale, || ());
                } else {
                    view.after_others(stale, answer);
                }
                if seal_due {
                    self.seal_later(&view);
                }
            }
            Ok(Place::Control(view, ino)) => {
                let (who, data) = (caller(request), data.to_vec());
                let work = move |control: &ControlDirectory| control.write(ino, offset, &data, &who);
                self.command(view, reply, work, move |reply, result| reply::written(reply, len, result));
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&self, _request: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS); // Each write has reached us already.
    }

    fn fsync(&self, _request: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        match self.place(ino) {
            Ok(Place::Files(view, ino)) => {
                self.mounts().pool().run(move || {
                    reply::empty(reply, guarded("fsync", || view.workspace.sync_file(ino).map_err(refused("fsync", ino))));
                });
            }
            Ok(Place::Control(..)) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn fsyncdir(&self, request: &Request, ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.fsync(request, ino, fh, datasync, reply);
    }

    fn readdir(&self, request: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match guarded("readdir", || self.list_names(&caller(request), ino, offset, &mut reply)) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdirplus(&self, request: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        match guarded("readdirplus", || self.list_attributes(&caller(request), ino, offset, &mut reply)) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.views.top().workspace.repository().space() {
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
            let mode = xattr_mode(flags)?;
            let (view, ino) = self.file(ino)?;
            check_xattr_name(name)?;
            view.workspace.set_xattr(ino, name.as_bytes(), value, mode).map_err(refused("setxattr", ino))?;
            Ok((view, ino))
        });
        reply::changed(reply, result);
    }

    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let value = guarded("getxattr", || match self.place(ino)? {
            Place::Files(view, ino) => {
                check_xattr_name(name)?;
                view.workspace.xattr(ino, name.as_bytes()).map_err(refused("getxattr", ino))
            }
            Place::Control(view, ino) => view.control.xattr(ino, name.as_bytes()).map_err(denied),
        });
        reply::xattr(reply, size, value);
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = guarded("listxattr", || {
            let names = match self.place(ino)? {
                Place::Files(view, ino) => view.workspace.xattrs(ino).map_err(refused("listxattr", ino))?,
                Place::Control(view, ino) => view.control.xattrs(ino).map_err(denied)?,
            };
            Ok(names.iter().flat_map(|name| name.iter().copied().chain([0])).collect::<Box<[u8]>>())
        });
        reply::xattr(reply, size, names);
    }

    fn removexattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let result = guarded("removexattr", || {
            let (view, ino) = self.file(ino)?;
            check_xattr_name(name)?;
            view.workspace.remove_xattr(ino, name.as_bytes()).map_err(refused("removexattr", ino))?;
            Ok((view, ino))
        });
        reply::changed(reply, result);
    }

    fn create(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, _flags: i32, reply: ReplyCreate) {
        if let Ok(Place::Control(view, parent)) = self.place(parent) {
            return match view.control.create(parent, name.as_bytes(), &caller(request)) {
                Ok(attributes) => {
                    let attr = file_attr(&attributes, control_of(view.number()));
                    reply.created(&reply::NEVER, &attr, reply::GENERATION, FileHandle(0), FopenFlags::empty());
                }
                Err(err) => reply.error(denied(err)),
            };
        }
        let node = NewNode { kind: EntryKind::File, mode: mode & 0o7777, uid: 0, gid: 0, device: 0, target: Box::default() };
        match guarded("create", || self.make(request, parent, name, node)) {
            Ok(done) => done.answer(move |view, attributes| {
                let attr = file_attr(&attributes, files_of(view));
                reply.created(&reply::FOREVER, &attr, reply::GENERATION, FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
            }),
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
            let (change, keep_size) = range_change(mode)?;
            let (view, ino) = self.file(ino)?;
            view.workspace.change_range(ino, offset, length, change, keep_size).map_err(refused("fallocate", ino))?;
            Ok((view, ino))
        });
        reply::changed(reply, result);
    }

    fn lseek(&self, _request: &Request, ino: INodeNo, _fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let found = guarded("lseek", || {
            let hole = match whence {
                libc::SEEK_DATA => false,
                libc::SEEK_HOLE => true,
                _ => return Err(Errno::EINVAL),
            };
            let offset = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
            match self.place(ino)? {
                Place::Files(view, ino) => view.workspace.seek(ino, offset, hole).map_err(refused("lseek", ino)),
                Place::Control(view, ino) => view.control.seek(ino, offset, hole).map_err(denied),
            }
        });
        match found {
            Ok(offset) => reply.offset(offset as i64),
            Err(errno) => reply.error(errno),
        }
    }
}
