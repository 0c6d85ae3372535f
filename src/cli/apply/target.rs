//! The directory that is written into. Every path in it is opened from its top and leads through no symbolic link.

use crate::cli::error::CliError;
use crate::sys;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// An ordinary directory outside the workspace, locked against another apply.
pub struct Target {
    path: PathBuf,
    top: File,
}

/// The directory of a path in the target, opened, and the last name.
pub struct Parent {
    directory: File,
    name: OsString,
}

impl Target {
    /// Opens a directory after checking that it is one to write into.
    pub fn open(directory: &Path, top: &Path) -> Result<Self, CliError> {
        let refused = |why: &str| CliError::new(format!("cannot apply to {}: {why}", directory.display()));
        let failed = |err: io::Error| CliError::at("cannot apply to", directory, err);
        let found = directory.symlink_metadata().map_err(failed)?;
        if found.is_symlink() {
            return Err(refused("it is a symbolic link; name the directory itself"));
        }
        if !found.is_dir() {
            return Err(refused("it is not a directory"));
        }
        let path = directory.canonicalize().map_err(failed)?;
        let store = top.ancestors().find_map(sys::source_of); // The top may be a branch's view, inside a mount.
        let mounts = store.as_deref().map(sys::mount_points_of).unwrap_or_default();
        if path == top || mounts.contains(&path) {
            return Err(refused("it is the workspace itself; name a directory outside"));
        }
        if path.starts_with(top) || mounts.iter().any(|mount| path.starts_with(mount)) || same_device(&path, top) {
            return Err(refused("it is inside the workspace; name a directory outside"));
        }
        if store.is_some_and(|store| path.starts_with(&store)) {
            return Err(refused("it is inside the store; name another directory"));
        }
        if !sys::may_write(&path) {
            return Err(refused("it is not writable"));
        }
        let top = File::open(&path).map_err(failed)?;
        if let Err(fs::TryLockError::WouldBlock) = top.try_lock() {
            return Err(refused("another apply is writing into it"));
        }
        Ok(Self { path, top })
    }

    /// Returns the path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the directory in which a path lies; nothing when there is none.
    pub fn parent(&self, path: &Path) -> io::Result<Option<Parent>> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a path in the directory"));
        };
        match sys::open_beneath(&self.top, parent, libc::O_PATH | libc::O_DIRECTORY, 0) {
            Ok(directory) => Ok(Some(Parent { directory, name: name.to_owned() })),
            Err(err) if is_absent(&err) => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Describes what is at a path; nothing when nothing is.
    pub fn describe(&self, path: &Path) -> io::Result<Option<Metadata>> {
        let Some(parent) = self.parent(path)? else { return Ok(None) };
        match parent.path().symlink_metadata() {
            Ok(found) => Ok(Some(found)),
            Err(err) if is_absent(&err) => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Opens a file or directory for reading.
    pub fn read(&self, path: &Path) -> io::Result<File> {
        sys::open_beneath(&self.top, path, libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK, 0)
    }
}

impl Parent {
    /// Returns a path that leads to the name through the opened directory. Its last part is not resolved yet.
    pub fn path(&self) -> PathBuf {
        self.sibling(&self.name)
    }

    /// Returns such a path for another name in the same directory.
    pub fn sibling(&self, name: impl AsRef<Path>) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_raw_fd())).join(name)
    }
}

/// Says whether an error means that there is nothing at a path.
pub fn is_absent(err: &io::Error) -> bool {
    matches!(err.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

fn same_device(path: &Path, top: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| path.metadata().map(|found| found.dev()).ok();
    device(path).is_some_and(|found| Some(found) == device(top))
}
