//! Tells the kernel what to forget, from a thread of its own that holds no lock.

use super::number::NodeNumber;
use crate::workspace::Stale;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use fuser::{INodeNo, Notifier};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// An answer on its way while the kernel is told may carry what was true before; by then it has arrived.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Does something when the last copy of it goes: when every kernel side that had to forget has forgotten.
#[derive(Clone)]
pub struct Afterwards(#[allow(dead_code)] Arc<OnDrop>);

type Deed = Box<dyn FnOnce() + Send>;

struct OnDrop(Mutex<Option<Deed>>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        if let Some(deed) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            deed();
        }
    }
}

impl Afterwards {
    /// Keeps `deed` until the last copy goes.
    pub fn new(deed: impl FnOnce() + Send + 'static) -> Self {
        Self(Arc::new(OnDrop(Mutex::new(Some(Box::new(deed))))))
    }
}

/// What one view is to forget.
pub struct Batch {
    /// Whose numbers they are.
    pub namespace: u16,
    /// What.
    pub stale: Vec<Stale>,
    /// Says it once more a little later.
    pub again: bool,
    /// Goes when it is forgotten.
    pub afterwards: Option<Afterwards>,
}

/// Sends invalidations to the kernel of one mount.
#[derive(Clone)]
pub struct Invalidator {
    batches: Sender<Batch>,
    notifier: Arc<OnceLock<Notifier>>,
}

impl Invalidator {
    /// Starts the thread. Nothing is sent before [`Self::connect`].
    pub fn start() -> std::io::Result<Self> {
        let (batches, received) = unbounded();
        let notifier = Arc::new(OnceLock::new());
        let shared = notifier.clone();
        std::thread::Builder::new().name("invalidate".into()).spawn(move || serve(&received, &shared))?;
        Ok(Self { batches, notifier })
    }

    /// Gives the invalidator its way to the kernel.
    pub fn connect(&self, notifier: Notifier) {
        let _ = self.notifier.set(notifier);
    }

    /// Has the kernel forget, in the order of the calls. Does not wait.
    pub fn send(&self, batch: Batch) {
        let _ = self.batches.send(batch); // The thread is gone only when the process ends.
    }
}

fn serve(batches: &Receiver<Batch>, notifier: &OnceLock<Notifier>) {
    let mut later: VecDeque<(Instant, Batch)> = VecDeque::new();
    loop {
        let received = match later.front() {
            Some((due, _)) => batches.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => batches.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(mut batch) => {
                forget(notifier, &batch);
                batch.afterwards = None;
                if batch.again {
                    later.push_back((Instant::now() + AGAIN_AFTER, batch));
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some((_, batch)) = later.pop_front() {
                    forget(notifier, &batch);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn forget(notifier: &OnceLock<Notifier>, batch: &Batch) {
    let Some(notifier) = notifier.get() else { return };
    for stale in &batch.stale {
        invalidate(notifier, batch.namespace, stale);
    }
}

fn invalidate(notifier: &Notifier, namespace: u16, stale: &Stale) {
    let number = |ino| INodeNo(NodeNumber { namespace, ino }.pack());
    let sent = match stale {
        Stale::Name { parent, name } => notifier.inval_entry(number(*parent), OsStr::from_bytes(name.as_bytes())),
        // Offset 0 drops a directory's cached listing as well as the attributes.
        Stale::Attributes { ino } => notifier.inval_inode(number(*ino), 0, 0),
    };
    if let Err(err) = sent {
        tracing::debug!(?stale, %err, "the kernel did not know it");
    }
}
