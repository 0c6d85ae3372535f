//! The workloads by name.

use crate::{micro, programs};
use std::path::Path;
use std::time::Duration;

/// One workload.
pub struct Row {
    /// What the command line calls it.
    pub name: &'static str,
    /// What the table calls it.
    pub label: &'static str,
    /// The ratio to native to reach with passthrough and cached.
    pub reach: Option<(f64, f64)>,
    /// Whether the quick form has it.
    pub quick: bool,
    /// Does it in a directory that does not exist yet, with the assets beside; returns what the timed part took.
    pub run: fn(&Path, &Path) -> Duration,
}

const fn row(
    name: &'static str,
    label: &'static str,
    reach: Option<(f64, f64)>,
    quick: bool,
    run: fn(&Path, &Path) -> Duration,
) -> Row {
    Row { name, label, reach, quick, run }
}

/// All workloads, in the order of the table.
pub const ROWS: &[Row] = &[
    row("create", "create 10k x 4 KiB", Some((2.6, 2.8)), true, |top, _| micro::create(top)),
    row("unlink", "unlink 10k", Some((2.0, 2.2)), true, |top, _| micro::unlink(top)),
    row("overwrite", "overwrite 10k x 4 KiB", Some((4.0, 2.8)), true, |top, _| micro::overwrite(top)),
    row("stat", "stat 10k, warm", Some((1.2, 1.2)), true, |top, _| micro::stat(top)),
    row("walk", "walk and stat 10k, warm", Some((1.1, 1.1)), true, |top, _| micro::walk_and_stat(top)),
    row("du", "du of 10k, warm", Some((1.1, 1.1)), true, |top, _| programs::du(top)),
    row("open-read-close", "open, read, close 10k, warm", Some((3.5, 1.4)), true, |top, _| micro::read_small(top)),
    row("write-large", "write 512 MiB in 1 MiB blocks, fsync", Some((1.3, 3.0)), false, |top, _| micro::write_large(top)),
    row("read-large-warm", "read 512 MiB, warm", Some((1.1, 4.0)), false, |top, _| micro::read_large(top, false)),
    row("read-large-cold", "read 512 MiB, cold", Some((1.2, 4.0)), false, |top, _| micro::read_large(top, true)),
    row("append", "100-byte appends, 50k", Some((1.6, 15.0)), true, |top, _| micro::append(top)),
    row("mmap-random", "random 4 KiB writes through mmap", Some((1.7, 12.0)), false, |top, _| programs::mapped_writes(top)),
    row("untar", "untar 5k files", Some((2.8, 3.0)), true, programs::untar),
    row("git-status", "git status, 5k files", Some((1.2, 1.2)), true, programs::git_status),
    row("git-add", "git add, 5k files", Some((1.7, 1.7)), false, programs::git_add),
    row("git-commit", "git commit, 5k files", Some((2.5, 2.5)), false, programs::git_commit),
    row("git-clone", "git clone --local, 5k files", Some((2.0, 1.8)), false, programs::git_clone),
    row("rg", "rg over 5k files, warm", Some((3.0, 1.6)), true, programs::search),
    row("cargo-build", "cargo build", Some((1.1, 1.2)), false, programs::cargo_build),
    row("cargo-incremental", "cargo build, incremental", Some((1.4, 1.6)), false, programs::cargo_incremental),
    row("npm-install", "npm install of 5k files", Some((1.6, 1.8)), false, programs::npm_install),
    row("sqlite", "SQLite WAL, synchronous FULL", Some((1.3, 1.5)), true, |top, _| programs::sqlite(top)),
    row("rm", "rm -rf of 5k files", Some((2.2, 2.3)), true, programs::remove_tree),
    row("create-2", "create 10k x 4 KiB by 2 clients", None, false, |top, _| micro::create_by(top, 2)),
    row("create-8", "create 10k x 4 KiB by 8 clients", None, false, |top, _| micro::create_by(top, 8)),
    row("read-2", "open, read, close 10k by 2 clients", None, false, |top, _| micro::read_by(top, 2)),
    row("read-8", "open, read, close 10k by 8 clients", None, false, |top, _| micro::read_by(top, 8)),
];

/// Finds a workload.
pub fn find(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}
