//! Branches under load: forks beside writers, gc beside forks and deletions, what many branches hold on disk.

use crate::mount::{SetOnDrop, TestMount, noise};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Returns a path in a branch as the mount shows it.
fn view(mount: &TestMount, branch: &str, path: &str) -> PathBuf {
    mount.control("branches").join(branch).join(path)
}

fn fork(mount: &TestMount, name: &str) {
    fs::create_dir(mount.control("branches").join(name)).unwrap_or_else(|err| panic!("{name}: {err}"));
}

fn delete(mount: &TestMount, name: &str) {
    fs::remove_dir(mount.control("branches").join(name)).unwrap_or_else(|err| panic!("{name}: {err}"));
}

#[test]
fn a_deleted_branch_comes_back_after_a_crash_and_gc() {
    let mut mount = TestMount::new();
    mount.write("file", "1");
    fork(&mount, "b");
    let large = noise(3 << 20, 1);
    fs::write(view(&mount, "b", "file"), "not checkpointed").unwrap();
    fs::write(view(&mount, "b", "large"), &large).unwrap();
    delete(&mount, "b");
    mount.crash();
    assert!(!mount.control("branches/b").exists(), "the deletion had returned");
    mount.tell("gc", r#"{"grace_secs":0}"#);
    mount.crash();
    mount.tell("undo", "\n");
    let is_back = |mount: &TestMount| {
        assert_eq!(fs::read_to_string(view(mount, "b", "file")).unwrap(), "not checkpointed");
        assert!(fs::read(view(mount, "b", "large")).unwrap() == large);
    };
    is_back(&mount);
    fs::write(view(&mount, "b", "new"), "written after it came back").unwrap();
    mount.crash();
    is_back(&mount);
    assert_eq!(fs::read_to_string(view(&mount, "b", "new")).unwrap(), "written after it came back");
    assert_eq!(mount.read("file"), "1");
}

/// A version of a file: its round at every place, so that parts of two versions are seen.
fn version(round: u64) -> Vec<u8> {
    round.to_le_bytes().repeat(1024)
}

/// Returns the round of a file that must be one version.
fn round_of(path: PathBuf) -> u64 {
    let bytes = fs::read(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    let round = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert!(bytes == version(round), "{} is torn", path.display());
    round
}

#[test]
fn a_fork_beside_writers_is_one_instant() {
    const WRITERS: usize = 4;
    let mount = TestMount::new();
    for writer in 0..WRITERS {
        mount.write(&format!("placed{writer}"), version(0));
        mount.write(&format!("overwritten{writer}"), version(0));
    }
    let returned: [AtomicU64; WRITERS] = Default::default();
    let stop = AtomicBool::new(false);
    let seen = || returned.each_ref().map(|round| round.load(Ordering::SeqCst));
    let mut bounds = Vec::new();
    std::thread::scope(|scope| {
        let mut writers = Vec::new();
        for (writer, returned) in returned.iter().enumerate() {
            let (mount, stop) = (&mount, &stop);
            writers.push(scope.spawn(move || {
                let file = fs::File::options().write(true).open(mount.path(format!("overwritten{writer}"))).unwrap();
                for round in 1.. {
                    fs::write(mount.path(format!(".new{writer}")), version(round)).unwrap();
                    fs::rename(mount.path(format!(".new{writer}")), mount.path(format!("placed{writer}"))).unwrap();
                    file.write_all_at(&version(round), 0).unwrap();
                    returned.store(round, Ordering::SeqCst);
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            }));
        }
        let _set = SetOnDrop(&stop);
        for at in 0..12 {
            while seen().iter().sum::<u64>() < 20 * (at + 1) && !writers.iter().any(|writer| writer.is_finished()) {
                std::thread::yield_now();
            }
            let before = seen();
            let forked = fs::create_dir(mount.control(format!("branches/fork{at}")));
            bounds.push((before, forked, seen()));
        }
    });
    for (at, (before, forked, after)) in bounds.into_iter().enumerate() {
        forked.unwrap();
        for writer in 0..WRITERS {
            let placed = round_of(view(&mount, &format!("fork{at}"), &format!("placed{writer}")));
            let overwritten = round_of(view(&mount, &format!("fork{at}"), &format!("overwritten{writer}")));
            // What had returned is in it, nothing is from after it, and the second write is not there without the first.
            assert!(before[writer] <= overwritten && placed <= after[writer] + 1, "fork{at}, writer {writer}");
            assert!(placed == overwritten || placed == overwritten + 1, "fork{at}, writer {writer}: {placed}, {overwritten}");
        }
    }
}

#[test]
fn gc_beside_forks_and_deletions_loses_nothing() {
    let mut mount = TestMount::new();
    mount.write("base", noise(200_000, 0));
    mount.checkpoint("base");
    let bytes = |at: u64| noise(100_000, at + 1);
    let holds = |mount: &TestMount, at: u64| {
        let name = format!("branch{at}");
        assert!(fs::read(view(mount, &name, "data")).unwrap() == bytes(at), "{name}");
        assert!(fs::read(view(mount, &name, "base")).unwrap() == noise(200_000, 0), "{name}");
    };
    let runs = std::thread::scope(|scope| {
        let mount = &mount;
        let work = scope.spawn(move || {
            for at in 0..24 {
                let name = format!("branch{at}");
                fork(mount, &name);
                fs::write(view(mount, &name, "data"), bytes(at)).unwrap();
                if at % 3 != 0 {
                    delete(mount, &name);
                }
                if at % 3 == 1 {
                    mount.tell("undo", "\n");
                    holds(mount, at);
                }
            }
        });
        let mut runs = 0;
        while !work.is_finished() {
            mount.tell("gc", r#"{"grace_secs":0}"#);
            runs += 1;
        }
        runs
    });
    assert!(runs > 1, "gc ran {runs} times beside them");
    mount.tell("gc", r#"{"grace_secs":0}"#);
    mount.crash();
    for at in 0..24 {
        match at % 3 {
            2 => assert!(!mount.control(format!("branches/branch{at}")).exists()),
            _ => holds(&mount, at),
        }
    }
}

#[test]
fn a_hundred_branches_hold_on_disk_what_they_changed() {
    const FILE_BYTES: usize = 16 << 10;
    let mount = TestMount::new();
    for at in 0..2000 {
        mount.write(&format!("dir{}/file{at}", at % 100), noise(FILE_BYTES, at));
    }
    mount.checkpoint("base");
    mount.tell("gc", r#"{"grace_secs":0}"#);
    let before = mount.store_bytes();
    for branch in 0..100u64 {
        let name = format!("branch{branch}");
        fork(&mount, &name);
        for file in 0..5 {
            let at = (branch * 17 + file * 401) % 2000;
            fs::write(view(&mount, &name, &format!("dir{}/file{at}", at % 100)), noise(FILE_BYTES, 10_000 + branch * 5 + file))
                .unwrap();
        }
        fs::write(view(&mount, &name, ".memento/checkpoint"), "changed\n").unwrap();
    }
    mount.tell("gc", r#"{"grace_secs":0}"#);
    let changed = 100 * 5 * FILE_BYTES as u64;
    let grown = mount.store_bytes() - before;
    println!("changed {changed} bytes, the store grew by {grown}, ratio {:.2}", grown as f64 / changed as f64);
    assert!(grown < changed * 3 / 2, "{changed} bytes changed, the store grew by {grown}");
}
