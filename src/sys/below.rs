//! Directories below one that is held open, each opened without following a link, the last ones kept.

use super::beneath::{open_beneath, open_directory};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Directories kept open: enough for a walk that goes down and up again.
const KEPT_MAX: usize = 16;

/// A directory, and those below it by their relative paths.
pub struct Below {
    top: Rc<File>,
    /// The directories used last, the latest first.
    kept: Vec<(PathBuf, Rc<File>)>,
}

impl Below {
    /// Opens the directory at `path`, which may lead through symbolic links.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { top: Rc::new(open_directory(path)?), kept: Vec::new() })
    }

    /// Opens the directory at the relative path `path`; nothing on the way may be a symbolic link.
    ///
    /// It costs one step when its parent was used a moment ago, however deep it is.
    pub fn directory(&mut self, path: &Path) -> io::Result<Rc<File>> {
        if path.as_os_str().is_empty() {
            return Ok(self.top.clone());
        }
        if let Some(at) = self.kept.iter().position(|(kept, _)| kept == path) {
            let found = self.kept.remove(at);
            let opened = found.1.clone();
            self.kept.insert(0, found);
            return Ok(opened);
        }
        let parent = self.kept.iter().find(|(kept, _)| path.parent() == Some(kept.as_path()));
        let opened = match (parent, path.file_name()) {
            (Some((_, parent)), Some(name)) => open_beneath(parent, Path::new(name), libc::O_DIRECTORY, 0)?,
            _ => open_beneath(&self.top, path, libc::O_DIRECTORY, 0)?,
        };
        let opened = Rc::new(opened);
        self.kept.insert(0, (path.to_owned(), opened.clone()));
        self.kept.truncate(KEPT_MAX);
        Ok(opened)
    }

    /// Opens the directory that holds `path`, and returns the last part of the path beside it.
    pub fn parent_of<'p>(&mut self, path: &'p Path) -> io::Result<(Rc<File>, &'p OsStr)> {
        let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok((self.directory(path.parent().unwrap_or(Path::new("")))?, name))
    }
}

/// Returns a path to an open file that leads to that very file, whatever has its name by now (proc(5)).
pub fn path_of_open(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Returns a path to `name` in an open directory, for calls that do not follow the last part of a path.
pub fn path_within(dir: &File, name: &OsStr) -> PathBuf {
    path_of_open(dir).join(name)
}

/// Opens whatever has a name, without reading it and without following it: for its attributes (open(2), O_PATH).
pub fn pin(dir: &File, name: &OsStr) -> io::Result<File> {
    open_beneath(dir, Path::new(name), libc::O_PATH | libc::O_NOFOLLOW, 0)
}
