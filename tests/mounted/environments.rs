//! Environments: a command sees one branch where the store usually is, and nobody else sees what it does.

use crate::mount::{TestMount, program};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

/// Runs a shell script in an environment.
fn run(mount: &TestMount, options: &[&str], script: &str) -> Output {
    let mut command = program();
    command.arg("run").arg(mount.store()).args(options).args(["--", "sh", "-ec", script]);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_branch_appears_where_the_store_usually_is() {
    let mount = TestMount::new();
    let top = mount.top();
    // A tool that knows where it was installed, as those of a virtualenv do.
    mount.shell(
        "mkdir bin; printf '#!%s/bin/shell\\necho it works\\n' \"$PWD\" > bin/tool; cp /bin/sh bin/shell; chmod +x bin/tool",
    );
    let script = format!(
        "[ \"$(pwd -P)\" = '{0}' ]; '{0}/bin/tool'; echo changed > '{0}/new'; rm bin/shell; cat .memento/checkpoint; exit 7",
        top.display()
    );
    let output = run(&mount, &["--branch", "try"], &script);
    assert_eq!(output.status.code(), Some(7), "the exit code is the command's: {output:?}");
    let text = said(&output);
    assert!(text.starts_with("it works\n") && text.contains("A new") && text.contains("D bin/shell"), "{text}");
    assert!(text.contains("in the new branch try"), "{text}");
    assert!(!mount.path("new").exists() && mount.path("bin/shell").exists(), "nothing is seen outside");
    assert!(mount.control("branches/try/new").exists());
    let meta = mount.query("SELECT meta FROM file_commits WHERE branch = 'try' ORDER BY seq DESC LIMIT 1");
    let meta: Value = serde_json::from_str(&meta[0]).unwrap();
    assert_eq!(meta["run"]["exit_code"], 7);
    assert!(meta["run"]["command"].as_str().unwrap().contains("bin/tool"));
    // A run that changes nothing is recorded too.
    let again: Value = serde_json::from_slice(&run(&mount, &["--branch", "try", "--json"], "true").stdout).unwrap();
    assert_eq!((&again["forked"], &again["changes"], &again["exit_code"]), (&false.into(), &Value::Array(vec![]), &0.into()));
    assert_ne!(again["before"], again["after"]);
}

#[test]
fn a_branch_appears_at_any_directory() {
    let mount = TestMount::new();
    mount.write("file", "main");
    let at = mount.outside("elsewhere");
    fs::create_dir(&at).unwrap();
    fs::write(at.join("hidden"), "").unwrap();
    let output = run(&mount, &["--branch", "try", "--at", at.to_str().unwrap()], "pwd -P; ls; echo try > file");
    assert!(said(&output).starts_with(&format!("{}\nfile\n", at.display())), "{output:?}");
    assert_eq!((mount.read("file").as_str(), mount.read(".memento/branches/try/file").as_str()), ("main", "try\n"));
    assert!(at.join("hidden").exists());
}

#[test]
fn many_at_once_do_not_see_each_other() {
    let mount = TestMount::new();
    mount.shell("mkdir src; for i in $(seq 50); do echo $i > src/$i; done");
    std::thread::scope(|scope| {
        for node in 0..8 {
            let mount = &mount;
            scope.spawn(move || {
                let script = format!("for i in $(seq 50); do echo {node} > src/$i; done; cat src/* | sort -u; ls");
                let output = run(mount, &["--branch", &format!("node-{node}")], &script);
                assert!(said(&output).starts_with(&format!("{node}\nsrc\n")), "{output:?}");
            });
        }
    });
    assert_eq!(mount.shell("cat src/* | sort -un | wc -l"), "50\n");
    for node in 0..8 {
        assert_eq!(mount.shell(&format!("cat .memento/branches/node-{node}/src/* | sort -u")), format!("{node}\n"));
    }
}

#[test]
fn a_store_that_is_not_mounted_is_mounted_for_the_occasion() {
    let mount = TestMount::unmounted();
    let output = run(&mount, &["--branch", "try"], "echo 1 > file");
    assert!(output.status.success(), "{output:?}");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(mount.store().to_str().unwrap()), "{mounts}");
    let output = run(&mount, &["--branch", "try"], "cat file");
    assert!(said(&output).starts_with("1\n"), "{output:?}");
}

#[test]
fn a_branch_with_a_command_in_it_cannot_be_deleted() {
    let mount = TestMount::new();
    let mut command = program();
    command.arg("run").arg(mount.store()).args(["--branch", "try", "--", "sh", "-c", "echo up; exec cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    let refused = fs::remove_dir(mount.control("branches/try")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EBUSY));
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    fs::remove_dir(mount.control("branches/try")).unwrap();
}

#[test]
fn what_cannot_be_shown_is_refused_and_no_branch_is_made() {
    let mount = TestMount::new();
    fs::write(mount.outside("plain"), "").unwrap();
    for (at, why) in [("plain", "not a directory"), ("absent", "No such file")] {
        let at = mount.outside(at);
        let output = run(&mount, &["--branch", "try", "--at", at.to_str().unwrap()], "true");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && errors.contains(why), "{output:?}");
    }
    let output = run(&mount, &["--branch", "a/b"], "true");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(mount.query("SELECT name FROM branches"), ["main"]);
    let mut absent = program();
    absent.arg("run").arg(mount.store()).args(["--branch", "try", "--", "no-such-program"]);
    let output = absent.output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-program"), "{output:?}");
}

#[test]
fn where_namespaces_are_not_allowed_it_says_so_and_changes_nothing() {
    let mount = TestMount::unmounted();
    // Inside: no capabilities, and no further user namespaces.
    let script = format!(
        "echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-all --inh-caps=-all '{}' run '{}' --branch try -- true",
        env!("CARGO_BIN_EXE_mementofs"),
        mount.store().display()
    );
    let output = Command::new("unshare").args(["-Ur", "bash", "-ec", &script]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(errors.contains("namespaces are not allowed here") && errors.contains("nothing was changed"), "{errors}");
    assert!(!mount.store().exists());
}
