//! What the store takes, and gives back.

use crate::mount::{PATIENCE, SetOnDrop, TestMount, disk_bytes, noise, program, succeeded};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::time::Duration;

const MIB: u64 = 1 << 20;

fn collect(mount: &TestMount, rules: &Value) -> Value {
    mount.tell("gc", rules.to_string());
    serde_json::from_str(&mount.says("gc")).unwrap()
}

#[test]
fn the_same_content_is_stored_once() {
    let mount = TestMount::new();
    let bytes = noise(500_000, 1);
    mount.write("first", &bytes);
    mount.checkpoint("one");
    let (before, blobs) = (mount.store_bytes(), mount.query("SELECT count(*) FROM file_blobs WHERE kind='blob'"));
    for at in 0..10 {
        mount.write(&format!("copy{at}"), &bytes);
        mount.checkpoint(&format!("copy {at}"));
    }
    assert_eq!(mount.query("SELECT count(*) FROM file_blobs WHERE kind='blob'"), blobs, "no new content");
    let grown = mount.store_bytes().saturating_sub(before);
    assert!(grown < MIB, "ten copies of half a MiB took {grown} bytes");
    assert_eq!(mount.query("SELECT max(mark) FROM file_blobs WHERE kind='blob'"), ["10"], "and that is visible");
}

#[test]
fn a_large_file_that_changes_a_little_adds_a_little() {
    let mount = TestMount::new();
    let mut bytes = noise(50 << 20, 2);
    mount.write("large", &bytes);
    mount.checkpoint("base");
    let packs = mount.store().join("packs");
    let mut before = disk_bytes(&packs);
    let mut grown = |what: &str| {
        mount.checkpoint(what);
        let now = disk_bytes(&packs);
        let grown = now - before;
        before = now;
        assert!(grown < MIB, "{what}: {grown} bytes");
    };
    use std::os::unix::fs::FileExt;
    let file = fs::File::options().write(true).open(mount.path("large")).unwrap();
    file.write_all_at(b"x", 25 << 20).unwrap();
    bytes[25 << 20] = b'x';
    drop(file);
    grown("one byte in the middle");
    bytes.insert(10 << 20, b'y');
    mount.write("large", &bytes);
    grown("an insertion");
    assert!(fs::read(mount.path("large")).unwrap() == bytes);
    assert!(fs::read(mount.control("checkpoints/latest/large")).unwrap() == bytes);
}

#[test]
fn text_is_compressed() {
    let mount = TestMount::new();
    let text: String = (0..40_000).map(|at| format!("line {at} of a text that repeats itself\n")).collect();
    mount.write("text", &text);
    mount.checkpoint("one");
    let packed = disk_bytes(&mount.store().join("packs"));
    assert!(packed < text.len() as u64 / 3, "{packed} bytes for {} of text", text.len());
}

#[test]
fn gc_gives_back_what_deleted_checkpoints_held() {
    let mount = TestMount::new();
    mount.write("kept", noise(300_000, 1));
    mount.write("junk", noise(20 << 20, 2));
    let doomed = mount.checkpoint("with junk");
    fs::remove_file(mount.path("junk")).unwrap();
    mount.checkpoint("without junk");
    let before = mount.store_bytes();
    collect(&mount, &json!({ "grace_secs": 0 }));
    assert!(mount.store_bytes() + MIB > before, "nothing goes that a checkpoint names");
    fs::remove_dir(mount.control(format!("checkpoints/{doomed}"))).unwrap();
    let plan = collect(&mount, &json!({ "grace_secs": 0, "dry_run": true }));
    assert!(mount.store_bytes() + MIB > before, "a dry run removes nothing");
    assert!(plan["objects_removed_bytes"].as_u64().unwrap() > 15 * MIB, "{plan}");
    let grace = collect(&mount, &json!({}));
    assert!(mount.store_bytes() + MIB > before, "the grace period is ten minutes: {grace}");
    let done = collect(&mount, &json!({ "grace_secs": 0 }));
    assert!(mount.store_bytes() + 15 * MIB < before, "{} bytes before, {} after; {done}", before, mount.store_bytes());
    assert!(fs::read(mount.path("kept")).unwrap() == noise(300_000, 1));
    assert_eq!(done["dry_run"], false);
}

#[test]
fn gc_keeps_what_the_rules_and_names_keep() {
    let mount = TestMount::new();
    for at in 0..6 {
        mount.write("file", at.to_string());
        let name = if at == 1 { r#","name":"named""# } else { "" };
        let link = if at == 2 { r#","links":{"sys":"linked"}"# } else { "" };
        mount.checkpoint(&format!(r#"{{"message":"{at}"{name}{link}}}"#));
    }
    collect(&mount, &json!({ "grace_secs": 0 }));
    assert_eq!(mount.says("log").lines().count(), 6, "without keep rules no checkpoint is removed");
    collect(&mount, &json!({ "grace_secs": 0, "keep_last": 2 }));
    let left: Vec<String> = mount.says("log").lines().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect();
    assert_eq!(left, ["5", "4", "2", "1"], "the newest two, the named one and the linked one");
    for reference in ["named", "sys:linked", "@", "@~1"] {
        mount.tell("restore", json!({ "ref": reference, "dry_run": true }).to_string());
    }
}

#[test]
fn gc_runs_beside_writers_and_loses_nothing() {
    let mount = TestMount::new();
    for at in 0..20 {
        mount.write(&format!("base{at}"), noise(40_000, at));
    }
    let base = mount.checkpoint("base");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (mount, stop) = (&mount, &stop);
        scope.spawn(move || {
            let mut at = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                at += 1;
                mount.write(&format!("w{}", at % 10), noise(30_000, at % 13));
                if at % 5 == 0 {
                    mount.tell("checkpoint", "m");
                }
            }
        });
        let _set = SetOnDrop(stop);
        for _ in 0..10 {
            collect(mount, &json!({ "grace_secs": 0 }));
        }
    });
    for id in mount.says("log").lines().map(|line| line[..64].to_owned()) {
        mount.shell(&format!("cat .memento/checkpoints/{id}/* > /dev/null"));
    }
    mount.tell("restore", &base);
    for at in 0..20 {
        assert!(fs::read(mount.path(format!("base{at}"))).unwrap() == noise(40_000, at));
    }
}

#[test]
fn staging_and_journal_files_go_when_nothing_needs_them() {
    let mut mount = TestMount::new();
    for round in 0..3 {
        mount.write("large", noise(5_000_000, round));
        mount.checkpoint("m");
    }
    fs::remove_file(mount.path("large")).unwrap();
    mount.checkpoint("gone");
    mount.remount();
    collect(&mount, &json!({ "grace_secs": 0 }));
    let staged = disk_bytes(&mount.store().join("staging"));
    assert!(staged < 100_000, "staging holds {staged} bytes");
    let journal = disk_bytes(&mount.store().join("journal"));
    assert!(journal < 3 << 20, "the journal holds {journal} bytes");
}

#[test]
fn orphans_of_a_crash_go_at_the_next_gc() {
    let mut mount = TestMount::new();
    mount.write("file", "1");
    mount.checkpoint("one");
    mount.terminate();
    // What a crash between bytes and transaction leaves: a whole pack and a staging file that nothing names.
    let packs = mount.store().join("packs");
    let pack = fs::read_dir(&packs).unwrap().next().unwrap().unwrap().path();
    fs::copy(&pack, packs.join("00000777.pack")).unwrap();
    fs::write(mount.store().join("staging/1/0000000000000777"), noise(1_000_000, 1)).unwrap();
    mount.mount(&[]);
    collect(&mount, &json!({ "grace_secs": 0 }));
    assert!(!packs.join("00000777.pack").exists());
    // The mount's upkeep may have it in hand: it goes once the journal is durable.
    let begun = std::time::Instant::now();
    while mount.store().join("staging/1/0000000000000777").exists() {
        assert!(begun.elapsed() < PATIENCE, "the staging file stays");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(mount.read("file"), "1");
    mount.terminate();
    succeeded("fsck", program().arg("fsck").arg(mount.store()).arg("--read-data").output().unwrap());
}

#[test]
fn many_checkpoints_stay_cheap() {
    let mut mount = TestMount::new();
    mount.write("dir/file", noise(1000, 0));
    mount.checkpoint("base");
    mount.remount(); // Which empties the write-ahead log into the database.
    let before = mount.store_bytes();
    const ROUNDS: u64 = 300;
    for at in 0..ROUNDS {
        fs::write(mount.path("dir/file"), noise(1024, at + 1)).unwrap();
        mount.tell("checkpoint", "m");
    }
    mount.remount();
    let each = mount.store_bytes().saturating_sub(before) / ROUNDS;
    assert!(each <= 6 << 10, "{each} bytes a checkpoint");
}

/// A file of a checkpoint that somebody has open, or mapped, is a file in use.
#[test]
fn a_file_of_a_deleted_checkpoint_can_be_read_by_whoever_has_it_open() {
    use std::os::unix::fs::FileExt;
    let mount = TestMount::new();
    let bytes = crate::mount::noise(3 << 20, 1);
    mount.write("file", &bytes);
    let doomed = mount.checkpoint("one");
    fs::remove_file(mount.path("file")).unwrap();
    mount.checkpoint("two");
    let open = fs::File::open(mount.control(format!("checkpoints/{doomed}/file"))).unwrap();
    let mut first = [0; 10];
    open.read_exact_at(&mut first, 0).unwrap();
    fs::remove_dir(mount.control(format!("checkpoints/{doomed}"))).unwrap();
    mount.tell("gc", r#"{"grace_secs":0}"#);
    let mut found = vec![0; bytes.len()];
    open.read_exact_at(&mut found, 0).unwrap();
    assert!(found == bytes);
    drop(open);
    assert_given_back(&mount, bytes.len() as u64);
}

/// The kernel lets go of a file a moment after it is closed.
fn assert_given_back(mount: &TestMount, bytes: u64) {
    let freed = (0..300).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        collect(mount, &json!({ "grace_secs": 0 }))["freed_bytes"].as_u64().unwrap() >= bytes
    });
    assert!(freed, "nobody has it open any more, and gc leaves it");
}

/// The kernel kept what somebody had once read of a checkpoint, and gc took that for use until memory ran short.
#[test]
fn what_was_read_of_a_checkpoint_before_it_was_deleted_is_given_back() {
    let mount = TestMount::new();
    for rules in [r#"{"grace_secs":0}"#, r#"{"grace_secs":0,"keep_last":1}"#] {
        mount.write("d/large", noise(3 << 20, 4));
        mount.write("d/small", "1");
        let doomed = mount.checkpoint("one");
        mount.shell("rm -r d");
        mount.write("other", rules);
        mount.checkpoint("two");
        mount.shell(&format!("cat .memento/checkpoints/{doomed}/d/* .memento/checkpoints/{}/d/* > /dev/null", &doomed[..12]));
        if rules.contains("keep") {
            collect(&mount, &serde_json::from_str(rules).unwrap()); // What it deletes is younger than the run.
        } else {
            mount.request(&json!({ "do": "delete", "ref": doomed }));
        }
        let report = collect(&mount, &serde_json::from_str(rules).unwrap());
        assert!(report["freed_bytes"].as_u64().unwrap() > 3 * MIB, "{report}");
    }
}

/// So is a directory that somebody has open, and what is found through it.
#[test]
fn a_directory_of_a_deleted_checkpoint_can_be_read_by_whoever_has_it_open() {
    use std::os::fd::AsRawFd;
    let mount = TestMount::new();
    (0..50).for_each(|at| mount.write(&format!("d/sub/file{at}"), noise(30_000, at)));
    let doomed = mount.checkpoint("one");
    mount.shell("rm -r d");
    mount.checkpoint("two");
    let open = fs::File::open(mount.control(format!("checkpoints/{doomed}/d/sub"))).unwrap();
    fs::remove_dir(mount.control(format!("checkpoints/{doomed}"))).unwrap();
    mount.tell("gc", r#"{"grace_secs":0}"#);
    let through = std::path::PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
    assert_eq!(fs::read_dir(&through).unwrap().count(), 50);
    assert!(fs::read(through.join("file7")).unwrap() == noise(30_000, 7));
    assert_eq!(mount.says("error"), "");
    assert!(!mount.log().contains("damage"), "{}", mount.log());
    drop(open);
    assert_given_back(&mount, 50 * 30_000);
}

/// Who asks what a checkpoint changed while it is deleted and collected gets the answer, or hears that there is no such one.
#[test]
fn a_checkpoint_that_goes_while_it_is_compared_is_whole_or_not_there() {
    let mount = TestMount::new();
    for round in 0..15 {
        (0..40).for_each(|at| mount.write(&format!("d{at}/file"), format!("{round} {at}")));
        let doomed = mount.checkpoint("doomed");
        mount.write("other", round.to_string());
        mount.checkpoint("next");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                fs::remove_dir(mount.control(format!("checkpoints/{doomed}"))).unwrap();
                mount.tell("gc", r#"{"grace_secs":0}"#);
            });
            for _ in 0..20 {
                let said = mount.cli(&["show", &doomed]);
                let error = String::from_utf8_lossy(&said.stderr).into_owned();
                assert!(said.status.success() || error.contains("does not exist") || error.contains("no checkpoint"), "{error}");
            }
        });
    }
}

/// The kernel kept what had been in use below a directory that a restore removed, and with it all that was written there, until memory
/// ran short.
#[test]
fn what_was_open_below_a_removed_directory_takes_no_room_once_it_is_closed() {
    let mount = TestMount::new();
    mount.write("kept", "1");
    let id = mount.checkpoint("before");
    fs::create_dir_all(mount.path("gone/deep")).unwrap();
    let mut files: Vec<fs::File> = (0..20).map(|at| fs::File::create(mount.path(format!("gone/deep/{at}"))).unwrap()).collect();
    mount.tell("restore", &id);
    assert!(!mount.path("gone").exists());
    for file in &mut files {
        file.write_all(&noise(MIB as usize, 5)).unwrap();
    }
    let staging = mount.store().join("staging");
    assert!(disk_bytes(&staging) >= 20 * MIB);
    drop(files);
    let empty = (0..3000).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        disk_bytes(&staging) < MIB
    });
    assert!(empty, "nobody has the files any more, and they take {} bytes", disk_bytes(&staging));
}
