//! Calls on files by path, none of which follows a symbolic link at the end, and on their attributes.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn text_of(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a pipe, socket or device node (mknod(2)).
pub fn make_node(path: &Path, mode: u32, device: u64) -> io::Result<()> {
    let text = text_of(path)?;
    // SAFETY: `text` is a NUL-terminated string for the duration of the call.
    checked(unsafe { libc::mknod(text.as_ptr(), mode, device) })
}

/// Sets access and modification time, each in seconds and nanoseconds since 1970 (utimensat(2)).
pub fn set_times(path: &Path, accessed: (i64, i64), modified: (i64, i64)) -> io::Result<()> {
    let text = text_of(path)?;
    let time = |(secs, nanos)| libc::timespec { tv_sec: secs, tv_nsec: nanos };
    let times = [time(accessed), time(modified)];
    // SAFETY: `text` is a NUL-terminated string and `times` an array of two for the duration of the call.
    checked(unsafe { libc::utimensat(libc::AT_FDCWD, text.as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW) })
}

/// Sets access and modification time of an open file, each in seconds and nanoseconds since 1970 (utimensat(2), AT_EMPTY_PATH).
pub fn set_times_of(file: &File, accessed: (i64, i64), modified: (i64, i64)) -> io::Result<()> {
    let time = |(secs, nanos)| libc::timespec { tv_sec: secs, tv_nsec: nanos };
    let times = [time(accessed), time(modified)];
    // SAFETY: the empty string is NUL-terminated and `times` an array of two for the duration of the call; the descriptor is open.
    checked(unsafe { libc::utimensat(file.as_raw_fd(), c"".as_ptr(), times.as_ptr(), libc::AT_EMPTY_PATH) })
}

/// Takes a device number apart into major and minor (makedev(3)).
pub fn device_numbers(device: u64) -> (u32, u32) {
    (libc::major(device), libc::minor(device))
}

/// Says whether this process may change what is in a directory (faccessat(2), with the effective ids).
pub fn may_write(directory: &Path) -> bool {
    let Ok(text) = text_of(directory) else { return false };
    // SAFETY: `text` is a NUL-terminated string for the duration of the call.
    unsafe { libc::faccessat(libc::AT_FDCWD, text.as_ptr(), libc::W_OK | libc::X_OK, libc::AT_EACCESS) == 0 }
}
