//! The daemon: opens a store, mounts a branch, serves it until a signal or an unmount ends it.

use super::error::CliError;
use super::rest::Rest;
use crate::fuse::{MountOptions, Mounts};
use crate::repository::{Repository, RepositoryError};
use crate::store::StoreError;
use crate::sys;
use crate::watchdog::Watchdog;
use crate::workspace::Branches;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinHandle, spawn_blocking};

/// Written by the daemon to its parent when the mount serves.
const READY: &str = "ready";
/// How often changes that nobody synced are made durable and freed staging files are removed.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// A request that takes longer is named in the log.
const HANG_LIMIT: Duration = Duration::from_secs(30);

/// What to mount where.
#[derive(Clone, Debug)]
pub struct MountPlan {
    /// The store's directory.
    pub store: PathBuf,
    /// Where it is to appear.
    pub mount_point: PathBuf,
    /// The branch to show.
    pub branch: String,
    /// How.
    pub options: MountOptions,
}

/// Opens the store, making it if there is none.
pub fn open_store(path: &Path) -> Result<Arc<Repository>, CliError> {
    let missing = match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => true,
        Err(err) => return Err(CliError::at("cannot read the store", path, err)),
    };
    let umask = sys::set_umask(0o077); // SQLite asks for more than the owner needs.
    let opened = if missing { Repository::create(path) } else { open_free(path) };
    sys::set_umask(umask);
    opened.map_err(|err| CliError::new(format!("cannot open the store {}: {err}", path.display())))
}

/// Opens a store. A daemon that was killed a moment ago may still hold it: without a mount of its own it is waited for.
fn open_free(path: &Path) -> Result<Arc<Repository>, RepositoryError> {
    const TRIES_MAX: u32 = 40;
    const PAUSE: Duration = Duration::from_millis(50);
    let mut tries = 0;
    loop {
        let opened = Repository::open(path);
        let busy = matches!(&opened, Err(RepositoryError::Store(StoreError::Busy { .. })));
        tries += 1;
        if !busy || tries > TRIES_MAX || !sys::mount_points_of(path).is_empty() {
            return opened;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Checks and prepares a plan: both paths become absolute, and neither lies within the other.
pub fn prepare(plan: &mut MountPlan) -> Result<(), CliError> {
    sys::free_dead_mount(&plan.mount_point);
    let point =
        plan.mount_point.canonicalize().map_err(|err| CliError::at("cannot use the mount point", &plan.mount_point, err))?;
    if sys::is_mounted(&point).unwrap_or(false) {
        return Err(CliError::new(format!(
            "{} is a mount point already; unmount it first: mementofs umount {0}",
            point.display()
        )));
    }
    let found = std::fs::metadata(&point).map_err(|err| CliError::at("cannot use the mount point", &point, err))?;
    if !found.is_dir() {
        return Err(CliError::new(format!("the mount point {} is not a directory", point.display())));
    }
    plan.store = absolute(&plan.store)?;
    if point.starts_with(&plan.store) || plan.store.starts_with(&point) {
        let message = format!(
            "the store {} and the mount point {} lie within one another; keep them apart",
            plan.store.display(),
            point.display()
        );
        return Err(CliError::new(message));
    }
    if std::fs::read_dir(&point).is_ok_and(|mut entries| entries.next().is_some()) {
        eprintln!("note: {} is not empty; what is there is hidden while the store is mounted", point.display());
    }
    plan.mount_point = point;
    Ok(())
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    if let Ok(path) = path.canonicalize() {
        return Ok(path);
    }
    let path = std::path::absolute(path).map_err(|err| CliError::at("cannot use the store", path, err))?;
    match (path.parent().map(Path::canonicalize), path.file_name()) {
        (Some(Ok(parent)), Some(name)) => Ok(parent.join(name)),
        _ => Ok(path),
    }
}

/// Mounts and serves in this process until the last mount of the store ends. Calls `ready` when the mount is there.
pub fn serve(plan: &MountPlan, ready: impl FnOnce()) -> Result<(), CliError> {
    sys::set_umask(0o077);
    sys::tune_allocator();
    let _ = sys::raise_open_files_limit();
    let repository = open_store(&plan.store)?;
    if repository.branch(&plan.branch).is_err() {
        return Err(CliError::new(format!("the store {} has no branch {}", plan.store.display(), plan.branch)));
    }
    let branches = Branches::new(repository);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|err| CliError::new(format!("cannot start the runtime: {err}")))?;
    // Before the mount is there: who sees it may send a signal.
    let signals = runtime.block_on(async { Signals::install() });
    let signals = signals.map_err(|err| CliError::new(format!("cannot handle signals: {err}")))?;
    let mounts = Mounts::new(branches.clone(), &plan.store);
    let mounts = mounts.map_err(|err| CliError::new(format!("cannot start threads: {err}")))?;
    mounts.mount(&plan.branch, &plan.mount_point, &plan.options).map_err(|err| match plan.options.further.is_empty() {
        true => CliError::new(err.to_string()),
        false => CliError::new(format!("{err} (is one of these options wrong: {}?)", plan.options.further.join(","))),
    })?;
    let _watchdog = Watchdog::start(hang_limit()).map_err(|err| CliError::new(format!("cannot start a thread: {err}")))?;
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    let (upkept, unmounted) = (branches.clone(), mounts.clone());
    let waiter = std::thread::Builder::new()
        .name("wait".into())
        .spawn(move || runtime.block_on(wait(&upkept, signals, end, || unmounted.unmount_all())))
        .map_err(|err| CliError::new(format!("cannot start a thread: {err}")))?;
    tracing::info!(store = %plan.store.display(), mount_point = %plan.mount_point.display(), "serving");
    ready();
    mounts.wait();
    let _ = ended.send(());
    let _ = waiter.join();
    branches.sync_all().map_err(|err| CliError::new(format!("what was changed last could not be synced: {err}")))
}

/// Returns how long a request may take before the log names it; tests wait less.
fn hang_limit() -> Duration {
    let millis = std::env::var("MEMENTOFS_HANG_MILLIS").ok().and_then(|millis| millis.parse().ok());
    millis.map_or(HANG_LIMIT, Duration::from_millis)
}

/// The signals that mean something to a daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Says whether nothing of that kind is being done.
fn has_ended(work: &Option<JoinHandle<()>>) -> bool {
    work.as_ref().is_none_or(JoinHandle::is_finished)
}

/// Waits for signals and timers until `end`.
async fn wait(
    branches: &Arc<Branches>,
    mut signals: Signals,
    mut end: tokio::sync::oneshot::Receiver<()>,
    mut unmount: impl FnMut(),
) {
    let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
    let mut upkeeping = None;
    let mut preparing = None;
    let ending = Arc::new(AtomicBool::new(false));
    let mut rest = Rest::default();
    loop {
        tokio::select! {
            _ = &mut end => {
                ending.store(true, Ordering::Relaxed);
                return;
            }
            _ = signals.terminate.recv() => unmount(),
            _ = signals.interrupt.recv() => unmount(),
            _ = signals.hangup.recv() => {}
            _ = upkeep.tick() => {
                // On threads of their own: a signal is answered while the disk is slow.
                if has_ended(&upkeeping) {
                    let (branches, is_idle) = (branches.clone(), rest.is_due(sys::process_millis()));
                    upkeeping = Some(spawn_blocking(move || {
                        branches.upkeep();
                        if is_idle {
                            branches.rest();
                            sys::give_memory_back();
                        }
                    }));
                }
                if has_ended(&preparing) {
                    let (branches, ending) = (branches.clone(), ending.clone());
                    preparing = Some(spawn_blocking(move || branches.prepare_quiet_files(&|| !ending.load(Ordering::Relaxed))));
                }
            }
        }
    }
}

/// Starts the daemon of the store at `store`, made if there is none, and returns when its mount serves.
pub fn start_daemon(arguments: &[std::ffi::OsString], store: &Path) -> Result<(), CliError> {
    if std::fs::read_dir(store).map_or(true, |mut entries| entries.next().is_none()) {
        drop(open_store(store)?); // The log lies in the store.
    }
    let log = &store.join("log");
    let program = std::env::current_exe().map_err(|err| CliError::new(format!("cannot find this program: {err}")))?;
    let log_file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(log);
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).current_dir("/").process_group(0);
    command.env("MEMENTOFS_READY", "1").stderr(Stdio::piped());
    if let Ok(file) = log_file {
        command.env("MEMENTOFS_LOG_FILE", log);
        drop(file);
    }
    let child = command.spawn().map_err(|err| CliError::new(format!("cannot start the daemon: {err}")))?;
    await_ready(child)
}

fn await_ready(mut child: Child) -> Result<(), CliError> {
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        let _ = BufReader::new(output).read_line(&mut line);
    }
    if line.trim() == READY {
        return Ok(()); // The daemon goes on without us.
    }
    let mut message = String::new();
    if let Some(mut errors) = child.stderr.take() {
        let _ = errors.read_to_string(&mut message);
    }
    let _ = child.wait();
    let message = message.trim().trim_start_matches("mementofs: ").to_owned();
    Err(CliError::new(if message.is_empty() { "the daemon ended before the mount served".to_owned() } else { message }))
}

/// Tells a waiting parent that the mount serves, and lets go of its pipes.
pub fn announce_ready() {
    if std::env::var_os("MEMENTOFS_READY").is_some() {
        let mut output = std::io::stdout();
        let _ = writeln!(output, "{READY}");
        let _ = output.flush();
        sys::let_go_of_standard_streams();
    }
}
