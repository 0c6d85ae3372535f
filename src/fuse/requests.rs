//! The kernel's requests: each is translated, answered by one call, and translated back.

use super::filesystem::{MementoFilesystem, Place};
use super::number::NodeNumber;
use super::reply;
use super::translate::{attribute_change, caller, check_xattr_name, denied, guarded, name_of, range_change, refused, xattr_mode};
use super::view::Answering;
use super::writing::Asked;
use crate::control::{CONTROL_NAME_ATTRIBUTE, ControlDirectory, Effects};
use crate::object::EntryKind;
use crate::workspace::{ACL_ACCESS, NewNode, ROOT, RangeOptions, Stale};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo, IoctlFlags, KernelConfig, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
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
        for flag in self.wanted() {
            let _ = config.add_capabilities(flag); // A kernel without one of these is slower, not wrong.
        }
        let _ = config.set_max_stack_depth(u32::from(self.open_files.is_some()));
        let _ = config.set_max_write(WRITE_BYTES_MAX);
        let _ = config.set_max_readahead(WRITE_BYTES_MAX);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.place(parent) {
            Ok(Place::Files(view, parent)) if self.is_control_name(parent, name) => {
                reply::control_entry(reply, view.number(), || view.control.top(&caller(request)));
            }
            Ok(Place::Files(view, parent)) => {
                let view = Answering::of(view);
                match guarded("lookup", || {
                    view.lookup_for(request.pid(), parent, &name_of(name)?).map_err(refused("lookup", parent))
                }) {
                    Ok(Some(attributes)) => reply::entry(reply, view.number(), Ok(attributes)),
                    Ok(None) => reply::no_entry(reply),
                    Err(errno) => {
                        reply.error(errno);
                        if errno.code() == libc::ENOENT {
                            view.forget_missing(parent, name); // Now that it knows the name.
                        }
                    }
                }
            }
            Ok(Place::Control(view, parent)) => {
                let (views, who, name) = (self.views.clone(), caller(request), name.to_owned());
                self.mounts().commands().run(move || {
                    reply::found(reply, &views, &view, || view.control.lookup(parent, name.as_bytes(), &who));
                });
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        let _ = guarded("forget", || {
            self.device.serves();
            self.views.forget(NodeNumber::unpack(ino.0), count);
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
                self.mounts().commands().run(move || {
                    reply::control_attr(reply, view.number(), || view.control.attributes(ino, &who));
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
        let change = attribute_change(mode, uid, gid, size, atime, mtime);
        match self.place(ino) {
            Ok(Place::Control(view, ino)) => {
                let who = caller(request);
                self.mounts().commands().run(move || {
                    reply::control_attr(reply, view.number(), || view.control.set_attributes(ino, &change, &who));
                });
            }
            Ok(Place::Files(view, ino)) => {
                let view = Answering::of(view);
                let result = guarded("setattr", || self.set_attributes(request, &view, ino, change));
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

    fn mknod(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry) {
        if let Ok(Place::Control(view, parent)) = self.place(parent) {
            let who = caller(request);
            return reply::control_entry(reply, view.number(), || view.control.create(parent, name.as_bytes(), &who));
        }
        let made = guarded("mknod", || {
            let kind = EntryKind::from_mode_bits(mode).ok_or(Errno::EINVAL)?;
            if kind == EntryKind::File {
                return self.make_file(request, (parent, name), (mode, umask));
            }
            let node = NewNode { kind, mode: mode & 0o7777, uid: 0, gid: 0, device: rdev, target: Box::default() };
            self.make(request, parent, name, node, umask)
        });
        reply::new_entry(reply, made);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        if let Ok(Place::Control(view, parent)) = self.place(parent) {
            let (views, who, name) = (self.views.clone(), caller(request), name.to_owned());
            return self.mounts().commands().run(move || {
                reply::found(reply, &views, &view, || view.control.make_directory(parent, name.as_bytes(), &who));
            });
        }
        let node = NewNode { kind: EntryKind::Directory, mode: mode & 0o7777, uid: 0, gid: 0, device: 0, target: Box::default() };
        reply::new_entry(reply, guarded("mkdir", || self.make(request, parent, name, node, umask)));
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if let Ok(Place::Control(view, parent)) = self.place(parent) {
            let who = caller(request);
            let removed = guarded("unlink", || view.control.unlink(parent, name.as_bytes(), &who).map_err(denied));
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
        reply::new_entry(reply, guarded("symlink", || self.make(request, parent, link_name, node, 0)));
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
        reply::done(reply, guarded("rename", || self.move_name(request, (parent, name), (new_parent, new_name), flags)));
    }

    fn link(&self, _request: &Request, ino: INodeNo, new_parent: INodeNo, new_name: &OsStr, reply: ReplyEntry) {
        reply::new_entry(reply, guarded("link", || self.add_link(ino, new_parent, new_name)));
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.open_node(request, ino, flags, reply);
    }

    fn release(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        reply::empty(reply, guarded("release", || self.close_node(ino)));
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
                self.mounts().commands().run(move || {
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
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        open_flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.place(ino) {
            Ok(Place::Files(view, ino)) => {
                let asked = Asked { handle: fh, offset, data, write_flags, open_flags };
                self.write_file(request, &view, ino, &asked, reply);
            }
            Ok(Place::Control(view, ino)) => {
                let (who, data, len) = (caller(request), data.to_vec(), data.len() as u32);
                let work = move |control: &ControlDirectory| control.write(ino, offset, &data, &who);
                self.command(view, reply, work, move |reply, result| reply::written(reply, result.map(|_| len)));
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&self, _request: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS); // Each write has reached us already.
    }

    fn fsync(&self, _request: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        match self.place(ino) {
            Ok(Place::Files(view, ino)) => self.sync(&view, ino, reply),
            Ok(Place::Control(..)) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn fsyncdir(&self, request: &Request, ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.fsync(request, ino, fh, datasync, reply);
    }

    fn readdir(&self, request: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.list_names(caller(request), ino, offset, reply);
    }

    fn readdirplus(&self, request: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        self.list_attributes(caller(request), ino, offset, reply);
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        reply::space(reply, self.views.top().workspace.repository().space().map_err(|_| Errno::EIO));
    }

    fn setxattr(
        &self,
        request: &Request,
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
            if name.as_bytes() == ACL_ACCESS {
                self.end_setgid(request, &view, ino)?;
            }
            view.workspace.set_xattr(ino, name.as_bytes(), value, mode).map_err(refused("setxattr", ino))?;
            Ok((view, ino))
        });
        self.xattr_changed(name, reply, result);
    }

    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let value = guarded("getxattr", || match self.place(ino)? {
            Place::Files(_, ROOT) if name == CONTROL_NAME_ATTRIBUTE => Ok(self.control_name.clone()),
            Place::Files(view, ino) => {
                check_xattr_name(name)?;
                view.workspace.xattr(ino, name.as_bytes()).map_err(refused("getxattr", ino))
            }
            Place::Control(view, ino) => view.control.xattr(ino, name.as_bytes()).map_err(denied),
        });
        reply::xattr(reply, size, value);
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = guarded("listxattr", || {
            let names = match self.place(ino)? {
                Place::Files(view, ino) => view.workspace.xattrs(ino).map_err(refused("listxattr", ino))?,
                Place::Control(view, ino) => view.control.xattrs(ino).map_err(denied)?,
            };
            let shown = names.iter().filter(|name| request.uid() == 0 || !name.starts_with(b"trusted.")); // xattr(7)
            Ok(shown.flat_map(|name| name.iter().copied().chain([0])).collect::<Box<[u8]>>())
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
        self.xattr_changed(name, reply, result);
    }

    fn create(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, flags: i32, reply: ReplyCreate) {
        self.create_node(request, (parent, name), (mode, umask), flags, reply);
    }

    fn access(&self, _request: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        reply::empty(reply, guarded("access", || self.check_access(ino, mask)));
    }

    fn fallocate(
        &self,
        request: &Request,
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
            let options = RangeOptions { keep_size, strip_privileges: request.uid() != 0 };
            self.end_setgid(request, &view, ino)?;
            view.workspace.change_range(ino, offset, length, change, options).map_err(refused("fallocate", ino))?;
            Ok((view, ino))
        });
        reply::changed(reply, result);
    }

    fn copy_file_range(
        &self,
        request: &Request,
        source: INodeNo,
        _source_fh: FileHandle,
        source_offset: u64,
        target: INodeNo,
        _target_fh: FileHandle,
        target_offset: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let whole = source_offset == 0 && target_offset == 0;
        match guarded("copy_file_range", || if whole { self.share(request, source, target, len) } else { Ok(None) }) {
            Ok(Some((view, target, copied))) => {
                view.after_others(|| vec![Stale::Attributes { ino: target }], move || reply.written(copied));
            }
            Ok(None) => reply.error(Errno::EOPNOTSUPP), // The kernel copies by reading and writing.
            Err(errno) => reply.error(errno),
        }
    }

    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY); // Programs ask each file whether it is a terminal.
    }

    fn lseek(&self, _request: &Request, ino: INodeNo, _fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let hole = match whence {
            libc::SEEK_DATA => false,
            libc::SEEK_HOLE => true,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        match self.place(ino) {
            Ok(Place::Files(view, ino)) => {
                let seek = || view.workspace.seek(ino, offset, hole).map_err(refused("lseek", ino));
                reply::offset(reply, guarded("lseek", seek));
            }
            Ok(Place::Control(view, ino)) => self.mounts().commands().run(move || {
                reply::offset(reply, guarded("lseek", || view.control.seek(ino, offset, hole).map_err(denied)));
            }),
            Err(errno) => reply.error(errno),
        }
    }
}
