//! Links to external ids and the outbox: one transaction with the commit they belong to.

use crate::mount::{SetOnDrop, TestMount};
use serde_json::{Value, json};
use std::fs;

fn linked(message: &str, system: &str, id: &str) -> String {
    json!({ "message": message, "links": { system: id } }).to_string()
}

#[test]
fn an_external_id_finds_its_checkpoint() {
    let mount = TestMount::new();
    let id = "thread-1/ns/50%/1ef";
    mount.write("file", "1");
    let commit = mount.checkpoint(&linked("one", "langgraph", id));
    mount.write("file", "2");
    mount.checkpoint("two");
    let link = mount.control("links/langgraph/thread-1%2Fns%2F50%25%2F1ef");
    assert_eq!(fs::read_to_string(link.join("file")).unwrap(), "1");
    assert_eq!(mount.shell("ls .memento/links; ls .memento/links/langgraph"), "langgraph\nthread-1%2Fns%2F50%25%2F1ef\n");
    mount.tell("restore", format!("langgraph:{id}"));
    assert_eq!(mount.read("file"), "1");
    let log: Value = serde_json::from_str(&mount.cli_ok(&["log", "--json"])).unwrap();
    let found = log["checkpoints"].as_array().unwrap().iter().find(|row| row["id"] == commit.as_str()).unwrap();
    assert_eq!(found["links"]["langgraph"], id);
    let rows = mount.query("SELECT system, external_id, commit_id FROM checkpoint_file_links");
    assert_eq!(rows, [format!("langgraph|{id}|{commit}")]);
}

#[test]
fn a_retried_checkpoint_is_the_one_that_was_made() {
    let mount = TestMount::new();
    mount.write("file", "1");
    let first = mount.checkpoint(&linked("step", "sys", "step-1"));
    assert_eq!(mount.checkpoint(&linked("step", "sys", "step-1")), first);
    assert_eq!(mount.query("SELECT count(*) FROM file_commits"), ["1"]);
    assert_eq!(mount.query("SELECT count(*) FROM checkpoint_file_links"), ["1"]);
    let second = mount.checkpoint(&linked("step 2", "sys", "step-2"));
    assert_eq!(second, first, "many ids may be tied to one checkpoint");
    assert_eq!(mount.query("SELECT count(*) FROM checkpoint_file_links"), ["2"]);
}

#[test]
fn ids_and_systems_have_limits() {
    let mount = TestMount::new();
    mount.write("file", "1");
    mount.checkpoint(&linked("m", &"s".repeat(64), &"i".repeat(1024)));
    mount.write("file", "2");
    assert_eq!(mount.refusal("checkpoint", linked("m", &"s".repeat(65), "i")), libc::EINVAL);
    assert_eq!(mount.refusal("checkpoint", linked("m", "s", &"i".repeat(1025))), libc::EINVAL);
    assert_eq!(mount.query("SELECT count(*) FROM file_commits"), ["1"]);
    mount.checkpoint(&linked("m", "sys", "any: string, \u{e9}\u{1f600} / % \n"));
    mount.tell("restore", json!({ "ref": "sys:any: string, \u{e9}\u{1f600} / % \n" }).to_string());
}

#[test]
fn each_fact_leaves_one_event_in_order() {
    let mount = TestMount::new();
    mount.write("file", "1");
    let one = mount.checkpoint(&linked("one", "sys", "1"));
    mount.write("file", "2");
    let two = mount.checkpoint("two");
    mount.tell("restore", &one);
    mount.tell("undo", "x");
    mount.tell("gc", r#"{"grace_secs":0}"#);
    mount.write("file", "3");
    mount.checkpoint("three");
    fs::remove_dir(mount.control(format!("checkpoints/{one}"))).unwrap();
    let events: Vec<Value> = mount.says("events").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let types: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let kinds = |word: &str| types.iter().filter(|kind| kind.contains(word)).count();
    assert_eq!((kinds("restore"), kinds("undo"), kinds("gc"), kinds("deleted")), (1, 1, 1, 1), "{types:?}");
    let commits = mount.query("SELECT id FROM file_commits ORDER BY seq");
    let of_events: Vec<&str> = events
        .iter()
        .filter(|event| event["type"].as_str().unwrap().contains("created"))
        .map(|event| event["payload"]["commit"].as_str().unwrap())
        .collect();
    assert_eq!(of_events, commits);
    assert_eq!(of_events[..2], [one.as_str(), two.as_str()]);
    let keys: std::collections::HashSet<_> = events.iter().map(|event| event["key"].as_str().unwrap()).collect();
    assert_eq!(keys.len(), events.len(), "idempotency keys differ");
}

#[test]
fn eight_writers_and_the_events_still_come_in_the_order_of_the_commits() {
    let mount = TestMount::new();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let mount = &mount;
            scope.spawn(move || {
                for at in 0..8 {
                    fs::write(mount.path(format!("f{writer}")), at.to_string()).unwrap();
                    mount.tell(
                        "checkpoint",
                        json!({ "message": "m", "allow_empty": true, "links": { "w": format!("{writer}/{at}") } }).to_string(),
                    );
                }
            });
        }
    });
    let events: Vec<Value> = mount.says("events").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_events: Vec<&str> = events
        .iter()
        .filter(|event| event["type"].as_str().unwrap().contains("created"))
        .map(|event| event["payload"]["commit"].as_str().unwrap())
        .collect();
    assert_eq!(of_events.len(), 64);
    assert_eq!(of_events, mount.query("SELECT id FROM file_commits ORDER BY seq"));
    let parents = mount.query("SELECT coalesce(parent, '') FROM file_commits ORDER BY seq");
    assert_eq!(parents[1..], of_events[..63], "each stands on the one before");
    assert_eq!(mount.query("SELECT count(*) FROM checkpoint_file_links"), ["64"]);
}

#[test]
fn no_reader_of_the_tables_sees_part_of_a_checkpoint() {
    let mount = TestMount::new();
    mount.shell("mkdir d; for i in $(seq 50); do echo 0 > d/$i; done");
    mount.checkpoint("base");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _set = SetOnDrop(&done);
            for round in 1..20 {
                for at in 1..=50 {
                    fs::write(mount.path(format!("d/{at}")), round.to_string()).unwrap();
                }
                mount.tell("checkpoint", linked("m", "sys", &round.to_string()));
            }
        });
        let mut looks = 0;
        while !done.load(std::sync::atomic::Ordering::Relaxed) || looks == 0 {
            looks += 1;
            let torn = mount.query(
                "SELECT c.id FROM file_commits c WHERE \
                 (SELECT count(*) FROM file_mementos m WHERE m.commit_id = c.id) < c.files_changed \
                 OR NOT EXISTS (SELECT 1 FROM outbox o WHERE o.payload LIKE '%' || c.id || '%')",
            );
            assert!(torn.is_empty(), "{torn:?}");
            let heads =
                mount.query("SELECT count(*) FROM branches b LEFT JOIN file_commits c ON c.id = b.head WHERE c.id IS NULL");
            assert_eq!(heads, ["0"]);
            let latest = mount.shell("cd -P .memento/checkpoints/latest/d; cat * | sort -u | wc -l");
            assert_eq!(latest.trim(), "1", "a checkpoint is of one instant of one writer");
        }
    });
}

#[test]
fn the_daemon_keeps_its_lock_of_the_index_so_that_no_stranger_begins_it_anew() {
    const DEAD_MAN_SWITCH: i64 = 128; // Where SQLite says that somebody has the index in use.
    let mount = TestMount::new();
    mount.write("file", "1");
    mount.checkpoint("one");
    let locked = mount.shell(&format!(
        "python3 -c \"
import fcntl, os, struct, sys
index = os.open('{}', os.O_RDWR)
asked = struct.pack('hhqqi', fcntl.F_WRLCK, os.SEEK_SET, {DEAD_MAN_SWITCH}, 1, 0)
print(struct.unpack('hhqqi', fcntl.fcntl(index, fcntl.F_GETLK, asked))[4])\"",
        mount.store().join("store.db-shm").display()
    ));
    assert_eq!(locked.trim(), mount.pid().to_string(), "the process that has it locked");
}
