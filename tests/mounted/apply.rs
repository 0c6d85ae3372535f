//! Apply: what changed in the workspace arrives in the directory it came from, and nothing else is touched.

use crate::mount::{TestMount, described, noise};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PROJECT: &str = "mkdir -p src/deep old; echo main > src/main; echo lib > src/deep/lib; echo old > old/file; echo notes > notes
    ln -s main src/link; chmod 750 src; touch -d '2001-02-03 04:05:06.789' src/main; echo run > run; chmod 755 run; echo a > pair; ln pair pair2";
const WORK: &str = "echo changed > src/main; rm -r old; mkdir -p new/dir; echo new > new/dir/file; ln -sfn deep/lib src/link
    chmod 600 notes; mv run start; setfattr -n user.x -v y src/deep/lib; echo b > pair; ln notes src/notes2; mv src/deep src/moved
    truncate -s 3M sparse; touch -d '1969-05-06' new/dir/file; rm src/notes2; echo x > first; ln first second";

/// Makes a directory that was imported into a mount.
fn imported(script: &str) -> (TestMount, PathBuf) {
    let mount = TestMount::new();
    let project = mount.outside("project");
    fs::create_dir(&project).unwrap();
    shell(&project, script);
    mount.cli_ok(&["import", project.to_str().unwrap()]);
    (mount, project)
}

fn shell(directory: &Path, script: &str) {
    let status = Command::new("bash").args(["-ec", script]).current_dir(directory).status().unwrap();
    assert!(status.success(), "{script}");
}

fn apply(mount: &TestMount, project: &Path, more: &[&str]) -> Output {
    mount.cli(&[&["apply", project.to_str().unwrap()], more].concat())
}

fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Describes a tree without what a directory outside need not have: the top's own attributes.
fn below(top: &Path) -> Vec<String> {
    described(top).split_off(1)
}

#[test]
fn what_changed_arrives_whole_and_later_changes_too() {
    let (mount, project) = imported(PROJECT);
    shell(&project, "echo mine > untracked; mkdir -p src/mine; touch src/mine/too");
    mount.shell(WORK);
    let before = described(&project);
    let dry = apply(&mount, &project, &["--dry-run"]);
    let said = String::from_utf8_lossy(&dry.stdout);
    assert!(
        dry.status.success() && said.contains("M src/main") && said.contains("D old/file") && said.contains("dry run"),
        "{said}"
    );
    assert_eq!(described(&project), before, "a dry run writes nothing");
    let unchanged = fs::metadata(project.join("untracked")).unwrap();
    let done = apply(&mount, &project, &[]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(fs::metadata(project.join("untracked")).unwrap().ctime(), unchanged.ctime());
    assert!(project.join("src/mine/too").exists());
    shell(&project, "rm untracked; rm -r src/mine; touch -r src/main src");
    mount.shell("touch -r src/main src");
    assert_eq!(below(&project), below(&mount.top()));
    assert!(fs::metadata(project.join("sparse")).unwrap().blocks() * 512 < 1 << 20, "holes stay holes");
    // The directory is known to hold that checkpoint now.
    mount.shell("echo again > src/main; rmdir -p new/dir 2> /dev/null || rm -r new");
    let again: Value = serde_json::from_slice(&apply(&mount, &project, &["--json"]).stdout).unwrap();
    assert_eq!(again["changes"].as_array().unwrap().len(), 4, "{again}");
    assert_eq!(fs::read_to_string(project.join("src/main")).unwrap(), "again\n");
    assert_eq!(mount.shell("readlink .memento/links/directory/*").trim().rsplit('/').next(), Some(again["id"].as_str().unwrap()));
    let idle = apply(&mount, &project, &[]);
    assert!(String::from_utf8_lossy(&idle.stdout).starts_with("0 changed"), "{idle:?}");
}

#[test]
fn a_file_that_drifted_stops_it_before_the_first_write() {
    for (drift, why) in [
        ("echo other > src/main", "src/main: its content changed"),
        ("rm notes", "notes: it was removed"),
        ("rm src/main; mkdir src/main", "src/main: it is of another kind"),
        ("mkdir new; touch new/dir", "new/dir: something else is there"),
        ("touch old/more", "old: it holds more"),
        ("mv src elsewhere; ln -s elsewhere src", "src/main: a symbolic link is on the way"),
    ] {
        let (mount, project) = imported(PROJECT);
        mount.shell("echo changed > src/main; echo > notes; rm -r old; mkdir -p new/dir; echo > new/dir/file");
        shell(&project, drift);
        let before = described(&project);
        let said = refusal(&apply(&mount, &project, &[]));
        assert!(said.contains(why) && said.contains("nothing was written"), "{drift}: {said}");
        assert_eq!(described(&project), before, "{drift}");
        let dry = apply(&mount, &project, &["--dry-run"]);
        assert!(dry.status.code() == Some(1) && String::from_utf8_lossy(&dry.stdout).contains(why), "{drift}: {dry:?}");
    }
}

#[test]
fn it_goes_on_when_it_was_interrupted() {
    let (mount, project) = imported(PROJECT);
    mount.shell(WORK);
    // What a run that was killed leaves: some files written, one half under its temporary name, none recorded.
    let newest = mount.checkpoint("work");
    shell(
        &project,
        "mkdir -p new/dir; echo new > new/dir/file; rm old/file; printf ha > src/.mementofs-apply.tmp; rm run; echo b > pair",
    );
    assert!(apply(&mount, &project, &[]).status.success());
    assert_eq!(below(&project).len(), below(&mount.top()).len());
    assert!(!project.join("src/.mementofs-apply.tmp").exists() && !project.join("old").exists());
    assert_eq!(mount.newest(), newest);
}

#[test]
fn killed_at_any_file_the_next_run_finishes_whatever_changed_since() {
    let (mount, project) = imported(PROJECT);
    let mut killed = 0;
    for nth in 1..40 {
        mount.shell(&format!(
            "for i in $(seq 12); do echo {nth} > src/f$i; done; echo {nth} > notes; [ ! -e d ] && mkdir d && touch d/e || rm -r d"
        ));
        let mut traced = Command::new("strace");
        traced.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=rename,renameat,renameat2"]);
        traced.args(["-e", &format!("inject=rename,renameat,renameat2:signal=SIGKILL:when={}", nth % 13 + 1)]);
        traced.arg(env!("CARGO_BIN_EXE_mementofs")).arg("apply").arg(&project).current_dir(mount.top());
        killed += usize::from(!traced.output().unwrap().status.success());
        if nth % 4 == 0 {
            let done = apply(&mount, &project, &[]);
            assert!(done.status.success(), "{nth}: {done:?}");
            assert_eq!(below(&project), below(&mount.top()), "{nth}");
        }
    }
    assert!(killed > 20, "only {killed} were killed");
}

#[test]
fn a_kind_that_changed_and_hard_links_arrive() {
    let (mount, project) = imported("mkdir -p d/e; echo 1 > d/e/f; echo 2 > file; echo 3 > x; ln x y; ln -s x l; echo big > big");
    mount.shell("rm -r d; echo now > d; rm file; mkdir -p file/sub; echo > file/sub/new; echo both > x; rm l; mkfifo l");
    mount.write("big", noise(3_000_000, 7));
    let done = apply(&mount, &project, &[]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(below(&project), below(&mount.top()));
    assert_eq!(fs::metadata(project.join("x")).unwrap().ino(), fs::metadata(project.join("y")).unwrap().ino());
}

#[test]
fn each_wrong_target_has_its_sentence() {
    let (mount, project) = imported("echo > a");
    mount.shell("echo 1 > a; mkdir inside");
    symlink(&project, mount.outside("link")).unwrap();
    fs::write(mount.outside("plain"), "").unwrap();
    fs::create_dir(mount.outside("other")).unwrap();
    for (target, why) in [
        (mount.top(), "the workspace itself"),
        (mount.path("inside"), "inside the workspace"),
        (mount.path(".memento/checkpoints"), "inside the workspace"),
        (mount.store(), "inside the store"),
        (mount.store().join("packs"), "inside the store"),
        (mount.outside("link"), "symbolic link"),
        (mount.outside("plain"), "not a directory"),
        (mount.outside("absent"), "No such file"),
        (mount.outside("other"), "--since REF"),
    ] {
        let said = refusal(&apply(&mount, &target, &[]));
        assert!(said.contains(why), "{}: {said}", target.display());
    }
    let said = refusal(&apply(&mount, &project, &["--since", "nothing"]));
    assert!(said.contains("nothing"), "{said}");
    assert_eq!(fs::read_to_string(project.join("a")).unwrap(), "\n");
}

#[test]
fn a_directory_that_is_not_writable_is_refused() {
    let (mount, project) = imported("echo > a");
    mount.shell("echo 1 > a");
    fs::set_permissions(&project, fs::Permissions::from_mode(0o555)).unwrap();
    // Root may write anywhere but into a file system that is read-only.
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let mounted = is_root.then(|| {
        let options = ["mount", "-o", "remount,bind,ro"];
        shell(&project, &format!("mount --bind {0} {0} && {1} {0}", project.display(), options.join(" ")));
    });
    let said = refusal(&apply(&mount, &project, &[]));
    if mounted.is_some() {
        Command::new("umount").arg(&project).status().unwrap();
    }
    assert!(said.contains("not writable"), "{said}");
}

#[test]
fn any_directory_takes_what_changed_since_a_checkpoint() {
    let mount = TestMount::new();
    mount.shell("echo 1 > a; echo b > b");
    let id = mount.checkpoint("one");
    let copy = mount.outside("copy");
    mount.cli_ok(&["export", &id, copy.to_str().unwrap()]);
    mount.shell("echo 2 > a; rm b; echo c > c");
    assert!(apply(&mount, &copy, &["--since", &id]).status.success());
    assert_eq!(below(&copy), below(&mount.top()));
}
