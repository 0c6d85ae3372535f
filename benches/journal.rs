//! What keeping every change costs: the record of an operation, fsync(2), fsync by many at once, and the replay.
//!
//! `scripts/bench journal [--quick] [--json FILE] [--dir DIR]`. Ratios are taken in one run, turn about with what they are
//! compared with; DIR says on which file system (the default is that of temporary files). Nothing here asserts a time.

mod kit;

use kit::{Table, median};
use mementofs::object::{EntryKind, Name};
use mementofs::repository::Repository;
use mementofs::workspace::{AttributeChange, Branches, NewNode, ROOT, RenameMode, Workspace, XattrMode};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let value = |name: &str| arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
    let dir = value("--dir").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::Builder::new().prefix("mementofs-bench-").tempdir_in(dir).expect("a temporary directory");
    let mut table = Table::of("journal");
    records(dir.path(), if quick { 2_000 } else { 20_000 }, &mut table);
    replay(dir.path(), if quick { 50_000 } else { 1_000_000 }, &mut table);
    let bench = Bench::start(dir.path());
    round_trip(&bench, if quick { 500 } else { 5_000 }, &mut table);
    alone(&bench, if quick { 30 } else { 300 }, &mut table);
    together(&bench, Duration::from_millis(if quick { 700 } else { 5_000 }), &mut table);
    drop(bench);
    table.print();
    if let Some(path) = value("--json") {
        fs::write(path, table.json()).expect("the JSON file can be written");
    }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a valid name")
}

fn node(kind: EntryKind) -> NewNode {
    NewNode { kind, mode: 0o644, uid: 0, gid: 0, device: 0, target: Box::default() }
}

fn workspace(dir: &Path, store: &str) -> Arc<Workspace> {
    let path = dir.join(store);
    let opened = if path.exists() { Repository::open(&path) } else { Repository::create(&path) };
    Branches::new(opened.expect("a store")).open("main").expect("a workspace")
}

/// Does `count` operations of each kind; returns the microseconds of one, by kind.
fn operations(workspace: &Workspace, round: usize, count: usize) -> Vec<(&'static str, f64)> {
    let directory = workspace.create(ROOT, &name(&format!("d{round}")), node(EntryKind::Directory), 0).expect("mkdir").ino;
    let names: Vec<Name> = (0..count).map(|at| name(&format!("file-{at}"))).collect();
    let moved: Vec<Name> = (0..count).map(|at| name(&format!("moved-{at}"))).collect();
    let data = [7; 4096];
    let mut files = Vec::with_capacity(count);
    let mut times = Vec::new();
    let mut timed = |what, work: &mut dyn FnMut(usize)| {
        let begun = Instant::now();
        (0..count).for_each(work);
        times.push((what, begun.elapsed().as_secs_f64() * 1e6 / count as f64));
    };
    timed("create", &mut |at| {
        files.push(workspace.create(directory, &names[at], node(EntryKind::File), 0).expect("create").ino);
    });
    timed("write of 100 bytes", &mut |at| _ = workspace.write(files[at], 0, &data[..100], false).expect("write"));
    timed("write of 4 KiB", &mut |at| _ = workspace.write(files[at], 0, &data, false).expect("write"));
    timed("chmod", &mut |at| {
        let change = AttributeChange { mode: Some(0o600), ..AttributeChange::default() };
        workspace.set_attributes(files[at], change).expect("chmod");
    });
    timed("setxattr", &mut |at| workspace.set_xattr(files[at], b"user.a", b"value", XattrMode::Set).expect("setxattr"));
    timed("rename", &mut |at| {
        workspace.rename(directory, &names[at], directory, &moved[at], RenameMode::Replace, None).expect("rename");
    });
    timed("unlink", &mut |at| workspace.unlink(directory, &moved[at]).expect("unlink"));
    files.iter().for_each(|ino| workspace.forget(*ino, 1));
    times
}

/// What a record adds to an operation: the same operations without the kernel, with the journal and without it.
fn records(dir: &Path, count: usize, table: &mut Table) {
    const ROUNDS: usize = 7;
    let (on, off) = (workspace(dir, "on"), workspace(dir, "off"));
    off.stop_journaling();
    let mut with = Vec::new();
    let mut without = Vec::new();
    for round in 0..ROUNDS {
        with.push(operations(&on, round, count));
        without.push(operations(&off, round, count));
    }
    let column = |rounds: &[Vec<(&str, f64)>], at: usize| median(rounds.iter().map(|round| round[at].1).collect());
    for (at, (what, _)) in with[0].iter().enumerate() {
        let added = column(&with, at) - column(&without, at);
        table.add(format!("journal record of a {what}"), added, "µs", "at most 3");
    }
}

/// How long a mount takes that has to replay many operations.
fn replay(dir: &Path, count: usize, table: &mut Table) {
    const FILES: usize = 1_000;
    let made = workspace(dir, "replayed");
    let data = [7; 100];
    let mut files = Vec::new();
    for at in 0..count {
        match at {
            at if at < FILES => {
                let name = name(&format!("file-{at}"));
                files.push(made.create(ROOT, &name, node(EntryKind::File), 0).expect("create").ino);
            }
            at if at % 10 == 0 => {
                let name = name(&format!("more-{at}"));
                let ino = made.create(ROOT, &name, node(EntryKind::File), 0).expect("create").ino;
                made.forget(ino, 1);
            }
            _ => _ = made.write(files[at % FILES], (at % 37 * 100) as u64, &data, false).expect("write"),
        }
    }
    drop(made);
    let begun = Instant::now();
    let opened = workspace(dir, "replayed");
    let seconds = begun.elapsed().as_secs_f64();
    assert!(opened.lookup(ROOT, &name("file-999")).expect("a lookup").is_some());
    table.add(format!("replay of {count} operations"), seconds, "s", "a million: less than 10");
}

/// A mounted store, and a directory of the file system that holds it.
struct Bench {
    dir: PathBuf,
    daemon: Option<Child>,
}

impl Bench {
    fn start(dir: &Path) -> Self {
        for part in ["mnt", "native"] {
            fs::create_dir(dir.join(part)).expect("a directory");
        }
        let daemon = kit::mounted(&dir.join("store"), &dir.join("mnt"));
        Self { dir: dir.to_owned(), daemon: Some(daemon) }
    }

    /// The mount, and beside it the file system below it.
    fn places(&self) -> [(&'static str, PathBuf); 2] {
        [("mount", self.dir.join("mnt")), ("native", self.dir.join("native"))]
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            kit::ended(daemon, &self.dir.join("mnt"));
        }
    }
}

/// For comparison: one change through the kernel.
fn round_trip(bench: &Bench, count: usize, table: &mut Table) {
    use std::os::unix::fs::PermissionsExt;
    for (what, place) in bench.places() {
        let path = place.join("chmod");
        fs::write(&path, "x").expect("a file");
        let mut times = Vec::with_capacity(count);
        for at in 0..count {
            let mode = fs::Permissions::from_mode(0o600 + (at as u32 & 0o77));
            let begun = Instant::now();
            fs::set_permissions(&path, mode).expect("chmod");
            times.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        table.add(format!("chmod through the kernel, {what}"), median(times), "µs", "-");
    }
}

/// What one fsync(2) takes when nothing else goes on, against the file system below: turn about, the fsync alone.
fn alone(bench: &Bench, count: usize, table: &mut Table) {
    for (what, size, fresh) in [
        ("of a new file of 4 KiB", 4 << 10, true),
        ("of 4 KiB over old ones", 4 << 10, false),
        ("of a new file of 1 MiB", 1 << 20, true),
    ] {
        let mut times = [Vec::new(), Vec::new()];
        let data = vec![7; size];
        for at in 0..count {
            for ((_, place), times) in bench.places().iter().zip(&mut times) {
                let path = place.join(if fresh { format!("new-{size}-{at}") } else { "old".to_owned() });
                let mut file = File::options().write(true).create(true).truncate(false).open(path).expect("a file");
                file.write_all(&data).expect("a write");
                let begun = Instant::now();
                file.sync_all().expect("fsync");
                times.push(begun.elapsed().as_secs_f64() * 1e6);
            }
        }
        let [ours, native] = times.map(median);
        table.add(format!("fsync {what}, mount"), ours, "µs", "-");
        table.add(format!("fsync {what}, native"), native, "µs", "-");
        table.add(format!("fsync {what}"), ours / native, "x native", "at most 1.3");
    }
}

/// Files of 4 KiB made and synced in a second, by one writer and by 64.
fn together(bench: &Bench, time: Duration, table: &mut Table) {
    for (what, place) in bench.places() {
        let mut rates = [Vec::new(), Vec::new()];
        for round in 0..3 {
            for (writers, rates) in [1, 64].into_iter().zip(&mut rates) {
                rates.push(synced_rate(&place.join(format!("w{round}-{writers}")), writers, time));
            }
        }
        let [one, many] = rates.map(median);
        table.add(format!("files synced by one writer, {what}"), one, "/s", "-");
        table.add(format!("files synced by 64 writers, {what}"), many, "/s", "-");
        let reach = if what == "mount" { "at least 5" } else { "-" };
        table.add(format!("64 writers against one, {what}"), many / one, "x", reach);
    }
}

fn synced_rate(dir: &Path, writers: usize, time: Duration) -> f64 {
    let (done, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let (done, ended, dir) = (&done, &ended, dir.join(writer.to_string()));
            fs::create_dir_all(&dir).expect("a directory");
            scope.spawn(move || {
                let data = [7; 4096];
                for at in 0.. {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    let mut file = File::create(dir.join(format!("f{at}"))).expect("a file");
                    file.write_all(&data).expect("a write");
                    file.sync_all().expect("fsync");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        std::thread::sleep(time);
        ended.store(true, Ordering::Relaxed);
    });
    done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
}
