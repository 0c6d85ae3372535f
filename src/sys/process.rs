//! Calls on the process itself.

use std::io;

/// Returns the user id that decides what the process may do.
pub fn effective_uid() -> u32 {
    // SAFETY: the call has no arguments and always succeeds.
    unsafe { libc::geteuid() }
}

/// Returns the group id that decides what the process may do.
pub fn effective_gid() -> u32 {
    // SAFETY: the call has no arguments and always succeeds.
    unsafe { libc::getegid() }
}

/// Returns the supplementary groups of a process; none when it cannot be seen.
pub fn groups_of(pid: u32) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    groups.split_whitespace().filter_map(|group| group.parse().ok()).collect()
}

/// Sets the permission bits that new files do not get.
pub fn set_umask(mask: u32) -> u32 {
    // SAFETY: the call takes an integer and always succeeds.
    unsafe { libc::umask(mask) }
}

/// Raises the number of files the process may have open to what the system allows.
pub fn raise_open_files_limit() -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is valid for the duration of the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Points the standard streams at /dev/null, so that whoever waits for their end goes on; starts a session of our own.
pub fn let_go_of_standard_streams() {
    use std::os::fd::AsRawFd;
    // SAFETY: the call has no arguments; failing (we lead a group already) changes nothing.
    unsafe { libc::setsid() };
    let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") else { return };
    for stream in 0..=2 {
        // SAFETY: both are valid descriptors; the standard streams are replaced, as dup2(2) describes.
        unsafe { libc::dup2(null.as_raw_fd(), stream) };
    }
}
