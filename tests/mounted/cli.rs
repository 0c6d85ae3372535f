//! The command line, as a user types it.

use crate::mount::{TestMount, described, noise, program, succeeded};
use crate::security::Delayed;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|err| panic!("{err}: {text}"))
}

fn failure(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn mount_returns_when_it_serves_and_umount_when_it_is_over() {
    let mount = TestMount::unmounted();
    let run = |arguments: &[&Path]| {
        succeeded("mementofs", program().args(arguments).output().unwrap());
    };
    for round in 0..3 {
        run(&[Path::new("mount"), &mount.store(), &mount.top()]);
        assert_eq!(mount.path("file").exists(), round > 0);
        mount.write("file", "1");
        assert!(fs::read_to_string("/proc/self/mounts").unwrap().lines().any(
            |line| line.contains(mount.top().to_str().unwrap())
                && line.contains("fuse.mementofs")
                && line.contains("nosuid")
                && line.contains("nodev")
        ));
        run(&[Path::new("umount"), &mount.top()]);
        assert!(!mount.path("file").exists());
    }
}

#[test]
fn a_day_of_work() {
    let mount = TestMount::new();
    mount.shell("mkdir src; printf 'one\\ntwo\\nthree\\n' > src/a; echo b > src/b");
    let first = json(&mount.cli_ok(&["checkpoint", "-m", "first", "--name", "start", "--link", "ci:build/1", "--json"]));
    assert_eq!(first["created"], true);
    mount.shell("printf 'one\\n2\\nthree\\n' > src/a; rm src/b; echo c > src/c");
    let status = mount.cli_ok(&["status"]);
    assert!(status.contains("M src/a") && status.contains("D src/b") && status.contains("A src/c"), "{status}");
    let status = json(&mount.cli_ok(&["status", "--json"]));
    assert!(status["changes"].as_array().unwrap().iter().any(|change| change["path"] == "src/a" && change["letter"] == "M"));
    let diff = mount.cli_ok(&["diff"]);
    assert!(diff.contains("-two") && diff.contains("+2") && !diff.contains('\x1b'), "{diff}");
    mount.cli_ok(&["checkpoint", "-m", "second", "--name", "second"]);
    let log = mount.cli_ok(&["log"]);
    assert!(log.lines().count() == 2 && log.contains("start") && log.contains("second"), "{log}");
    assert_eq!(mount.cli_ok(&["log", "-n", "1"]).lines().count(), 1);
    let log = json(&mount.cli_ok(&["log", "--json"]));
    assert_eq!(log["checkpoints"][1]["links"]["ci"], "build/1");
    let show = mount.cli_ok(&["show", "start"]);
    assert!(show.contains("first") && show.contains("src/a"), "{show}");
    let range = mount.cli_ok(&["diff", "start..@", "--name-only"]);
    assert!(range.contains("src/a") && range.contains("src/b") && range.contains("src/c"), "{range}");
    let id = first["id"].as_str().unwrap();
    for words in [&["start", "second"][..], &[id, &mount.newest()], &[&id[..12], "second", "src"]] {
        let words: Vec<&str> = ["diff", "--name-only"].iter().chain(words).copied().collect();
        assert_eq!(mount.cli_ok(&words), range, "{words:?}");
    }
    mount.cli_ok(&["restore", "start", "src/b"]);
    assert_eq!(mount.read("src/b"), "b\n");
    mount.cli_ok(&["restore", "start"]);
    assert_eq!(mount.read("src/a"), "one\ntwo\nthree\n");
    mount.cli_ok(&["undo"]);
    assert_eq!(mount.read("src/a"), "one\n2\nthree\n");
    let dry = mount.cli_ok(&["restore", "--dry-run", "start"]);
    assert!(dry.contains("src/a") && mount.read("src/a").contains('2'), "{dry}");
    assert!(mount.cli_ok(&["stats"]).contains("checkpoints"));
    assert!(json(&mount.cli_ok(&["stats", "--json"])).is_object());
    assert!(mount.cli_ok(&["branch"]).starts_with("* main"));
    json(&mount.cli_ok(&["gc", "--dry-run", "--grace", "0", "--json"]));
}

#[test]
fn a_path_is_meant_as_it_is_typed_from_below() {
    let mount = TestMount::new();
    mount.write("a/b/file", "1");
    mount.cli_ok(&["checkpoint"]);
    mount.write("a/b/file", "2");
    let output = program().args(["restore", "@", "file"]).current_dir(mount.path("a/b")).output().unwrap();
    succeeded("restore", output);
    assert_eq!(mount.read("a/b/file"), "1");
}

#[test]
fn run_goes_from_nothing_to_what_changed() {
    let mount = TestMount::unmounted();
    let run = |script: &str| program().arg("run").arg(mount.store()).args(["--", "sh", "-c", script]).output().unwrap();
    let said = succeeded("run", run("echo hello > greeting; mkdir d; echo 2 > d/two"));
    assert!(said.contains("A greeting") && said.contains("A d/two"), "{said}");
    let output = run("rm greeting; echo 3 >> d/two; exit 7");
    assert_eq!(output.status.code(), Some(7), "the command's exit code");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("D greeting") && said.contains("M d/two"), "{said}");
    let said = succeeded("run", run("true"));
    assert!(said.contains("nothing changed"), "{said}");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(mount.store().to_str().unwrap()), "nothing stays mounted");
}

#[test]
fn import_and_export_keep_everything() {
    let mut mount = TestMount::new();
    crate::checkpoint::one_of_everything(&mount);
    mount.shell("rm d/sock"); // tar refuses sockets
    let made = mount.outside("made");
    Command::new("cp").arg("-a").arg(mount.path("d")).arg(&made).status().unwrap();
    let before = described(&made);
    mount.shell("rm -rf ./*");
    let reply = json(&mount.cli_ok(&["import", made.to_str().unwrap(), "--into", "back/in", "--json"]));
    assert!(reply["files"].as_u64().unwrap() > 5, "{reply}");
    assert_eq!(described(&mount.path("back/in")), before);
    mount.crash();
    assert_eq!(described(&mount.path("back/in")), before, "an import is durable");
    let out = mount.outside("out");
    mount.cli_ok(&["export", "@", out.to_str().unwrap()]);
    assert_eq!(described(&out.join("back/in")), before);
    let tar = mount.outside("out.tar");
    mount.cli_ok(&["export", "@", tar.to_str().unwrap()]);
    let untarred = mount.outside("untarred");
    fs::create_dir(&untarred).unwrap();
    let output = Command::new("tar").args(["--xattrs", "-xpf"]).arg(&tar).arg("-C").arg(&untarred).output().unwrap();
    succeeded("tar", output);
    assert_eq!(fs::read(untarred.join("back/in/file")).unwrap(), b"hello\n");
    assert!(fs::read(untarred.join("back/in/large")).unwrap() == fs::read(made.join("large")).unwrap());
    let again = failure(&mount.cli(&["export", "@", out.to_str().unwrap()]));
    assert!(again.contains("not empty"), "{again}");
}

#[test]
fn what_lies_within_the_workspace_or_the_store_is_not_imported() {
    let mount = TestMount::new();
    mount.write("d/file", "1");
    for from in [mount.path("d"), mount.top(), mount.store(), mount.top().parent().unwrap().to_owned()] {
        let said = failure(&mount.cli(&["import", from.to_str().unwrap()]));
        assert!(said.contains("within"), "{said}");
        let reply = mount.request(&serde_json::json!({ "do": "import", "from": from }));
        assert!(reply["error"].as_str().unwrap().contains("within"), "{reply}");
    }
    assert_eq!(mount.shell("ls -A"), "d\n");
}

#[test]
fn a_store_that_is_not_mounted_can_be_asked() {
    let mut mount = TestMount::new();
    mount.write("file", "1");
    mount.checkpoint("one");
    mount.terminate();
    let ask = |arguments: &[&str]| {
        succeeded("mementofs", program().args(arguments).arg("--store").arg(mount.store()).output().unwrap())
    };
    assert!(ask(&["log"]).contains("one"));
    assert!(ask(&["stats"]).contains("checkpoints"));
    ask(&["gc", "--grace", "0"]);
    let out = mount.outside("out");
    ask(&["export", "@", out.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(out.join("file")).unwrap(), "1");
    let made = mount.outside("made");
    fs::create_dir(&made).unwrap();
    fs::write(made.join("imported"), noise(100_000, 1)).unwrap();
    ask(&["import", made.to_str().unwrap()]);
    mount.mount(&[]);
    assert!(fs::read(mount.path("imported")).unwrap() == noise(100_000, 1));
}

#[test]
fn fsck_finds_what_is_damaged() {
    let mut mount = TestMount::new();
    mount.write("file", noise(100_000, 1));
    mount.checkpoint("one");
    mount.terminate();
    let fsck = || program().arg("fsck").arg(mount.store()).arg("--read-data").output().unwrap();
    succeeded("fsck", fsck());
    let pack = fs::read_dir(mount.store().join("packs")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let mut permissions = fs::metadata(&pack).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    fs::set_permissions(&pack, permissions).unwrap();
    fs::write(&pack, bytes).unwrap();
    assert_eq!(fsck().status.code(), Some(1));
    mount.mount(&[]);
    let damaged = fs::read(mount.path("file")).unwrap_err();
    assert_eq!(damaged.raw_os_error(), Some(libc::EIO), "damaged bytes are never handed out");
}

#[test]
fn errors_say_what_happened_to_which_thing_and_what_to_do() {
    let mount = TestMount::new();
    let somewhere = mount.outside("somewhere");
    fs::create_dir(&somewhere).unwrap();
    let outside = program().arg("log").current_dir(&somewhere).output().unwrap();
    let said = failure(&outside);
    assert!(said.contains("somewhere") && said.contains("--at"), "{said}");
    assert!(outside.stdout.is_empty());
    let said = failure(&mount.cli(&["restore", "no-such-name"]));
    assert!(said.contains("no-such-name"), "{said}");
    assert_eq!(mount.cli(&["nonsense"]).status.code(), Some(2));
    assert_eq!(mount.cli(&["restore"]).status.code(), Some(2));
    assert_eq!(mount.cli(&["--version"]).status.code(), Some(0));
    assert_eq!(mount.cli(&["--help"]).status.code(), Some(0));
}

#[test]
fn doctor_says_whether_this_machine_can_mount() {
    let mount = TestMount::unmounted();
    let found = json(&succeeded("doctor", program().args(["doctor", "--json"]).output().unwrap()));
    assert_eq!(found["can_mount"], true, "{found}");
    assert_eq!(found["passthrough"] == true, found["passthrough_why_not"].is_null(), "{found}");
    let tried = TestMount::passthrough().is_some();
    assert!(!tried || found["passthrough"] == true, "{found}");
    drop(mount);
}

#[test]
fn man_pages_and_completions_are_generated() {
    let mount = TestMount::unmounted();
    for what in ["man", "completions"] {
        let dir = mount.outside(what);
        succeeded("generate", program().args(["generate", what]).arg(&dir).output().unwrap());
        assert!(fs::read_dir(&dir).unwrap().count() > 0);
    }
    assert!(fs::read_to_string(mount.outside("man").join("mementofs.1")).unwrap().contains("checkpoint"));
}

/// Found by `scripts/campaigns/power`: it returned when the lock was free, and what the store lies on was still busy.
#[test]
fn an_unmount_returns_when_the_daemon_has_ended() {
    let mount = TestMount::new();
    mount.write("file", "text");
    let pid = mount.pid();
    let _slow = Delayed::calls(&mount, "exit_group", Duration::from_millis(700));
    std::thread::sleep(Duration::from_millis(300)); // Calls are delayed only some time after the tracer says that it is attached.
    succeeded("umount", program().arg("umount").arg(mount.top()).output().unwrap());
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    assert!(status.is_empty() || status.contains("State:\tZ"), "the daemon is still there: {status}");
}
