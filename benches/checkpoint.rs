//! What checkpoints, restores, mounts and imports cost, through the built program and a real mount.
//!
//! `scripts/bench checkpoint [--quick|--million] [--json FILE]`. Each figure is a median over at least 20 runs (three for those that
//! take seconds); the table says what the project wants to reach. Nothing here asserts a time.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let json = arguments.iter().position(|argument| argument == "--json").and_then(|at| arguments.get(at + 1));
    let mut table = Table::default();
    let million = arguments.iter().any(|argument| argument == "--million");
    let sizes: &[usize] = match (quick, million) {
        (true, _) => &[1_000, 10_000],
        (false, false) => &[1_000, 10_000, 100_000],
        (false, true) => &[1_000, 10_000, 100_000, 1_000_000],
    };
    for flat in [false, true] {
        for files in sizes {
            one_tree(*files, flat, quick, &mut table);
        }
    }
    idle_branches(if quick { 20 } else { 100 }, &mut table);
    many_checkpoints(if quick { 1_000 } else { 10_000 }, &mut table);
    import(if quick { 2_000 } else { 20_000 }, &mut table);
    table.print();
    if let Some(path) = json {
        fs::write(path, table.json()).expect("the JSON file can be written");
    }
}

/// The figures so far.
#[derive(Default)]
struct Table {
    rows: Vec<(String, f64, &'static str, String)>,
}

impl Table {
    fn add(&mut self, what: impl Into<String>, value: f64, unit: &'static str, reach: impl Into<String>) {
        let (what, reach) = (what.into(), reach.into());
        eprintln!("{what}: {value:.3} {unit}");
        self.rows.push((what, value, unit, reach));
    }

    fn print(&self) {
        println!("| what | measured | reach |\n|---|---|---|");
        for (what, value, unit, reach) in &self.rows {
            println!("| {what} | {value:.2} {unit} | {reach} |");
        }
    }

    fn json(&self) -> String {
        let rows: Vec<serde_json::Value> = self
            .rows
            .iter()
            .map(|(what, value, unit, reach)| serde_json::json!({ "what": what, "value": value, "unit": unit, "reach": reach }))
            .collect();
        serde_json::json!({ "bench": "checkpoint", "rows": rows }).to_string()
    }
}

/// A store and its mount in a directory of their own.
struct Bench {
    dir: tempfile::TempDir,
    daemon: Option<Child>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("mementofs-bench-").tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("mnt")).expect("a mount point");
        Self { dir, daemon: None }
    }

    fn top(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Mounts and returns how long it took until a first listing was answered.
    fn mount(&mut self) -> Duration {
        let begun = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_mementofs"))
            .args(["mount", "-f"])
            .args([self.store(), self.top()])
            .env("MEMENTOFS_READY", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.expect("the program starts");
        let mut line = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut line).expect("the mount serves");
        assert!(fs::read_dir(self.top()).expect("a listing").count() < usize::MAX);
        self.daemon = Some(child);
        begun.elapsed()
    }

    fn unmount(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = Command::new("kill").arg(daemon.id().to_string()).status();
            let _ = daemon.wait();
        }
    }

    /// Returns the resident memory of the daemon in MiB.
    fn resident_mib(&self) -> f64 {
        let pid = self.daemon.as_ref().expect("mounted").id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
    }

    fn tell(&self, file: &str, command: &str) {
        let mut opened = fs::File::options().write(true).open(self.top().join(".memento").join(file)).expect("a control file");
        opened.write_all(command.as_bytes()).expect("the command succeeds");
    }

    fn says(&self, file: &str) -> String {
        fs::read_to_string(self.top().join(".memento").join(file)).expect("a control file").trim().to_owned()
    }

    /// Returns where file number `at` of the tree is.
    fn file(&self, at: usize, flat: bool) -> PathBuf {
        match flat {
            true => self.top().join(format!("f{at}")),
            false => self.top().join(format!("d{}/e{}/f{at}", at % 31, at / 31 % 37)),
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.unmount();
        let _ = Command::new("umount").arg("-l").arg(self.top()).stderr(Stdio::null()).status();
    }
}

/// Bytes that do not compress and differ by seed.
fn noise(len: usize, seed: u64) -> Vec<u8> {
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

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Runs `work` `runs` times and returns the median in milliseconds of what it says it took.
fn median_ms(runs: usize, mut work: impl FnMut(usize) -> Duration) -> f64 {
    median((0..runs).map(|at| work(at).as_secs_f64() * 1e3).collect())
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

fn one_tree(files: usize, flat: bool, quick: bool, table: &mut Table) {
    const RUNS: usize = 41;
    let mut bench = Bench::new();
    let source = bench.dir.path().join("source");
    make_tree(&source, files, flat);
    let output = Command::new(env!("CARGO_BIN_EXE_mementofs"))
        .args(["import", "--store"])
        .args([&bench.store(), &source])
        .stdout(Stdio::null())
        .status();
    assert!(output.expect("the program starts").success());
    let shape = if flat { "in one directory" } else { "in directories" };
    let opened = median_ms(if quick { 3 } else { 21 }, |_| {
        bench.unmount();
        bench.mount()
    });
    table.add(format!("mount of {files} files {shape}, first ls"), opened, "ms", if files == 100_000 { "300" } else { "" });
    table.add(
        format!("resident memory then, {files} files {shape}"),
        bench.resident_mib(),
        "MiB",
        if files == 100_000 { "60" } else { "" },
    );

    let mut seed = files as u64;
    let mut change = |bench: &Bench, count: usize| {
        for at in 0..count {
            seed += 1;
            fs::write(bench.file((seed as usize * 7919 + at) % files, flat), noise(4096, seed)).expect("a file is written");
        }
    };
    change(&bench, 1);
    bench.tell("checkpoint", "warm");
    let one = median_ms(RUNS, |_| {
        change(&bench, 1);
        timed(|| bench.tell("checkpoint", "one"))
    });
    table.add(format!("checkpoint, 1 file changed of {files} {shape}"), one, "ms", "10; 100k at most 1.5 times 1k");
    let nothing = median_ms(RUNS, |_| timed(|| bench.tell("checkpoint", "nothing")));
    table.add(format!("checkpoint without a change, {files} {shape}"), nothing, "ms", "1");
    let thousand = median_ms(21, |_| {
        change(&bench, 1000.min(files));
        timed(|| bench.tell("checkpoint", "thousand"))
    });
    table.add(format!("checkpoint, 1000 files changed of {files} {shape}"), thousand, "ms", "30");

    // Ten files go back and forth; the kernel knows all of them before, and is asked for one afterwards.
    let old = bench.says("checkpoint");
    for at in 0..10 {
        fs::write(bench.file(at * 97 % files, flat), "ten changed").expect("a file is written");
    }
    bench.tell("checkpoint", "ten changed");
    let new = bench.says("checkpoint");
    let mut is_old = false;
    let restore = median_ms(RUNS, |_| {
        is_old = !is_old;
        for at in 0..10 {
            fs::read(bench.file(at * 97 % files, flat)).expect("a file is read");
        }
        let took = timed(|| bench.tell("restore", if is_old { &old } else { &new }));
        for at in 0..10 {
            let now = fs::read(bench.file(at * 97 % files, flat)).expect("a file is read");
            assert_eq!(now == b"ten changed", !is_old, "the first look shows the new truth");
        }
        took
    });
    table.add(format!("restore across 10 changed files of {files} {shape}"), restore, "ms", "15");
    fork(&bench, files, shape, table);
}

fn fork(bench: &Bench, files: usize, shape: &str, table: &mut Table) {
    const RUNS: usize = 41;
    let branches = bench.top().join(".memento/branches");
    let request = bench.top().join(".memento/requests/fork");
    let forked = median_ms(RUNS, |at| {
        let command = format!(r#"{{"do":"fork","name":"fork-{at}"}}"#);
        timed(|| fs::write(&request, &command).expect("a fork"))
    });
    table.add(format!("fork, {files} files {shape}"), forked, "ms", "1");
    let listed = median_ms(RUNS, |at| {
        timed(|| assert!(fs::read_dir(branches.join(format!("fork-{at}"))).expect("a branch").next().is_some()))
    });
    table.add(format!("first listing in a branch, {files} files {shape}"), listed, "ms", "2");
}

/// Branches that were looked at once and are left alone, and branches that hold 50 changed files each.
fn idle_branches(count: usize, table: &mut Table) {
    const CHANGED: usize = 50;
    let mut bench = Bench::new();
    let source = bench.dir.path().join("source");
    make_tree(&source, 10_000, false);
    let imported = Command::new(env!("CARGO_BIN_EXE_mementofs"))
        .args(["import", "--store"])
        .args([&bench.store(), &source])
        .stdout(Stdio::null())
        .status();
    assert!(imported.expect("the program starts").success());
    bench.mount();
    let branches = bench.top().join(".memento/branches");
    let resident = bench.resident_mib();
    for at in 0..count {
        fs::create_dir(branches.join(format!("idle-{at}"))).expect("a fork");
        assert!(fs::read_dir(branches.join(format!("idle-{at}"))).expect("a branch").next().is_some());
    }
    let each = (bench.resident_mib() - resident) * 1024.0 / count as f64;
    table.add(format!("memory of each of {count} idle branches"), each, "KiB", "50");
    let before = disk_bytes(&bench.store());
    for at in 0..count {
        let top = branches.join(format!("idle-{at}"));
        for file in 0..CHANGED {
            let path = bench.file(file * 97, false);
            let path = top.join(path.strip_prefix(bench.top()).expect("below the top"));
            fs::write(path, noise(4096, (at * CHANGED + file) as u64)).expect("a file is written");
        }
        fs::write(top.join(".memento/checkpoint"), "changed").expect("a checkpoint");
    }
    let each = (disk_bytes(&bench.store()) - before) as f64 / (count * CHANGED) as f64 / 4096.0;
    table.add(
        format!("store growth of {count} branches with {CHANGED} changed files of 4 KiB each, to what changed"),
        each,
        "times",
        "2",
    );
}

fn make_tree(source: &Path, files: usize, flat: bool) {
    fs::create_dir_all(source).expect("a directory");
    for at in 0..files {
        let path = match flat {
            true => source.join(format!("f{at}")),
            false => source.join(format!("d{}/e{}/f{at}", at % 31, at / 31 % 37)),
        };
        if !flat {
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        }
        fs::write(path, format!("content of {at}\n")).expect("a file is written");
    }
}

fn many_checkpoints(count: usize, table: &mut Table) {
    let mut bench = Bench::new();
    bench.mount();
    let file = bench.top().join("dir/sub/file");
    fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
    for at in 0..100 {
        fs::write(bench.top().join(format!("dir/other{at}")), "other").expect("a file is written");
    }
    fs::write(&file, "0").expect("a file is written");
    bench.tell("checkpoint", "base");
    bench.unmount();
    let before = disk_bytes(&bench.store());
    bench.mount();
    let mut times = Vec::with_capacity(count);
    for at in 0..count {
        fs::write(&file, noise(1024, at as u64)).expect("a file is written");
        times.push(timed(|| bench.tell("checkpoint", "m")).as_secs_f64() * 1e3);
    }
    let (first, last) = (median(times[..100].to_vec()), median(times[count - 100..].to_vec()));
    table.add(format!("first hundred of {count} checkpoints"), first, "ms", "");
    table.add(format!("last hundred of {count} checkpoints"), last, "ms", "1.5 times the first");
    table.add("ratio of the two", last / first, "", "1.5");
    bench.unmount();
    let each = (disk_bytes(&bench.store()) - before) as f64 / count as f64 / 1024.0;
    table.add("store growth a checkpoint of a 1 KiB file", each, "KiB", "6");
}

fn import(files: usize, table: &mut Table) {
    let bytes_each = 25_000;
    let mut times = Vec::new();
    let dir = tempfile::Builder::new().prefix("mementofs-bench-").tempdir().expect("a temporary directory");
    let source = dir.path().join("source");
    for at in 0..files {
        let path = source.join(format!("d{}/e{}/f{at}", at % 31, at / 31 % 37));
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, noise(bytes_each, at as u64)).expect("a file is written");
    }
    for round in 0..3 {
        let store = dir.path().join(format!("store{round}"));
        let begun = Instant::now();
        let status = Command::new(env!("CARGO_BIN_EXE_mementofs"))
            .args(["import", "--store"])
            .args([&store, &source])
            .stdout(Stdio::null())
            .status();
        assert!(status.expect("the program starts").success());
        times.push(begun.elapsed().as_secs_f64());
        let _ = fs::remove_dir_all(&store);
    }
    let took = median(times);
    let megabytes = (files * bytes_each) as f64 / 1e6;
    table.add(format!("import of {files} files, {megabytes:.0} MB"), megabytes / took, "MB/s", "150, or 5000 files/s");
    table.add("the same in files", files as f64 / took, "files/s", "");
}

fn disk_bytes(dir: &Path) -> u64 {
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
