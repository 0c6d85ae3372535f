//! What checkpoints, restores, mounts and imports cost, through the built program and a real mount.
//!
//! `scripts/bench checkpoint [--quick|--million] [--json FILE]`. Each figure is a median over at least 20 runs (three for those that
//! take seconds); the table says what the project wants to reach. Nothing here asserts a time.

mod bench;
#[path = "../kit/mod.rs"]
mod kit;
mod large;

use bench::{Bench, disk_bytes, median_ms, noise, timed};
use kit::{Table, median};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let json = arguments.iter().position(|argument| argument == "--json").and_then(|at| arguments.get(at + 1));
    let mut table = Table::of("checkpoint");
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
    large::file(if quick { 64 } else { 1024 }, &mut table);
    large::many_differences(if quick { 1_000 } else { 10_000 }, &mut table);
    idle_branches(if quick { 20 } else { 100 }, &mut table);
    many_checkpoints(if quick { 1_000 } else { 10_000 }, &mut table);
    import(if quick { 2_000 } else { 20_000 }, &mut table);
    table.print();
    if let Some(path) = json {
        fs::write(path, table.json()).expect("the JSON file can be written");
    }
}

fn one_tree(files: usize, flat: bool, quick: bool, table: &mut Table) {
    const RUNS: usize = 41;
    let mut bench = Bench::new();
    let source = bench.dir.path().join("source");
    make_tree(&source, files, flat);
    import_into(&bench.store(), &source);
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
    import_into(&bench.store(), &source);
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

/// Makes a store of a directory.
fn import_into(store: &Path, source: &Path) {
    let imported = Command::new(env!("CARGO_BIN_EXE_mementofs"))
        .args(["import", "--store"])
        .args([store, source])
        .stdout(Stdio::null())
        .status();
    assert!(imported.expect("the program starts").success());
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
        import_into(&store, &source);
        times.push(begun.elapsed().as_secs_f64());
        let _ = fs::remove_dir_all(&store);
    }
    let took = median(times);
    let megabytes = (files * bytes_each) as f64 / 1e6;
    table.add(format!("import of {files} files, {megabytes:.0} MB"), megabytes / took, "MB/s", "150, or 5000 files/s");
    table.add("the same in files", files as f64 / took, "files/s", "");
}
