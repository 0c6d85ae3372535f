//! One sync for many: who appended something waits, and one thread makes durable what all of them appended.

use super::primitives::{AtomicU64, Condvar, Mutex, MutexGuard, Ordering, PoisonError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Called once, when it is known whether what was appended survives a power cut.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// What there is to make durable.
pub trait Work {
    /// What one sync takes on.
    type Batch;
    /// Says what a sync that begins now has to make durable.
    fn take(&mut self) -> Self::Batch;
    /// Takes note that a batch is durable.
    fn settle(&mut self, batch: &Self::Batch);
}

/// Counts what is appended and what is durable, and who waits for it.
pub struct GroupSync<W> {
    /// Units appended so far.
    appended: AtomicU64,
    state: Mutex<State<W>>,
    /// Somebody waits, or nobody ever will again.
    due: Condvar,
}

struct State<W> {
    /// Units known to be durable.
    durable: u64,
    /// A sync failed: what the kernel then dropped nobody knows (fsync(2)), so later ones fail too.
    failed: bool,
    closing: bool,
    /// Up to which unit each waits.
    waiting: Vec<(u64, Done)>,
    work: W,
}

impl<W: Work> GroupSync<W> {
    /// Starts with nothing appended.
    pub fn new(work: W) -> Self {
        let state = State { durable: 0, failed: false, closing: false, waiting: Vec::new(), work };
        Self { appended: AtomicU64::new(0), state: Mutex::new(state), due: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts `units` more, which a sync that begins from now on makes durable.
    pub fn count(&self, units: u64) {
        self.appended.fetch_add(units, Ordering::Release);
    }

    /// Changes what there is to make durable.
    pub fn change<T>(&self, change: impl FnOnce(&mut W) -> T) -> T {
        change(&mut self.state().work)
    }

    /// Calls `done` when everything counted before the call is durable, at once if it is already.
    pub fn when_durable(&self, done: Done) {
        let target = self.appended.load(Ordering::Acquire);
        let mut state = self.state();
        let known = if state.failed { Some(Err(lost())) } else { (state.durable >= target).then_some(Ok(())) };
        if let Some(outcome) = known {
            drop(state); // It may take a while, or call us.
            return done(outcome);
        }
        state.waiting.push((target, done));
        drop(state);
        self.due.notify_one();
    }

    /// Syncs whenever somebody waits, until [`Self::close`]. One thread runs this; those who come during a sync share the next.
    pub fn run(&self, sync: impl Fn(&W::Batch) -> io::Result<()>) {
        while let Some((upto, batch)) = self.next() {
            let outcome = sync(&batch);
            for (done, outcome) in self.finish(upto, &batch, outcome.is_ok()) {
                // Somebody else's fault must not leave all the others waiting.
                if catch_unwind(AssertUnwindSafe(|| done(outcome))).is_err() {
                    tracing::error!("what was to follow a sync failed by a fault of our own");
                }
            }
        }
    }

    /// Waits until somebody waits; returns what to sync for them, and what is then durable.
    fn next(&self) -> Option<(u64, W::Batch)> {
        let mut state = self.state();
        while state.waiting.is_empty() {
            if state.closing {
                return None;
            }
            state = self.due.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let upto = self.appended.load(Ordering::Acquire); // Before the batch is taken, which then holds all of it.
        Some((upto, state.work.take()))
    }

    /// Takes out those whose wait is over.
    fn finish(&self, upto: u64, batch: &W::Batch, synced: bool) -> Vec<(Done, io::Result<()>)> {
        let mut state = self.state();
        if synced {
            state.durable = state.durable.max(upto);
            state.work.settle(batch);
        } else {
            state.failed = true;
        }
        let (durable, failed) = (state.durable, state.failed);
        let over = state.waiting.extract_if(.., |(target, _)| failed || *target <= durable);
        over.map(|(target, done)| (done, if target <= durable { Ok(()) } else { Err(lost()) })).collect()
    }

    /// Lets [`Self::run`] return once nobody waits.
    pub fn close(&self) {
        self.state().closing = true;
        self.due.notify_all();
    }
}

fn lost() -> io::Error {
    io::Error::from_raw_os_error(5) // EIO
}
