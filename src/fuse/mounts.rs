//! All mounts of one store in this process: made, served each by a thread of its own, and ended.

use super::filesystem::MementoFilesystem;
use super::linger::Device;
use super::mount::{MountError, session_config};
use super::notify::{Afterwards, Invalidator};
use super::opens::OpenFiles;
use super::options::MountOptions;
use super::pool::Pool;
use super::view::{Audience, View};
use super::views::ViewTable;
use crate::control::{CommandError, ControlDirectory, MountWish};
use crate::sys;
use crate::workspace::{Branches, Pin, Stale, Workspace, WorkspaceError, why_not_handed};
use fuser::{BackingId, Session, SessionUnmounter};
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak, mpsc};
use std::time::{Duration, Instant};

/// Threads for syncs and large reads.
const POOL_THREADS: usize = 6;
/// Threads for what the control directory is asked: a command may be long, and the others wait for it.
const COMMAND_THREADS: usize = 8;

/// How long gc waits for the kernels to forget what they merely remember.
const KERNEL_PATIENCE: Duration = Duration::from_secs(1);
/// How long it waits then to hear of it: what somebody has open is not forgotten.
const FORGET_PATIENCE: Duration = Duration::from_millis(50);

/// The mounts of one store.
pub struct Mounts {
    branches: Arc<Branches>,
    /// The store, as the kernel shows it.
    source: PathBuf,
    pool: Pool,
    commands: Pool,
    background: Pool,
    audiences: Mutex<HashMap<i64, Weak<Audience>>>,
    running: Mutex<HashMap<PathBuf, SessionUnmounter>>,
    ended: Condvar,
    /// Whether files are handed to the kernel, once something is mounted.
    passthrough: OnceLock<bool>,
}

impl Mounts {
    /// Starts the threads that all mounts of the store at `source` share. Nothing is mounted yet.
    pub fn new(branches: Arc<Branches>, source: &Path) -> std::io::Result<Arc<Self>> {
        let mounts = Arc::new(Self {
            branches,
            source: source.to_owned(),
            pool: Pool::start("pool", POOL_THREADS)?,
            commands: Pool::start("command", COMMAND_THREADS)?,
            background: Pool::start_in_background()?,
            audiences: Mutex::default(),
            running: Mutex::default(),
            ended: Condvar::new(),
            passthrough: OnceLock::new(),
        });
        let own = Arc::downgrade(&mounts);
        mounts.branches.when_collecting(Box::new(move || {
            if let Some(mounts) = own.upgrade() {
                mounts.forget_deleted();
            }
        }));
        Ok(mounts)
    }

    /// Has every kernel side forget what it keeps of deleted checkpoints, which gc would take for use. What somebody has open stays.
    fn forget_deleted(&self) {
        let audiences: Vec<_> = self.audiences.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let views: Vec<_> = audiences.iter().filter_map(Weak::upgrade).flat_map(|audience| audience.views()).collect();
        let (told, forgotten) = mpsc::channel();
        let afterwards = Afterwards::new(move || _ = told.send(()));
        let keeping: Vec<_> = views.into_iter().filter(|view| view.forget_deleted(&afterwards)).collect();
        drop(afterwards);
        if keeping.is_empty() || forgotten.recv_timeout(KERNEL_PATIENCE).is_err() {
            return; // The next run will find it free.
        }
        let begun = Instant::now();
        while begun.elapsed() < FORGET_PATIENCE && keeping.iter().any(|view| !view.control.places_of_deleted().is_empty()) {
            std::thread::sleep(Duration::from_millis(2)); // A kernel says what it forgot in messages of their own.
        }
    }

    /// Returns the threads for file operations that would keep other requests waiting.
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Returns the threads for what the control directory is asked.
    pub(super) fn commands(&self) -> &Pool {
        &self.commands
    }

    /// Returns a thread for what nobody waits for.
    pub(super) fn background(&self) -> &Pool {
        &self.background
    }

    /// Seals in the background when the journal has grown long.
    pub(super) fn seal_later(&self, workspace: &Arc<Workspace>) {
        let workspace = workspace.clone();
        self.background.run_once(("seal", workspace.branch_id()), move || {
            if let Err(err) = workspace.seal_now() {
                tracing::warn!(%err, "background seal failed");
            }
        });
    }

    fn running(&self) -> MutexGuard<'_, HashMap<PathBuf, SessionUnmounter>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn audience(&self, branch_id: i64) -> Arc<Audience> {
        let mut audiences = self.audiences.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(audience) = audiences.get(&branch_id).and_then(Weak::upgrade) {
            return audience;
        }
        audiences.retain(|_, audience| audience.strong_count() > 0);
        let audience = Arc::default();
        audiences.insert(branch_id, Arc::downgrade(&audience));
        audience
    }

    /// Makes a view of a branch.
    pub(super) fn view(&self, workspace: Arc<Workspace>, number: u16, invalidator: &Invalidator) -> Arc<View> {
        let (uid, gid) = (sys::effective_uid(), sys::effective_gid());
        let control = ControlDirectory::new(self.branches.clone(), workspace.clone(), uid, gid);
        let audience = self.audience(workspace.branch_id());
        View::new(workspace, control, number, audience, invalidator.clone())
    }

    /// Does `deed` when every kernel side has forgotten what is stale of each branch.
    pub(super) fn after_all(&self, stale: &[(i64, Vec<Stale>)], deed: impl FnOnce() + Send + 'static) {
        let afterwards = Afterwards::new(deed);
        for (branch_id, stale) in stale {
            self.audience(*branch_id).tell_all(stale, &afterwards);
        }
    }

    /// Mounts a branch at `path` and serves it until it is unmounted. Returns when the mount is there.
    pub fn mount(self: &Arc<Self>, branch: &str, path: &Path, options: &MountOptions) -> Result<(), MountError> {
        let failed = |source: std::io::Error| MountError::new(path, source);
        let workspace = self.branches.open(branch).map_err(|err| failed(std::io::Error::other(err.to_string())))?;
        workspace.expect_changes();
        let view_names = path.join(&options.control_name).join("branches");
        let pin = self.branches.pin(workspace.branch_id(), view_names);
        let invalidator = Invalidator::start().map_err(failed)?;
        let device = Device::default();
        let passthrough = self.passes_through(options).map_err(|why| failed(std::io::Error::other(why)))?;
        let filesystem = MementoFilesystem {
            views: Arc::new(ViewTable::new(self.clone(), workspace, invalidator.clone())),
            control_name: options.control_name.as_bytes().into(),
            device: device.clone(),
            kernel_checks: options.kernel_checks(),
            open_files: passthrough.then(OpenFiles::default),
        };
        let mut session = Session::new(filesystem, path, &session_config(&self.source, options)).map_err(failed)?;
        if passthrough {
            try_passthrough(&session, &self.source).map_err(failed)?;
        }
        let _ = self.passthrough.set(passthrough);
        invalidator.connect(session.notifier(), session.as_fd().try_clone_to_owned().map_err(failed)?);
        device.connect(session.as_fd().try_clone_to_owned().map_err(failed)?);
        self.running().insert(path.to_owned(), session.unmount_callable());
        let (mounts, own_path) = (self.clone(), path.to_owned());
        let serving = std::thread::Builder::new().name("serve".into());
        let spawned = serving.spawn(move || mounts.serve(session, &own_path, pin));
        spawned.map(drop).map_err(|source| {
            self.running().remove(path);
            failed(source)
        })
    }

    /// Says whether files are handed to the kernel, for which all mounts of a store have one way; or why they cannot be.
    fn passes_through(&self, options: &MountOptions) -> Result<bool, String> {
        match (self.passthrough.get(), options.passthrough) {
            (Some(true), Some(false)) => {
                Err("the store is mounted with --io passthrough already, and its mounts have one way".into())
            }
            (Some(false), Some(true)) => {
                Err("the store is mounted without --io passthrough already, and its mounts have one way".into())
            }
            (Some(passthrough), _) => Ok(*passthrough),
            (None, Some(true)) => why_not_handed(&self.source).map_or(Ok(true), |why| Err(format!("--io passthrough: {why}"))),
            // A message for each open costs more where files are small: see docs/decisions/0064.
            (None, _) => Ok(false),
        }
    }

    fn serve(&self, session: Session<MementoFilesystem>, path: &Path, pin: Pin) {
        if let Err(err) = session.run() {
            tracing::warn!(path = %path.display(), %err, "the mount ended");
        }
        drop(pin);
        self.running().remove(path);
        self.ended.notify_all();
    }

    /// Makes a mount that somebody asked for through the control directory.
    pub(super) fn grant(self: &Arc<Self>, wish: &MountWish) -> Result<(), CommandError> {
        let path = Path::new(&wish.path);
        if !path.is_absolute() {
            return Err(CommandError::Invalid(format!("{} is not an absolute path", wish.path)));
        }
        // By name alone at first: asking a mount of our own would be asking ourselves.
        self.check_point(path)?;
        let point = path.canonicalize().map_err(|err| match err.kind() {
            std::io::ErrorKind::NotFound => CommandError::NotFound(format!("the mount point {}", wish.path)),
            _ => CommandError::Invalid(format!("cannot use the mount point {}: {err}", wish.path)),
        })?;
        self.check_point(&point)?;
        if !point.is_dir() {
            return Err(CommandError::Invalid(format!("the mount point {} is not a directory", point.display())));
        }
        let options = MountOptions::parse(&wish.options).map_err(CommandError::Invalid)?;
        self.mount(&wish.branch, &point, &options).map_err(|err| CommandError::Invalid(err.to_string()))
    }

    /// Refuses a mount point that is one already, lies in a mount of this store or in the store, or the reverse.
    fn check_point(&self, point: &Path) -> Result<(), CommandError> {
        if sys::is_mounted(point).unwrap_or(false) {
            let busy = format!("{} is a mount point already; unmount it first: mementofs umount {0}", point.display());
            return Err(WorkspaceError::Busy(busy).into());
        }
        if let Some(own) = sys::mount_points_of(&self.source).iter().find(|own| point.starts_with(own)) {
            let within = format!("{} lies in the mount {} of the same store", point.display(), own.display());
            return Err(CommandError::Invalid(within));
        }
        if point.starts_with(&self.source) || self.source.starts_with(point) {
            let nested = format!(
                "the store {} and the mount point {} lie within one another; keep them apart",
                self.source.display(),
                point.display()
            );
            return Err(CommandError::Invalid(nested));
        }
        Ok(())
    }

    /// Returns when no mount is left.
    pub fn wait(&self) {
        let mut running = self.running();
        while !running.is_empty() {
            running = self.ended.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Unmounts everything; what is in use is detached.
    pub fn unmount_all(&self) {
        for (path, unmounter) in self.running().iter_mut() {
            if let Err(err) = unmounter.unmount() {
                tracing::warn!(path = %path.display(), %err, "unmount by signal; detaching");
            }
            sys::detach(path);
        }
    }
}

/// Hands the kernel a file of the store and takes it back; fails with a sentence that says why it did not take it.
fn try_passthrough(session: &Session<MementoFilesystem>, store: &Path) -> std::io::Result<()> {
    let file = std::fs::File::open(store.join("lock"))?;
    let device = session.as_fd();
    let id = BackingId::create_raw(device, &file).map_err(|err| {
        let why = match err.raw_os_error() {
            Some(libc::ELOOP) => "the store lies on a file system stacked on another (overlayfs, as in containers)".to_owned(),
            Some(libc::EPERM | libc::ENOTTY | libc::EINVAL) => {
                "this kernel does not offer it (Linux 6.9 and newer do)".to_owned()
            }
            _ => err.to_string(),
        };
        std::io::Error::other(format!("--io passthrough: {why}"))
    })?;
    sys::close_backing(device, id)
}
