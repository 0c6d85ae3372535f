//! Calls on paths, none of which follows a symbolic link at the end.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
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

/// Takes a device number apart into major and minor (makedev(3)).
pub fn device_numbers(device: u64) -> (u32, u32) {
    (libc::major(device), libc::minor(device))
}

/// Opens what lies at `path` below an opened directory (openat2(2)): the way there never leaves the directory and follows
/// no symbolic link. The empty path is the directory itself.
pub fn open_beneath(directory: &File, path: &Path, flags: i32) -> io::Result<File> {
    let text = text_of(if path.as_os_str().is_empty() { Path::new(".") } else { path })?;
    // SAFETY: all fields of `open_how` are integers, for which zero is a valid value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from((flags | libc::O_CLOEXEC) as u32);
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
    let size = std::mem::size_of::<libc::open_how>();
    // SAFETY: `text` is a NUL-terminated string and `how` has the size given, both for the duration of the call.
    let opened = unsafe { libc::syscall(libc::SYS_openat2, directory.as_raw_fd(), text.as_ptr(), &how, size) };
    match i32::try_from(opened) {
        // SAFETY: the call returned a new descriptor that nobody else owns.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { File::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Says whether this process may change what is in a directory (faccessat(2), with the effective ids).
pub fn may_write(directory: &Path) -> bool {
    let Ok(text) = text_of(directory) else { return false };
    // SAFETY: `text` is a NUL-terminated string for the duration of the call.
    unsafe { libc::faccessat(libc::AT_FDCWD, text.as_ptr(), libc::W_OK | libc::X_OK, libc::AT_EACCESS) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_opened_through_a_symbolic_link_or_outside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("in/sub")).unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink("../secret", dir.path().join("in/link")).unwrap();
        std::os::unix::fs::symlink("sub", dir.path().join("in/way")).unwrap();
        std::fs::write(dir.path().join("in/sub/file"), "y").unwrap();
        let top = File::open(dir.path().join("in")).unwrap();
        let errno = |path: &str| open_beneath(&top, Path::new(path), libc::O_RDONLY).unwrap_err().raw_os_error();
        assert_eq!(errno("link"), Some(libc::ELOOP));
        assert_eq!(errno("way/file"), Some(libc::ELOOP));
        assert_eq!(errno("../secret"), Some(libc::EXDEV));
        assert_eq!(errno("/etc/passwd"), Some(libc::EXDEV));
        assert!(open_beneath(&top, Path::new("sub/file"), libc::O_RDONLY).is_ok());
        assert!(open_beneath(&top, Path::new(""), libc::O_RDONLY | libc::O_DIRECTORY).is_ok());
    }
}
