//! The store's directory: made, checked, locked.

use super::StoreError;
use crate::sys;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Version of the store's layout that this program reads and writes.
const FORMAT_VERSION: u32 = 1;
const FORMAT_FILE: &str = "format";
const PARTS: [&str; 4] = ["packs", "objects", "staging", "journal"];

/// The directory of a store.
#[derive(Debug)]
pub struct StoreDir {
    path: PathBuf,
    handle: File,
}

/// Holds the store for this process; released when dropped or when the process dies.
#[derive(Debug)]
pub struct StoreLock {
    _file: File,
}

impl StoreDir {
    /// Makes a store at `path`, which must be absent or an empty directory.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        let io = |what| StoreError::io(what, path);
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => claim_empty(path)?,
            Err(err) => return Err(io("cannot make the directory")(err)),
        }
        for part in PARTS {
            DirBuilder::new().mode(0o700).create(path.join(part)).map_err(io("cannot fill the directory"))?;
        }
        let format = path.join(FORMAT_FILE);
        let file = File::options().write(true).create_new(true).mode(0o600).open(&format);
        let mut file = file.map_err(io("cannot fill the directory"))?;
        writeln!(file, "mementofs {FORMAT_VERSION}").and_then(|()| file.sync_all()).map_err(io("cannot fill the directory"))?;
        sync_dir(path)?;
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_dir)?;
        Self::open(path)
    }

    /// Opens a store, refusing what is not one or not safe to use.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let io = |what| StoreError::io(what, path);
        let found = fs::symlink_metadata(path).map_err(io("cannot open the store"))?;
        let refused = |reason: &str| Err(StoreError::Refused { path: path.to_owned(), reason: reason.to_owned() });
        if found.is_symlink() {
            return refused("it is a symbolic link; name the directory itself");
        }
        if !found.is_dir() {
            return refused("it is not a directory");
        }
        if found.mode() & 0o022 != 0 {
            return refused("others may write into it; run: chmod 700 on it");
        }
        let me = sys::effective_uid();
        if found.uid() != me && me != 0 {
            return refused("it belongs to another user");
        }
        check_format(path)?;
        let handle = File::open(path).map_err(io("cannot open the store"))?;
        Ok(Self { path: path.canonicalize().map_err(io("cannot open the store"))?, handle })
    }

    /// Takes the store for this process.
    pub fn lock(&self) -> Result<StoreLock, StoreError> {
        let path = self.path.join("lock");
        let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(StoreError::io("cannot lock", &path))?;
        match sys::lock_exclusive(&file).map_err(StoreError::io("cannot lock", &path))? {
            true => {
                name_holder(&file);
                Ok(StoreLock { _file: file })
            }
            false => Err(StoreError::Busy { path: self.path.clone() }),
        }
    }

    /// Returns the directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the room left where the store is.
    pub fn space(&self) -> Result<sys::Space, StoreError> {
        sys::space_at(&self.handle).map_err(StoreError::io("cannot ask for free space", &self.path))
    }
}

/// Writes into the lock which process has it, for who waits until that has ended. On a full disk it is not said.
fn name_holder(mut lock: &File) {
    let _ = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
}

fn claim_empty(path: &Path) -> Result<(), StoreError> {
    let io = |what| StoreError::io(what, path);
    let refused = |reason: &str| Err(StoreError::Refused { path: path.to_owned(), reason: reason.to_owned() });
    if !fs::symlink_metadata(path).map_err(io("cannot look at"))?.is_dir() {
        return refused("it is not a directory");
    }
    if fs::read_dir(path).map_err(io("cannot read"))?.next().is_some() {
        return refused("it is neither empty nor a store");
    }
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(io("cannot make private"))
}

fn check_format(path: &Path) -> Result<(), StoreError> {
    let refused = |reason: String| Err(StoreError::Refused { path: path.to_owned(), reason });
    let text = match fs::read_to_string(path.join(FORMAT_FILE)) {
        Ok(text) => text,
        Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
            return refused("it is not a mementofs store".into());
        }
        Err(err) => return Err(StoreError::io("cannot read the format of", path)(err)),
    };
    match text.trim().strip_prefix("mementofs ").map(str::parse::<u32>) {
        Some(Ok(FORMAT_VERSION)) => Ok(()),
        Some(Ok(newer)) if newer > FORMAT_VERSION => refused(format!(
            "it has format {newer}, and this program knows formats up to {FORMAT_VERSION}; use a newer mementofs"
        )),
        _ => refused("its format file is damaged".into()),
    }
}

/// Makes the names in a directory survive a power cut.
pub(super) fn sync_dir(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(StoreError::io("cannot sync", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(path: &Path) -> String {
        StoreDir::open(path).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_a_safe_store_is_refused_with_a_reason() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("store");
        StoreDir::create(&path).unwrap();
        assert!(StoreDir::open(&path).is_ok());
        assert!(reason(temp.path()).contains("not a mementofs store"));
        std::os::unix::fs::symlink(&path, temp.path().join("link")).unwrap();
        assert!(reason(&temp.path().join("link")).contains("symbolic link"));
        fs::set_permissions(&path, Permissions::from_mode(0o770)).unwrap();
        assert!(reason(&path).contains("chmod 700"));
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        fs::write(path.join(FORMAT_FILE), "mementofs 2\n").unwrap();
        assert!(reason(&path).contains("format 2"));
        fs::write(path.join(FORMAT_FILE), "mementofs x\n").unwrap();
        assert!(reason(&path).contains("damaged"));
        assert!(StoreDir::create(temp.path()).unwrap_err().to_string().contains("neither empty nor a store"));
    }

    #[test]
    fn a_locked_store_is_busy_until_the_lock_goes() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StoreDir::create(&temp.path().join("store")).unwrap();
        let lock = dir.lock().unwrap();
        assert!(matches!(dir.lock(), Err(StoreError::Busy { .. })));
        drop(lock);
        dir.lock().unwrap();
    }
}
