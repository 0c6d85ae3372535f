//! Calls on the process itself.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

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

/// Returns milliseconds since some instant, as of the last tick of the clock: cheap and a few milliseconds behind (clock_gettime(2)).
pub fn coarse_millis() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place for the result; the clock exists since Linux 2.6.32.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut now) };
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
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

fn open_files() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit)
}

/// Raises the number of files the process may have open to what the system allows.
pub fn raise_open_files_limit() -> io::Result<()> {
    let mut limit = open_files()?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is valid for the duration of the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Returns how many files the process may have open.
pub fn open_files_limit() -> usize {
    const ALLOWED_EVERYWHERE: usize = 20; // _POSIX_OPEN_MAX, limits.h
    open_files().map_or(ALLOWED_EVERYWHERE, |limit| usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX))
}

/// Points the standard streams at /dev/null, so that whoever waits for their end goes on; starts a session of our own.
pub fn let_go_of_standard_streams() {
    // SAFETY: the call has no arguments; failing (we lead a group already) changes nothing.
    unsafe { libc::setsid() };
    let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") else { return };
    for stream in 0..=2 {
        // SAFETY: both are valid descriptors; the standard streams are replaced, as dup2(2) describes.
        unsafe { libc::dup2(null.as_raw_fd(), stream) };
    }
}

/// Sets the allocator up for a daemon: its threads share one arena, which grows in large steps. An arena of a thread of
/// its own grows by a page at a time, with a system call each.
pub fn tune_allocator() {
    const STEP_BYTES: libc::c_int = 1 << 20;
    const LARGE_BYTES: libc::c_int = 8 << 20;
    for (parameter, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_TOP_PAD, STEP_BYTES),
        (libc::M_TRIM_THRESHOLD, 4 * LARGE_BYTES),
        (libc::M_MMAP_THRESHOLD, LARGE_BYTES),
    ] {
        // SAFETY: mallopt(3) takes two integers; what it does not know it leaves as it is.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Returns the milliseconds of processor time that the process used (clock_gettime(2)).
pub fn process_millis() -> u64 {
    let mut used = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `used` is a valid place for the result; the clock exists since Linux 2.6.12.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut used) };
    used.tv_sec as u64 * 1000 + used.tv_nsec as u64 / 1_000_000
}

/// Gives free memory back to the system (malloc_trim(3)).
pub fn give_memory_back() {
    // SAFETY: the call takes an integer and touches free memory alone, under the allocator's own locks.
    unsafe { libc::malloc_trim(0) };
}

/// Makes the calling thread give way to others when they want its processor; threads that it starts inherit that.
pub fn give_way() {
    const NICE: libc::c_int = 10;
    // SAFETY: the call takes integers; 0 is the calling thread, as setpriority(2) has it on Linux.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

/// Says, without waiting, whether there is something to read.
pub fn is_readable(file: impl AsFd) -> bool {
    poll_readable(file, 0)
}

/// Another process, which may end at any time; its number may belong to a third one then, this does not.
#[derive(Debug)]
pub struct OtherProcess(OwnedFd);

impl OtherProcess {
    /// Finds a process by its number (pidfd_open(2)).
    pub fn find(pid: libc::pid_t) -> io::Result<Self> {
        // SAFETY: the call takes two integers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
    }

    /// Returns when it has ended and has nothing open any more, or after `patience`.
    pub fn wait_until_ended(&self, patience: Duration) {
        poll_readable(&self.0, i32::try_from(patience.as_millis()).unwrap_or(i32::MAX));
    }
}

fn poll_readable(file: impl AsFd, millis: i32) -> bool {
    let mut entry = libc::pollfd { fd: file.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: `entry` is one valid pollfd for the duration of the call, and its descriptor is borrowed.
    unsafe { libc::poll(&mut entry, 1, millis) > 0 }
}
