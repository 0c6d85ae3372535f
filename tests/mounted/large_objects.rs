//! Large files that are taken over by the store as they are.

use crate::mount::{TestMount, disk_bytes, noise, succeeded};
use serde_json::json;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

const MIB: usize = 1 << 20;

fn large_objects(mount: &TestMount) -> Vec<PathBuf> {
    let shards = fs::read_dir(mount.store().join("objects")).unwrap();
    shards.flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap()).map(|entry| entry.unwrap().path()).collect()
}

fn kept_bytes(mount: &TestMount) -> u64 {
    ["packs", "objects"].map(|part| disk_bytes(&mount.store().join(part))).iter().sum()
}

fn is_sound(mount: &mut TestMount) {
    mount.end();
    succeeded("fsck", mount.cli(&["fsck", "--read-data", mount.store().to_str().unwrap()]));
    mount.mount(&[]);
}

#[test]
fn a_large_file_is_taken_over_and_not_copied() {
    let mut mount = TestMount::new();
    let (first, second) = (noise(20 * MIB, 1), noise(20 * MIB, 2));
    mount.write("large", &first);
    let one = mount.checkpoint("one");
    assert_eq!(large_objects(&mount).len(), 1);
    assert!(disk_bytes(&mount.store().join("packs")) < MIB as u64, "nothing of it is in a pack");
    assert_eq!(fs::metadata(&large_objects(&mount)[0]).unwrap().mode() & 0o777, 0o400);

    let file = File::options().write(true).open(mount.path("large")).unwrap();
    file.write_all_at(b"changed in place", 5_000_000).unwrap();
    drop(file);
    mount.checkpoint("a few bytes of it");
    mount.write("large", &second);
    mount.checkpoint("written anew");
    assert_eq!(large_objects(&mount).len(), 2, "a small change makes no large object");
    assert!(fs::read(mount.control(format!("checkpoints/{one}/large"))).unwrap() == first);

    is_sound(&mut mount);
    mount.tell("restore", &one);
    assert!(fs::read(mount.path("large")).unwrap() == first);
    mount.crash();
    assert!(fs::read(mount.path("large")).unwrap() == first);
    is_sound(&mut mount);
}

/// Programs write in small parts: what a file was before it grew large is kept in memory, and was a reason to copy all of it.
#[test]
fn a_large_file_that_was_written_in_small_parts_is_taken_over() {
    let mut mount = TestMount::new();
    let bytes = noise(9 * MIB, 7);
    let mut file = File::create(mount.path("large")).unwrap();
    bytes.chunks(10_000).for_each(|part| file.write_all(part).unwrap());
    drop(file);
    mount.checkpoint("one");
    assert_eq!(large_objects(&mount).len(), 1);
    is_sound(&mut mount);
    assert!(fs::read(mount.path("large")).unwrap() == bytes);
}

#[test]
fn what_is_compressed_or_stored_already_is_not_taken_over() {
    let mount = TestMount::new();
    let bytes = noise(20 * MIB, 3);
    mount.write("large", &bytes);
    mount.checkpoint("one");
    mount.write("again", [&b"in front"[..], &bytes].concat());
    mount.write("text", "a line that repeats itself\n".repeat(MIB));
    mount.checkpoint("two");
    assert_eq!(large_objects(&mount).len(), 1);
    assert!(kept_bytes(&mount) < 22 * MIB as u64, "{}", kept_bytes(&mount));
}

#[test]
fn gc_takes_large_objects_and_moves_what_little_is_left_of_one() {
    let mut mount = TestMount::new();
    let bytes = noise(20 * MIB, 4);
    mount.write("large", &bytes);
    let one = mount.checkpoint("one");
    mount.write("large", &bytes[..4 * MIB]);
    mount.checkpoint("a part of it");
    fs::remove_dir(mount.control(format!("checkpoints/{one}"))).unwrap();
    mount.tell("gc", json!({ "grace_secs": 0 }).to_string());
    assert!(large_objects(&mount).is_empty());
    assert!(fs::read(mount.path("large")).unwrap() == bytes[..4 * MIB]);
    assert!(kept_bytes(&mount) < 5 * MIB as u64, "{}", kept_bytes(&mount));
    is_sound(&mut mount);
}

#[test]
fn damage_in_a_large_object_is_noticed_and_the_index_is_rebuilt_from_it() {
    let mut mount = TestMount::new();
    let bytes = noise(20 * MIB, 5);
    mount.write("large", &bytes);
    mount.checkpoint("one");
    mount.end();
    for name in ["store.db", "store.db-wal", "store.db-shm"] {
        let _ = fs::remove_file(mount.store().join(name));
    }
    let store = mount.store().to_str().unwrap().to_owned();
    succeeded("fsck --repair", mount.cli(&["fsck", "--repair", &store]));
    mount.mount(&[]);
    assert!(fs::read(mount.path("large")).unwrap() == bytes);
    mount.end();

    // Its list says what the index says too: a repair moves the bytes to where they are listed again.
    let object = large_objects(&mount).remove(0);
    let file = File::options().write(true).open(&object).unwrap();
    file.set_len(file.metadata().unwrap().len() - 3).unwrap();
    let found = mount.cli(&["fsck", &store]);
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    succeeded("fsck --repair", mount.cli(&["fsck", "--repair", &store]));
    succeeded("fsck", mount.cli(&["fsck", "--read-data", &store]));
    assert!(large_objects(&mount).is_empty());
    mount.mount(&[]);
    assert!(fs::read(mount.path("large")).unwrap() == bytes);

    mount.write("other", noise(20 * MIB, 6));
    mount.checkpoint("two");
    let file = File::options().write(true).open(large_objects(&mount).remove(0)).unwrap();
    file.write_all_at(b"rot", 10_000_000).unwrap();
    mount.remount();
    assert_eq!(fs::read(mount.path("other")).unwrap_err().raw_os_error(), Some(libc::EIO));
    assert!(mount.says("error").contains("damaged"));
    assert!(fs::read(mount.path("large")).unwrap() == bytes);
}

/// Says how many bytes the daemon read so far.
fn bytes_read(mount: &TestMount) -> u64 {
    let said = fs::read_to_string(format!("/proc/{}/io", mount.pid())).unwrap();
    said.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

/// A mount that says when a file is ready for its checkpoint.
fn talkative() -> TestMount {
    let mut mount = TestMount::unmounted();
    mount.mount_with(&[], &[("RUST_LOG", "mementofs=debug")]);
    mount
}

/// Waits until that many files are.
fn are_ready(mount: &TestMount, files: usize) {
    for _ in 0..1200 {
        if mount.log().matches("ready for its checkpoint").count() == files {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("nobody reads the files: {}", mount.log());
}

#[test]
fn a_large_file_that_went_quiet_is_read_before_its_checkpoint() {
    let mut mount = talkative();
    let bytes = noise(30 * MIB, 8);
    mount.write("large", &bytes);
    are_ready(&mount, 1);
    let before = bytes_read(&mount);
    let id = mount.checkpoint("large");
    let read = bytes_read(&mount) - before;
    assert!(read < 2 * MIB as u64, "{read} bytes were read for the checkpoint");
    assert_eq!(large_objects(&mount).len(), 1);
    assert!(fs::read(mount.control(format!("checkpoints/{id}/large"))).unwrap() == bytes);
    is_sound(&mut mount);
}

#[test]
fn what_is_done_to_a_file_after_it_was_read_is_in_the_checkpoint() {
    let mut mount = talkative();
    for at in 0..4 {
        mount.write(&format!("large{at}"), noise(5 * MIB, at));
    }
    are_ready(&mount, 4);
    let change = |at: u64| File::options().write(true).open(mount.path(format!("large{at}"))).unwrap();
    change(0).write_all_at(b"changed", 3_000_000).unwrap();
    change(1).set_len(4_500_000).unwrap();
    change(1).set_len(5_500_000).unwrap();
    mount.shell("fallocate --punch-hole --offset 2097152 --length 1048576 large2");
    let seen: Vec<_> = (0..4).map(|at| fs::read(mount.path(format!("large{at}"))).unwrap()).collect();
    let id = mount.checkpoint("changed");
    mount.shell("rm large*");
    mount.tell("restore", &id);
    for (at, bytes) in seen.iter().enumerate() {
        assert!(fs::read(mount.path(format!("large{at}"))).unwrap() == *bytes, "large{at}");
    }
    assert!(seen[0][3_000_000..].starts_with(b"changed") && seen[1][4_500_000..] == [0; 1_000_000]);
    is_sound(&mut mount);
}
