//! Threads for work that would keep the reader of requests waiting.

use crate::watchdog::Ticket;
use crossbeam_channel::{Sender, unbounded};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads that take jobs in order.
pub struct Pool {
    jobs: Sender<Job>,
    running_once: Arc<Mutex<HashSet<(&'static str, i64)>>>,
}

impl Pool {
    /// Starts `threads` threads of that name.
    pub fn start(name: &str, threads: usize) -> std::io::Result<Self> {
        Self::start_with(name, threads, || {})
    }

    /// Starts one thread that gives way to all others.
    pub fn start_in_background() -> std::io::Result<Self> {
        Self::start_with("background", 1, crate::sys::give_way)
    }

    fn start_with(name: &str, threads: usize, prepare: fn()) -> std::io::Result<Self> {
        let (jobs, received) = unbounded::<Job>();
        for at in 0..threads {
            let received = received.clone();
            std::thread::Builder::new().name(format!("{name}-{at}")).spawn(move || {
                prepare();
                for job in received {
                    if catch_unwind(AssertUnwindSafe(job)).is_err() {
                        tracing::error!("a job failed by a fault of our own");
                    }
                }
            })?;
        }
        Ok(Self { jobs, running_once: Arc::default() })
    }

    /// Runs `job` on one of the threads.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        let ticket = Ticket::new("request", "a thread of the pool");
        self.send(move || {
            let _during = ticket.go_on();
            job();
        });
    }

    fn send(&self, job: impl FnOnce() + Send + 'static) {
        if let Err(unsent) = self.jobs.send(Box::new(job)) {
            unsent.0(); // The threads are gone only when the process ends.
        }
    }

    /// Runs `job` unless one of this name for this branch is waiting or running.
    pub fn run_once(&self, name: (&'static str, i64), job: impl FnOnce() + Send + 'static) {
        let running = self.running_once.clone();
        if !running.lock().unwrap_or_else(PoisonError::into_inner).insert(name) {
            return;
        }
        self.send(move || {
            let _ = catch_unwind(AssertUnwindSafe(job));
            running.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        });
    }
}
