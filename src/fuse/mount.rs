//! Puts a branch at a mount point and serves it until it is unmounted.

use super::filesystem::MementoFilesystem;
use super::notify::Invalidator;
use super::pool::Pool;
use crate::control::ControlDirectory;
use crate::sys;
use crate::workspace::Workspace;
use fuser::{Config, MountOption, Session, SessionACL, SessionUnmounter};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

/// Threads for commands, syncs and large reads.
const POOL_THREADS: usize = 6;

/// How a mount is made.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Lets other users in; the kernel checks modes.
    pub allow_other: bool,
    /// Refuses changes.
    pub read_only: bool,
    /// Name of the control directory.
    pub control_name: String,
    /// Options handed to the kernel or fusermount as they are.
    pub further: Vec<String>,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self { allow_other: false, read_only: false, control_name: ".memento".into(), further: Vec::new() }
    }
}

/// Why a mount could not be made or served.
#[derive(Debug)]
pub struct MountError {
    path: PathBuf,
    source: io::Error,
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

/// A mount that is made and not served yet.
pub struct Mount {
    session: Session<MementoFilesystem>,
    path: PathBuf,
}

/// Ends a mount from another thread.
pub struct Unmounter(SessionUnmounter);

impl Unmounter {
    /// Unmounts; the serving thread then ends by itself. A mount that is in use is detached lazily.
    pub fn unmount(&mut self) -> io::Result<()> {
        self.0.unmount()
    }
}

impl Mount {
    /// Mounts `workspace` at `path`, of which `source` is shown as the source.
    pub fn new(
        workspace: Arc<Workspace>,
        control: Arc<ControlDirectory>,
        source: &Path,
        path: &Path,
        options: &MountOptions,
    ) -> Result<Self, MountError> {
        let failed = |source| MountError { path: path.to_owned(), source };
        let invalidator = Invalidator::start().map_err(failed)?;
        let filesystem = MementoFilesystem {
            workspace,
            control,
            control_name: options.control_name.as_bytes().into(),
            pool: Pool::start(POOL_THREADS).map_err(failed)?,
            background: Pool::start_in_background().map_err(failed)?,
            invalidator: invalidator.clone(),
        };
        let session = Session::new(filesystem, path, &config(source, options)).map_err(failed)?;
        invalidator.connect(session.notifier());
        super::linger::watch(session.as_fd().try_clone_to_owned().map_err(failed)?);
        Ok(Self { session, path: path.to_owned() })
    }

    /// Returns what ends the mount from another thread.
    pub fn unmounter(&mut self) -> Unmounter {
        Unmounter(self.session.unmount_callable())
    }

    /// Answers requests until the mount ends.
    pub fn serve(self) -> Result<(), MountError> {
        let Self { session, path } = self;
        session.run().map_err(|source| MountError { path, source })
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

fn config(source: &Path, options: &MountOptions) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(source.display().to_string()),
        MountOption::CUSTOM("subtype=mementofs".into()),
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    if options.allow_other || sys::effective_uid() != 0 {
        config.mount_options.push(MountOption::DefaultPermissions); // Root alone may do anything: see docs/decisions/0050.
    }
    if options.read_only {
        config.mount_options.push(MountOption::RO);
    }
    config.mount_options.extend(options.further.iter().map(|word| option_of(word)));
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config
}
