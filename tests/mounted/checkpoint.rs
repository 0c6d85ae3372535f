//! Checkpoints: complete, flat in cost, and of one instant.

use crate::mount::{SetOnDrop, TestMount, described, noise};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

/// Fills a directory with one of everything that a filesystem can hold.
pub fn one_of_everything(mount: &TestMount) {
    mount.shell(
        r#"
        mkdir -p d/empty d/deep/er "d/with space"
        echo hello > d/file; chmod 640 d/file
        printf '\000\001' > "d/with space/$(printf 'b\377d')"
        ln d/file d/deep/hard; ln d/file hard2
        ln -s ../nowhere d/dangling; ln -s file d/link
        mkfifo d/fifo; chmod 600 d/fifo
        python3 -c "import socket; s = socket.socket(socket.AF_UNIX); s.bind('d/sock')"
        truncate -s 10M d/hole; printf data | dd of=d/hole bs=1 seek=5000000 conv=notrunc 2>/dev/null
        truncate -s 100K d/small-hole; printf x | dd of=d/small-hole bs=1 seek=90000 conv=notrunc 2>/dev/null
        setfattr -n user.colour -v blue d/file; setfattr -n user.empty d/deep
        touch -d '1969-12-31 23:59:58.123456789' d/deep/er; touch -d '2106-02-07 06:28:17.000000001' d/link
        touch -h -d '2001-02-03 04:05:06.700000000' d/dangling; touch -d '2020-01-01 00:00:00.000000001' d/file
        chmod 1777 d/empty; chmod 2755 d/deep; chmod 0000 "d/with space"; chmod 0700 "d/with space"
        "#,
    );
    mount.write("d/large", noise(3_000_000, 1));
    mount.write("d/none", "");
    if crate::trouble::is_root() {
        mount.shell(
            "mknod d/device c 1 3; chown 1234:5678 d/file; chown -h 12:34 d/dangling; setfattr -n trusted.note -v t d/none",
        );
    }
    mount.shell("touch -d '2020-01-01 00:00:00.000000001' d/file d/none; touch -d '2010-10-10 10:10:10.000000010' d hard2");
}

#[test]
fn a_checkpoint_is_complete() {
    let mut mount = TestMount::new();
    one_of_everything(&mount);
    let before = described(&mount.path("d"));
    let id = mount.checkpoint("everything");
    let without_sockets = |lines: &[String]| lines.to_vec();
    assert_eq!(
        without_sockets(&described(&mount.control(format!("checkpoints/{id}/d")))),
        without_sockets(&before),
        "through the control directory"
    );
    mount.crash();
    assert_eq!(described(&mount.path("d")), before, "after a crash");
    assert_eq!(described(&mount.control(format!("checkpoints/{id}/d"))), before);
    mount.shell("rm -rf ./*");
    mount.tell("restore", &id);
    assert_eq!(described(&mount.path("d")), before, "after a restore");
    let blocks = mount.shell("stat -c %b d/hole d/small-hole; stat -c %b .memento/checkpoints/latest/d/hole");
    for line in blocks.lines() {
        assert!(line.parse::<u64>().unwrap() <= 64 * 2, "holes stay holes: {blocks}");
    }
}

#[test]
fn a_checkpoint_without_a_change_is_the_one_there_is() {
    let mount = TestMount::new();
    mount.write("file", "1");
    let id = mount.checkpoint("one");
    assert_eq!(mount.checkpoint("again"), id);
    mount.write("file", "1"); // The same bytes at another time.
    mount.shell("touch -d @1000000000 file");
    let touched = mount.checkpoint("touched");
    assert_ne!(touched, id, "a time is part of a file");
    assert_eq!(mount.checkpoint(r#"{"message":"m","name":"named","links":{"sys":"1"}}"#), touched);
    assert!(mount.says("log").lines().next().unwrap().contains(" named touched"));
    assert_eq!(fs::read_link(mount.control("links/sys/1")).unwrap().to_str().unwrap(), format!("../../checkpoints/{touched}"));
    let forced = mount.checkpoint(r#"{"message":"forced","allow_empty":true}"#);
    assert_ne!(forced, touched);
    assert_eq!(mount.query("SELECT count(*) FROM file_commits"), ["3"]);
}

#[test]
fn writers_go_on_while_a_checkpoint_runs_and_nothing_is_torn() {
    let mount = TestMount::new();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (mount, stop) = (&mount, &stop);
            // Each round writes both files; a state in which the second is ahead of the first is impossible.
            scope.spawn(move || {
                let mut round = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    let mut first = fs::File::create(mount.path(format!("first{writer}"))).unwrap();
                    first.write_all(format!("{round:08}").as_bytes()).unwrap();
                    fs::write(mount.path(format!(".new{writer}")), format!("{round:08}")).unwrap();
                    fs::rename(mount.path(format!(".new{writer}")), mount.path(format!("second{writer}"))).unwrap();
                }
            });
        }
        let _set = SetOnDrop(&stop);
        for at in 0..30 {
            mount.tell("checkpoint", format!("number {at}"));
        }
    });
    let ids: Vec<String> = mount.says("log").lines().map(|line| line[..64].to_owned()).collect();
    assert!(ids.len() > 5, "{}", ids.len());
    for id in ids {
        for writer in 0..2 {
            let read =
                |name: &str| fs::read_to_string(mount.control(format!("checkpoints/{id}/{name}{writer}"))).unwrap_or_default();
            let (first, second) = (read("first"), read("second"));
            let (first, second) = (first.parse::<u64>().unwrap_or(u64::MAX), second.parse::<u64>().unwrap_or(0));
            assert!(second <= first, "{id}: {second} is ahead of {first}");
        }
    }
}

#[test]
fn checkpoints_of_two_callers_both_succeed_in_some_order() {
    let mount = TestMount::new();
    std::thread::scope(|scope| {
        for caller in 0..4 {
            let mount = &mount;
            scope.spawn(move || {
                for at in 0..10 {
                    fs::write(mount.path(format!("f{caller}")), at.to_string()).unwrap();
                    mount.tell("checkpoint", format!(r#"{{"message":"{caller}","allow_empty":true}}"#));
                }
            });
        }
    });
    assert_eq!(mount.says("log").lines().count(), 40);
    let chained = mount.query(
        "WITH RECURSIVE chain(id, depth) AS (SELECT head, 1 FROM branches UNION ALL SELECT c.parent, depth + 1 FROM file_commits c \
         JOIN chain ON c.id = chain.id WHERE c.parent IS NOT NULL) SELECT max(depth) FROM chain",
    );
    assert_eq!(chained, ["40"], "one chain");
}

#[test]
fn a_checkpoint_costs_what_changed_and_not_what_is_there() {
    let mount = TestMount::new();
    mount.shell("mkdir flat; cd flat; seq 1 3000 | xargs touch");
    mount.checkpoint("base");
    let objects = |mount: &TestMount| mount.query("SELECT count(*) FROM file_blobs")[0].parse::<u64>().unwrap();
    let before = objects(&mount);
    mount.write("flat/1500", "changed");
    mount.checkpoint("one changed");
    let added = objects(&mount) - before;
    assert!(added <= 12, "one changed name in a directory of 3000 added {added} objects");
}

#[test]
fn open_and_unlinked_files_do_not_disturb_a_checkpoint() {
    let mount = TestMount::new();
    mount.write("kept", "kept");
    let mut open = fs::File::options().read(true).write(true).create_new(true).open(mount.path("gone")).unwrap();
    open.write_all(b"still here").unwrap();
    fs::remove_file(mount.path("gone")).unwrap();
    let id = mount.checkpoint("one");
    assert!(!mount.control(format!("checkpoints/{id}/gone")).exists());
    open.write_all(b" and there").unwrap();
    let mut text = String::new();
    std::io::Seek::rewind(&mut open).unwrap();
    std::io::Read::read_to_string(&mut open, &mut text).unwrap();
    assert_eq!(text, "still here and there");
}

#[test]
fn a_listing_of_an_old_state_shows_the_inode_numbers_that_stat_shows() {
    use std::os::unix::fs::{DirEntryExt, MetadataExt};
    let mount = TestMount::new();
    mount.shell("mkdir d; echo 1 > d/file; ln d/file d/again; mkdir d/inner");
    let id = mount.checkpoint("one");
    let mut numbers = std::collections::HashMap::new();
    for entry in std::fs::read_dir(mount.control(format!("checkpoints/{id}/d"))).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.ino(), entry.metadata().unwrap().ino(), "{:?}", entry.file_name());
        numbers.insert(entry.file_name().into_string().unwrap(), entry.ino());
    }
    assert_eq!(numbers["file"], numbers["again"]);
    assert_ne!(numbers["file"], numbers["inner"]);
}

#[test]
fn a_checkpoint_is_shown_although_the_one_before_it_was_deleted_and_collected() {
    let mount = TestMount::new();
    let taken: Vec<String> = (0..4)
        .map(|round| {
            mount.write(&format!("file-{round}"), round.to_string());
            mount.checkpoint(&round.to_string())
        })
        .collect();
    for deleted in &taken[1..3] {
        fs::remove_dir(mount.control(format!("checkpoints/{deleted}"))).unwrap();
    }
    mount.tell("gc", r#"{"grace_secs":0}"#);
    let paths = |id: &String| {
        let shown = mount.request(&json!({ "do": "show", "ref": id }));
        let changes = shown["changes"].as_array().unwrap_or_else(|| panic!("{shown}")).clone();
        changes.iter().map(|change| change["path"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(paths(&taken[3]), ["file-1", "file-2", "file-3"], "compared with the nearest one that is kept");
    fs::remove_dir(mount.control(format!("checkpoints/{}", taken[0]))).unwrap();
    mount.tell("gc", r#"{"grace_secs":0}"#);
    assert_eq!(paths(&taken[3]), ["file-0", "file-1", "file-2", "file-3"], "none is kept: compared with nothing");
}
