//! Tells the kernel what to forget, from a thread of its own that holds no lock.

use super::number::NodeNumber;
use crate::workspace::Stale;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use fuser::{INodeNo, Notifier};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::OnceLock;

struct Batch {
    namespace: u16,
    stale: Vec<Stale>,
    done: Sender<()>,
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

    /// Returns when the kernel has forgotten all of `stale`.
    pub fn send(&self, namespace: u16, stale: Vec<Stale>) {
        if stale.is_empty() {
            return;
        }
        let (done, finished) = bounded(1);
        if self.batches.send(Batch { namespace, stale, done }).is_ok() {
            let _ = finished.recv();
        }
    }
}

fn serve(batches: &Receiver<Batch>, notifier: &OnceLock<Notifier>) {
    for batch in batches {
        if let Some(notifier) = notifier.get() {
            for stale in &batch.stale {
                invalidate(notifier, batch.namespace, stale);
            }
        }
        let _ = batch.done.send(());
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
