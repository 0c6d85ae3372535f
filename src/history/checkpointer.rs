//! Moves the write-ahead log into the database beside the writers, so that no transaction pays for it.

use super::{HistoryError, schema};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Pause between two moves: what changes often is moved once.
const PAUSE: Duration = Duration::from_millis(250);

/// A thread with a connection of its own. Dropping it ends the thread.
pub struct Checkpointer {
    wake: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Starts the thread for the database at `path`.
    pub fn start(path: &Path) -> Result<Self, HistoryError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        schema::configure(&connection)?;
        let (wake, woken) = channel();
        let thread = std::thread::Builder::new().name("wal".into()).spawn(move || run(&connection, &woken)).ok();
        Ok(Self { wake: Some(wake), thread })
    }

    /// Says that there is something to move. Never waits.
    pub fn wake(&self) {
        if let Some(wake) = &self.wake {
            let _ = wake.send(()); // Without the thread, writers move the log themselves when it grows long.
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(connection: &Connection, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        let due = Instant::now() + PAUSE;
        let ended = loop {
            match woken.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(()) => {}
                Err(err) => break err == RecvTimeoutError::Disconnected,
            }
        };
        if ended {
            return; // Whoever closes the database last moves what is left.
        }
        // Passive: waits for nobody. What a reader still needs is moved next time.
        if let Err(err) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            tracing::debug!(%err, "the write-ahead log stays for now");
        }
    }
}
