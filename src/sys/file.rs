//! Calls on open files.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd};

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a file that lies in memory and goes with its descriptor (memfd_create(2)).
pub fn memory_file() -> io::Result<File> {
    // SAFETY: the name is a string that ends with zero and outlives the call.
    let fd = unsafe { libc::memfd_create(c"mementofs".as_ptr(), libc::MFD_CLOEXEC) };
    checked(fd.min(0))?;
    // SAFETY: the call made this descriptor, and nobody else knows it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Changes a range of a file as fallocate(2) does in that mode.
pub fn change_range(file: &File, mode: libc::c_int, offset: u64, len: u64) -> io::Result<()> {
    // SAFETY: the descriptor stays open while `file` is borrowed; the call takes no pointers.
    checked(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as i64, len as i64) })
}

/// Reserves space for a range without changing the file's length (fallocate(2)). A file system that cannot reserve says Ok.
pub fn reserve(file: &File, offset: u64, len: u64) -> io::Result<()> {
    match change_range(file, libc::FALLOC_FL_KEEP_SIZE, offset, len) {
        Err(err) if matches!(err.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => Ok(()),
        result => result,
    }
}

/// Gives the room of a range back; the range reads as zeros then, and the file keeps its length (fallocate(2)).
/// `EOPNOTSUPP` where the file system cannot.
pub fn punch(file: &File, range: Range<u64>) -> io::Result<()> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    change_range(file, mode, range.start, range.end.saturating_sub(range.start))
}

/// Takes an exclusive lock of the open file description without waiting (fcntl(2), F_OFD_SETLK). Says whether it was free.
///
/// The lock goes with the description, so a process that dies leaves none behind.
pub fn lock_exclusive(file: &File) -> io::Result<bool> {
    // SAFETY: all fields of `flock` are integers, for which zero is a valid value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: `lock` is a valid `flock` for the duration of the call; the descriptor is open.
    match checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) }) {
        Ok(()) => Ok(true),
        Err(err) if matches!(err.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(err) => Err(err),
    }
}

/// Returns when nobody holds the lock of a file any more, at once if the file does not exist.
pub fn wait_until_unlocked(path: &std::path::Path) {
    let Ok(file) = File::options().read(true).write(true).open(path) else { return };
    // SAFETY: all fields of `flock` are integers, for which zero is a valid value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: `lock` is a valid `flock` for the duration of the call; the lock goes when `file` is closed.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLKW, &lock) };
}

/// Returns the ranges of a file that hold data, in order (lseek(2), SEEK_DATA and SEEK_HOLE).
pub fn data_ranges(file: &File, size_bytes: u64) -> io::Result<Vec<Range<u64>>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < size_bytes {
        let Some(start) = seek(file, at, libc::SEEK_DATA)? else { break };
        let end = seek(file, start, libc::SEEK_HOLE)?.unwrap_or(size_bytes).min(size_bytes);
        if start >= end {
            break;
        }
        ranges.push(start..end);
        at = end;
    }
    Ok(ranges)
}

/// Returns `None` when there is nothing of the kind behind `offset`.
fn seek(file: &File, offset: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
    // SAFETY: the descriptor stays open while `file` is borrowed; the call takes no pointers.
    let found = unsafe { libc::lseek(file.as_raw_fd(), offset as i64, whence) };
    match u64::try_from(found) {
        Ok(found) => Ok(Some(found)),
        Err(_) => match io::Error::last_os_error() {
            err if err.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            err => Err(err),
        },
    }
}

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Size of a block in bytes.
    pub block_bytes: u32,
    /// All blocks.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// Free blocks for users who are not root.
    pub blocks_available: u64,
    /// All inodes.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
}

impl Space {
    /// Returns how many bytes users who are not root may still take.
    pub fn bytes_available(&self) -> u64 {
        self.blocks_available.saturating_mul(u64::from(self.block_bytes))
    }
}

/// Returns the room on the file system that holds an open file (fstatvfs(3)).
pub fn space_at(file: &File) -> io::Result<Space> {
    // SAFETY: all fields of `statvfs` are integers, for which zero is a valid value.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `found` is a valid place for the result; the descriptor is open.
    checked(unsafe { libc::fstatvfs(file.as_raw_fd(), &mut found) })?;
    Ok(Space {
        block_bytes: found.f_frsize as u32,
        blocks: found.f_blocks,
        blocks_free: found.f_bfree,
        blocks_available: found.f_bavail,
        files: found.f_files,
        files_free: found.f_ffree,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_second_description_does_not_get_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let open = || File::options().create(true).truncate(false).read(true).write(true).open(&path).unwrap();
        let (first, second) = (open(), open());
        assert!(lock_exclusive(&first).unwrap());
        assert!(!lock_exclusive(&second).unwrap());
        drop(first);
        assert!(lock_exclusive(&second).unwrap());
    }

    #[test]
    fn data_between_holes_is_found() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(&[1; 4096], 512 << 10).unwrap();
        let ranges = data_ranges(&file, 1 << 20).unwrap();
        assert!(ranges.iter().any(|range| range.contains(&(512 << 10))));
        assert_eq!(data_ranges(&tempfile::tempfile().unwrap(), 0).unwrap(), []);
    }
}
