//! Merges: what both sides did since they parted, all or nothing, and undone by one word.

use crate::checkpoint::one_of_everything;
use crate::mount::{TestMount, described, noise, program, succeeded};
use mementofs::tree::{Favour, merge_text};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

/// Takes what `theirs` does from a base on as a checkpoint of its own, then does `ours` from the same base on.
///
/// Returns the id of their checkpoint. The live tree holds what ours did, not checkpointed.
fn diverge(mount: &TestMount, theirs: &str, ours: &str) -> String {
    let base = mount.checkpoint("base");
    mount.shell(theirs);
    let id = mount.checkpoint("theirs");
    mount.tell("restore", &base);
    mount.shell(ours);
    id
}

fn merge(mount: &TestMount, reference: &str, policy: &str) -> Value {
    let reply = mount.request(&json!({ "do": "merge", "ref": reference, "policy": policy }));
    assert_eq!(reply["ok"], true, "{reply}");
    reply
}

fn conflicts(reply: &Value) -> Vec<String> {
    let word = |conflict: &Value| format!("{} {}", conflict["path"].as_str().unwrap(), conflict["kind"].as_str().unwrap());
    reply["conflicts"].as_array().unwrap().iter().map(word).collect()
}

const LINES: &str = "seq 1 20 > text; mkdir -p d; echo d > d/file; echo other > d/other; echo x > gone; ln d/other d/second";

#[test]
fn a_merge_has_what_both_sides_did_and_undo_takes_it_back() {
    let mount = TestMount::new();
    mount.shell(LINES);
    let theirs = diverge(
        &mount,
        "sed -i 's/^2$/two/' text; mv d moved; echo new > moved/new; chmod 600 moved/second; rm gone",
        "sed -i 's/^19$/nineteen/' text; echo changed > d/file; setfattr -n user.x -v y d/file; echo mine > mine",
    );
    let before = described(&mount.top());
    let (id, log) = (mount.newest(), mount.query("SELECT count(*) FROM file_commits"));
    let preview = mount.request(&json!({ "do": "merge", "ref": theirs, "dry_run": true }));
    assert_eq!((&preview["ok"], &preview["id"]), (&json!(true), &Value::Null), "{preview}");
    assert_eq!((mount.newest(), mount.query("SELECT count(*) FROM file_commits")), (id, log), "a preview takes no checkpoint");
    assert_eq!(described(&mount.top()), before, "a preview changes nothing");
    // Every cache knows the present state.
    mount.shell("ls -lR . > /dev/null; cat text d/file; stat moved mine gone 2> /dev/null || true");
    let reply = merge(&mount, &theirs, "markers");
    assert_eq!(conflicts(&reply), Vec::<String>::new());
    assert_eq!(reply["changes"], preview["changes"], "the preview said what was done");
    assert_eq!(mount.shell("sed -n '2p;19p' text"), "two\nnineteen\n");
    assert_eq!(mount.read("moved/file"), "changed\n");
    assert_eq!(xattr::get(mount.path("moved/file"), "user.x").unwrap().unwrap(), b"y");
    assert_eq!(mount.shell("cat moved/new mine; ls; stat -c '%a %h' moved/other"), "new\nmine\nmine\nmoved\ntext\n600 2\n");
    let shown = mount.request(&json!({ "do": "show", "ref": "@" }));
    assert_eq!(shown["meta"]["merged"], theirs);
    assert_eq!(shown["message"], format!("merge {theirs}"));
    assert_eq!(shown["parent"], reply["safety"], "what was not checkpointed was checkpointed first");
    assert_eq!(mount.says("status"), "");
    let again = merge(&mount, &theirs, "markers");
    assert_eq!(again["up_to_date"], true, "{again}");
    mount.tell("undo", "x");
    assert_eq!(described(&mount.top()), before);
    mount.tell("undo", "x");
    assert_eq!(mount.shell("sed -n '2p;19p' text"), "two\nnineteen\n", "the undo is taken back");
}

#[test]
fn a_branch_is_merged_with_what_it_has_not_checkpointed() {
    let mount = TestMount::new();
    mount.shell("seq 1 20 > text; echo 1 > a; mkdir d; echo d > d/file");
    mount.shell("mkdir .memento/branches/try");
    mount.shell("cd .memento/branches/try; sed -i 's/^2$/two/' text; mv d moved; echo new > new; ln a b");
    mount.shell("sed -i 's/^19$/nineteen/' text; echo changed > d/file");
    let commits = mount.query("SELECT count(*) FROM file_commits");
    let dry = mount.cli_ok(&["merge", "try", "--dry-run"]);
    assert!(dry.contains("A new") && dry.contains("R d -> moved"), "{dry}");
    assert_eq!(mount.query("SELECT count(*) FROM file_commits"), commits, "a preview takes no checkpoint");
    mount.shell("ls -lR . > /dev/null; cat text d/file; stat moved new 2> /dev/null || true");
    mount.cli_ok(&["merge", "try"]);
    assert_eq!(mount.shell("sed -n '2p;19p' text; cat moved/file new; stat -c %h a"), "two\nnineteen\nchanged\nnew\n2\n");
    let kinds = mount.query("SELECT branch, kind, message FROM file_commits ORDER BY seq DESC LIMIT 3");
    assert_eq!(kinds, ["main|manual|merge try", "main|safety|before merge", "try|auto|before merge into main"]);
    let view = mount.control("branches/try");
    assert_eq!(fs::read_to_string(view.join("text")).unwrap().lines().nth(18), Some("19"), "the other branch stays as it is");
    // And the other way round: it gets what main has, and both are the same.
    succeeded("merge main", program().args(["merge", "main"]).current_dir(&view).output().unwrap());
    assert_eq!(described(&view), described(&mount.top()));
    assert!(mount.cli_ok(&["merge", "try", "--json"]).contains("\"changes\":[]"));
    mount.shell("echo > conflict; echo x > .memento/branches/try/conflict");
    let text = mount.cli_ok(&["merge", "try"]);
    assert!(text.contains("conflict: content"), "{text}");
    assert_eq!(mount.read("conflict"), "<<<<<<< main\n\n=======\nx\n>>>>>>> try\n");
}

#[test]
fn conflicts_are_marked_listed_and_decided_by_the_policy() {
    let sides = (
        "echo theirs > text; printf 'a\\0theirs' > binary; chmod 600 mode; rm deleted; ln -sfn theirs link; mkdir thing",
        "echo ours > text; printf 'a\\0ours' > binary; chmod 755 mode; echo kept > deleted; ln -sfn ours link; echo file > thing",
    );
    let start = "echo base > text; printf 'a\\0' > binary; echo > mode; echo > deleted; ln -s base link";
    let expected = ["binary binary", "deleted modify/delete", "link type", "mode mode", "text content", "thing path"];
    for policy in ["markers", "ours", "theirs"] {
        let mount = TestMount::new();
        mount.shell(start);
        let theirs = diverge(&mount, sides.0, sides.1);
        assert_eq!(conflicts(&merge(&mount, &theirs, policy)), expected, "{policy}");
        let said =
            mount.shell("cat text; tr -d '\\0' < binary; stat -c ' %a' mode; cat deleted || true; readlink link; ls -d thing*");
        let name = theirs.as_str();
        let text = match policy {
            "markers" => format!("<<<<<<< main\nours\n=======\ntheirs\n>>>>>>> {name}\n"),
            word => format!("{word}\n"),
        };
        let rest = match policy {
            "theirs" => "atheirs 600\ntheirs\nthing\nthing~main\n".to_owned(),
            _ => format!("aours 755\nkept\nours\nthing\nthing~{name}\n"),
        };
        assert_eq!(said, text + &rest, "{policy}");
    }
}

#[test]
fn a_merge_that_must_not_conflict_changes_nothing() {
    let mount = TestMount::new();
    mount.shell("echo base > text");
    let theirs = diverge(&mount, "echo theirs > text; echo > more", "echo ours > text");
    let (before, log) = (described(&mount.top()), mount.query("SELECT count(*) FROM file_commits"));
    let request = json!({ "do": "merge", "ref": theirs, "policy": "fail" }).to_string();
    let file = mount.control("requests/refused");
    assert_eq!(fs::write(&file, request).unwrap_err().raw_os_error(), Some(libc::ECANCELED));
    let said = fs::read_to_string(&file).unwrap();
    assert!(said.contains("text (content)"), "{said}");
    assert_eq!((described(&mount.top()), mount.query("SELECT count(*) FROM file_commits")), (before, log));
}

#[test]
fn what_makes_no_sense_is_refused_with_a_sentence() {
    let mount = TestMount::new();
    mount.write("a", "1");
    let request = |request: Value| {
        let file = mount.control("requests/bad");
        let errno = fs::write(&file, request.to_string()).unwrap_err().raw_os_error().unwrap();
        (errno, mount.says("requests/bad"))
    };
    mount.checkpoint("one");
    assert_eq!(request(json!({ "do": "merge", "branch": "absent" })).0, libc::ENOENT);
    assert_eq!(request(json!({ "do": "merge", "branch": "main" })).0, libc::EINVAL);
    assert_eq!(request(json!({ "do": "merge" })).0, libc::EINVAL);
    assert_eq!(request(json!({ "do": "merge", "branch": "a", "ref": "@" })).0, libc::EINVAL);
    assert_eq!(request(json!({ "do": "merge", "ref": "@", "policy": "coin" })).0, libc::EINVAL);
    // Without its only common ancestor, a state cannot be merged.
    let theirs = diverge(&mount, "echo theirs > a", "echo ours > b");
    mount.checkpoint("ours");
    let base = mount.query("SELECT id FROM file_commits ORDER BY seq LIMIT 1")[0].clone();
    mount.shell(&format!("rmdir .memento/checkpoints/{base}"));
    let (errno, said) = request(json!({ "do": "merge", "ref": theirs }));
    assert_eq!(errno, libc::ENOENT);
    assert!(said.contains("common ancestor"), "{said}");
    assert!(!mount.cli(&["merge", "absent"]).status.success());
}

#[test]
fn a_later_merge_starts_from_what_was_merged_before() {
    let mount = TestMount::new();
    mount.shell("seq 1 30 > text");
    let first = diverge(&mount, "sed -i 's/^2$/two/' text", "sed -i 's/^20$/twenty/' text");
    merge(&mount, &first, "fail");
    let merged = mount.newest();
    // Their side goes on from where it was.
    mount.tell("restore", &first);
    mount.shell("sed -i 's/^two$/TWO/' text; echo more >> text");
    let second = mount.checkpoint("theirs goes on");
    mount.tell("restore", &merged);
    let reply = merge(&mount, &second, "fail");
    assert_eq!(reply["base"], first);
    assert_eq!(mount.shell("sed -n '2p;20p;$p' text"), "TWO\ntwenty\nmore\n");
}

#[test]
fn a_merge_survives_a_crash_right_after_it() {
    let mut mount = TestMount::new();
    one_of_everything(&mount);
    let theirs = diverge(&mount, "rm -rf d/deep; echo theirs > d/new; truncate -s 5M d/sparse", "echo ours > d/mine");
    merge(&mount, &theirs, "markers");
    mount.crash_and_find_all();
    assert_eq!((mount.read("d/new").as_str(), mount.path("d/deep").exists()), ("theirs\n", false));
    mount.tell("undo", "x");
    assert!(mount.path("d/deep").exists() && !mount.path("d/new").exists() && mount.path("d/mine").exists());
}

#[test]
fn a_database_that_is_rebuilt_knows_of_the_merge() {
    let mut mount = TestMount::new();
    mount.shell("seq 9 > text");
    let theirs = diverge(&mount, "echo theirs > new", "echo ours > mine");
    merge(&mount, &theirs, "fail");
    let (log, live) = (mount.says("log"), described(&mount.top()));
    mount.kill();
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(mount.store().join(format!("store.db{suffix}")));
    }
    let repaired = program().args(["fsck", "--repair"]).arg(mount.store()).output().unwrap();
    assert_eq!(repaired.status.code(), Some(0), "{repaired:?}");
    mount.mount(&[]);
    assert_eq!((mount.says("log"), described(&mount.top())), (log, live));
    assert_eq!(merge(&mount, &theirs, "fail")["up_to_date"], true);
    mount.tell("undo", "x");
    assert!(!mount.path("new").exists() && mount.path("mine").exists());
}

#[test]
fn a_merge_under_writers_is_whole_and_loses_nothing() {
    let mount = TestMount::new();
    mount.shell("mkdir d; for i in $(seq 100); do echo old > d/$i; done");
    let theirs = diverge(&mount, "for i in $(seq 100); do echo new > d/$i; done", "true");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for at in 0..500 {
                fs::write(mount.path(format!("w{at}")), at.to_string()).unwrap();
            }
        });
        merge(&mount, &theirs, "fail");
        writer.join().unwrap();
    });
    assert_eq!(mount.shell("cat d/* | sort | uniq -c").trim(), "100 new");
    assert_eq!(mount.shell("ls | grep -c ^w"), "500\n");
    for at in 0..500 {
        assert_eq!(mount.read(format!("w{at}")), at.to_string());
    }
}

#[test]
fn the_command_line_says_what_a_merge_does() {
    let mount = TestMount::new();
    mount.shell("echo base > text; echo b > b");
    let theirs = diverge(&mount, "echo theirs > text; echo new > new; mv b c", "echo ours > text");
    let dry = mount.cli_ok(&["merge", "--ref", &theirs, "--dry-run"]);
    assert!(dry.contains("text: content") && dry.contains("R b -> c") && dry.contains("dry run"), "{dry}");
    let refused = mount.cli(&["merge", "--ref", &theirs, "--fail"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("text (content)"), "{refused:?}");
    assert_eq!(mount.read("text"), "ours\n");
    let done = mount.cli_ok(&["merge", "--ref", &theirs, "--theirs"]);
    assert!(done.contains("A new") && done.contains("undo"), "{done}");
    assert_eq!((mount.read("text").as_str(), mount.read("c").as_str()), ("theirs\n", "b\n"));
    assert!(mount.cli_ok(&["merge", "--ref", &theirs]).contains("nothing to merge"));
    assert_eq!(mount.cli(&["merge", "x", "--ours", "--theirs"]).status.code(), Some(2));
}

/// A text whose lines are all different, so that there is one way to compare it with another.
fn varied(lines: u64, seed: u64, changes: u64, word: &str) -> String {
    let mut state = seed | 1;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut text: Vec<String> = (0..lines).map(|at| format!("line{at}")).collect();
    for change in 0..changes {
        let at = random(text.len() as u64) as usize;
        match random(3) {
            0 => drop(text.remove(at)),
            1 => text.insert(at, format!("{word}{seed}x{change}")),
            _ => text[at] = format!("{word}{seed}x{change}"),
        }
    }
    text.join("\n") + if random(4) == 0 { "" } else { "\n" }
}

#[test]
fn texts_are_merged_as_git_merges_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut conflicts = 0;
    for seed in 0..150u64 {
        let base = varied(40, 7, 0, "");
        let (ours, theirs) = (varied(40, seed * 2 + 11, seed % 7, "our"), varied(40, seed * 3 + 5, seed % 5 + 1, "their"));
        for (name, text) in [("base", &base), ("ours", &ours), ("theirs", &theirs)] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let mut git = Command::new("git");
        git.args(["merge-file", "-p", "-q", "-L", "main", "-L", "base", "-L", "try", "ours", "base", "theirs"]);
        let output = git.current_dir(dir.path()).output().unwrap();
        let merged = merge_text(base.as_bytes(), ours.as_bytes(), theirs.as_bytes(), Favour::Markers("main", "try"));
        let text = String::from_utf8(merged.bytes).unwrap();
        assert_eq!(text, String::from_utf8_lossy(&output.stdout), "seed {seed}");
        assert_eq!(Some(merged.conflicts as i32), output.status.code(), "seed {seed}");
        conflicts += merged.conflicts;
    }
    assert!(conflicts > 50, "only {conflicts} conflicts were tried");
}

#[test]
fn large_contents_are_taken_whole() {
    let mount = TestMount::new();
    mount.write("large", noise(3_000_000, 1));
    mount.write("other", noise(3_000_000, 2));
    let theirs = diverge(&mount, "head -c 100 /dev/zero >> large", "head -c 100 /dev/zero >> other");
    assert_eq!(conflicts(&merge(&mount, &theirs, "markers")), Vec::<String>::new());
    assert_eq!(mount.shell("stat -c %s large other"), "3000100\n3000100\n");
    assert!(fs::read(mount.path("large")).unwrap()[..3_000_000] == noise(3_000_000, 1));
}

#[test]
fn retention_keeps_what_branches_are_merged_from() {
    let mount = TestMount::new();
    mount.shell("seq 1 20 > text");
    let fork_point = mount.checkpoint("fork point");
    mount.shell("mkdir .memento/branches/try .memento/branches/dropped; sed -i 's/^2$/two/' .memento/branches/try/text");
    mount.shell("rmdir .memento/branches/dropped");
    for at in 0..4 {
        mount.shell(&format!(
            "echo {at} > file; echo {at} > .memento/branches/try/other; echo x > .memento/branches/try/.memento/checkpoint"
        ));
        mount.checkpoint(&at.to_string());
    }
    mount.shell("sed -i 's/^19$/nineteen/' text");
    mount.tell("gc", r#"{"grace_secs":0,"keep_last":1}"#);
    let left = mount.query("SELECT message FROM file_commits WHERE deleted_at IS NULL ORDER BY seq");
    assert_eq!(left, ["fork point", "x", "3"], "the heads, and where they parted");
    assert!(mount.says("log").contains(&fork_point));
    mount.cli_ok(&["merge", "try"]);
    assert_eq!(mount.shell("sed -n '2p;19p' text; cat file other"), "two\nnineteen\n3\n3\n");
}
