//! Bad input and trouble: a clear error, and nothing lost.

use crate::mount::{TestMount, noise, program, succeeded};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

/// Says whether the tests run as root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn mounting(store: &Path, point: &Path) -> Output {
    program().arg("mount").arg(store).arg(point).output().unwrap()
}

fn refused(store: &Path, point: &Path) -> String {
    let output = mounting(store, point);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn assert_says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in {said:?}");
    }
}

#[test]
fn stores_that_cannot_be_used() {
    let mut mount = TestMount::new();
    mount.write("file", "1");
    let (store, other) = (mount.store(), mount.outside("other"));
    fs::create_dir(&other).unwrap();
    let foreground = program().args(["mount", "-f"]).arg(&store).arg(&other).output().unwrap();
    assert_eq!(foreground.status.code(), Some(1), "{foreground:?}");
    assert_says(&String::from_utf8_lossy(&foreground.stderr), &["mounted already", "-f"]);
    mount.terminate();

    fs::set_permissions(&store, fs::Permissions::from_mode(0o770)).unwrap();
    assert_says(&refused(&store, &other), &["writ"]);
    fs::set_permissions(&store, fs::Permissions::from_mode(0o700)).unwrap();

    let format = fs::read_to_string(store.join("format")).unwrap();
    fs::write(store.join("format"), "mementofs 99\n").unwrap();
    assert_says(&refused(&store, &other), &["99", "newer"]);
    fs::write(store.join("format"), format).unwrap();

    let link = mount.outside("link");
    std::os::unix::fs::symlink(&store, &link).unwrap();

    let stranger = mount.outside("stranger");
    fs::create_dir(&stranger).unwrap();
    fs::write(stranger.join("precious"), "data").unwrap();
    assert_says(&refused(&stranger, &other), &["not a", "store"]);
    assert_eq!(fs::read_to_string(stranger.join("precious")).unwrap(), "data");
    let file = mount.outside("file");
    fs::write(&file, "x").unwrap();
    refused(&file, &other);

    mount.mount(&[]);
    assert_eq!(mount.read("file"), "1");
}

#[test]
fn a_damaged_database_is_said_and_not_overwritten() {
    let mut mount = TestMount::new();
    mount.write("file", "1");
    mount.checkpoint("one");
    mount.terminate();
    let database = mount.store().join("store.db");
    let good = fs::read(&database).unwrap();
    fs::write(&database, noise(good.len(), 1)).unwrap();
    let said = refused(&mount.store(), &mount.top());
    assert_says(&said, &["store"]);
    assert!(fs::read(&database).unwrap() == noise(good.len(), 1), "left as it was");
    fs::write(&database, good).unwrap();
    mount.mount(&[]);
    assert_eq!(mount.read("file"), "1");
}

#[test]
fn mount_points_that_cannot_be_used() {
    let mount = TestMount::unmounted();
    let store = mount.store();
    assert_says(&refused(&store, &mount.outside("missing")), &["missing", "No such file"]);
    assert!(!store.exists(), "no store is made for a mount that fails");
    let inside = store.join("inside");
    fs::create_dir_all(&inside).unwrap();
    assert_says(&refused(&mount.outside("mnt").join("store"), &mount.top()), &["within"]);
    fs::remove_dir(&inside).unwrap();
    fs::remove_dir(&store).unwrap();
    let file = mount.outside("file");
    fs::write(&file, "x").unwrap();
    refused(&store, &file);
}

#[test]
fn a_mount_point_that_is_not_empty_is_covered_with_a_note() {
    let mount = TestMount::unmounted();
    fs::write(mount.top().join("below"), "hidden").unwrap();
    let output = mounting(&mount.store(), &mount.top());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    succeeded("mount", output);
    assert_says(&said, &["not empty"]);
    assert!(!mount.path("below").exists());
    succeeded("umount", program().arg("umount").arg(mount.top()).output().unwrap());
    assert_eq!(fs::read_to_string(mount.top().join("below")).unwrap(), "hidden");
}

#[test]
fn a_busy_mount_is_not_taken_away() {
    let mount = TestMount::new();
    mount.write("file", "1");
    let open = fs::File::open(mount.path("file")).unwrap();
    let output = program().arg("umount").arg(mount.top()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_says(&String::from_utf8_lossy(&output.stderr), &["busy", "--lazy"]);
    assert_eq!(mount.read("file"), "1");
    let again = program().arg("mount").arg(mount.store()).arg(mount.top()).output().unwrap();
    assert_eq!(again.status.code(), Some(1), "mounted there already");
    drop(open);
}

#[test]
fn a_control_write_of_ten_mebibytes_is_refused() {
    let mount = TestMount::new();
    mount.write("file", "1");
    let mut file = fs::File::options().write(true).open(mount.control("checkpoint")).unwrap();
    let err = file.write_all(&vec![b'x'; 10 << 20]).unwrap_err();
    assert_eq!(err.raw_os_error(), Some(libc::E2BIG));
    assert_eq!(mount.newest(), "");
    assert_eq!(mount.read("file"), "1");
}

/// A mount whose store lies on a file system of its own, of `size`.
struct SmallDisk {
    mount: Option<TestMount>,
    disk: std::path::PathBuf,
}

impl SmallDisk {
    fn new(options: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("mementofs-test-").tempdir().unwrap();
        let disk = dir.path().to_owned();
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(&disk).output().unwrap();
        succeeded("mount -t tmpfs", output);
        let mut mount = TestMount::within(dir);
        mount.through_the_daemon(); // Its disk is in memory.
        mount.mount(&[]);
        Self { mount: Some(mount), disk }
    }
}

impl std::ops::Deref for SmallDisk {
    type Target = TestMount;
    fn deref(&self) -> &TestMount {
        self.mount.as_ref().unwrap()
    }
}

impl std::ops::DerefMut for SmallDisk {
    fn deref_mut(&mut self) -> &mut TestMount {
        self.mount.as_mut().unwrap()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The daemon first, then the disk under it, then the directory itself.
        if let Some(mount) = self.mount.as_mut() {
            mount.end();
        }
        let _ = Command::new("umount").arg("-l").arg(&self.disk).status();
        self.mount = None;
    }
}

/// The room kept for that is enough to take a large file over, and not enough to copy it. The file had been given up for being taken
/// over by the first attempt, which found the disk full.
#[test]
fn a_restore_on_a_full_disk_saves_a_large_file_first() {
    if !is_root() {
        return; // Mounting a small disk takes root.
    }
    let mount = SmallDisk::new("size=96m");
    mount.write("kept", noise(500_000, 1));
    let base = mount.checkpoint("base");
    let filler = mount.outside("filler");
    for pages_left in 0..6 {
        let bytes = noise(12 << 20, 10 + pages_left);
        mount.write("large", &bytes);
        let mut file = fs::File::create(&filler).unwrap();
        while file.write(&[7; 4096]).is_ok() {}
        file.set_len(file.metadata().unwrap().len() - 4096 * pages_left).unwrap();
        mount.tell("restore", &base);
        assert!(!mount.path("large").exists());
        fs::remove_file(&filler).unwrap();
        mount.tell("undo", "1");
        assert!(fs::read(mount.path("large")).unwrap() == bytes);
        mount.tell("restore", &base);
    }
}

#[test]
fn a_full_disk_is_said_to_the_writer_and_nothing_is_lost() {
    if !is_root() {
        return; // Mounting a small disk takes root.
    }
    let mut mount = SmallDisk::new("size=24m");
    mount.write("kept", noise(500_000, 1));
    let base = mount.checkpoint("base");
    mount.write("filler", noise(6 << 20, 2));
    let doomed = mount.checkpoint("with filler");
    fs::remove_file(mount.path("filler")).unwrap();
    let mut full = false;
    for at in 0..80 {
        if let Err(err) = fs::write(mount.path(format!("more{at}")), noise(400_000, 10 + at)) {
            assert_eq!(err.raw_os_error(), Some(libc::ENOSPC));
            full = true;
            break;
        }
    }
    assert!(full, "the disk never filled");
    assert!(fs::read(mount.path("kept")).unwrap() == noise(500_000, 1), "the mount stays readable");
    assert_eq!(fs::metadata(mount.path("more0")).unwrap().len(), 400_000);
    let before = mount.newest();
    assert_eq!(mount.refusal("checkpoint", "no room"), libc::ENOSPC, "{}", mount.says("error"));
    assert_eq!(mount.newest(), before, "the checkpoint does not exist");
    assert!(fs::read(mount.path("more0")).unwrap() == noise(400_000, 10), "what is dirty is still there");
    for name in mount.shell("ls | grep more").lines().skip(4) {
        fs::remove_file(mount.path(name)).unwrap();
    }
    fs::write(mount.control("requests/gc"), r#"{"do":"gc","grace_secs":0}"#).unwrap();
    fs::remove_dir(mount.control(format!("checkpoints/{doomed}"))).unwrap_err(); // The branch stands on it.
    let later = mount.checkpoint("room again");
    assert_ne!(later, before);
    assert!(fs::read(mount.control("checkpoints/latest/more0")).unwrap() == noise(400_000, 10));
    fs::remove_dir(mount.control(format!("checkpoints/{doomed}"))).unwrap();
    mount.tell("gc", r#"{"grace_secs":0}"#);
    mount.crash();
    mount.tell("restore", &base);
    assert!(fs::read(mount.path("kept")).unwrap() == noise(500_000, 1));
}

/// Found by `scripts/campaigns/full`: a write that failed had replaced the first block of the file.
#[test]
fn a_write_into_a_full_disk_changes_what_it_says_and_nothing_else() {
    if !is_root() {
        return; // Small disks take root.
    }
    let mount = SmallDisk::new("size=24m");
    let file = File::options().read(true).write(true).create_new(true).open(mount.path("file")).unwrap();
    file.set_len(1 << 20).unwrap();
    file.write_all_at(&[1; 4096], 0).unwrap();
    let filler = mount.path("filler");
    let mut filler = File::create(filler).unwrap();
    let block: Vec<u8> = (0..100_000u32).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    while filler.write_all(&block).is_ok() {}
    while filler.write_all(&block[..4096]).is_ok() {}
    let new = vec![2; 256 << 10];
    let written = file.write_at(&new, 0).unwrap_or(0);
    assert!(written < new.len(), "the disk is full");
    let mut found = vec![0; new.len()];
    file.read_exact_at(&mut found, 0).unwrap();
    let mut expected = vec![0; new.len()];
    expected[..4096].fill(1);
    expected[..written].fill(2);
    assert!(found == expected, "{written} bytes were said to be written");
}

/// The first write that was refused gave the room away: what came next took it, and nothing could be removed any more.
#[test]
fn a_refused_write_leaves_the_room_that_is_kept_for_removing() {
    if !is_root() {
        return; // Small disks take root.
    }
    let mount = SmallDisk::new("size=24m");
    let refused = (0..400).find_map(|at| fs::write(mount.path(format!("small{at}")), noise(100_000, at)).err());
    assert_eq!(refused.and_then(|err| err.raw_os_error()), Some(libc::ENOSPC));
    let segments = fs::read_dir(mount.store().join("journal/1")).unwrap().map(|entry| entry.unwrap().path());
    let newest = segments.max().unwrap();
    let written = fs::read(&newest).unwrap().iter().rposition(|byte| *byte != 0).unwrap() as u64; // Behind that is room.
    let kept = (fs::metadata(newest).unwrap().blocks() * 512).saturating_sub(written);
    assert!(kept >= 400 << 10, "{kept} bytes are kept behind the {written} of the journal");
}

/// Found by `scripts/campaigns/full`, seed 3041036189: a restore filled the disk with what it had to save, its journal segments kept no
/// room, and a file could not be shortened.
#[test]
fn a_restore_that_found_no_room_leaves_what_removing_takes() {
    if !is_root() {
        return; // Small disks take root.
    }
    let mount = SmallDisk::new("size=24m");
    let base = mount.checkpoint("base");
    let names: Vec<String> = (0..600).map(|at| format!("a-name-that-takes-some-room-{at}")).collect();
    names.iter().for_each(|name| mount.write(name, "1"));
    let filled = (0..400).map_while(|at| fs::write(mount.path(format!("filler{at}")), noise(100_000, at)).ok()).count();
    let mut rest = File::create(mount.path("rest")).unwrap();
    while rest.write_all(&noise(4096, 2)).is_ok() {}
    for _ in 0..3 {
        assert_eq!(mount.refusal("restore", &base), libc::ENOSPC, "{}", mount.says("error"));
    }
    drop(rest);
    let fillers = (0..=filled).map(|at| format!("filler{at}"));
    for name in fillers.chain(["rest".to_owned()]).chain(names) {
        let name = name.as_str();
        let file = File::options().write(true).open(mount.path(name)).unwrap();
        file.set_len(0).unwrap_or_else(|err| panic!("{name} cannot be shortened: {err}"));
        fs::remove_file(mount.path(name)).unwrap_or_else(|err| panic!("{name} cannot be removed: {err}"));
    }
    // Others take what that freed, and suppose that all the reserve but its last part is gone: a restore with next to nothing to save
    // finds room.
    File::open(mount.top()).unwrap().sync_all().unwrap();
    fs::remove_file(mount.store().join("reserve")).unwrap();
    let filler = mount.outside("filler");
    let mut taken = File::create(&filler).unwrap();
    while taken.write(&[7; 4096]).is_ok() {}
    mount.tell("restore", &base);
    fs::remove_file(filler).unwrap();
    mount.tell("gc", r#"{"grace_secs":0}"#);
    mount.write("filler", noise(12 << 20, 3));
}

#[test]
fn a_store_without_inodes_left_is_said_too() {
    if !is_root() {
        return;
    }
    let mut mount = SmallDisk::new("size=64m,nr_inodes=48");
    mount.write("small", "1");
    let base = mount.checkpoint("base");
    let mut refused = None;
    for at in 0..60 {
        if let Err(err) = fs::write(mount.path(format!("large{at}")), noise(300_000, at)) {
            refused = err.raw_os_error();
            break;
        }
    }
    assert_eq!(refused, Some(libc::ENOSPC));
    assert!(fs::read(mount.path("large0")).unwrap() == noise(300_000, 0));
    // Somebody else takes what is left. The store can be mounted all the same, and files that need no file of their own written.
    let fillers = (0..).map(|at| mount.disk.join(format!("filler{at}"))).take_while(|path| fs::write(path, "").is_ok()).count();
    mount.crash();
    assert!(fs::read(mount.path("large0")).unwrap() == noise(300_000, 0));
    mount.write("small", "2");
    mount.crash();
    assert_eq!(mount.read("small"), "2", "after {fillers} fillers");
    // What a restore needs of inodes is kept for it.
    mount.tell("restore", &base);
    assert_eq!((mount.read("small").as_str(), mount.path("large0").exists()), ("1", false));
    mount.tell("undo", "x");
    assert!(fs::read(mount.path("large0")).unwrap() == noise(300_000, 0));
}

#[test]
fn a_store_that_turns_read_only_keeps_the_mount_readable() {
    let mut mount = TestMount::new();
    mount.write("file", "1");
    mount.checkpoint("one");
    let pid = mount.pid();
    // As a file system that goes read-only under open files does: what is written fails, what is there can be read.
    let mut tracer = Command::new("strace")
        .args(["-f", "-qq", "-p", &pid.to_string(), "-e", "trace=pwrite64", "-e", "inject=pwrite64:error=EROFS"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut refused = None;
    for at in 0..1000 {
        if let Err(err) = fs::write(mount.path(format!("probe{at}")), "x") {
            refused = err.raw_os_error(); // The tracer has arrived.
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(refused, Some(libc::EROFS));
    assert_eq!(fs::write(mount.path("file"), "2").unwrap_err().raw_os_error(), Some(libc::EROFS));
    assert_eq!(mount.read("file"), "1");
    assert_eq!(fs::read_to_string(mount.control("checkpoints/latest/file")).unwrap(), "1");
    tracer.kill().unwrap();
    tracer.wait().unwrap();
    mount.write("file", "2");
    mount.crash();
    assert_eq!(mount.read("file"), "2");
}

/// The kernel was not told of an import whose checkpoint failed: what was written went into files that have no name any more.
#[test]
fn an_import_whose_checkpoint_fails_is_seen_all_the_same() {
    let mount = TestMount::new();
    mount.write("file", "old");
    mount.checkpoint("before");
    assert_eq!((mount.read("file").as_str(), mount.path("new").exists()), ("old", false)); // The kernel knows both.
    let from = mount.outside("from");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("file"), "imported").unwrap();
    fs::write(from.join("new"), "").unwrap();
    let database = rusqlite::Connection::open(mount.store().join("store.db")).unwrap();
    let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON file_commits BEGIN SELECT RAISE(FAIL, 'refused'); END";
    database.execute_batch(trigger).unwrap();
    let reply = mount.request(&serde_json::json!({ "do": "import", "from": from }));
    database.execute_batch("DROP TRIGGER refuse").unwrap();
    assert!(reply["id"].is_null() && reply["troubled"][0]["why"].as_str().unwrap().contains("refused"), "{reply}");
    assert_eq!((mount.read("file").as_str(), mount.path("new").exists()), ("imported", true));
    fs::File::options().append(true).open(mount.path("file")).and_then(|mut file| file.write_all(b" and more")).unwrap();
    mount.checkpoint("after");
    assert_eq!(fs::read_to_string(mount.control("checkpoints/latest/file")).unwrap(), "imported and more");
}

#[test]
fn many_kills_in_a_row_leave_one_working_store() {
    let mut mount = TestMount::unmounted();
    for round in 0..20 {
        mount.mount(&[]);
        mount.write("count", round.to_string());
        if round % 3 == 0 {
            mount.tell("checkpoint", "m");
        }
        mount.kill();
    }
    mount.mount(&[]);
    assert_eq!(mount.read("count"), "19");
}

#[test]
fn mounting_as_mount_8_does() {
    let mount = TestMount::unmounted();
    let output = program()
        .arg("mount")
        .arg(mount.store())
        .arg(mount.top())
        .args(["-o", "rw,nosuid,nodev,noatime,_netdev,x-systemd.automount"])
        .output()
        .unwrap();
    succeeded("mount", output);
    mount.write("file", "1");
    succeeded("umount", program().arg("umount").arg(mount.top()).output().unwrap());
    let output = program().arg("mount").arg(mount.store()).arg(mount.top()).args(["-o", "ro"]).output().unwrap();
    succeeded("mount -o ro", output);
    assert_eq!(mount.read("file"), "1");
    assert_eq!(fs::write(mount.path("file"), "2").unwrap_err().raw_os_error(), Some(libc::EROFS));
    succeeded("umount", program().arg("umount").arg(mount.top()).output().unwrap());
}
