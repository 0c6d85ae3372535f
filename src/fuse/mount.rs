//! How a mount is made, and why it could not be.

use super::options::MountOptions;
use fuser::{Config, MountOption, SessionACL};
use std::path::{Path, PathBuf};
use std::{fmt, io};

/// Why a mount could not be made or served.
#[derive(Debug)]
pub struct MountError {
    path: PathBuf,
    source: io::Error,
}

impl MountError {
    pub(super) fn new(path: &Path, source: io::Error) -> Self {
        Self { path: path.to_owned(), source }
    }
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot mount at {}: {}", self.path.display(), self.source)
    }
}

impl std::error::Error for MountError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// A flag of mount(2) must be given as one; any other word goes to the kernel as text.
fn option_of(word: &str) -> MountOption {
    match word {
        "noexec" => MountOption::NoExec,
        "noatime" => MountOption::NoAtime,
        "sync" => MountOption::Sync,
        "dirsync" => MountOption::DirSync,
        _ => MountOption::CUSTOM(word.to_owned()),
    }
}

/// Returns what fuser is to mount with; `source` is shown as the source.
pub(super) fn session_config(source: &Path, options: &MountOptions) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(source.display().to_string()),
        MountOption::CUSTOM("subtype=mementofs".into()),
        MountOption::DefaultPermissions,
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    if options.read_only {
        config.mount_options.push(MountOption::RO);
    }
    config.mount_options.extend(options.further.iter().map(|word| option_of(word)));
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config
}
