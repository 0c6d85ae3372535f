//! A store with its mount, and how to time what is done there.

use crate::kit::{ended, median, mounted};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

/// A store and its mount in a directory of their own.
pub struct Bench {
    /// Goes with the value.
    pub dir: tempfile::TempDir,
    daemon: Option<Child>,
}

impl Bench {
    /// Makes an empty place for a store and a mount.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("mementofs-bench-").tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("mnt")).expect("a mount point");
        Self { dir, daemon: None }
    }

    /// Returns the mount point.
    pub fn top(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// Returns the store.
    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Mounts and returns how long it took until a first listing was answered.
    pub fn mount(&mut self) -> Duration {
        let begun = Instant::now();
        self.daemon = Some(mounted(&self.store(), &self.top()));
        assert!(fs::read_dir(self.top()).expect("a listing").count() < usize::MAX);
        begun.elapsed()
    }

    /// Ends the mount.
    pub fn unmount(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            ended(daemon, &self.top());
        }
    }

    /// Returns the resident memory of the daemon in MiB.
    pub fn resident_mib(&self) -> f64 {
        let pid = self.daemon.as_ref().expect("mounted").id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
    }

    /// Writes a command into a control file.
    pub fn tell(&self, file: &str, command: &str) {
        let mut opened = fs::File::options().write(true).open(self.top().join(".memento").join(file)).expect("a control file");
        opened.write_all(command.as_bytes()).expect("the command succeeds");
    }

    /// Reads a control file.
    pub fn says(&self, file: &str) -> String {
        fs::read_to_string(self.top().join(".memento").join(file)).expect("a control file").trim().to_owned()
    }

    /// Returns where file number `at` of the tree is.
    pub fn file(&self, at: usize, flat: bool) -> PathBuf {
        match flat {
            true => self.top().join(format!("f{at}")),
            false => self.top().join(format!("d{}/e{}/f{at}", at % 31, at / 31 % 37)),
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// Runs `work` `runs` times and returns the median in milliseconds of what it says it took.
pub fn median_ms(runs: usize, mut work: impl FnMut(usize) -> Duration) -> f64 {
    median((0..runs).map(|at| work(at).as_secs_f64() * 1e3).collect())
}

/// Returns how long `work` takes.
pub fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

/// Returns the room that a directory takes with all that is in it.
pub fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.path().symlink_metadata() else { continue };
        bytes += metadata.blocks() * 512;
        if metadata.is_dir() {
            bytes += disk_bytes(&entry.path());
        }
    }
    bytes
}

/// Bytes that do not compress and differ by seed.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(step).take(len.div_ceil(8)).flatten().collect();
    bytes.truncate(len);
    bytes
}
