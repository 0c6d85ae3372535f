//! The kernel's requests: each is translated, answered by one call, and translated back.

use super::attr::file_attr;
use super::filesystem::{MementoFilesystem, WANTED};
use super::number::{NAMESPACE_CONTROL, NAMESPACE_TOP};
use super::reply;
use super::translate::{
    Node, attribute_change, branch_ino, caller, check_xattr_name, denied, guarded, name_of, node_of, range_change, refused,
    rename_mode, xattr_mode,
};
use crate::control::ControlDirectory;
use crate::object::EntryKind;
use crate::workspace::{ACL_ACCESS, NewNode, RangeOptions};
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, IoctlFlags, KernelConfig, LockOwner,
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
        for flag in WANTED {
            let _ = config.add_capabilities(*flag); // A kernel without one of these is slower, not wrong.
        }
        let _ = config.set_max_write(WRITE_BYTES_MAX);
        let _ = config.set_max_readahead(WRITE_BYTES_MAX);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match node_of(parent) {
            Ok(Node::Branch(parent)) if self.is_control_name(parent, name) => {
                reply::control_entry(reply, self.control.top(&caller(request)));
            }
            Ok(Node::Branch(parent)) => {
                let found =
                    guarded("lookup", || self.workspace.lookup(parent, &name_of(name)?).map_err(refused("lookup", parent)));
                match found {
                    Ok(Some(attributes)) => reply::entry(reply, Ok(attributes)),
                    // A number of 0 says that the name does not exist, and lets the kernel remember that.
                    Ok(None) => reply.entry(&reply::FOREVER, &reply::nothing(), reply::GENERATION),
                    Err(errno) => reply.error(errno),
                }
            }
            Ok(Node::Control(parent)) => {
                let (control, who, name) = (self.control.clone(), caller(request), name.to_owned());
                self.pool.run(move || reply::control_entry(reply, control.lookup(parent, name.as_bytes(), &who)));
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
                reply::attr(reply, guarded("getattr", || self.workspace.attributes(ino).map_err(refused("getattr", ino))));
            }
            Ok(Node::Control(ino)) => {
                let (control, who) = (self.control.clone(), caller(request));
                self.pool.run(move || reply::control_attr(reply, control.attributes(ino, &who)));
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
        match node_of(ino) {
            Ok(Node::Control(ino)) => {
                reply::control_attr(reply, self.control.set_attributes(ino, &change, &caller(request)));
            }
            Ok(Node::Branch(ino)) => {
                let result = guarded("setattr", || self.set_attributes(request, ino, change));
                reply::attr(reply, result);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        let target = guarded("readlink", || match node_of(ino)? {
            Node::Branch(ino) => self.workspace.read_link(ino).map(|target| target.to_vec()).map_err(refused("readlink", ino)),
            Node::Control(ino) => self.control.read_link(ino, &caller(request)).map_err(denied),
        });
        reply::data(reply, target);
    }

    fn mknod(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry) {
        if let Ok(Node::Control(parent)) = node_of(parent) {
            return reply::control_entry(reply, self.control.create(parent, name.as_bytes(), &caller(request)));
        }
        let result = guarded("mknod", || {
            let kind = EntryKind::from_mode_bits(mode).ok_or(Errno::EINVAL)?;
            let node = NewNode { kind, mode: mode & 0o7777, uid: 0, gid: 0, device: rdev, target: Box::default() };
            self.make(request, parent, name, node, umask)
        });
        reply::entry(reply, result);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        if let Ok(Node::Control(parent)) = node_of(parent) {
            let (control, who, name) = (self.control.clone(), caller(request), name.to_owned());
            return self.pool.run(move || {
                reply::control_entry(reply, control.make_directory(parent, name.as_bytes(), &who));
            });
        }
        let node = NewNode { kind: EntryKind::Directory, mode: mode & 0o7777, uid: 0, gid: 0, device: 0, target: Box::default() };
        reply::entry(reply, guarded("mkdir", || self.make(request, parent, name, node, umask)));
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let result = guarded("unlink", || match node_of(parent)? {
            Node::Branch(parent) => {
                let name = self.old_name(parent, name)?;
                self.workspace.unlink(parent, &name).map_err(refused("unlink", parent))
            }
            Node::Control(parent) => self.control.unlink(parent, name.as_bytes(), &caller(request)).map_err(denied),
        });
        reply::empty(reply, result);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if let Ok(Node::Control(parent)) = node_of(parent) {
            let (who, name) = (caller(request), name.to_owned());
            let work =
                move |control: &ControlDirectory| control.remove_directory(parent, name.as_bytes(), &who).map(|()| Vec::new());
            return self.command(reply, work, reply::empty);
        }
        let result = guarded("rmdir", || {
            let parent = branch_ino(parent)?;
            let name = self.old_name(parent, name)?;
            self.workspace.remove_directory(parent, &name).map_err(refused("rmdir", parent))
        });
        reply::empty(reply, result);
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
        reply::entry(reply, guarded("symlink", || self.make(request, parent, link_name, node, 0)));
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
            return self.command(reply, work, reply::empty);
        }
        let result = guarded("rename", || {
            let mode = rename_mode(flags)?;
            let (parent, new_parent) = (branch_ino(parent)?, branch_ino(new_parent)?);
            let name = self.old_name(parent, name)?;
            let new_name = self.old_name(new_parent, new_name)?;
            self.workspace.rename(parent, &name, new_parent, &new_name, mode).map_err(refused("rename", parent))
        });
        reply::empty(reply, result);
    }

    fn link(&self, _request: &Request, ino: INodeNo, new_parent: INodeNo, new_name: &OsStr, reply: ReplyEntry) {
        let result = guarded("link", || {
            let (ino, parent) = (branch_ino(ino)?, branch_ino(new_parent)?);
            let name = self.new_name(parent, new_name)?;
            self.workspace.link(ino, parent, &name).map_err(refused("link", ino))
        });
        reply::entry(reply, result);
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
        match node_of(ino) {
            Ok(Node::Branch(ino)) => {
                let workspace = self.workspace.clone();
                let work = move || guarded("read", || workspace.read(ino, offset, u64::from(size)).map_err(refused("read", ino)));
                if size >= LARGE_READ_BYTES {
                    self.pool.run(move || reply::data(reply, work()));
                } else {
                    reply::data(reply, work());
                }
            }
            Ok(Node::Control(ino)) => {
                let (control, who) = (self.control.clone(), caller(request));
                self.pool.run(move || {
                    reply::data(reply, guarded("read", || control.read(ino, offset, size, &who).map_err(denied)));
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
                    reply::empty(reply, guarded("fsync", || workspace.sync_file(ino).map_err(refused("fsync", ino))));
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
            let ino = branch_ino(ino)?;
            check_xattr_name(name)?;
            if name.as_bytes() == ACL_ACCESS {
                self.end_setgid(request, ino)?;
            }
            self.workspace.set_xattr(ino, name.as_bytes(), value, mode).map_err(refused("setxattr", ino))
        });
        reply::empty(reply, result);
    }

    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let value = guarded("getxattr", || match node_of(ino)? {
            Node::Branch(ino) => {
                check_xattr_name(name)?;
                self.workspace.xattr(ino, name.as_bytes()).map_err(refused("getxattr", ino))
            }
            Node::Control(ino) => self.control.xattr(ino, name.as_bytes()).map_err(denied),
        });
        reply::xattr(reply, size, value);
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = guarded("listxattr", || {
            let names = match node_of(ino)? {
                Node::Branch(ino) => self.workspace.xattrs(ino).map_err(refused("listxattr", ino))?,
                Node::Control(ino) => self.control.xattrs(ino).map_err(denied)?,
            };
            let shown = names.iter().filter(|name| request.uid() == 0 || !name.starts_with(b"trusted.")); // xattr(7)
            Ok(shown.flat_map(|name| name.iter().copied().chain([0])).collect::<Box<[u8]>>())
        });
        reply::xattr(reply, size, names);
    }

    fn removexattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let result = guarded("removexattr", || {
            let ino = branch_ino(ino)?;
            check_xattr_name(name)?;
            self.workspace.remove_xattr(ino, name.as_bytes()).map_err(refused("removexattr", ino))
        });
        reply::empty(reply, result);
    }

    fn create(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, _flags: i32, reply: ReplyCreate) {
        let flags = FopenFlags::FOPEN_KEEP_CACHE;
        if let Ok(Node::Control(parent)) = node_of(parent) {
            return match self.control.create(parent, name.as_bytes(), &caller(request)) {
                Ok(attributes) => {
                    let attr = file_attr(&attributes, NAMESPACE_CONTROL);
                    reply.created(&reply::NEVER, &attr, reply::GENERATION, FileHandle(0), FopenFlags::empty());
                }
                Err(err) => reply.error(denied(err)),
            };
        }
        let node = NewNode { kind: EntryKind::File, mode: mode & 0o7777, uid: 0, gid: 0, device: 0, target: Box::default() };
        match guarded("create", || self.make(request, parent, name, node, umask)) {
            Ok(attributes) => {
                reply.created(&reply::FOREVER, &file_attr(&attributes, NAMESPACE_TOP), reply::GENERATION, FileHandle(0), flags);
            }
            Err(errno) => reply.error(errno),
        }
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
            let ino = branch_ino(ino)?;
            let options = RangeOptions { keep_size, strip_privileges: request.uid() != 0 };
            self.workspace.change_range(ino, offset, length, change, options).map_err(refused("fallocate", ino))
        });
        reply::empty(reply, result);
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
            Ok(Some(copied)) => reply.written(copied),
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
        let found = guarded("lseek", || {
            let hole = match whence {
                libc::SEEK_DATA => false,
                libc::SEEK_HOLE => true,
                _ => return Err(Errno::EINVAL),
            };
            let offset = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
            match node_of(ino)? {
                Node::Branch(ino) => self.workspace.seek(ino, offset, hole).map_err(refused("lseek", ino)),
                Node::Control(ino) => self.control.seek(ino, offset, hole).map_err(denied),
            }
        });
        match found {
            Ok(offset) => reply.offset(offset as i64),
            Err(errno) => reply.error(errno),
        }
    }
}
