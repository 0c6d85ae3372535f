//! Opening below a directory that is held open: no link, `..` or mount of /proc leads out of it, whoever changes it meanwhile.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Longest path that one call takes, its end included (path_resolution(7)).
const PATH_BYTES_MAX: usize = libc::PATH_MAX as usize;

/// Opens a directory to work below; the path to it may lead through symbolic links.
pub fn open_directory(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC).open(path)
}

/// Opens `path` below the open directory `dir` with the flags and mode of open(2) (openat2(2), RESOLVE_BENEATH,
/// RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS). An empty path is the directory itself.
///
/// A symbolic link on the way fails with ELOOP, `..` out of the directory and an absolute path with EXDEV. The path may be
/// longer than PATH_MAX: it is then walked in steps. With `O_PATH | O_NOFOLLOW` the last part may be a link, which is then
/// what is opened.
pub fn open_beneath(dir: &File, path: &Path, flags: libc::c_int, mode: u32) -> io::Result<File> {
    let mut bytes = path.as_os_str().as_bytes();
    let mut stepped: Option<File> = None;
    while bytes.len() >= PATH_BYTES_MAX {
        let Some(cut) = bytes[..PATH_BYTES_MAX - 1].iter().rposition(|byte| *byte == b'/').filter(|cut| *cut > 0) else {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        };
        stepped = Some(open_step(stepped.as_ref().unwrap_or(dir), &bytes[..cut], libc::O_PATH | libc::O_DIRECTORY, 0)?);
        bytes = &bytes[cut + 1..];
    }
    let last: &[u8] = if bytes.is_empty() { b"." } else { bytes };
    open_step(stepped.as_ref().unwrap_or(dir), last, flags, mode)
}

fn open_step(dir: &File, path: &[u8], flags: libc::c_int, mode: u32) -> io::Result<File> {
    let text = CString::new(path).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: all fields of `open_how` are integers, for which zero is a valid value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.mode = if flags & libc::O_CREAT != 0 { u64::from(mode) } else { 0 };
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
    loop {
        // SAFETY: `text` is a NUL-terminated string and `how` a valid `open_how` of the size given, both for the duration of the call.
        let opened = unsafe {
            libc::syscall(libc::SYS_openat2, dir.as_raw_fd(), text.as_ptr(), &raw const how, size_of::<libc::open_how>())
        };
        match i32::try_from(opened) {
            // SAFETY: the call returned a new descriptor that nobody else owns.
            Ok(fd) if fd >= 0 => return Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) })),
            _ => match io::Error::last_os_error() {
                // EAGAIN: something was renamed on the way, and the kernel could not be sure.
                err if matches!(err.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => {}
                err => return Err(err),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn errno(result: io::Result<File>) -> Option<i32> {
        result.unwrap_err().raw_os_error()
    }

    #[test]
    fn nothing_leads_out_of_the_directory() {
        let temp = tempfile::tempdir().unwrap();
        let top = temp.path().join("top");
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::write(temp.path().join("secret"), "s").unwrap();
        fs::write(top.join("a/b/file"), "f").unwrap();
        symlink("../secret", top.join("link")).unwrap();
        symlink("a", top.join("inner")).unwrap();
        symlink("/proc/self/root", top.join("magic")).unwrap();
        let dir = open_directory(&top).unwrap();
        let open = |path: &str| open_beneath(&dir, Path::new(path), libc::O_RDONLY, 0);
        assert!(open("a/b/file").is_ok());
        assert!(open("").unwrap().metadata().unwrap().is_dir());
        assert!(open("a/../a/b/file").is_ok());
        for link in ["link", "inner/b/file", "magic/etc/passwd"] {
            assert_eq!(errno(open(link)), Some(libc::ELOOP), "{link}");
        }
        for out in ["../secret", "/etc/passwd", "a/../../secret"] {
            assert_eq!(errno(open(out)), Some(libc::EXDEV), "{out}");
        }
        let pinned = open_beneath(&dir, Path::new("link"), libc::O_PATH | libc::O_NOFOLLOW, 0).unwrap();
        assert!(pinned.metadata().unwrap().is_symlink());
    }

    #[test]
    fn a_file_is_made_with_its_mode_and_never_over_another() {
        use std::os::unix::fs::PermissionsExt;
        let temp = tempfile::tempdir().unwrap();
        let dir = open_directory(temp.path()).unwrap();
        let make = || open_beneath(&dir, Path::new("new"), libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o600);
        assert_eq!(make().unwrap().metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(errno(make()), Some(libc::EEXIST));
    }

    #[test]
    fn paths_longer_than_the_kernel_takes_are_walked_in_steps() {
        let temp = tempfile::tempdir().unwrap();
        let name = "d".repeat(200);
        let top = open_directory(temp.path()).unwrap();
        let mut path = std::path::PathBuf::new();
        for _ in 0..60 {
            let at = open_beneath(&top, &path, libc::O_PATH | libc::O_DIRECTORY, 0).unwrap();
            fs::create_dir(format!("/proc/self/fd/{}/{name}", at.as_raw_fd())).unwrap();
            path.push(&name);
        }
        assert!(path.as_os_str().len() > 2 * PATH_BYTES_MAX);
        assert!(open_beneath(&top, &path, libc::O_RDONLY, 0).unwrap().metadata().unwrap().is_dir());
        path.push("missing");
        assert_eq!(errno(open_beneath(&top, &path, libc::O_RDONLY, 0)), Some(libc::ENOENT));
        let endless = "x".repeat(PATH_BYTES_MAX);
        assert_eq!(errno(open_beneath(&top, Path::new(&endless), libc::O_RDONLY, 0)), Some(libc::ENAMETOOLONG));
    }
}
