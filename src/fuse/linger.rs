//! The reader of requests stays awake for a moment after a reply: a program that makes one call after the other sends its
//! next request soon, and waking a thread on another processor costs more than answering most requests.
//!
//! It pays only while requests do come soon and the processor is not wanted by others, so every miss makes the next
//! attempt rarer, and a loss of the processor much rarer.

use crate::sys;
use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How long the reader waits for the next request without sleeping.
const WINDOW: Duration = Duration::from_micros(60);
/// A look at the device takes less than a microsecond; one that took this long lost the processor to somebody.
const INTERRUPTED: Duration = Duration::from_micros(40);
/// Replies that pass without waiting after a miss, at first and at most.
const PAUSE_MIN: u32 = 4;
const PAUSE_MAX: u32 = 512;
const PAUSE_INTERRUPTED: u32 = 4096;

/// Where the requests of one mount come from, once it is there.
#[derive(Clone, Debug, Default)]
pub struct Device(Arc<OnceLock<OwnedFd>>);

impl Device {
    /// Gives the way to the kernel.
    pub fn connect(&self, device: OwnedFd) {
        let _ = self.0.set(device);
    }

    /// Notes that the calling thread is answering a request of this mount.
    pub fn serves(&self) {
        READER.with_borrow_mut(|reader| {
            if matches!(reader, Reader::Unknown) {
                *reader = Linger::of_this_thread().map_or(Reader::Other, |linger| Reader::Of(self.clone(), linger));
            }
        });
    }
}

/// What the calling thread is.
enum Reader {
    Unknown,
    Other,
    Of(Device, Linger),
}

thread_local! {
    static READER: RefCell<Reader> = const { RefCell::new(Reader::Unknown) };
}

/// Waits a moment for the next request, on the thread that reads requests; on others it returns at once.
pub fn linger() {
    READER.with_borrow_mut(|reader| {
        if let Reader::Of(device, linger) = reader
            && let Some(device) = device.0.get()
        {
            linger.after_reply(|| sys::is_readable(device), Instant::now);
        }
    });
}

#[derive(Debug)]
struct Linger {
    /// Replies to pass before the next attempt.
    passing: u32,
    /// How many that will be after the next miss.
    pause: u32,
}

impl Linger {
    fn of_this_thread() -> Option<Self> {
        let reads = std::thread::current().name().is_some_and(|name| name.starts_with("fuser-"));
        let alone = std::thread::available_parallelism().is_ok_and(|processors| processors.get() == 1);
        (reads && !alone).then_some(Self { passing: 0, pause: PAUSE_MIN })
    }

    fn after_reply(&mut self, readable: impl Fn() -> bool, mut now: impl FnMut() -> Instant) {
        if self.passing > 0 {
            self.passing -= 1;
            return;
        }
        let begun = now();
        let mut last = begun;
        loop {
            if readable() {
                self.pause = PAUSE_MIN;
                return;
            }
            let now = now();
            if now - last > INTERRUPTED {
                self.passing = PAUSE_INTERRUPTED;
                return;
            }
            if now - begun > WINDOW {
                self.passing = self.pause;
                self.pause = (self.pause * 2).min(PAUSE_MAX);
                return;
            }
            last = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that is `step` later at each look: the machine's own may stand still for the test, or jump.
    fn clock(step: Duration) -> impl FnMut() -> Instant {
        let mut now = Instant::now();
        move || {
            now += step;
            now
        }
    }

    #[test]
    fn attempts_that_find_nothing_become_rarer_and_success_brings_them_back() {
        let mut linger = Linger { passing: 0, pause: PAUSE_MIN };
        let mut pauses = Vec::new();
        for _ in 0..3 {
            while linger.passing > 0 {
                linger.after_reply(|| unreachable!("it passes without a look"), Instant::now);
            }
            linger.after_reply(|| false, clock(Duration::from_micros(1)));
            pauses.push(linger.passing);
        }
        assert_eq!(pauses, [PAUSE_MIN, 2 * PAUSE_MIN, 4 * PAUSE_MIN]);
        linger.passing = 0;
        linger.after_reply(|| true, clock(Duration::from_micros(1)));
        assert_eq!((linger.passing, linger.pause), (0, PAUSE_MIN));
    }

    #[test]
    fn a_thread_that_lost_its_processor_pauses_for_long() {
        let mut linger = Linger { passing: 0, pause: PAUSE_MIN };
        linger.after_reply(|| false, clock(2 * INTERRUPTED));
        assert_eq!((linger.passing, linger.pause), (PAUSE_INTERRUPTED, PAUSE_MIN));
    }
}
