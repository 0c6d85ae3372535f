//! Damage: who says so, what is still served, and what a repair brings back.

use crate::mount::{TestMount, described, noise, program, succeeded};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Output;

fn fsck(mount: &TestMount, options: &[&str]) -> Output {
    program().arg("fsck").args(options).arg(mount.store()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

pub fn clean(mount: &TestMount) {
    let output = fsck(mount, &["--read-data"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

/// Flips a bit of a file of the store.
fn flip(path: &Path, at: u64) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// Returns the pack that holds an object, and where; `condition` is SQL on file_blobs.
fn object(mount: &TestMount, condition: &str) -> (String, PathBuf, u64) {
    let rows = mount.query(&format!("SELECT id, pack, offset FROM file_blobs WHERE {condition} ORDER BY time DESC, id LIMIT 1"));
    let fields: Vec<&str> = rows[0].split('|').collect();
    let pack = mount.store().join(format!("packs/{:08}.pack", fields[1].parse::<u32>().unwrap()));
    (fields[0].to_owned(), pack, fields[2].parse().unwrap())
}

/// A store with a history: two checkpoints, a name given later, a link, an undone restore, and work that no checkpoint holds.
fn with_history() -> (TestMount, Vec<String>) {
    let mount = TestMount::new();
    mount.write("src/main.rs", "fn main() {}\n");
    mount.write("data/large", noise(2_000_000, 1));
    fs::hard_link(mount.path("src/main.rs"), mount.path("also-main.rs")).unwrap();
    let first = mount.checkpoint("first");
    mount.write("src/main.rs", "fn main() { second() }\n");
    mount.tell("checkpoint", r#"{"message":"second","links":{"ci":"run/7"}}"#);
    let second = mount.newest();
    mount.cli_ok(&["checkpoint", "--name", "kept"]);
    fs::rename(mount.control("checkpoints/kept"), mount.control("checkpoints/renamed")).unwrap();
    mount.tell("restore", &first);
    mount.tell("undo", "yes");
    mount.write("not/checkpointed", "work");
    mount.write("not/staged", noise(500_000, 2));
    mount.shell("sync");
    (mount, vec![first, second])
}

#[test]
fn damage_is_told_as_checkpoints_and_paths() {
    let mut mount = TestMount::new();
    mount.write("src/main.rs", noise(5000, 1));
    mount.write("other", noise(5000, 2));
    let first = mount.checkpoint("first");
    mount.write("more", "x");
    let second = mount.checkpoint("second");
    mount.terminate();
    clean(&mount);
    let content = mount.query("SELECT object FROM file_mementos WHERE path = 'src/main.rs'");
    let (id, pack, offset) = object(&mount, &format!("id = '{}'", content[0]));
    flip(&pack, offset + 100);
    let text = said(&fsck(&mount, &["--read-data"]));
    for part in ["src/main.rs", &first[..12], &second[..12], &id, "pack 1", "offset", "branch main"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(!text.contains("other:"), "{text}");
    let output = fsck(&mount, &["--read-data", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let reply: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(reply["damaged"][0]["object"], id.as_str());
    let places = reply["damaged"][0]["places"].as_array().unwrap();
    assert!(places.iter().any(|place| place["checkpoint"] == first.as_str() && place["path"] == "src/main.rs"), "{reply}");
    assert_eq!(places.len(), 3, "two checkpoints and the branch: {reply}");
}

#[test]
fn a_read_of_damaged_bytes_is_an_error_that_names_the_object() {
    let mut mount = TestMount::new();
    mount.write("file", noise(100_000, 1));
    mount.write("whole", noise(100_000, 2));
    mount.checkpoint("one");
    mount.terminate();
    let content = mount.query("SELECT object FROM file_mementos WHERE path = 'file'");
    let (id, pack, offset) = object(&mount, &format!("id = '{}'", content[0]));
    flip(&pack, offset + 50_000);
    mount.mount(&[]);
    for path in [mount.path("file"), mount.control("checkpoints/latest/file")] {
        assert_eq!(fs::read(&path).unwrap_err().raw_os_error(), Some(libc::EIO), "{}", path.display());
        assert!(mount.says("error").contains(&id), "{}", mount.says("error"));
    }
    assert!(mount.log().contains(&id), "{}", mount.log());
    assert!(fs::read(mount.path("whole")).unwrap() == noise(100_000, 2));
    mount.write("brought again", noise(100_000, 1));
    mount.checkpoint("two");
    assert!(fs::read(mount.path("file")).unwrap() == noise(100_000, 1), "the same bytes, stored again, heal it");
    assert_eq!(mount.refusal("restore", "no-such-name"), libc::ENOENT);
    assert!(mount.says("error").contains("no-such-name"), "a newer failure is the one that is told");
}

#[test]
fn a_read_through_a_damaged_row_of_the_index_names_the_object_too() {
    let mut mount = TestMount::new();
    mount.write("file", noise(100_000, 1));
    mount.checkpoint("one");
    mount.terminate();
    let content = mount.query("SELECT object FROM file_mementos WHERE path = 'file'");
    let database = rusqlite::Connection::open(mount.store().join("store.db")).unwrap();
    database.execute("UPDATE file_blobs SET kind = 'bl/b' WHERE id = ?", [&content[0]]).unwrap();
    drop(database);
    mount.mount(&[]);
    assert_eq!(fs::read(mount.path("file")).unwrap_err().raw_os_error(), Some(libc::EIO));
    assert!(mount.says("error").contains(&content[0]), "{}", mount.says("error"));
    mount.terminate();
    let repaired = fsck(&mount, &["--repair"]);
    assert_eq!(repaired.status.code(), Some(0), "{}", said(&repaired));
}

#[test]
fn a_repair_lists_what_is_lost_and_never_makes_it_up() {
    let mut mount = TestMount::new();
    mount.write("lost", noise(5000, 1));
    mount.write("kept", noise(5000, 2));
    let first = mount.checkpoint("first");
    mount.terminate();
    let content = mount.query("SELECT object FROM file_mementos WHERE path = 'lost'");
    let (_, pack, offset) = object(&mount, &format!("id = '{}'", content[0]));
    flip(&pack, offset);
    let output = fsck(&mount, &["--repair"]);
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert!(text.contains("lost") && text.contains(&first[..12]) && !text.contains("kept:"), "{text}");
    mount.mount(&[]);
    assert_eq!(fs::read(mount.path("lost")).unwrap_err().raw_os_error(), Some(libc::EIO));
    assert!(fs::read(mount.path("kept")).unwrap() == noise(5000, 2));
    // The same content, stored once more, is whole in every checkpoint that holds it.
    mount.write("again", noise(5000, 1));
    mount.checkpoint("again");
    mount.remount();
    assert!(fs::read(mount.control(format!("checkpoints/{first}/lost"))).unwrap() == noise(5000, 1));
    mount.terminate();
    clean(&mount);
}

#[test]
fn a_lost_database_is_rebuilt_with_all_that_was_known() {
    let (mut mount, ids) = with_history();
    let (live, log) = (described(&mount.top()), mount.says("log"));
    mount.kill();
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(mount.store().join(format!("store.db{suffix}")));
    }
    let missing = fsck(&mount, &[]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(said(&missing).contains("--repair"), "{}", said(&missing));
    let repaired = fsck(&mount, &["--repair"]);
    assert_eq!(repaired.status.code(), Some(0), "{}", said(&repaired));
    mount.mount(&[]);
    assert_eq!(described(&mount.top()), live, "work that no checkpoint held is back");
    assert_eq!(mount.says("log"), log);
    assert_eq!(fs::read_link(mount.control("links/ci/run%2F7")).unwrap(), Path::new(&format!("../../checkpoints/{}", ids[1])));
    assert!(mount.control("checkpoints/renamed").exists());
    assert!(mount.says("undo").contains("undo"), "{}", mount.says("undo"));
    mount.tell("restore", &ids[0]);
    assert_eq!(mount.read("src/main.rs"), "fn main() {}\n");
    mount.checkpoint("goes on");
    mount.terminate();
    clean(&mount);
}

#[test]
fn a_damaged_database_is_kept_beside_the_rebuilt_one() {
    let (mut mount, _) = with_history();
    let (live, log) = (described(&mount.top()), mount.says("log"));
    mount.terminate();
    let database = mount.store().join("store.db");
    let pages = fs::metadata(&database).unwrap().len() / 4096;
    let file = fs::File::options().write(true).open(&database).unwrap();
    (1..pages).for_each(|page| file.write_all_at(&[0x55; 64], page * 4096).unwrap());
    assert_eq!(fsck(&mount, &[]).status.code(), Some(1));
    let repaired = fsck(&mount, &["--repair"]);
    assert_eq!(repaired.status.code(), Some(0), "{}", said(&repaired));
    assert!(said(&repaired).contains("store.db.damaged-1"), "{}", said(&repaired));
    assert!(mount.store().join("store.db.damaged-1").exists());
    mount.mount(&[]);
    assert_eq!((described(&mount.top()), mount.says("log")), (live, log));
}

#[test]
fn a_repair_killed_at_any_instant_can_be_run_again() {
    let (mut mount, _) = with_history();
    let (live, log) = (described(&mount.top()), mount.says("log"));
    mount.kill();
    for call in ["rename", "fdatasync", "fsync", "pwrite64", "unlink"] {
        for at in [1, 2, 3, 4, 6, 9, 14, 30] {
            let _ = fs::remove_file(mount.store().join("store.db"));
            let mut command = std::process::Command::new("strace");
            command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
            command.args(["-e", &format!("inject={call}:signal=SIGKILL:when={at}"), env!("CARGO_BIN_EXE_mementofs")]);
            command.args(["fsck", "--repair"]).arg(mount.store()).output().unwrap();
            let again = fsck(&mount, &["--repair"]);
            assert_eq!(again.status.code(), Some(0), "killed at {call} {at}: {}", said(&again));
        }
    }
    mount.mount(&[]);
    assert_eq!((described(&mount.top()), mount.says("log")), (live, log));
}

#[test]
fn a_database_that_lost_its_last_transactions_gets_them_back_at_the_mount() {
    let mut mount = TestMount::new();
    mount.write("file", "1");
    mount.checkpoint("one");
    mount.terminate();
    let older = fs::read(mount.store().join("store.db")).unwrap();
    mount.mount(&[]);
    mount.write("file", "2");
    let two = mount.checkpoint(r#"{"message":"two","name":"named","links":{"ci":"2"}}"#);
    mount.write("file", "3");
    mount.tell("checkpoint", "three");
    mount.write("uncheckpointed", noise(300_000, 1));
    let (live, log) = (described(&mount.top()), mount.says("log"));
    mount.terminate();
    fs::write(mount.store().join("store.db"), older).unwrap();
    let before = fsck(&mount, &[]);
    assert_eq!(before.status.code(), Some(1));
    assert!(said(&before).contains("lost its last events"), "{}", said(&before));
    mount.mount(&[]);
    assert_eq!((described(&mount.top()), mount.says("log")), (live, log));
    assert!(mount.log().contains("lost its last"), "{}", mount.log());
    assert_eq!(fs::read_to_string(mount.control("checkpoints/named/file")).unwrap(), "2");
    assert_eq!(fs::read_link(mount.control("links/ci/2")).unwrap(), Path::new(&format!("../../checkpoints/{two}")));
    mount.terminate();
    clean(&mount);
}

#[test]
fn a_journal_that_rotted_is_said_and_kept() {
    let mut mount = TestMount::new();
    mount.write("before", "1");
    for at in 0..20 {
        mount.write(&format!("file-{at}"), noise(1000, at));
    }
    mount.kill();
    let journal = mount.store().join("journal/1");
    let segment = fs::read_dir(&journal).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    let bytes = fs::read(&segment).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap(); // Behind that there may be room for more.
    flip(&segment, written as u64 / 2);
    let text = said(&fsck(&mount, &[]));
    assert!(text.contains("journal segment") && text.contains("damaged at byte"), "{text}");
    mount.mount(&[]);
    assert_eq!(mount.read("before"), "1", "what lies before the damage is served");
    assert!(!mount.path("file-19").exists(), "what follows may count on what is lost");
    assert!(mount.says("error").contains("is damaged at byte"), "{}", mount.says("error"));
    let kept = journal.join("damaged-1").join(segment.file_name().unwrap());
    assert_eq!(fs::read(kept).unwrap().len(), bytes.len(), "nothing of it is deleted");
    mount.write("goes on", "2");
    mount.crash();
    assert_eq!(mount.read("goes on"), "2");
    mount.terminate();
    clean(&mount);
}

/// What cannot be read cannot be copied out of a pack. The pack stayed as long as it was, with all that was dead in it.
#[test]
fn gc_leaves_a_damaged_object_where_it_is_and_gives_back_the_rest() {
    let mut mount = TestMount::new();
    (0..40).for_each(|at| mount.write(&format!("f{at}"), noise(100_000, at)));
    let first = mount.checkpoint("first");
    mount.terminate();
    let id = mementofs::object::ObjectId::of(&noise(100_000, 3));
    let (_, pack, offset) = object(&mount, &format!("id = '{id}'"));
    flip(&pack, offset + 500);
    mount.mount(&[]);
    mount.shell("rm f2? f3?");
    mount.checkpoint("second");
    mount.request(&serde_json::json!({ "do": "delete", "ref": first }));
    mount.tell("gc", r#"{"grace_secs":0}"#);
    let packs = crate::mount::disk_bytes(&mount.store().join("packs"));
    assert!(packs < 2_500_000, "{packs} bytes for 20 files of 100,000");
    for at in 0..20 {
        let found = fs::read(mount.path(format!("f{at}")));
        match at {
            3 => assert_eq!(found.unwrap_err().raw_os_error(), Some(libc::EIO)),
            _ => assert!(found.unwrap() == noise(100_000, at), "f{at}"),
        }
    }
    mount.terminate();
    let output = fsck(&mount, &["--read-data"]);
    assert_eq!(output.status.code(), Some(1));
    let told = said(&output);
    assert!(told.contains("f3: object") && told.contains("1 problems"), "{told}");
}

#[test]
fn a_mounted_store_is_not_checked_and_that_is_said() {
    let mount = TestMount::new();
    let output = fsck(&mount, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("umount") && said(&output).contains("mnt"), "{}", said(&output));
    assert_eq!(program().args(["fsck", "--no-such-option"]).output().unwrap().status.code(), Some(2));
}

/// A share of what `tests/rot` does, through the kernel. MEMENTOFS_ROT_MOUNTED says how many damages (default 12).
#[test]
fn rotten_bits_never_reach_a_program() {
    let count = std::env::var("MEMENTOFS_ROT_MOUNTED").ok().and_then(|text| text.parse().ok()).unwrap_or(12u64);
    let mut mount = TestMount::new();
    for at in 0..30 {
        mount.write(&format!("d{}/f{at}", at % 3), noise(500 + (at as usize) * 9000, at));
    }
    mount.checkpoint("one");
    mount.write("d0/f0", noise(700, 99));
    mount.checkpoint("two");
    mount.terminate();
    let pack = mount.store().join("packs/00000001.pack");
    let whole = fs::read(&pack).unwrap();
    for flipped in 0..count {
        let at = (flipped * 7919 * 613) % whole.len() as u64;
        flip(&pack, at);
        let found = fsck(&mount, &["--read-data"]).status.code();
        let served = program().args(["mount", "--"]).arg(mount.store()).arg(mount.top()).output().unwrap();
        let mut errors = 0;
        if served.status.success() {
            for state in ["", ".memento/checkpoints/latest"] {
                for file in 0..30u64 {
                    let path = mount.path(state).join(format!("d{}/f{file}", file % 3));
                    let expected = if file == 0 { noise(700, 99) } else { noise(500 + (file as usize) * 9000, file) };
                    match fs::read(&path) {
                        Ok(bytes) => assert!(bytes == expected, "byte {at}: {} is wrong", path.display()),
                        Err(err) => {
                            assert_eq!(err.raw_os_error(), Some(libc::EIO), "byte {at}: {}", path.display());
                            errors += 1;
                        }
                    }
                }
            }
            if errors > 0 {
                assert!(mount.says("error").contains("object"), "byte {at}: {}", mount.says("error"));
            }
            // Lazily: a program that another test starts just now may hold a descriptor for an instant.
            succeeded("umount", program().args(["umount", "--lazy"]).arg(mount.top()).output().unwrap());
        }
        assert!(
            found == Some(1) || (errors == 0 && served.status.success()),
            "byte {at}: {errors} errors, and fsck says {found:?}"
        );
        fs::write(&pack, &whole).unwrap();
    }
    clean(&mount);
}

/// A repair ended at the first that was missing, and nothing else was put right.
#[test]
fn a_missing_file_of_objects_is_damage_and_does_not_end_a_repair() {
    for large in [false, true] {
        let mut mount = TestMount::new();
        mount.write("kept", "kept");
        let kept = mount.checkpoint("kept");
        mount.remount(); // Begins another pack.
        mount.write("lost", noise(if large { 8 << 20 } else { 600_000 }, 1));
        mount.checkpoint("lost");
        mount.end();
        let column = if large { "large" } else { "pack" };
        let sql = format!("SELECT {column} FROM file_blobs WHERE size > 100000 AND {column} IS NOT NULL LIMIT 1");
        let at = mount.query(&sql).remove(0);
        let path = match at.parse::<u32>() {
            Ok(number) => format!("packs/{number:08}.pack"),
            Err(_) => format!("objects/{}/{}", &at[..2], &at[2..]),
        };
        fs::remove_file(mount.store().join(path)).unwrap();
        let found = fsck(&mount, &[]);
        assert_eq!(found.status.code(), Some(1), "{}", said(&found));
        assert!(said(&found).contains(if large { "lost" } else { "all of it" }), "{}", said(&found));
        let repaired = fsck(&mount, &["--repair"]);
        assert!(said(&repaired).contains("are lost"), "{}", said(&repaired));
        mount.mount(&[]);
        assert_eq!(fs::read_to_string(mount.control(format!("checkpoints/{kept}/kept"))).unwrap(), "kept");
        mount.tell("restore", &kept);
        assert_eq!(mount.read("kept"), "kept");
    }
}
