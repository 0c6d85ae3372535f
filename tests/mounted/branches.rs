//! Branches: a fork is a row, a branch is a directory, nothing leaks.

use crate::mount::{TestMount, noise, program, succeeded};
use serde_json::json;
use std::fs;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::PathBuf;

/// Returns a path in a branch as the mount shows it.
fn view(mount: &TestMount, branch: &str, path: &str) -> PathBuf {
    mount.control("branches").join(branch).join(path)
}

fn text(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

#[test]
fn a_fork_has_the_live_state_with_what_was_not_checkpointed() {
    let mount = TestMount::new();
    mount.write("src/main.rs", "first");
    mount.checkpoint("one");
    mount.write("src/main.rs", "second");
    fs::create_dir(mount.control("branches/try")).unwrap();
    assert_eq!(text(view(&mount, "try", "src/main.rs")), "second");
    let log = mount.says("log");
    assert_eq!(log.lines().count(), 2, "{log}");
    assert!(log.lines().next().unwrap().ends_with("before fork try"), "{log}");
    assert_eq!(mount.query("SELECT kind FROM file_commits ORDER BY seq"), ["manual", "auto"]);
    // Nothing changed since: the next fork needs no checkpoint.
    fs::create_dir(mount.control("branches/again")).unwrap();
    assert_eq!(mount.query("SELECT count(*) FROM file_commits"), ["2"]);
    let mut names: Vec<_> =
        fs::read_dir(mount.control("branches")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["again", "main", "try"]);
}

#[test]
fn branches_are_isolated_in_both_directions() {
    let mount = TestMount::new();
    mount.write("shared", "from the start");
    mount.write("dir/inner", "x");
    fs::create_dir(mount.control("branches/b")).unwrap();
    // Read through both first, so that every cache is warm.
    assert_eq!((mount.read("shared"), text(view(&mount, "b", "shared"))), ("from the start".into(), "from the start".into()));
    fs::write(view(&mount, "b", "shared"), "in b").unwrap();
    fs::write(view(&mount, "b", "new"), "only in b").unwrap();
    fs::remove_dir_all(view(&mount, "b", "dir")).unwrap();
    symlink("shared", view(&mount, "b", "link")).unwrap();
    assert_eq!(mount.read("shared"), "from the start");
    assert!(!mount.path("new").exists() && mount.path("dir/inner").exists() && !mount.path("link").exists());
    fs::write(mount.path("shared"), "in main").unwrap();
    fs::rename(mount.path("dir"), mount.path("moved")).unwrap();
    assert_eq!(text(view(&mount, "b", "shared")), "in b");
    assert!(!view(&mount, "b", "moved").exists());
    // One file of content in two branches: writing in place through an open descriptor changes one of them.
    fs::create_dir(mount.control("branches/c")).unwrap();
    let file = fs::File::options().read(true).write(true).open(mount.path("moved/inner")).unwrap();
    file.write_all_at(b"Y", 0).unwrap();
    assert_eq!((mount.read("moved/inner"), text(view(&mount, "c", "moved/inner"))), ("Y".into(), "x".into()));
    // Two branches are two file systems to rename(2) and link(2), with numbers of their own.
    assert_eq!(errno(fs::rename(mount.path("shared"), view(&mount, "b", "stolen"))), libc::EXDEV);
    assert_eq!(errno(fs::hard_link(mount.path("shared"), view(&mount, "b", "stolen"))), libc::EXDEV);
    let number = |path: PathBuf| fs::metadata(path).unwrap().ino();
    assert_ne!(number(mount.path("shared")), number(view(&mount, "b", "shared")));
    assert_ne!(number(view(&mount, "c", "shared")), number(view(&mount, "b", "shared")));
}

#[test]
fn a_branch_has_a_control_directory_of_its_own() {
    let mount = TestMount::new();
    mount.write("file", "1");
    mount.checkpoint("on main");
    fs::create_dir(mount.control("branches/b")).unwrap();
    fs::write(view(&mount, "b", "file"), "2").unwrap();
    assert_eq!((mount.says("status"), text(view(&mount, "b", ".memento/status"))), (String::new(), "M file\n".into()));
    fs::write(view(&mount, "b", ".memento/checkpoint"), "on b\n").unwrap();
    assert_eq!(mount.says("log").lines().count(), 1);
    let log = text(view(&mount, "b", ".memento/log"));
    assert!(log.lines().count() == 2 && log.contains("on b") && log.contains("on main"), "{log}");
    assert_eq!(mount.says("diff/branch%2Fmain..branch%2Fb"), "M file\n");
    assert_eq!(mount.cli_ok(&["diff", "branch/main..branch/b", "--name-only"]), "M file\n");
    assert_eq!(mount.cli_ok(&["diff", "branch/main", "branch/b", "--name-only"]), "M file\n");
    assert_eq!(mount.cli_ok(&["diff", "branch/main", "branch/b", "other", "--name-only"]), "");
    // Restoring one leaves the other alone.
    fs::write(view(&mount, "b", ".memento/restore"), "@~1\n").unwrap();
    assert_eq!((text(view(&mount, "b", "file")), mount.read("file")), ("1".into(), "1".into()));
    fs::write(view(&mount, "b", ".memento/undo"), "\n").unwrap();
    assert_eq!((text(view(&mount, "b", "file")), mount.read("file")), ("2".into(), "1".into()));
    // Forking from there forks that branch.
    fs::create_dir(view(&mount, "b", ".memento/branches/c")).unwrap();
    assert_eq!(text(view(&mount, "c", "file")), "2");
    assert_eq!(text(view(&mount, "b", ".memento/branches/c/file")), "2");
    // Programs that are pointed into the branch need not know.
    let inside = program().args(["checkpoint", "-m", "from inside", "--allow-empty"]).current_dir(view(&mount, "b", "")).output();
    succeeded("checkpoint in the branch", inside.unwrap());
    assert!(text(view(&mount, "b", ".memento/log")).contains("from inside") && !mount.says("log").contains("from inside"));
}

#[test]
fn one_branch_through_several_views_is_one_truth() {
    let mount = TestMount::new();
    mount.write("dir/file", "1");
    let second = mount.outside("second");
    fs::create_dir(&second).unwrap();
    succeeded("second mount", program().arg("mount").arg(mount.store()).arg(&second).output().unwrap());
    let third = view(&mount, "main", "");
    let places = [mount.top(), second.clone(), third.clone()];
    for (at, place) in places.iter().enumerate() {
        // Every cache is warm, negative entries too.
        for other in &places {
            assert_eq!(text(other.join("dir/file")).len(), 1);
            assert!(!other.join(format!("dir/new-{at}")).exists());
            assert!(fs::read_dir(other.join("dir")).unwrap().count() > 0);
        }
        fs::write(place.join("dir/file"), format!("{at}")).unwrap();
        fs::write(place.join(format!("dir/new-{at}")), "new").unwrap();
        for other in &places {
            assert_eq!(text(other.join("dir/file")), at.to_string(), "{} from {}", other.display(), place.display());
            assert_eq!(text(other.join(format!("dir/new-{at}"))), "new");
            assert!(fs::read_dir(other.join("dir")).unwrap().any(|entry| *entry.unwrap().file_name() == *format!("new-{at}")));
        }
        fs::rename(place.join(format!("dir/new-{at}")), place.join("dir/moved")).unwrap();
        for other in &places {
            assert!(!other.join(format!("dir/new-{at}")).exists() && other.join("dir/moved").exists());
        }
        fs::remove_file(place.join("dir/moved")).unwrap();
        for other in &places {
            assert!(!other.join("dir/moved").exists());
        }
    }
    // A restore through one is seen through all.
    mount.checkpoint("before");
    let mut open = fs::File::open(second.join("dir/file")).unwrap();
    fs::write(third.join("dir/file"), "other").unwrap();
    fs::write(second.join(".memento/restore"), "@\n").unwrap();
    for other in &places {
        assert_eq!(text(other.join("dir/file")), "2");
    }
    let mut kept = String::new();
    open.rewind().unwrap();
    open.read_to_string(&mut kept).unwrap();
    assert_eq!(kept, "other", "an open file keeps its version");
    drop(open);
    succeeded("umount", program().arg("umount").arg(&second).output().unwrap());
    assert!(mount.is_served());
    mount.write("dir/file", "3");
    assert_eq!(text(third.join("dir/file")), "3");
}

#[test]
fn a_mount_of_its_own_shows_a_branch() {
    let mut mount = TestMount::new();
    mount.write("file", "main");
    fs::create_dir(mount.control("branches/b")).unwrap();
    let other = mount.outside("b");
    fs::create_dir(&other).unwrap();
    succeeded("mount", program().args(["mount", "--branch", "b"]).arg(mount.store()).arg(&other).output().unwrap());
    fs::write(other.join("file"), "b").unwrap();
    assert_eq!((mount.read("file"), text(view(&mount, "b", "file"))), ("main".into(), "b".into()));
    // Deleting what a mount shows is refused.
    assert_eq!(errno(fs::remove_dir(mount.control("branches/b"))), libc::EBUSY);
    assert!(mount.says("error").contains("mount shows"), "{}", mount.says("error"));
    let busy = program().args(["mount", "--branch", "b"]).arg(mount.store()).arg(&other).output().unwrap();
    assert!(!busy.status.success() && String::from_utf8_lossy(&busy.stderr).contains("mount point already"));
    let inside = mount.path("inside");
    fs::create_dir(&inside).unwrap();
    let nested = program().args(["mount", "--branch", "b"]).arg(mount.store()).arg(&inside).output().unwrap();
    assert!(!nested.status.success() && String::from_utf8_lossy(&nested.stderr).contains("same store"), "{nested:?}");
    // The daemon ends with its last mount.
    succeeded("umount", program().arg("umount").arg(mount.top()).output().unwrap());
    assert_eq!(text(other.join("file")), "b");
    succeeded("umount", program().arg("umount").arg(&other).output().unwrap());
    mount.end();
    mount.mount(&["--branch", "b"]);
    assert_eq!(mount.read("file"), "b");
}

#[test]
fn each_branch_recovers_by_itself_after_a_crash() {
    let mut mount = TestMount::new();
    mount.write("file", "start");
    for name in ["a", "b", "c"] {
        fs::create_dir(mount.control("branches").join(name)).unwrap();
        fs::write(view(&mount, name, "file"), format!("in {name}")).unwrap();
        fs::create_dir(view(&mount, name, "made")).unwrap();
        fs::File::create(view(&mount, name, "large")).unwrap().write_all(&vec![name.as_bytes()[0]; 1 << 20]).unwrap();
    }
    fs::write(view(&mount, "b", ".memento/checkpoint"), "b alone\n").unwrap();
    fs::write(view(&mount, "b", "file"), "later").unwrap();
    mount.crash();
    assert_eq!(mount.read("file"), "start");
    for (name, expected) in [("a", "in a"), ("b", "later"), ("c", "in c")] {
        assert_eq!(text(view(&mount, name, "file")), expected);
        assert!(view(&mount, name, "made").is_dir());
        assert!(fs::read(view(&mount, name, "large")).unwrap().iter().all(|byte| *byte == name.as_bytes()[0]));
    }
    assert!(text(view(&mount, "b", ".memento/log")).contains("b alone"));
}

#[test]
fn a_branch_can_be_renamed_deleted_and_brought_back() {
    let mut mount = TestMount::new();
    mount.write("file", "1");
    fs::create_dir(mount.control("branches/old")).unwrap();
    fs::write(view(&mount, "old", "file"), "not checkpointed").unwrap();
    fs::rename(mount.control("branches/old"), mount.control("branches/new")).unwrap();
    assert!(!mount.control("branches/old").exists());
    assert_eq!(text(view(&mount, "new", "file")), "not checkpointed");
    fs::remove_dir(mount.control("branches/new")).unwrap();
    assert!(!mount.control("branches/new").exists());
    assert!(mount.says("undo").contains("branch new"), "{}", mount.says("undo"));
    mount.tell("undo", "\n");
    assert_eq!(text(view(&mount, "new", "file")), "not checkpointed");
    mount.tell("undo", "\n"); // The undo undone: it is deleted again.
    assert!(!mount.control("branches/new").exists());
    // The name is free, and the new branch is another one.
    fs::create_dir(mount.control("branches/new")).unwrap();
    assert_eq!(text(view(&mount, "new", "file")), "1");
    assert!(!text(view(&mount, "new", ".memento/log")).contains("before deleting"));
    mount.crash();
    assert_eq!(text(view(&mount, "new", "file")), "1");
    assert_eq!(
        mount.query("SELECT type FROM outbox WHERE type LIKE 'branch.%' ORDER BY seq").join(" "),
        "branch.created branch.renamed branch.deleted branch.revived branch.deleted branch.created"
    );
}

#[test]
fn gc_takes_what_is_left_of_a_deleted_branch() {
    let mount = TestMount::new();
    mount.write("file", "1");
    mount.checkpoint("one");
    fs::create_dir(mount.control("branches/big")).unwrap();
    let bytes = noise(8 << 20, 5);
    fs::write(view(&mount, "big", "data"), &bytes).unwrap();
    fs::remove_dir(mount.control("branches/big")).unwrap();
    let id = mount.query("SELECT head FROM branches WHERE name = 'big'").remove(0);
    mount.tell("gc", r#"{"grace_secs":0}"#);
    mount.tell("undo", "\n"); // Its checkpoint is still there, and so is what it held.
    assert_eq!(fs::read(view(&mount, "big", "data")).unwrap(), bytes);
    fs::remove_dir(mount.control("branches/big")).unwrap();
    fs::create_dir(mount.control("branches/other")).unwrap();
    fs::remove_dir(mount.control("branches/other")).unwrap(); // The operation that undo would take back is another now.
    fs::remove_dir(mount.control("checkpoints").join(&id)).unwrap();
    let before = mount.store_bytes();
    mount.tell("gc", r#"{"grace_secs":0}"#);
    assert!(mount.store_bytes() + (4 << 20) < before, "{before} bytes, then {}", mount.store_bytes());
    assert!(!mount.store().join("journal").join("2").exists());
}

#[test]
fn what_makes_no_sense_changes_nothing() {
    let mount = TestMount::new();
    mount.write("file", "1");
    fs::create_dir(mount.control("branches/b")).unwrap();
    let before = mount.query("SELECT count(*) FROM operations");
    for (name, expected) in [("b", libc::EEXIST), ("main", libc::EEXIST), (".x", libc::EINVAL), ("deadbeef", libc::EINVAL)] {
        assert_eq!(errno(fs::create_dir(mount.control("branches").join(name))), expected, "{name}");
    }
    assert_eq!(errno(fs::remove_dir(mount.control("branches/none"))), libc::ENOENT);
    assert_eq!(errno(fs::remove_dir(mount.control("branches/main"))), libc::EBUSY);
    assert_eq!(errno(fs::rename(mount.control("branches/b"), mount.control("branches/main"))), libc::EEXIST);
    let unknown = mount.request(&json!({ "do": "fork", "name": "c", "at": "nothing" }));
    assert!(unknown["error"].as_str().unwrap().contains("nothing"), "{unknown}");
    let mut standing = std::process::Command::new("sleep").arg("60").current_dir(view(&mount, "b", "")).spawn().unwrap();
    assert_eq!(errno(fs::remove_dir(mount.control("branches/b"))), libc::EBUSY);
    assert!(mount.says("error").contains(&format!("process {}", standing.id())), "{}", mount.says("error"));
    standing.kill().unwrap();
    standing.wait().unwrap();
    assert_eq!(mount.query("SELECT count(*) FROM operations"), before);
    fs::remove_dir(mount.control("branches/b")).unwrap();
}

#[test]
fn several_branches_are_restored_in_one_transaction_or_none() {
    let mount = TestMount::new();
    mount.write("file", "start");
    mount.tell("checkpoint", r#"{"message":"start","name":"start"}"#);
    for name in ["a", "b", "c"] {
        fs::create_dir(mount.control("branches").join(name)).unwrap();
        fs::write(view(&mount, name, "file"), name).unwrap();
    }
    let refused = mount.request(&json!({ "do": "restore", "branches": ["a", "b", "none"], "ref": "start" }));
    assert!(refused["error"].as_str().unwrap().contains("none"), "{refused}");
    for name in ["a", "b", "c"] {
        assert_eq!(text(view(&mount, name, "file")), name);
    }
    mount.cli_ok(&["restore", "--branches", "a,b,c", "start"]);
    for name in ["a", "b", "c"] {
        assert_eq!(text(view(&mount, name, "file")), "start");
        assert!(text(view(&mount, name, ".memento/log")).contains("before restore"), "what was there is saved");
    }
    assert_eq!(mount.query("SELECT count(*), count(DISTINCT time) FROM operations WHERE type = 'restore'"), ["3|1"]);
    fs::write(view(&mount, "b", ".memento/undo"), "\n").unwrap();
    assert_eq!((text(view(&mount, "a", "file")), text(view(&mount, "b", "file"))), ("start".into(), "b".into()));
}

#[test]
fn a_reply_waits_for_its_caller_after_the_kernel_forgot_the_branch() {
    if !crate::trouble::is_root() {
        return; // Only root can have the kernel forget.
    }
    let mount = TestMount::new();
    mount.write("file", "1");
    fs::create_dir(mount.control("branches/b")).unwrap();
    for at in 0..5 {
        let request = view(&mount, "b", &format!(".memento/requests/{at}"));
        fs::write(&request, r#"{"do":"status"}"#).unwrap();
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50)); // What is forgotten is told without waiting.
        assert!(text(request).contains("changes"));
    }
    fs::write(view(&mount, "b", ".memento/restore"), "nothing\n").unwrap_err();
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    assert!(text(view(&mount, "b", ".memento/error")).contains("nothing"));
}

/// The tables of version 1 knew a branch by its name alone.
#[test]
fn a_store_of_version_1_is_brought_up_to_date_with_all_that_it_holds() {
    let mut mount = TestMount::new();
    mount.write("file", "one");
    let first = mount.checkpoint("one");
    mount.shell("mkdir .memento/branches/side; echo side > .memento/branches/side/file");
    mount.write("file", "not checkpointed");
    mount.terminate();
    let database = rusqlite::Connection::open(mount.store().join("store.db")).unwrap();
    let downgrade = "BEGIN; DROP INDEX branches_by_name; ALTER TABLE file_commits DROP COLUMN branch_id;
        ALTER TABLE operations DROP COLUMN branch_id;
        CREATE TABLE old (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, head TEXT, live_root TEXT NOT NULL,
            journal_seq INTEGER NOT NULL, forked_from TEXT, time INTEGER NOT NULL, deleted_at INTEGER);
        INSERT INTO old SELECT * FROM branches; DROP TABLE branches; ALTER TABLE old RENAME TO branches;
        PRAGMA user_version = 1; COMMIT;";
    database.execute_batch(downgrade).unwrap();
    drop(database);
    mount.mount(&[]);
    assert_eq!((mount.read("file"), mount.read(".memento/branches/side/file")), ("not checkpointed".into(), "side\n".into()));
    assert!(mount.says("log").contains(&first));
    assert_eq!(mount.query("SELECT DISTINCT branch_id FROM file_commits"), ["1"]);
    assert_eq!(mount.shell("rmdir .memento/branches/side; echo x > .memento/undo; cat .memento/branches/side/file"), "side\n");
    mount.tell("restore", &first);
    assert_eq!(mount.read("file"), "one");
    mount.terminate();
    crate::fsck::clean(&mount);
}
