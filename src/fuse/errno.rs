//! The one table from errors to the errno a calling program sees.

use crate::control::CommandError;
use crate::history::HistoryError;
use crate::repository::RepositoryError;
use crate::store::StoreError;
use crate::tree::TreeError;
use crate::workspace::WorkspaceError;
use fuser::Errno;

/// Returns the errno for a file operation.
pub fn errno_of(err: &WorkspaceError) -> Errno {
    match err {
        WorkspaceError::NotFound(_) => Errno::ENOENT,
        WorkspaceError::Exists(_) => Errno::EEXIST,
        WorkspaceError::NotDirectory => Errno::ENOTDIR,
        WorkspaceError::IsDirectory => Errno::EISDIR,
        WorkspaceError::NotEmpty => Errno::ENOTEMPTY,
        WorkspaceError::Invalid(_) => Errno::EINVAL,
        WorkspaceError::NotPermitted => Errno::EPERM,
        WorkspaceError::NameTooLong => Errno::ENAMETOOLONG,
        WorkspaceError::FileTooLarge => Errno::EFBIG,
        WorkspaceError::NoData(_) => Errno::ENODATA,
        WorkspaceError::TooLarge => Errno::ENOSPC, // setxattr(2) of ext4
        WorkspaceError::TooManyLinks => Errno::EMLINK,
        WorkspaceError::Unsupported => Errno::EOPNOTSUPP,
        WorkspaceError::Ambiguous(_) => Errno::from_i32(libc::ENOTUNIQ),
        WorkspaceError::Stale(_) => Errno::ESTALE,
        WorkspaceError::Busy(_) => Errno::EBUSY,
        WorkspaceError::ReadOnly => Errno::EROFS,
        WorkspaceError::NoSuchOffset => Errno::ENXIO,
        WorkspaceError::Io { source, .. } => space_or_io(source.raw_os_error()),
        WorkspaceError::Store(err) => store(err),
        WorkspaceError::Tree(err) => tree(err),
        WorkspaceError::Repository(err) => repository(err),
    }
}

/// Returns the errno for a command.
pub fn errno_of_command(err: &CommandError) -> Errno {
    match err {
        CommandError::Invalid(_) => Errno::EINVAL,
        CommandError::TooLong => Errno::E2BIG,
        CommandError::Denied => Errno::EACCES,
        CommandError::NotPermitted => Errno::EPERM,
        CommandError::ReadOnly => Errno::EROFS,
        CommandError::NotFound(_) => Errno::ENOENT,
        CommandError::Exists(_) => Errno::EEXIST,
        CommandError::NotDirectory => Errno::ENOTDIR,
        CommandError::IsDirectory => Errno::EISDIR,
        CommandError::NoData => Errno::ENODATA,
        CommandError::NoSuchOffset => Errno::ENXIO,
        CommandError::Workspace(err) => errno_of(err),
    }
}

fn repository(err: &RepositoryError) -> Errno {
    match err {
        RepositoryError::Store(err) => store(err),
        RepositoryError::History(err) => history(err),
        RepositoryError::Tree(err) => tree(err),
        RepositoryError::Decode { .. } => Errno::EIO,
        RepositoryError::Io { source, .. } => space_or_io(source.raw_os_error()),
        RepositoryError::Busy(_) => Errno::EBUSY,
        RepositoryError::Invalid(_) => Errno::EINVAL,
        RepositoryError::Other(_) => Errno::EIO,
    }
}

fn history(err: &HistoryError) -> Errno {
    match err {
        HistoryError::NotFound { .. } | HistoryError::NoBranch { .. } => Errno::ENOENT,
        HistoryError::Ambiguous { .. } => Errno::from_i32(libc::ENOTUNIQ),
        HistoryError::NameTaken { .. } => Errno::EEXIST,
        HistoryError::BadName { .. } => Errno::EINVAL,
        HistoryError::InUse { .. } => Errno::EBUSY,
        HistoryError::Full => Errno::ENOSPC,
        _ => Errno::EIO,
    }
}

fn store(err: &StoreError) -> Errno {
    space_or_io(err.raw_os_error())
}

fn tree(err: &TreeError) -> Errno {
    match err {
        TreeError::NotADirectory { .. } => Errno::ENOTDIR,
        TreeError::Source(source) => source.downcast_ref::<RepositoryError>().map_or(Errno::EIO, repository),
        _ => Errno::EIO,
    }
}

/// Lack of space is the caller's to handle; what else fails below us is an I/O error to the caller.
fn space_or_io(raw: Option<i32>) -> Errno {
    match raw {
        Some(libc::ENOSPC) => Errno::ENOSPC,
        Some(libc::EDQUOT) => Errno::EDQUOT,
        Some(libc::EROFS) => Errno::EROFS,
        Some(libc::EFBIG) => Errno::EFBIG,
        Some(libc::EMFILE | libc::ENFILE) => Errno::ENFILE,
        _ => Errno::EIO,
    }
}
