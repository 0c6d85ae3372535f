//! Calls around files that the kernel reads and writes for a FUSE mount by itself.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Number of CAP_SYS_ADMIN in capabilities(7).
const SYS_ADMIN: u32 = 21;
/// FUSE_DEV_IOC_BACKING_CLOSE, as linux/fuse.h has it.
const BACKING_CLOSE: libc::c_ulong = 0x4004_e502;

/// Says whether anybody but the holder of this description, which is open for reading alone, has a descriptor or a mapping
/// of the file: no lease for writing is to be had then (fcntl(2), F_SETLEASE). When in doubt somebody has.
pub fn has_others(file: &File) -> bool {
    // SAFETY: the descriptor stays open while `file` is borrowed; the call takes integers.
    let lease = |kind: libc::c_int| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) };
    if lease(libc::F_WRLCK) != 0 {
        return true;
    }
    lease(libc::F_UNLCK);
    false
}

/// Stores a byte at the start of a file, which is not empty, through a shared mapping (mmap(2)), calls `between`, and stores another.
pub fn store_through_mapping(file: &File, between: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    const LEN: usize = 4096;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice; the descriptor stays open while it is borrowed.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), LEN, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping was just made, is writable and longer than a byte, and nobody else knows of it.
    unsafe { start.cast::<u8>().write_volatile(b'm') };
    let done = between();
    // SAFETY: as above.
    unsafe { start.cast::<u8>().write_volatile(b'n') };
    // SAFETY: exactly the mapping made above; nothing refers to it any more.
    unsafe { libc::munmap(start, LEN) };
    done
}

/// Takes back a backing id that was got from a FUSE device.
pub fn close_backing(device: impl AsFd, id: u32) -> io::Result<()> {
    // SAFETY: the request reads one integer, which lives during the call; the descriptor is borrowed.
    let result = unsafe { libc::ioctl(device.as_fd().as_raw_fd(), BACKING_CLOSE, &id) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Says whether a file lies on a file system whose times are known to tell every change (statfs(2)): ext4, XFS or btrfs.
pub fn is_on_known_file_system(file: &File) -> bool {
    const KNOWN: [i64; 3] = [0xef53, 0x5846_5342, 0x9123_683e];
    // SAFETY: all fields of `statfs` are integers, for which zero is a valid value.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `found` is a valid place for the result; the descriptor is open.
    unsafe { libc::fstatfs(file.as_raw_fd(), &mut found) == 0 && KNOWN.contains(&(found.f_type as i64)) }
}

/// Says whether the process has CAP_SYS_ADMIN in the user namespace that the machine started with.
pub fn administers_machine() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    effective >> SYS_ADMIN & 1 == 1 && map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_other_descriptors_or_mappings_has_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let writer = File::create(&path).unwrap();
        let own = File::open(&path).unwrap();
        assert!(has_others(&own));
        drop(writer);
        assert!(!has_others(&own));
        let reader = File::open(&path).unwrap();
        assert!(has_others(&own));
        drop(reader);
        assert!(!has_others(&own));
    }
}
