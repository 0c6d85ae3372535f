//! Mount points: what is mounted where, and how to get rid of it.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A line of /proc/self/mountinfo (proc(5)).
struct MountLine {
    /// The directory of the file system that is mounted there.
    root: PathBuf,
    point: PathBuf,
    kind: String,
    source: PathBuf,
}

fn mounts() -> io::Result<Vec<MountLine>> {
    mounts_of(Path::new("/proc/self/mountinfo"))
}

fn mounts_of(mountinfo: &Path) -> io::Result<Vec<MountLine>> {
    Ok(std::fs::read(mountinfo)?.split(|byte| *byte == b'\n').filter_map(parse_line).collect())
}

fn parse_line(line: &[u8]) -> Option<MountLine> {
    let mut fields = line.split(|byte| *byte == b' ');
    let root = unescaped(fields.nth(3)?);
    let point = fields.next()?;
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = String::from_utf8_lossy(rest.next()?).into_owned();
    let source = unescaped(rest.next()?);
    Some(MountLine { root, point: unescaped(point), kind, source })
}

/// Undoes the octal escapes of spaces, tabs, newlines and backslashes.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// Says whether something is mounted exactly at `path`.
pub fn is_mounted(path: &Path) -> io::Result<bool> {
    Ok(mounts()?.iter().any(|mount| mount.point == path))
}

fn is_of(mount: &MountLine, store: &Path) -> bool {
    mount.kind.starts_with("fuse") && mount.source == store
}

/// Returns the directories of mounts of the store at `store` that are mounted by themselves, as `mountinfo` shows.
pub(super) fn mounted_parts(mountinfo: &Path, store: &Path) -> Vec<PathBuf> {
    let mounts = mounts_of(mountinfo).unwrap_or_default();
    mounts.into_iter().filter(|mount| is_of(mount, store)).map(|mount| mount.root).collect()
}

/// Returns where the store at `store` is mounted as a whole.
pub fn mount_points_of(store: &Path) -> Vec<PathBuf> {
    let of_store = |mount: &MountLine| is_of(mount, store) && mount.root == Path::new("/");
    mounts().unwrap_or_default().into_iter().filter(of_store).map(|mount| mount.point).collect()
}

/// Returns what is mounted exactly at `path`, if it is one of ours: the path of the store.
pub fn source_of(path: &Path) -> Option<PathBuf> {
    let ours = |mount: &MountLine| mount.point == path && mount.kind == "fuse.mementofs";
    mounts().ok()?.into_iter().rev().find(ours).map(|mount| mount.source)
}

/// Unmounts what is mounted at `path`; fails when it is in use.
pub fn unmount(path: &Path) -> io::Result<()> {
    let text = CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: `text` is a NUL-terminated string for the duration of the call.
    if unsafe { libc::umount2(text.as_ptr(), libc::UMOUNT_NOFOLLOW) } == 0 {
        return Ok(());
    }
    let err = io::Error::last_os_error();
    if err.raw_os_error() != Some(libc::EPERM) {
        return Err(err);
    }
    let output = Command::new("fusermount3").arg("-u").arg(path).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Detaches what is mounted at `path`, even if it is in use or its daemon is dead. Best effort.
pub fn detach(path: &Path) {
    let Ok(text) = CString::new(path.as_os_str().as_bytes()) else { return };
    // SAFETY: `text` is a NUL-terminated string for the duration of the call.
    if unsafe { libc::umount2(text.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) } == 0 {
        return;
    }
    if io::Error::last_os_error().raw_os_error() != Some(libc::EPERM) {
        return; // Nothing is mounted there.
    }
    let quiet = |mut command: Command| command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let mut helper = Command::new("fusermount3");
    helper.arg("-uzq").arg(path);
    let _ = quiet(helper);
}

/// Frees a mount point whose daemon died. Says whether it was one.
pub fn free_dead_mount(path: &Path) -> bool {
    let dead = is_dead(path);
    if dead {
        detach(path);
    }
    dead
}

/// Says whether nobody answers for the mount at `path` any more. Attributes may be cached; statvfs(2) never is.
fn is_dead(path: &Path) -> bool {
    let Ok(text) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let mut space = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `text` is a NUL-terminated string and `space` has room for the result.
    let failed = unsafe { libc::statvfs(text.as_ptr(), space.as_mut_ptr()) } != 0;
    // ECONNABORTED: the daemon died while it was being asked.
    failed && matches!(io::Error::last_os_error().raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_line_is_taken_apart() {
        let line = b"36 35 98:0 / /mnt/a\\040b rw,noatime shared:1 - fuse.mementofs /srv/store rw";
        let mount = parse_line(line).unwrap();
        assert_eq!((mount.root.as_path(), mount.point.as_path()), (Path::new("/"), Path::new("/mnt/a b")));
        assert_eq!((mount.kind.as_str(), mount.source.as_path()), ("fuse.mementofs", Path::new("/srv/store")));
        assert!(parse_line(b"garbage").is_none());
    }
}
