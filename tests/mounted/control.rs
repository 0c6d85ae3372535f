//! The control directory: its rows and its rules.

use crate::mount::TestMount;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;

#[test]
fn it_resolves_by_name_and_is_never_listed() {
    let mount = TestMount::new();
    mount.write("dir/file", "x");
    assert_eq!(mount.shell("ls -A").trim(), "dir");
    assert!(mount.control("README").is_file());
    assert!(!mount.shell("find .; rg --hidden --files; tar cf - . | tar tf -; du -a .").contains("memento"));
    mount.shell("rm -rf ./* && cp -r . /dev/null 2>&1 || true");
    assert!(mount.control("README").is_file());
}

#[test]
fn every_row_reads_as_promised() {
    let mount = TestMount::new();
    assert!(mount.says("README").contains(".memento/checkpoint"));
    assert_eq!(mount.says("checkpoint"), "");
    mount.write("a", "1");
    let first = mount.checkpoint("first\n");
    assert_eq!(first.len(), 64);
    mount.write("b", "2");
    mount.write("a", "changed");
    assert_eq!(sorted(&mount.says("status")), ["A b", "M a"]);
    let second = mount.checkpoint(r#"{"message":"second","name":"two"}"#);
    assert_eq!(mount.says("status"), "");
    let log = mount.says("log");
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines[0].starts_with(&second) && lines[0].ends_with(" two second"), "{log}");
    assert!(lines[1].starts_with(&first) && lines[1].ends_with(" - first"), "{log}");
    assert!(mount.says(format!("diff/{first}")).contains("A b"));
    assert!(mount.says(format!("diff/{first}..two")).contains("M a"));
    assert!(mount.says(format!("diff/two..{}", &first[..8])).contains("D b"));
    assert_eq!(fs::read_to_string(mount.control("checkpoints/two/a")).unwrap(), "changed");
    assert_eq!(fs::read_to_string(mount.control(format!("checkpoints/{first}/a"))).unwrap(), "1");
    assert_eq!(fs::read_link(mount.control("checkpoints/latest")).unwrap().to_str(), Some(second.as_str()));
    let stats = mount.says("stats");
    assert!(stats.lines().all(|line| line.split_once(' ').is_some()), "{stats}");
    let names: Vec<_> = fs::read_dir(mount.control("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    for name in [
        "README",
        "checkpoint",
        "restore",
        "undo",
        "status",
        "log",
        "diff",
        "checkpoints",
        "branches",
        "links",
        "gc",
        "events",
        "stats",
        "error",
        "requests",
    ] {
        assert!(names.iter().any(|found| found == name), "{name} is missing in {names:?}");
        assert!(mount.control(name).exists(), "{name}");
    }
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn status_has_a_letter_for_each_kind_of_change() {
    let mount = TestMount::new();
    mount.shell("mkdir d; echo 1 > d/modified; echo 2 > d/deleted; echo 3 > d/type; echo moved > d/old; echo x > d/mode");
    mount.checkpoint("base");
    mount.shell("cd d; echo 11 >> modified; rm deleted type; ln -s target type; mv old new; touch added; chmod 755 mode");
    let status = mount.says("status");
    let lines = sorted(&status);
    for line in ["A d/added", "D d/deleted", "M d/modified", "M d/mode", "R d/new", "T d/type"] {
        assert!(lines.iter().any(|found| found == line), "{line} is missing in {status}");
    }
    assert!(!status.contains("d/old"), "{status}");
}

#[test]
fn a_command_is_one_write_and_its_failure_is_the_writes() {
    let mount = TestMount::new();
    mount.write("file", "1");
    mount.command("checkpoint", "").unwrap();
    assert_eq!(mount.newest(), "", "a write of zero bytes does nothing");
    mount.shell("echo > .memento/checkpoint");
    assert!(mount.says("log").trim_end().ends_with(" -"), "no message: {}", mount.says("log"));
    let newest = mount.newest();
    assert_eq!(mount.refusal("checkpoint", vec![b'x'; 4096]), libc::E2BIG);
    assert_eq!(mount.refusal("checkpoint", vec![b'x'; 5000]), libc::E2BIG);
    assert_eq!(mount.refusal("restore", "nothing-of-that-name\n"), libc::ENOENT);
    assert!(mount.says("error").contains("nothing-of-that-name"), "{}", mount.says("error"));
    assert_eq!(mount.refusal("restore", "@ no/such/path\n"), libc::ENOENT);
    assert_eq!(mount.refusal("restore", "@~9\n"), libc::ENOENT);
    assert_eq!(mount.newest(), newest, "a failed command changes nothing");
    let status = std::process::Command::new("sh")
        .args(["-c", "echo nothing > .memento/restore"])
        .current_dir(mount.top())
        .stderr(std::process::Stdio::null())
        .status();
    assert_eq!(status.unwrap().code(), Some(1).or(Some(2)), "the shell sees the failure");
}

#[test]
fn bad_commands_have_the_errno_that_says_why() {
    let mount = TestMount::new();
    mount.write("file", "1");
    mount.checkpoint(r#"{"message":"m","name":"taken"}"#);
    mount.write("file", "2");
    let newest = mount.newest();
    let cases: &[(&str, &str, i32)] = &[
        ("checkpoint", r#"{"message":"#, libc::EINVAL),
        ("checkpoint", r#"{"massage":"typo"}"#, libc::EINVAL),
        ("checkpoint", r#"{"message":"m","name":"taken"}"#, libc::EEXIST),
        ("checkpoint", r#"{"name":".hidden"}"#, libc::EINVAL),
        ("checkpoint", r#"{"name":"-dash"}"#, libc::EINVAL),
        ("checkpoint", r#"{"name":"@at"}"#, libc::EINVAL),
        ("checkpoint", r#"{"name":"a/b"}"#, libc::EINVAL),
        ("checkpoint", r#"{"name":"deadbeef"}"#, libc::EINVAL),
        ("checkpoint", r#"{"name":""}"#, libc::EINVAL),
        ("checkpoint", r#"{"name":"tab\there"}"#, libc::EINVAL),
        ("checkpoint", r#"{"message":"m","expect":"0000000000"}"#, libc::ENOENT),
        ("checkpoint", r#"{"links":{"":"id"}}"#, libc::EINVAL),
        ("checkpoint", r#"{"meta":"not an object"}"#, libc::EINVAL),
        ("restore", r#"{"ref":"@","path":"../outside"}"#, libc::EINVAL),
        ("restore", r#"{"path":"file"}"#, libc::EINVAL),
        ("gc", "nonsense", libc::EINVAL),
        ("gc", r#"{"keep":1}"#, libc::EINVAL),
        ("undo", "x", libc::ENOENT),
    ];
    for (file, command, errno) in cases {
        assert_eq!(mount.refusal(file, command), *errno, "{file}: {command}: {}", mount.says("error"));
        assert!(!mount.says("error").is_empty());
        assert_eq!(mount.newest(), newest, "{command} changed something");
    }
    let long = format!(r#"{{"name":"{}"}}"#, "n".repeat(256));
    assert_eq!(mount.refusal("checkpoint", long), libc::EINVAL);
    let mut file = fs::File::options().write(true).open(mount.control("checkpoint")).unwrap();
    assert_eq!(file.write(&[0xff, 0xfe, b'\n']).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    mount.write("another", "3");
    let expect = json!({ "message": "m", "expect": newest }).to_string();
    mount.checkpoint(&expect);
    mount.write("another", "4");
    assert_eq!(mount.refusal("checkpoint", &expect), libc::ESTALE);
}

#[test]
fn an_ambiguous_prefix_says_so() {
    let mount = TestMount::new();
    let mut seen = std::collections::HashMap::new();
    // 16 bits of prefix: by the birthday bound some hundreds of ids share one.
    for at in 0..3000 {
        mount.tell("checkpoint", format!(r#"{{"message":"{at}","allow_empty":true}}"#));
        let id = mount.newest();
        if let Some(other) = seen.insert(id[..4].to_owned(), id.clone()) {
            assert_eq!(mount.refusal("restore", &id[..4]), libc::ENOTUNIQ);
            assert_ne!(id, other);
            mount.tell("restore", &id);
            return;
        }
    }
    panic!("no two of 3000 ids share four digits");
}

#[test]
fn what_editors_and_shells_do_to_a_file_works() {
    let mount = TestMount::new();
    mount.shell(
        r#"
        echo 1 > f; echo one > .memento/checkpoint
        echo 2 > f; echo two >> .memento/checkpoint
        echo 3 > f; echo three | tee .memento/checkpoint >/dev/null
        echo 4 > f; echo four > ../message; cp ../message .memento/checkpoint
        echo 5 > f; echo five | tee -a .memento/checkpoint >/dev/null
        echo 6 > f; python3 -c "open('.memento/checkpoint','w').write('six\n')"
        echo 7 > f; echo seven | dd of=.memento/checkpoint 2>/dev/null
        "#,
    );
    let log = mount.says("log");
    let messages: Vec<&str> = log.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(messages, ["seven", "six", "five", "four", "three", "two", "one"]);
}

#[test]
fn it_cannot_be_shadowed_moved_linked_or_filled() {
    let mount = TestMount::new();
    mount.write("file", "x");
    let errno = |result: std::io::Result<()>| result.unwrap_err().raw_os_error().unwrap();
    assert_eq!(errno(fs::create_dir(mount.path(".memento"))), libc::EEXIST);
    assert_eq!(errno(fs::rename(mount.path("file"), mount.path(".memento"))), libc::EISDIR);
    fs::create_dir(mount.path("dir")).unwrap();
    assert_eq!(errno(fs::rename(mount.path("dir"), mount.path(".memento"))), libc::EPERM);
    fs::remove_dir(mount.path("dir")).unwrap();
    assert_eq!(errno(fs::rename(mount.path(".memento"), mount.path("moved"))), libc::EPERM);
    assert_eq!(errno(fs::rename(mount.path("file"), mount.control("checkpoint"))), libc::EPERM);
    assert_eq!(errno(fs::rename(mount.control("log"), mount.path("log"))), libc::EPERM);
    assert_eq!(errno(fs::hard_link(mount.control("log"), mount.path("log"))), libc::EPERM);
    assert_eq!(errno(fs::hard_link(mount.path("file"), mount.control("file"))), libc::EPERM);
    assert_eq!(errno(fs::remove_file(mount.control("log"))), libc::EPERM);
    assert_eq!(errno(fs::write(mount.control("new"), "x")), libc::EPERM);
    assert_eq!(errno(fs::create_dir(mount.control("new"))), libc::EPERM);
    assert_eq!(errno(std::os::unix::fs::symlink("x", mount.control("new"))), libc::EPERM);
    assert_eq!(errno(fs::remove_dir(mount.path(".memento"))), libc::EPERM);
    assert_eq!(mount.shell("ls -A"), "file\n");
}

#[test]
fn checkpoints_are_read_only_directories() {
    let mount = TestMount::new();
    mount.write("dir/file", "x");
    let id = mount.checkpoint("one");
    let old = |path: &str| mount.control(format!("checkpoints/{id}/{path}"));
    let errno = |result: std::io::Result<()>| result.unwrap_err().raw_os_error().unwrap();
    assert_eq!(errno(fs::write(old("dir/file"), "y")), libc::EROFS);
    assert_eq!(errno(fs::write(old("dir/new"), "y")), libc::EROFS);
    assert_eq!(errno(fs::create_dir(old("new"))), libc::EROFS);
    assert_eq!(errno(fs::remove_file(old("dir/file"))), libc::EROFS);
    assert_eq!(errno(fs::remove_dir(old("dir"))), libc::EROFS);
    assert_eq!(errno(fs::rename(old("dir/file"), old("dir/other"))), libc::EROFS);
    assert_eq!(mount.read("dir/file"), "x");
}

#[test]
fn mkdir_mv_and_rmdir_manage_checkpoints() {
    let mount = TestMount::new();
    mount.write("file", "1");
    mount.shell("mkdir .memento/checkpoints/first");
    let first = mount.newest();
    mount.write("file", "2");
    mount.checkpoint("second");
    assert_eq!(fs::read_to_string(mount.control("checkpoints/first/file")).unwrap(), "1");
    mount.shell("mv .memento/checkpoints/first .memento/checkpoints/renamed");
    assert!(!mount.control("checkpoints/first").exists());
    assert_eq!(fs::read_to_string(mount.control("checkpoints/renamed/file")).unwrap(), "1");
    assert!(mount.says("log").contains("Z renamed\n"), "{}", mount.says("log"));
    let taken = fs::create_dir(mount.control("checkpoints/renamed")).unwrap_err();
    assert_eq!(taken.raw_os_error(), Some(libc::EEXIST));
    mount.shell("rmdir .memento/checkpoints/renamed");
    assert!(!mount.control("checkpoints/renamed").exists());
    assert!(mount.control(format!("checkpoints/{first}/file")).exists(), "only the name went");
    let stands = fs::remove_dir(mount.control(format!("checkpoints/{}", mount.newest()))).unwrap_err();
    assert_eq!(stands.raw_os_error(), Some(libc::EBUSY), "the branch stands on it");
    fs::remove_dir(mount.control(format!("checkpoints/{first}"))).unwrap();
    assert!(!mount.control(format!("checkpoints/{first}")).exists());
    assert_eq!(mount.refusal("restore", &first), libc::ENOENT);
    let tombstones = mount.query(&format!("SELECT count(*) FROM file_commits WHERE id='{first}' AND deleted_at IS NOT NULL"));
    assert_eq!(tombstones, ["1"], "the row stays, so that the chain can be verified");
    assert!(!mount.shell("ls .memento/checkpoints").contains(&first));
}

#[test]
fn requests_have_replies_of_their_own() {
    let mount = TestMount::new();
    mount.write("file", "1");
    fs::write(mount.control("requests/mine"), r#"{"do":"checkpoint","message":"by request","name":"r"}"#).unwrap();
    let reply: Value = serde_json::from_str(&mount.says("requests/mine")).unwrap();
    assert_eq!(reply["id"], mount.newest());
    assert_eq!((&reply["created"], &reply["ok"]), (&json!(true), &json!(true)));
    let failed = fs::write(mount.control("requests/other"), r#"{"do":"restore","ref":"nowhere"}"#).unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(libc::ENOENT));
    let reply: Value = serde_json::from_str(&mount.says("requests/other")).unwrap();
    assert!(reply["error"].as_str().unwrap().contains("nowhere"), "{reply}");
    assert_eq!(serde_json::from_str::<Value>(&mount.says("requests/mine")).unwrap()["id"], mount.newest());
    assert_eq!(sorted(&mount.shell("ls .memento/requests")), ["mine", "other"]);
    mount.shell("rm .memento/requests/mine");
    assert!(!mount.control("requests/mine").exists());
    let log = mount.request(&json!({ "do": "log" }));
    assert_eq!(log["checkpoints"][0]["message"], "by request");
    assert_eq!(log["checkpoints"][0]["author"]["uid"], fs::metadata(mount.top()).unwrap().uid());
}

#[test]
fn events_grow_by_appending_and_are_never_stale() {
    let mount = TestMount::new();
    let mut reader = fs::File::open(mount.control("events")).unwrap();
    let mut seen = String::new();
    for at in 0..5 {
        mount.write("file", at.to_string());
        mount.checkpoint(&format!("number {at}"));
        let before = seen.len();
        reader.seek(SeekFrom::Start(before as u64)).unwrap();
        reader.read_to_string(&mut seen).unwrap();
        assert!(seen.len() > before, "a reader that stays open sees event {at}");
        assert_eq!(fs::metadata(mount.control("events")).unwrap().len(), seen.len() as u64, "st_size is true");
        assert_eq!(mount.says("events"), seen);
    }
    let events: Vec<Value> = seen.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seqs: Vec<i64> = events.iter().map(|event| event["seq"].as_i64().unwrap()).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
}

#[test]
fn every_file_has_its_true_size() {
    let mount = TestMount::new();
    mount.write("file", "1");
    mount.checkpoint("one");
    mount.write("file", "2");
    for file in ["README", "checkpoint", "restore", "undo", "status", "log", "gc", "events", "error", "diff/@"] {
        let size = fs::metadata(mount.control(file)).unwrap().len();
        assert_eq!(mount.says(file).len() as u64, size, "{file}");
    }
}

#[test]
fn a_long_command_keeps_no_file_operation_waiting() {
    let mount = TestMount::new();
    for at in 0..400 {
        mount.write(&format!("d{}/f{at}", at % 20), crate::mount::noise(50_000, at));
    }
    std::thread::scope(|scope| {
        let command = scope.spawn(|| mount.tell("checkpoint", "long"));
        let mut answered = 0;
        while !command.is_finished() {
            fs::write(mount.path("meanwhile"), "x").unwrap();
            assert!(fs::metadata(mount.path("d0")).unwrap().is_dir());
            answered += 1;
        }
        command.join().unwrap();
        assert!(answered > 1, "operations were answered while the checkpoint ran");
    });
}

#[test]
fn another_name_for_the_directory() {
    let mut mount = TestMount::unmounted();
    mount.mount(&["-o", "control=.history"]);
    assert!(mount.path(".history/README").is_file());
    assert!(!mount.path(".memento").exists());
    fs::create_dir(mount.path(".memento")).unwrap();
}

#[test]
fn reading_changes_nothing() {
    let mount = TestMount::new();
    mount.write("file", "1");
    mount.checkpoint("one");
    mount.write("file", "2");
    let rows = |table: &str| mount.query(&format!("SELECT count(*) FROM {table}"));
    let before: Vec<_> = ["file_commits", "operations", "outbox", "checkpoint_file_links"].map(rows).to_vec();
    mount.shell(
        "cd .memento; cat README checkpoint restore undo status log gc events stats error diff/@ >/dev/null; ls -R . >/dev/null",
    );
    let after: Vec<_> = ["file_commits", "operations", "outbox", "checkpoint_file_links"].map(rows).to_vec();
    assert_eq!(before, after);
    assert_eq!(mount.read("file"), "2");
}

#[test]
fn others_than_the_owner_are_refused() {
    if !crate::trouble::is_root() {
        return; // Only root can be another user, and then the owner's own rights are tested by every other test.
    }
    let mut mount = TestMount::unmounted();
    mount.mount(&["-o", "allow_other"]);
    mount.write("file", "1");
    std::process::Command::new("chmod").arg("755").arg(mount.top().parent().unwrap()).status().unwrap();
    let as_nobody = |script: &str| {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script]).current_dir(mount.top());
        command.output().unwrap()
    };
    assert!(as_nobody("cat file").status.success());
    for script in ["cat .memento/log", "ls .memento", "echo x > .memento/checkpoint", "cat .memento/checkpoints/latest/file"] {
        let output = as_nobody(script);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains("ermission denied"), "{script}: {errors}");
    }
    assert_eq!(mount.newest(), "");
}
