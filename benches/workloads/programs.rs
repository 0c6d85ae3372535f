//! Workloads of whole programs.

use crate::assets;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn tool(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Runs a program to its successful end and returns what that took.
fn run(command: &mut Command) -> Duration {
    let begun = Instant::now();
    let output = command.stderr(Stdio::piped()).output().expect("the program starts");
    let took = begun.elapsed();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    took
}

/// Adds up the sizes of files that were looked at before.
pub fn du(top: &Path) -> Duration {
    crate::micro::walk_and_stat(top);
    run(tool("du").arg("-s").arg(top))
}

/// Writes to random places of a mapped file.
pub fn mapped_writes(top: &Path) -> Duration {
    fs::create_dir_all(top).expect("a directory");
    let output = Command::new("fio")
        .args(["--name=mapped", "--ioengine=mmap", "--rw=randwrite", "--bs=4k", "--size=128m", "--io_size=128m"])
        .args(["--norandommap", "--randseed=1", "--end_fsync=1", "--thread", "--output-format=json"])
        .arg(format!("--directory={}", top.display()))
        .output()
        .expect("fio starts");
    assert!(output.status.success(), "fio: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let json: serde_json::Value = serde_json::from_str(&text[text.find('{').unwrap_or(0)..]).expect("fio prints JSON");
    let ms = json["jobs"][0]["job_runtime"].as_u64().expect("fio says how long it ran");
    Duration::from_millis(ms)
}

/// Unpacks the source tree; timed.
pub fn untar(top: &Path, from: &Path) -> Duration {
    fs::create_dir_all(top).expect("a directory");
    run(tool("tar").arg("-xf").arg(from.join(assets::TREE)).arg("-C").arg(top))
}

/// Removes the unpacked source tree.
pub fn remove_tree(top: &Path, from: &Path) -> Duration {
    untar(top, from);
    run(tool("rm").arg("-rf").arg(top))
}

/// Searches the source tree for the second time.
pub fn search(top: &Path, from: &Path) -> Duration {
    untar(top, from);
    let mut command = tool("rg");
    command.args(["--count", "a needle in"]).arg(top);
    run(&mut command);
    run(&mut command)
}

fn git(top: &Path) -> Command {
    let mut command = tool("git");
    command.current_dir(top).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "Bench").env(format!("GIT_{who}_EMAIL"), "bench@example.invalid");
    }
    command.args(["-c", "gc.auto=0", "-c", "maintenance.auto=false"]);
    command
}

fn added(top: &Path, from: &Path) -> Duration {
    untar(top, from);
    run(git(top).args(["init", "-q"]));
    run(git(top).args(["add", "-A"]))
}

fn committed(top: &Path, from: &Path) -> Duration {
    added(top, from);
    run(git(top).args(["commit", "-q", "-m", "everything"]))
}

/// `git add` of everything.
pub fn git_add(top: &Path, from: &Path) -> Duration {
    added(top, from)
}

/// The first commit.
pub fn git_commit(top: &Path, from: &Path) -> Duration {
    committed(top, from)
}

/// `git status` where nothing changed, for the third time.
pub fn git_status(top: &Path, from: &Path) -> Duration {
    committed(top, from);
    for _ in 0..2 {
        run(git(top).args(["status", "--porcelain"]));
    }
    run(git(top).args(["status", "--porcelain"]))
}

/// A clone within the file system.
pub fn git_clone(top: &Path, from: &Path) -> Duration {
    let original = top.join("original");
    committed(&original, from);
    run(git(top).args(["clone", "-q", "--local"]).arg(&original).arg(top.join("clone")))
}

fn cargo(top: &Path) -> Command {
    let mut command = tool("cargo");
    command.current_dir(top).args(["build", "--offline", "--quiet"]).env("CARGO_TARGET_DIR", top.join("target"));
    command.env_remove("RUSTFLAGS").env("CARGO_TERM_COLOR", "never");
    command
}

/// Builds a crate for the first time.
pub fn cargo_build(top: &Path, from: &Path) -> Duration {
    fs::create_dir_all(top).expect("a directory");
    run(tool("cp").arg("-r").arg(from.join(assets::CRATE)).arg(top.join("crate")));
    run(&mut cargo(&top.join("crate")))
}

/// Builds it again after one function changed.
pub fn cargo_incremental(top: &Path, from: &Path) -> Duration {
    cargo_build(top, from);
    let file = top.join("crate/src/m3.rs");
    let text = fs::read_to_string(&file).expect("a module") + "\npub fn added() -> u64 { 17 }\n";
    fs::write(&file, text).expect("a module");
    run(&mut cargo(&top.join("crate")))
}

/// Installs packages from files, without a network.
pub fn npm_install(top: &Path, from: &Path) -> Duration {
    fs::create_dir_all(top).expect("a directory");
    fs::copy(from.join(assets::PACKAGES).join("package.json"), top.join("package.json")).expect("package.json");
    let cache = from.join("npm-cache");
    let mut command = tool("npm");
    command.current_dir(top).args(["install", "--offline", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]);
    run(command.arg("--cache").arg(cache).env("NO_UPDATE_NOTIFIER", "1"))
}

/// Small durable transactions.
pub fn sqlite(top: &Path) -> Duration {
    const TRANSACTIONS: i64 = 1000;
    fs::create_dir_all(top).expect("a directory");
    let database = rusqlite::Connection::open(top.join("data.db")).expect("a database");
    database.pragma_update(None, "journal_mode", "WAL").expect("a write-ahead log");
    database.pragma_update(None, "synchronous", "FULL").expect("full syncs");
    database.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, value TEXT)").expect("a table");
    let mut insert = database.prepare("INSERT INTO t (value) VALUES (?)").expect("a statement");
    let begun = Instant::now();
    for at in 0..TRANSACTIONS {
        insert.execute([format!("value number {at} of a table")]).expect("a row");
    }
    begun.elapsed()
}
