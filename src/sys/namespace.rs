//! Mount namespaces: a command sees a directory at another place, and nobody else does (mount_namespaces(7)).

use super::process::{effective_gid, effective_uid};
use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// What a child needs to leave for a namespace of its own, made before the fork: between fork and exec nothing may allocate.
struct Passage {
    user_map: Vec<u8>,
    group_map: Vec<u8>,
}

impl Passage {
    fn new() -> Self {
        // Inside, the user and its files have the numbers that they have outside.
        let (user, group) = (effective_uid(), effective_gid());
        Self { user_map: format!("{user} {user} 1").into_bytes(), group_map: format!("{group} {group} 1").into_bytes() }
    }

    /// Moves the calling process into mounts of its own: as root at once, else as the root of a user namespace.
    fn take(&self) -> io::Result<()> {
        match unshare(libc::CLONE_NEWNS) {
            Err(err) if err.raw_os_error() == Some(libc::EPERM) => {
                unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)?;
                write_to(c"/proc/self/setgroups", b"deny")?; // user_namespaces(7): before the map of groups.
                write_to(c"/proc/self/uid_map", &self.user_map)?;
                write_to(c"/proc/self/gid_map", &self.group_map)?;
            }
            done => done?,
        }
        // Nothing that is mounted here may appear outside.
        mount(None, c"/", libc::MS_REC | libc::MS_PRIVATE)
    }
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: the call takes an integer and concerns this process alone.
    checked(unsafe { libc::unshare(flags) })
}

fn mount(source: Option<&CStr>, at: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    let source = source.map_or(std::ptr::null(), CStr::as_ptr);
    let none = std::ptr::null();
    // SAFETY: the strings are NUL-terminated for the duration of the call; a null source, type and data are allowed.
    checked(unsafe { libc::mount(source, at.as_ptr(), none, flags, none.cast()) })
}

fn write_to(path: &CStr, text: &[u8]) -> io::Result<()> {
    // SAFETY: `path` is a NUL-terminated string for the duration of the call.
    let descriptor = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open and `text` valid for its length.
    let written = unsafe { libc::write(descriptor, text.as_ptr().cast(), text.len()) };
    let result = if written == text.len() as isize { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: the descriptor is ours and is not used afterwards.
    unsafe { libc::close(descriptor) };
    result
}

/// Says whether commands can be given mounts of their own here; tries it in a child that ends at once.
pub fn may_isolate() -> io::Result<()> {
    let passage = Passage::new();
    // SAFETY: the child calls nothing but raw system calls and _exit(2), which is allowed whatever threads there are.
    let child = unsafe { libc::fork() };
    match child {
        -1 => return Err(io::Error::last_os_error()),
        0 => {
            let code = passage.take().err().map_or(0, |err| err.raw_os_error().unwrap_or(libc::EPERM));
            // SAFETY: the call ends the child without running anything of ours.
            unsafe { libc::_exit(code & 0xff) }
        }
        _ => {}
    }
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid place for the result, and the child is ours.
        if unsafe { libc::waitpid(child, &mut status, 0) } == child {
            break;
        }
        let err = io::Error::last_os_error();
        if err.kind() != io::ErrorKind::Interrupted {
            return Err(err);
        }
    }
    match libc::WEXITSTATUS(status) {
        0 if libc::WIFEXITED(status) => Ok(()),
        code => Err(io::Error::from_raw_os_error(if libc::WIFEXITED(status) { code } else { libc::EPERM })),
    }
}

/// Lets `command` see `directory` at `at`, in mounts of its own, and start there.
pub fn show_at(command: &mut Command, directory: &Path, at: &Path) -> io::Result<()> {
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let (directory, at, passage) = (text(directory)?, text(at)?, Passage::new());
    let enter = move || {
        passage.take()?;
        mount(Some(&directory), &at, libc::MS_BIND | libc::MS_REC)?;
        // SAFETY: `at` is a NUL-terminated string for the duration of the call.
        checked(unsafe { libc::chdir(at.as_ptr()) })
    };
    // SAFETY: between fork and exec the closure makes raw system calls alone; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(enter) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_sees_a_directory_elsewhere_and_nobody_else_does() {
        may_isolate().expect("namespaces are allowed where tests run");
        let dir = tempfile::tempdir().unwrap();
        let (from, at) = (dir.path().join("from"), dir.path().join("at"));
        std::fs::create_dir(&from).unwrap();
        std::fs::create_dir(&at).unwrap();
        std::fs::write(from.join("file"), "x").unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "pwd -P; id -u; ls"]);
        show_at(&mut command, &from, &at).unwrap();
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said, format!("{}\n{}\nfile\n", at.canonicalize().unwrap().display(), effective_uid()));
        assert_eq!(std::fs::read_dir(&at).unwrap().count(), 0);
    }
}
