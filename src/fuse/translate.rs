//! Translates what the kernel asks: nodes, names, attributes, modes and failures.

use super::errno::{errno_of, errno_of_command};
use crate::control::{Caller, CommandError};
use crate::object::{EntryKind, Name, Timestamp};
use crate::watchdog;
use crate::workspace::clock;
use crate::workspace::{
    ACL_ACCESS, ACL_DEFAULT, AttributeChange, Ino, NewNode, RangeChange, RenameMode, WorkspaceError, XattrMode,
};
use fuser::{Errno, RenameFlags, Request, TimeOrNow};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::SystemTime;

const SETUID: u32 = 0o4000;
pub(super) const SETGID: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o010;

/// Runs a handler's work; a panic is an I/O error for this request alone.
pub(super) fn guarded<T>(operation: &'static str, work: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    let _during = watchdog::during(operation);
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        tracing::error!(operation, "a request failed by a fault of our own");
        Err(Errno::EIO)
    })
}

pub(super) fn refused(operation: &'static str, ino: Ino) -> impl Fn(WorkspaceError) -> Errno {
    move |err| {
        let errno = errno_of(&err);
        if matches!(errno.code(), libc::EIO | libc::EROFS | libc::ENOSPC) {
            tracing::warn!(operation, ino, %err, "request failed");
        }
        errno
    }
}

pub(super) fn denied(err: CommandError) -> Errno {
    errno_of_command(&err)
}

pub(super) fn name_of(name: &OsStr) -> Result<Name, Errno> {
    Name::new(name.as_bytes()).map_err(|err| errno_of(&err.into()))
}

pub(super) fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}

pub(super) fn attribute_change(
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    atime: Option<TimeOrNow>,
    mtime: Option<TimeOrNow>,
) -> AttributeChange {
    let now = clock::now();
    let time = |time| match time {
        TimeOrNow::SpecificTime(time) => sent_time(time),
        TimeOrNow::Now => now,
    };
    AttributeChange {
        mode: mode.map(|mode| mode & 0o7777),
        uid,
        gid,
        size_bytes: size,
        atime: atime.map(time),
        mtime: mtime.map(time),
    }
}

/// Returns the time that the kernel sent. fuser 0.18 subtracts the nanoseconds of times before 1970 where the kernel adds them.
fn sent_time(decoded: SystemTime) -> Timestamp {
    match decoded.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(_) => Timestamp::from(decoded),
        Err(before) => {
            let before = before.duration();
            Timestamp { secs: 0i64.saturating_sub_unsigned(before.as_secs()), nanos: before.subsec_nanos() }
        }
    }
}

pub(super) fn stripped(mode: u32) -> u32 {
    let mode = mode & !SETUID;
    if mode & GROUP_EXECUTE != 0 { mode & !SETGID } else { mode }
}

/// Returns how a rename treats what stands at the new name, and whether a whiteout is left at the old one.
pub(super) fn rename_mode(flags: RenameFlags) -> Result<(RenameMode, bool), Errno> {
    let leaves = flags.contains(RenameFlags::RENAME_WHITEOUT);
    match flags.difference(RenameFlags::RENAME_WHITEOUT) {
        flags if flags.is_empty() => Ok((RenameMode::Replace, leaves)),
        RenameFlags::RENAME_NOREPLACE => Ok((RenameMode::NoReplace, leaves)),
        RenameFlags::RENAME_EXCHANGE if !leaves => Ok((RenameMode::Exchange, false)),
        _ => Err(Errno::EINVAL),
    }
}

/// Returns what an overlay takes for "nothing is here": a device without a number, which belongs to the caller.
pub(super) fn whiteout(request: &Request) -> NewNode {
    let (uid, gid) = (request.uid(), request.gid());
    NewNode { kind: EntryKind::CharDevice, mode: 0, uid, gid, device: 0, target: Box::default() }
}

/// Returns whether an extended attribute may, must or must not exist already.
pub(super) fn xattr_mode(flags: i32) -> Result<XattrMode, Errno> {
    match flags {
        0 => Ok(XattrMode::Set),
        libc::XATTR_CREATE => Ok(XattrMode::Create),
        libc::XATTR_REPLACE => Ok(XattrMode::Replace),
        flags if flags == libc::XATTR_CREATE | libc::XATTR_REPLACE => Ok(XattrMode::CreateAndReplace),
        _ => Err(Errno::EINVAL),
    }
}

/// Returns what fallocate(2) does to a range, and whether the size stays.
pub(super) fn range_change(mode: i32) -> Result<(RangeChange, bool), Errno> {
    let change = match mode & !libc::FALLOC_FL_KEEP_SIZE {
        0 => RangeChange::Allocate,
        libc::FALLOC_FL_PUNCH_HOLE => RangeChange::Punch,
        libc::FALLOC_FL_ZERO_RANGE => RangeChange::Zero,
        _ => return Err(Errno::EOPNOTSUPP),
    };
    Ok((change, mode & libc::FALLOC_FL_KEEP_SIZE != 0))
}

/// Refuses the names of extended attributes that ext4 refuses.
pub(super) fn check_xattr_name(name: &OsStr) -> Result<(), Errno> {
    if [ACL_ACCESS, ACL_DEFAULT].contains(&name.as_bytes()) {
        return Ok(());
    }
    let known = [&b"user."[..], b"trusted.", b"security."];
    match known.iter().find_map(|prefix| name.as_bytes().strip_prefix(*prefix)) {
        Some([]) => Err(Errno::EINVAL),
        Some(_) => Ok(()),
        None => Err(Errno::EOPNOTSUPP),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_i_o_error_for_its_request_and_the_next_is_answered() {
        let failed = guarded::<()>("test", || panic!("a fault of our own"));
        assert_eq!(failed.unwrap_err().code(), libc::EIO);
        assert_eq!(guarded("test", || Ok(7)).unwrap(), 7);
    }
}
