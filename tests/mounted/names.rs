//! Names of checkpoints: several for one, each found, renamed and removed by itself.

use crate::mount::{TestMount, program, succeeded};
use serde_json::json;
use std::fs;

fn errno(result: std::io::Result<()>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

fn names(mount: &TestMount) -> Vec<String> {
    let listed = mount.shell("ls .memento/checkpoints");
    listed.lines().filter(|name| name.len() < 64 && *name != "latest").map(str::to_owned).collect()
}

/// One checkpoint with three names, and another one with one.
fn with_names() -> (TestMount, String) {
    let mount = TestMount::new();
    mount.write("file", "1");
    let id = mount.checkpoint("the state");
    fs::create_dir(mount.control("checkpoints/first")).unwrap();
    fs::create_dir(mount.control("checkpoints/second")).unwrap();
    assert_eq!(mount.checkpoint(r#"{"name":"third"}"#), id, "nothing changed: it is the same checkpoint");
    mount.write("file", "2");
    mount.checkpoint(r#"{"message":"later","name":"other"}"#);
    (mount, id)
}

#[test]
fn a_checkpoint_keeps_the_names_it_has_when_it_gets_another() {
    let (mount, id) = with_names();
    assert_eq!(names(&mount), ["first", "other", "second", "third"]);
    for name in ["first", "second", "third"] {
        assert_eq!(fs::read_to_string(mount.control(format!("checkpoints/{name}/file"))).unwrap(), "1");
        let shown = mount.request(&json!({ "do": "show", "ref": name }));
        assert_eq!((&shown["id"], &shown["name"]), (&json!(id), &json!("third")));
        assert_eq!(shown["names"], json!(["third", "second", "first"]));
    }
    assert!(mount.says("log").lines().nth(1).unwrap().ends_with(" third the state"), "the log shows the one given last");
    mount.tell("restore", "first\n");
    assert_eq!(mount.read("file"), "1");
    assert_eq!(mount.checkpoint(r#"{"name":"first"}"#), id, "a name that it has is no news");
    assert_eq!(mount.query("SELECT count(*) FROM outbox WHERE type = 'checkpoint.attached'"), ["3"]);
    assert_eq!(mount.query("SELECT count(*) FROM file_commits"), ["2"]);
}

#[test]
fn each_name_is_renamed_and_removed_by_itself() {
    let (mut mount, id) = with_names();
    let at = |name: &str| mount.control(format!("checkpoints/{name}"));
    fs::rename(at("first"), at("renamed")).unwrap();
    assert_eq!(names(&mount), ["other", "renamed", "second", "third"]);
    assert_eq!(errno(fs::rename(at("renamed"), at("other"))), libc::EEXIST);
    let own = mount.request(&json!({ "do": "name", "ref": "renamed", "name": "second" }));
    assert!(own["error"].as_str().unwrap().contains("taken"), "{own}");
    mount.write("file", "3");
    for taken in ["second", "renamed", "other"] {
        assert_eq!(mount.refusal("checkpoint", json!({ "name": taken }).to_string()), libc::EEXIST, "{taken}");
    }
    fs::remove_dir(at("third")).unwrap();
    fs::remove_dir(at("renamed")).unwrap();
    assert_eq!(names(&mount), ["other", "second"]);
    assert!(mount.says("log").contains(" second the state"), "{}", mount.says("log"));
    fs::remove_dir(at("second")).unwrap();
    assert!(at(&id).exists(), "a checkpoint outlives its names");
    assert!(mount.says("log").contains(" - the state"), "{}", mount.says("log"));
    mount.request(&json!({ "do": "name", "ref": id, "name": "again" }));
    mount.request(&json!({ "do": "name", "ref": id, "name": "and again" }));
    assert_eq!(names(&mount), ["and again", "other"], "a name given to an id takes the place of the last");
    fs::remove_dir(at(&id)).unwrap();
    assert_eq!(names(&mount), ["other"]);
    mount.checkpoint(r#"{"name":"and again"}"#); // It is free again.
    mount.terminate();
    crate::fsck::clean(&mount);
}

#[test]
fn names_come_back_with_a_database_that_is_rebuilt_and_keep_their_checkpoint() {
    let (mut mount, id) = with_names();
    fs::rename(mount.control("checkpoints/first"), mount.control("checkpoints/renamed")).unwrap();
    fs::remove_dir(mount.control("checkpoints/second")).unwrap();
    let (before, log) = (names(&mount), mount.says("log"));
    assert_eq!(before, ["other", "renamed", "third"]);
    mount.kill();
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(mount.store().join(format!("store.db{suffix}")));
    }
    succeeded("fsck", program().args(["fsck", "--repair"]).arg(mount.store()).output().unwrap());
    mount.mount(&[]);
    assert_eq!((names(&mount), mount.says("log")), (before, log));
    fs::remove_dir(mount.control("checkpoints/third")).unwrap();
    mount.write("file", "3");
    mount.checkpoint("newest");
    mount.tell("gc", r#"{"keep_last":1,"grace_secs":0}"#);
    assert!(mount.says("log").contains(&id), "the name that is left keeps it");
    mount.terminate();
    crate::fsck::clean(&mount);
}

/// The tables of version 2 knew one name for each checkpoint.
#[test]
fn a_store_of_version_2_is_brought_up_to_date() {
    let mut mount = TestMount::new();
    mount.write("file", "1");
    mount.checkpoint(r#"{"name":"one"}"#);
    mount.terminate();
    let database = rusqlite::Connection::open(mount.store().join("store.db")).unwrap();
    database.execute_batch("DROP TABLE checkpoint_names; PRAGMA user_version = 2;").unwrap();
    drop(database);
    mount.mount(&[]);
    mount.checkpoint(r#"{"name":"two"}"#);
    assert_eq!(names(&mount), ["one", "two"]);
    mount.terminate();
    crate::fsck::clean(&mount);
}
