//! Knows which requests go on, since when and what they wait for, so that one that hangs can be named.
//!
//! A request is noted where its thread works on it (one uncontended lock and a coarse clock, some 20 ns), or as a
//! [`Ticket`] while it waits without a thread. [`Watchdog`] looks at all of them every few seconds.

use crate::sys;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A request that goes on.
#[derive(Clone, Copy, Debug)]
struct Request {
    operation: &'static str,
    inode: u64,
    /// In milliseconds of [`sys::coarse_millis`].
    since: u64,
    waits_for: Option<&'static str>,
    /// It was named already.
    named: bool,
}

/// Where one thread, or one ticket, notes its request.
#[derive(Debug, Default)]
struct Slot {
    request: Mutex<Option<Request>>,
    /// The inode that the thread was asked about last.
    inode: AtomicU64,
}

impl Slot {
    fn request(&self) -> MutexGuard<'_, Option<Request>> {
        self.request.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

static SLOTS: Mutex<Vec<Arc<Slot>>> = Mutex::new(Vec::new());

fn slots() -> MutexGuard<'static, Vec<Arc<Slot>>> {
    SLOTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A slot that is known as long as this lives.
#[derive(Debug)]
struct Known(Arc<Slot>);

impl Known {
    fn new() -> Self {
        let slot = Arc::new(Slot::default());
        slots().push(slot.clone());
        Self(slot)
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        slots().retain(|slot| !Arc::ptr_eq(slot, &self.0));
    }
}

thread_local! {
    static OWN: RefCell<Known> = RefCell::new(Known::new());
}

/// Uses this thread's slot; at the very end of a thread there is none.
fn with_own<T>(work: impl FnOnce(&Slot) -> T) -> Option<T> {
    OWN.try_with(|own| own.try_borrow().ok().map(|own| work(&own.0))).ok().flatten()
}

/// Notes which inode this thread's next request is about.
pub fn about(inode: u64) {
    with_own(|slot| slot.inode.store(inode, Ordering::Relaxed));
}

/// Notes that this thread works on a request until the value returned is dropped. Within another one it names what is done.
pub fn during(operation: &'static str) -> During {
    During { before: with_own(|slot| begin(slot, operation, None)).flatten() }
}

fn begin(slot: &Slot, operation: &'static str, since: Option<u64>) -> Option<Request> {
    let mut request = slot.request();
    let before = *request;
    let since = before.map(|before| before.since).or(since).unwrap_or_else(sys::coarse_millis);
    let named = before.is_some_and(|before| before.named);
    *request = Some(Request { operation, inode: slot.inode.load(Ordering::Relaxed), since, waits_for: None, named });
    before
}

/// A request is worked on while this lives.
#[must_use]
pub struct During {
    before: Option<Request>,
}

impl Drop for During {
    fn drop(&mut self) {
        with_own(|slot| *slot.request() = self.before);
    }
}

/// Notes what this thread waits for until the value returned is dropped.
pub fn waits_for(what: &'static str) -> Waiting {
    set_waiting(Some(what));
    Waiting
}

fn set_waiting(what: Option<&'static str>) {
    with_own(|slot| {
        if let Some(request) = &mut *slot.request() {
            request.waits_for = what;
        }
    });
}

/// A thread waits while this lives.
#[must_use]
pub struct Waiting;

impl Drop for Waiting {
    fn drop(&mut self) {
        set_waiting(None);
    }
}

/// A request that no thread works on at the moment.
#[derive(Debug)]
pub struct Ticket(Known);

impl Ticket {
    /// Notes that what this thread was asked last waits for something.
    pub fn new(operation: &'static str, waits_for: &'static str) -> Self {
        let known = Known::new();
        known.0.inode.store(with_own(|own| own.inode.load(Ordering::Relaxed)).unwrap_or(0), Ordering::Relaxed);
        begin(&known.0, operation, with_own(|own| own.request().map(|request| request.since)).flatten());
        if let Some(request) = &mut *known.0.request() {
            request.waits_for = Some(waits_for);
        }
        Self(known)
    }

    /// Says that this thread goes on with the request.
    pub fn go_on(self) -> During {
        let request = *self.0.0.request();
        about(self.0.0.inode.load(Ordering::Relaxed));
        let operation = request.map_or("request", |request| request.operation);
        During { before: with_own(|slot| begin(slot, operation, request.map(|request| request.since))).flatten() }
    }
}

/// Returns a sentence for each request that goes on for `limit` or longer and was not named before.
pub fn overdue(limit: Duration) -> Vec<String> {
    let now = sys::coarse_millis();
    let mut lines = Vec::new();
    for slot in slots().iter() {
        let Some(request) = &mut *slot.request() else { continue };
        let age = now.saturating_sub(request.since);
        if u128::from(age) >= limit.as_millis() && !request.named {
            request.named = true;
            let (operation, inode, secs) = (request.operation, request.inode, age / 1000);
            let waits = request.waits_for.map_or("is being worked on".to_owned(), |what| format!("waits for {what}"));
            lines.push(format!("{operation} of inode {inode} goes on for {secs} s and {waits}"));
        }
    }
    lines
}

/// Looks for requests that hang, from a thread of its own, and names each once in the log.
pub struct Watchdog {
    _end: Sender<()>,
}

impl Watchdog {
    /// Starts looking for what takes `limit` or longer.
    pub fn start(limit: Duration) -> std::io::Result<Self> {
        const LOOKS_PER_LIMIT: u32 = 6;
        let (_end, ended) = channel::<()>();
        std::thread::Builder::new().name("watchdog".into()).spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(limit / LOOKS_PER_LIMIT) {
                overdue(limit).iter().for_each(|line| tracing::warn!("{line}"));
            }
        })?;
        Ok(Self { _end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other tests of the process may be at work too: only what this test noted counts.
    fn named(inode: u64, limit: Duration) -> Vec<String> {
        let all = overdue(limit);
        all.into_iter().filter(|line| line.contains(&format!("inode {inode} "))).collect()
    }

    fn pause() {
        std::thread::sleep(Duration::from_millis(60));
    }

    #[test]
    fn a_request_that_hangs_is_named_once_with_what_it_waits_for() {
        let limit = Duration::from_millis(20);
        std::thread::spawn(move || {
            about(9_000_001);
            let request = during("write");
            assert!(named(9_000_001, Duration::from_secs(30)).is_empty(), "it has just begun");
            let waiting = waits_for("the live tree");
            pause();
            let lines = named(9_000_001, limit);
            assert!(
                lines.len() == 1 && lines[0].starts_with("write of inode 9000001 goes on for 0 s and waits for the live tree")
            );
            assert!(named(9_000_001, limit).is_empty(), "named already");
            drop(waiting);
            drop(request);
            let _again = during("read");
            pause();
            assert!(named(9_000_001, limit)[0].ends_with("is being worked on"));
        })
        .join()
        .unwrap();
        assert!(named(9_000_001, Duration::ZERO).is_empty(), "the thread is gone");
    }

    #[test]
    fn a_request_keeps_its_age_from_the_queue_to_the_thread_that_works_on_it() {
        about(9_000_002);
        let ticket = Ticket::new("fsync", "a thread");
        pause();
        let work = std::thread::spawn(move || {
            let _on = ticket.go_on();
            let _within = during("sync");
            named(9_000_002, Duration::from_millis(50))
        });
        assert_eq!(work.join().unwrap(), ["sync of inode 9000002 goes on for 0 s and is being worked on"]);
    }
}
