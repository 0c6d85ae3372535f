//! The time that changes are stamped with.
//!
//! The kernel stamps what it writes by itself with a clock of its own, up to a tick behind the machine's, and only moves it on when
//! somebody looked between two changes (multigrain timestamps, Linux 6.13). A file that it writes after we made a directory would be
//! older than the directory. So where files are handed to it, our stamps come from a file too.

use super::plain::Stamp;
use crate::object::Timestamp;
use crate::sys;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// There is one clock for the files of a machine.
static FILES_CLOCK: OnceLock<FilesClock> = OnceLock::new();
/// For how many files the process goes by it.
static FILES: AtomicUsize = AtomicUsize::new(0);

/// Returns the time for a change that happens now: never before one that the kernel stamped already, nor after one that it will stamp in a
/// file for which [`go_by_files`] was called.
pub fn now() -> Timestamp {
    let by_files = FILES.load(Ordering::Acquire) > 0;
    by_files.then(of_files).flatten().unwrap_or_else(Timestamp::now)
}

/// Has further changes stamped with the clock of files, for the sake of a file that the kernel may write from now on. It stamps nothing
/// there earlier than what was stamped before: the clock is moved on here.
pub fn go_by_files() {
    FILES.fetch_add(1, Ordering::AcqRel);
    if of_files().is_none() {
        match FilesClock::new() {
            Ok(clock) => drop(FILES_CLOCK.set(clock)),
            Err(err) => tracing::warn!(%err, "times of files in the kernel's hand may be a tick behind those of others"),
        }
    }
}

/// Has the kernel stamp what it changes from now on no earlier than what was stamped before.
pub fn move_on() {
    go_by_files();
    go_by_files_no_more();
}

/// Says that one such file is out of the kernel's hand.
pub fn go_by_files_no_more() {
    FILES.fetch_sub(1, Ordering::AcqRel);
}

/// Asks the clock of files, which moves it on to the machine's time.
fn of_files() -> Option<Timestamp> {
    FILES_CLOCK.get()?.now().ok()
}

/// A file in memory that is changed to see what time that gives it.
struct FilesClock(File);

impl FilesClock {
    fn new() -> io::Result<Self> {
        let clock = Self(sys::memory_file()?);
        clock.now()?;
        Ok(clock)
    }

    /// Changes the file twice: the second change of one tick, after somebody looked, is stamped with the machine's time, and the clock of
    /// all files moves on to it.
    fn now(&self) -> io::Result<Timestamp> {
        self.change()?;
        self.change()
    }

    fn change(&self) -> io::Result<Timestamp> {
        self.0.write_all_at(b"x", 0)?;
        Ok(Stamp::of(&self.0)?.mtime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by the probe `order_of_times` in a mount with passthrough.
    #[test]
    fn files_that_the_kernel_stamps_are_in_order_with_ours() {
        const ROUNDS: usize = 2000;
        let temp = tempfile::tempdir().unwrap();
        let file = File::create(temp.path().join("file")).unwrap();
        let clock = FilesClock::new().unwrap();
        let mut last = Timestamp { secs: 0, nanos: 0 };
        for round in 0..ROUNDS {
            let ours = clock.now().unwrap();
            file.write_all_at(b"x", 0).unwrap();
            let theirs = Stamp::of(&file).unwrap().mtime;
            assert!(last < ours && ours <= theirs, "round {round}: {last:?}, {ours:?}, {theirs:?}");
            last = theirs;
        }
    }
}
