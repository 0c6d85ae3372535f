//! Restore and undo: all or nothing, of the whole tree or of one path, and every cache tells the truth.

use crate::checkpoint::one_of_everything;
use crate::mount::{PATIENCE, TestMount, described, noise};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;

#[test]
fn restore_undo_and_undo_of_the_undo() {
    let mount = TestMount::new();
    mount.write("a", "1");
    let one = mount.checkpoint("one");
    mount.write("a", "2");
    mount.write("b", "new");
    mount.tell("restore", &one);
    assert_eq!((mount.read("a").as_str(), mount.path("b").exists()), ("1", false));
    let log = mount.query("SELECT kind FROM file_commits ORDER BY seq");
    assert_eq!(log, ["manual", "safety"], "what was not checkpointed was checkpointed first");
    assert!(mount.says("undo").contains("restore"), "{}", mount.says("undo"));
    mount.tell("undo", "x");
    assert_eq!((mount.read("a").as_str(), mount.read("b").as_str()), ("2", "new"));
    mount.tell("undo", "x");
    assert_eq!((mount.read("a").as_str(), mount.path("b").exists()), ("1", false), "the undo is taken back");
    mount.tell("undo", "x");
    assert_eq!(mount.read("a"), "2");
}

#[test]
fn an_emptied_workspace_comes_back() {
    let mount = TestMount::new();
    one_of_everything(&mount);
    let before = described(&mount.path("d"));
    mount.checkpoint("all");
    mount.shell(&format!("rm -rf {}/*", mount.top().display()));
    assert_eq!(mount.shell("ls -A"), "");
    mount.shell("echo @ > .memento/restore");
    assert_eq!(described(&mount.path("d")), before);
}

#[test]
fn one_path_comes_back_and_the_rest_stays() {
    let mount = TestMount::new();
    one_of_everything(&mount);
    mount.write("other/file", "1");
    let id = mount.checkpoint("all");
    let before = described(&mount.path("d/deep"));
    mount.shell("rm -rf d/deep; echo 2 > other/file; mkdir d/deep; echo intruder > d/deep/er");
    mount.tell("restore", format!("{id} d/deep"));
    assert_eq!(described(&mount.path("d/deep")), before);
    assert_eq!(mount.read("other/file"), "2\n");
    mount.tell("undo", "x");
    assert_eq!(mount.read("d/deep/er"), "intruder\n");
    mount.shell("rm d/file");
    mount.tell("restore", json!({ "ref": id, "path": "d/file" }).to_string());
    assert_eq!(mount.read("d/file"), "hello\n");
    assert_eq!(mount.read("other/file"), "2\n");
}

#[test]
fn a_path_with_spaces_and_odd_bytes_comes_back() {
    let mount = TestMount::new();
    mount.write("a b/c  d", "1");
    let id = mount.checkpoint("one");
    mount.write("a b/c  d", "2");
    mount.tell("restore", format!("{id} a b/c  d"));
    assert_eq!(mount.read("a b/c  d"), "1");
    use std::os::unix::ffi::OsStrExt;
    let odd = mount.path(std::ffi::OsStr::from_bytes(b"od\xffd"));
    fs::write(&odd, "1").unwrap();
    mount.checkpoint("two");
    fs::write(&odd, "2").unwrap();
    let status = mount.says("status");
    assert!(status.contains("M \"od\\377d\""), "{status}");
    mount.tell("restore", "@ \"od\\377d\"");
    assert_eq!(fs::read_to_string(&odd).unwrap(), "1");
}

#[test]
fn a_dry_run_says_what_would_change_and_changes_nothing() {
    let mount = TestMount::new();
    mount.write("a", "1");
    let id = mount.checkpoint("one");
    mount.write("a", "2");
    mount.write("b", "2");
    mount.tell("restore", json!({ "ref": id, "dry_run": true }).to_string());
    let result: Value = serde_json::from_str(&mount.says("restore")).unwrap();
    let paths: Vec<_> = result["changes"].as_array().unwrap().iter().map(|change| change["path"].as_str().unwrap()).collect();
    assert!(paths.contains(&"a") && paths.contains(&"b"), "{result}");
    assert_eq!(mount.read("a"), "2");
    assert_eq!(mount.query("SELECT count(*) FROM file_commits"), ["1"]);
}

#[test]
fn every_cache_tells_the_truth_at_the_first_look() {
    let mount = TestMount::new();
    mount.shell("mkdir -p d/gone d/same; echo old > d/file; echo stays > d/same/file; echo bye > d/gone/file; ln -s old d/link");
    mount.shell("setfattr -n user.x -v old d/file; chmod 600 d/file");
    let old = mount.checkpoint("old");
    mount.shell(
        "rm -r d/gone; rm d/link; ln -s new d/link; echo newer > d/file; setfattr -n user.x -v new d/file; chmod 644 d/file; echo 1 > d/added",
    );
    let new = mount.checkpoint("new");
    for round in 0..6 {
        let is_old = round % 2 == 0;
        // The kernel knows everything of the present state, and that the other names do not exist.
        mount.shell("ls -lR . >/dev/null; cat d/file d/same/file d/added d/gone/file d/link 2>/dev/null || true; stat d/gone d/added 2>/dev/null || true");
        let (same, content) = (fs::metadata(mount.path("d/same/file")).unwrap().ino(), mount.read("d/same/file"));
        mount.tell("restore", if is_old { &old } else { &new });
        assert_eq!(mount.path("d/gone/file").exists(), is_old, "round {round}");
        assert_eq!(mount.path("d/added").exists(), !is_old, "round {round}");
        assert_eq!(mount.read("d/file"), if is_old { "old\n" } else { "newer\n" });
        assert_eq!(fs::read_link(mount.path("d/link")).unwrap().to_str(), Some(if is_old { "old" } else { "new" }));
        assert_eq!(xattr::get(mount.path("d/file"), "user.x").unwrap().unwrap(), if is_old { b"old" } else { b"new" });
        assert_eq!(fs::metadata(mount.path("d/file")).unwrap().mode() & 0o777, if is_old { 0o600 } else { 0o644 });
        assert_eq!(fs::metadata(mount.path("d/same/file")).unwrap().ino(), same, "unchanged files keep their number");
        assert_eq!(mount.read("d/same/file"), content);
        let mut names: Vec<_> = fs::read_dir(mount.path("d")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        let expected: &[&str] = if is_old { &["file", "gone", "link", "same"] } else { &["added", "file", "link", "same"] };
        assert_eq!(names, expected, "round {round}");
        if !is_old {
            continue;
        }
        mount.tell("undo", "x");
        assert_eq!(mount.read("d/file"), "newer\n");
        mount.tell("undo", "x");
    }
}

#[test]
fn an_open_file_keeps_the_version_it_was_opened_with() {
    let mount = TestMount::new();
    let (old, new) = (noise(2_000_000, 1), noise(2_000_000, 2));
    mount.write("file", &old);
    let id = mount.checkpoint("old");
    mount.write("file", &new);
    let mut open = fs::File::open(mount.path("file")).unwrap();
    let mut head = vec![0; 1000];
    open.read_exact(&mut head).unwrap();
    mount.tell("restore", &id);
    let mut rest = Vec::new();
    open.read_to_end(&mut rest).unwrap();
    assert!([head, rest].concat() == new, "the version that was opened, whole");
    assert!(fs::read(mount.path("file")).unwrap() == old);
}

#[test]
fn a_working_directory_stays_valid() {
    let mount = TestMount::new();
    mount.write("d/e/file", "1");
    let id = mount.checkpoint("one");
    let said = mount.shell(&format!(
        "cd d/e; echo 2 > file; echo 3 > other; echo {id} > {}/.memento/restore; pwd -P; ls; cat file; echo 4 > new; ls",
        mount.top().display()
    ));
    assert_eq!(said, format!("{}/d/e\nfile\n1file\nnew\n", mount.top().display()));
}

/// Found by `scripts/suites/coherence` as an ordinary user: the kernel remembered that the name did not exist, for that the directory,
/// and for that the daemon all that it knew of it.
#[test]
fn a_directory_that_a_restore_took_is_forgotten_with_who_stood_in_it() {
    let mount = TestMount::new();
    let empty = mount.checkpoint("empty");
    let loaded = || mount.says("stats").lines().find_map(|line| line.strip_prefix("inodes_loaded ").map(str::to_owned)).unwrap();
    let before = loaded();
    mount.write("d/e/file", "1");
    mount.shell(&format!(
        "cd d/e; echo {empty} > {}/.memento/restore; for n in 1 2 3; do ! cat no-such-$n; done 2>&1",
        mount.top().display()
    ));
    let begun = std::time::Instant::now();
    while loaded() != before {
        assert!(begun.elapsed() < PATIENCE, "{} inodes are in use, {before} before", loaded());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn restore_survives_a_crash_right_after_it() {
    let mut mount = TestMount::new();
    one_of_everything(&mount);
    let before = described(&mount.path("d"));
    let id = mount.checkpoint("one");
    mount.shell("rm -rf d/deep; echo x > d/file; echo y > d/y");
    mount.tell("restore", &id);
    mount.crash();
    assert_eq!(described(&mount.path("d")), before);
    mount.tell("undo", "x");
    mount.crash();
    assert_eq!((mount.read("d/file").as_str(), mount.read("d/y").as_str()), ("x\n", "y\n"));
}

#[test]
fn a_restore_under_writers_is_whole() {
    let mount = TestMount::new();
    mount.shell("mkdir d; for i in $(seq 100); do echo old > d/$i; done");
    let id = mount.checkpoint("old");
    mount.shell("for i in $(seq 100); do echo new > d/$i; done");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for at in 0..500 {
                fs::write(mount.path(format!("w{}", at % 7)), at.to_string()).unwrap();
            }
        });
        mount.tell("restore", &id);
        writer.join().unwrap();
    });
    assert_eq!(mount.shell("cat d/* | sort | uniq -c").trim(), "100 old");
    mount.tell("undo", "x");
    assert_eq!(mount.shell("cat d/* | sort | uniq -c").trim(), "100 new");
}

#[test]
fn restoring_what_is_there_already_changes_nothing() {
    let mount = TestMount::new();
    mount.write("a", "1");
    let id = mount.checkpoint("one");
    let number = fs::metadata(mount.path("a")).unwrap().ino();
    mount.tell("restore", &id);
    assert_eq!(fs::metadata(mount.path("a")).unwrap().ino(), number);
    assert_eq!(mount.query("SELECT count(*) FROM file_commits"), ["1"]);
}

#[test]
fn every_way_to_name_a_checkpoint() {
    let mount = TestMount::new();
    let mut ids = Vec::new();
    for at in 0..3 {
        mount.write("file", at.to_string());
        ids.push(
            mount.checkpoint(
                &json!({ "message": "m", "name": format!("n{at}"), "links": { "sys": format!("t/{at}") } }).to_string(),
            ),
        );
    }
    for (reference, content) in
        [("n0", "0"), ("@~1", "1"), ("@", "2"), ("sys:t/1", "1"), ("branch/main", "2"), (&ids[0][..10], "0"), (&ids[2], "2")]
    {
        mount.write("file", "between");
        let shown = mount.request(&json!({ "do": "show", "ref": reference }))["id"].clone();
        assert_eq!(shown, ids[content.parse::<usize>().unwrap()], "{reference}");
        mount.tell("restore", json!({ "ref": reference }).to_string());
        assert_eq!(mount.read("file"), content, "{reference}");
        mount.tell("restore", ids[2].clone());
    }
}

/// Found by `tests/gc_histories.rs`: the branch stood on the deleted checkpoint, and the next one was said to be that.
#[test]
fn an_undo_to_a_deleted_checkpoint_stands_on_the_one_before_it() {
    let mount = TestMount::new();
    mount.write("file", "1");
    let first = mount.checkpoint("first");
    mount.write("file", "2");
    let second = mount.checkpoint("second");
    mount.tell("restore", &first);
    std::fs::remove_dir(mount.control(format!("checkpoints/{second}"))).unwrap();
    mount.tell("undo", "1");
    assert_eq!(mount.read("file"), "2");
    assert_eq!(mount.newest(), first);
    let again = mount.checkpoint("again");
    assert!(again != first && again != second, "what no checkpoint holds makes a checkpoint");
    mount.write("file", "3");
    mount.checkpoint("third");
    mount.tell("gc", r#"{"grace_secs":0}"#);
    assert_eq!(std::fs::read_to_string(mount.control(format!("checkpoints/{again}/file"))).unwrap(), "2");
}

#[test]
fn an_undo_that_fails_at_the_checkpoint_it_goes_to_changes_nothing() {
    let mount = TestMount::new();
    mount.write("a", "1");
    let one = mount.checkpoint("one");
    mount.write("a", "2");
    let two = mount.checkpoint("two");
    mount.tell("restore", &one);
    let database = rusqlite::Connection::open(mount.store().join("store.db")).unwrap();
    let kind = |kind: &str| {
        let changed = database.execute("UPDATE file_commits SET kind = ?1 WHERE id = ?2", [kind, &two]).unwrap();
        assert_eq!(changed, 1);
    };
    kind("of no kind");
    mount.refusal("undo", "x");
    assert_eq!((mount.read("a").as_str(), mount.newest()), ("1", one), "the caller was told that it failed");
    kind("manual");
    mount.tell("undo", "x");
    assert_eq!((mount.read("a").as_str(), mount.newest()), ("2", two));
    assert_eq!(mount.says("status"), "");
}

/// The link table describes a file with several names, its directory one with a single name: a restore may lead from one to the other.
#[test]
fn a_file_keeps_its_number_when_it_gets_or_loses_further_names() {
    let mount = TestMount::new();
    mount.shell("echo x > f; mkdir d; echo y > d/g; echo z > other");
    let one_name = mount.checkpoint("one name");
    mount.shell("ln f f2; rm f2; ln d/g g2; ln other d/other2; rm other");
    let more_names = mount.checkpoint("more names");
    let open = File::open(mount.path("f")).unwrap();
    let number = |name: &str| fs::metadata(mount.path(name)).unwrap().ino();
    let numbers = [number("f"), number("d/g")];
    for round in 0..3 {
        mount.tell("restore", &one_name);
        assert_eq!([number("f"), number("d/g")], numbers, "round {round}: one name");
        assert_eq!(fs::metadata(mount.path("d/g")).unwrap().nlink(), 1);
        assert!(!mount.path("g2").exists() && !mount.path("d/other2").exists());
        assert_eq!(mount.read("other"), "z\n");
        mount.tell("restore", &more_names);
        assert_eq!(
            [number("f"), number("d/g"), number("g2")],
            [number("f"), numbers[1], numbers[1]],
            "round {round}: more names"
        );
        assert_eq!(fs::metadata(mount.path("d/g")).unwrap().nlink(), 2);
        assert_eq!((mount.read("f"), mount.read("d/other2")), ("x\n".into(), "z\n".into()));
        assert!(!mount.path("other").exists());
    }
    assert_eq!((open.metadata().unwrap().ino(), open.metadata().unwrap().len()), (numbers[0], 2));
    mount.shell("echo more >> d/g");
    mount.tell("restore", &one_name);
    assert_eq!(mount.read("d/g"), "y\n");
}
