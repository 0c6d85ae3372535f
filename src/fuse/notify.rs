//! Tells the kernel what to forget, from a thread of its own that holds no lock.

use super::number::NodeNumber;
use crate::workspace::{Ino, Stale};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use fuser::{INodeNo, Notifier};
use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// An answer on its way while the kernel is told may carry what was true before; by then it has arrived.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Where pages to forget would begin, if only attributes are forgotten.
const ATTRIBUTES_ALONE: i64 = -1;

/// Does something when the last copy of it goes: when every kernel side that had to forget has forgotten.
#[derive(Clone)]
pub struct Afterwards(#[allow(dead_code)] Arc<OnDrop>);

/// The notification that makes every name a kernel remembers be asked for again, since Linux 6.16: its length, its code and
/// no request that it answers. The library in use has no call for it.
const FORGET_ALL_NAMES: [[u8; 4]; 4] = [16u32.to_ne_bytes(), 8u32.to_ne_bytes(), [0; 4], [0; 4]];

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
    kernel: Arc<OnceLock<Kernel>>,
    /// Batches that were sent and are not forgotten yet.
    waiting: Arc<Mutex<usize>>,
    /// Changes made through this mount that are answered when others have forgotten: its kernel holds directories and pages
    /// for them meanwhile, and forgets nothing of those.
    changing: Arc<AtomicUsize>,
}

/// A change whose answer waits for others, as long as this lives.
pub struct Changing(Arc<AtomicUsize>);

impl Drop for Changing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The two ways to the kernel.
struct Kernel {
    notifier: Notifier,
    device: File,
}

impl Invalidator {
    /// Starts the thread. Nothing is sent before [`Self::connect`].
    pub fn start() -> std::io::Result<Self> {
        let (batches, received) = unbounded();
        let kernel = Arc::new(OnceLock::new());
        let invalidator = Self { batches, kernel, waiting: Arc::default(), changing: Arc::default() };
        let (kernel, waiting) = (invalidator.kernel.clone(), invalidator.waiting.clone());
        std::thread::Builder::new().name("invalidate".into()).spawn(move || serve(&received, &kernel, &waiting))?;
        Ok(invalidator)
    }

    /// Gives the invalidator its way to the kernel.
    pub fn connect(&self, notifier: Notifier, device: OwnedFd) {
        let _ = self.kernel.set(Kernel { notifier, device: File::from(device) });
    }

    fn waiting(&self) -> MutexGuard<'_, usize> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that a change made through this mount is answered when others have forgotten. To be held until then.
    pub fn changes(&self) -> Changing {
        self.changing.fetch_add(1, Ordering::SeqCst);
        Changing(self.changing.clone())
    }

    /// Has the kernel forget, in the order of the calls. Does not wait.
    pub fn send(&self, batch: Batch) {
        self.enqueue(&mut self.waiting(), batch);
    }

    fn enqueue(&self, waiting: &mut usize, batch: Batch) {
        *waiting += 1;
        let _ = self.batches.send(batch); // The thread is gone only when the process ends.
    }

    /// Has the kernel forget a change that was made through the mount of `maker` and waits to be answered.
    ///
    /// Two changes may never wait for each other. Each says first that it is going on ([`Self::changes`]) and then looks
    /// here, so the later of two sees the earlier; where something goes on, the kernel doubts what is stale, which takes no
    /// lock, and the answer does not wait for it to forget. So a change only ever waits for a later one, and the last for none.
    pub fn send_change(&self, mut batch: Batch, maker: &Self) {
        let own = Arc::ptr_eq(&self.changing, &maker.changing);
        let mut waiting = self.waiting();
        // What is to be forgotten before us in our own mount may be what the kernel holds for this very change.
        let at_rest = self.changing.load(Ordering::SeqCst) <= usize::from(own) && (!own || *waiting == 0);
        if !at_rest {
            self.doubt(batch.namespace, &batch.stale);
            batch.afterwards = None;
            // Older kernels do not doubt names. A file forgotten later would have the kernel ignore attributes that somebody asks
            // for just then, and read up to where the file ended before.
            batch.stale.retain(|stale| stale.parent().is_some());
            if batch.stale.is_empty() {
                return;
            }
        }
        self.enqueue(&mut waiting, batch);
    }

    /// Has the kernel forget the listing of a directory, on the calling thread: its pages are locked over no request.
    pub fn forget_listing(&self, namespace: u16, ino: Ino) {
        if let Some(kernel) = self.kernel.get() {
            let _ = kernel.notifier.inval_inode(INodeNo(NodeNumber { namespace, ino }.pack()), 0, 0);
        }
    }

    /// Has the kernel doubt what is stale, on the calling thread and without a lock of the kernel: names are asked for again,
    /// attributes too, and pages are looked at by whoever reads next. What is mapped stays until then.
    fn doubt(&self, namespace: u16, stale: &[Stale]) {
        let Some(kernel) = self.kernel.get() else { return };
        let directories: HashSet<_> = stale.iter().filter_map(Stale::parent).collect();
        if !directories.is_empty()
            && let Err(err) = (&kernel.device).write_all(FORGET_ALL_NAMES.as_flattened())
        {
            tracing::debug!(%err, "the kernel cannot be told to forget all names");
        }
        for ino in stale.iter().filter_map(Stale::file) {
            // Listings are pages that nobody locks over a request; a file's pages are locked by those who write.
            let offset = if directories.contains(&ino) { 0 } else { ATTRIBUTES_ALONE };
            let _ = kernel.notifier.inval_inode(INodeNo(NodeNumber { namespace, ino }.pack()), offset, 0);
        }
    }
}

fn serve(batches: &Receiver<Batch>, kernel: &OnceLock<Kernel>, waiting: &Mutex<usize>) {
    let one_less = || *waiting.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    let mut later = Later::default();
    loop {
        let received = match later.due() {
            Some(due) => batches.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => batches.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(mut batch) => {
                forget(kernel, &batch);
                batch.afterwards = None;
                if batch.again {
                    later.add(batch);
                } else {
                    one_less();
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some(batch) = later.take() {
                    forget(kernel, &batch);
                    one_less();
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// What is to be forgotten again. Each thing once, some time after it was forgotten last: while the kernel is told of a file it
/// ignores attributes that it is asking for, so a storm of this would have somebody read up to where the file ended before.
#[derive(Default)]
struct Later {
    batches: VecDeque<(Instant, Batch)>,
    /// When each is to be forgotten.
    newest: HashMap<(u16, Stale), Instant>,
}

impl Later {
    fn due(&self) -> Option<Instant> {
        self.batches.front().map(|(due, _)| *due)
    }

    fn add(&mut self, batch: Batch) {
        let due = Instant::now() + AGAIN_AFTER;
        self.newest.extend(batch.stale.iter().map(|stale| ((batch.namespace, stale.clone()), due)));
        self.batches.push_back((due, batch));
    }

    fn take(&mut self) -> Option<Batch> {
        let (due, mut batch) = self.batches.pop_front()?;
        batch.stale.retain(|stale| {
            let key = (batch.namespace, stale.clone());
            let is_newest = self.newest.get(&key) == Some(&due);
            is_newest && self.newest.remove(&key).is_some()
        });
        Some(batch)
    }
}

fn forget(kernel: &OnceLock<Kernel>, batch: &Batch) {
    let Some(Kernel { notifier, .. }) = kernel.get() else { return };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_forgotten_again_once_after_the_last_time() {
        let batch = |inos: &[u64]| {
            let stale = inos.iter().map(|ino| Stale::Attributes { ino: *ino }).collect();
            Batch { namespace: 1, stale, again: true, afterwards: None }
        };
        let mut later = Later::default();
        for inos in [&[1, 2][..], &[1], &[3, 1]] {
            later.add(batch(inos));
            std::thread::sleep(Duration::from_micros(10));
        }
        let taken: Vec<Vec<Stale>> = std::iter::from_fn(|| later.take()).map(|batch| batch.stale).collect();
        assert_eq!(taken, [batch(&[2]).stale, vec![], batch(&[3, 1]).stale]);
        assert!(later.newest.is_empty());
    }
}
