//! Moves the write-ahead log into the database beside the writers, so that no transaction pays for it.

use super::{HistoryError, schema};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Pause between two moves: what changes often is moved once.
const PAUSE: Duration = Duration::from_millis(250);
/// After so long without a transaction the log gives its room back.
const QUIET: Duration = Duration::from_secs(5);

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
        connection.busy_timeout(Duration::ZERO)?; // It waits for nobody: there is a next time.
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
    let mut wait = Duration::MAX;
    loop {
        match woken.recv_timeout(wait) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => {
                move_log(connection, "TRUNCATE"); // Nobody needs its room now.
                wait = Duration::MAX;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return, // Whoever closes the database last moves what is left.
        }
        let due = Instant::now() + PAUSE;
        loop {
            match woken.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        move_log(connection, "PASSIVE");
        wait = QUIET;
    }
}

/// Moves what it can. What a reader still needs is moved next time.
fn move_log(connection: &Connection, mode: &str) {
    if let Err(err) = connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(())) {
        tracing::debug!(%err, mode, "the write-ahead log stays for now");
    }
}
