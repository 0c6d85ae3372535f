//! What returned before the daemon died is there after the next mount.

use crate::mount::{TestMount, described, noise, program, send_signal, succeeded};
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn every_kind_of_change_survives_sigkill() {
    let mut mount = TestMount::new();
    crate::checkpoint::one_of_everything(&mount);
    let before = described(&mount.path("d"));
    mount.crash();
    assert_eq!(described(&mount.path("d")), before, "without any checkpoint");
    mount.checkpoint("base");
    mount.shell(
        r#"
        cd d; ln file hard3; echo more >> file; mv "with space" moved-dir; mv deep/hard moved; rm hard3; truncate -s 3 none; mkdir -p x/y/z
        mv x/y renamed; ln moved linked; setfattr -x user.colour file; setfattr -n user.n -v 1 moved; chmod 4711 moved
        touch -d '2011-11-11 11:11:11.111111111' renamed; python3 -c "
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
assert libc.renameat2(-100, b'moved', -100, b'none', 2) == 0"
        fallocate -p -o 1000000 -l 500000 large; fallocate -l 8000000 grown; rmdir empty
        "#,
    );
    let before = described(&mount.path("d"));
    mount.crash();
    assert_eq!(described(&mount.path("d")), before, "over a checkpoint");
    mount.crash();
    assert_eq!(described(&mount.path("d")), before, "twice");
    mount.remount();
    assert_eq!(described(&mount.path("d")), before, "after a good end");
}

#[test]
fn large_files_survive_sigkill_in_every_state() {
    let mut mount = TestMount::new();
    let mut expected = noise(5_000_000, 3);
    mount.write("large", &expected);
    mount.crash();
    assert!(fs::read(mount.path("large")).unwrap() == expected, "never sealed");
    mount.checkpoint("sealed");
    let mut patch = |mount: &TestMount, at: u64, len: usize, seed: u64| {
        let bytes = noise(len, seed);
        let mut file = fs::File::options().write(true).open(mount.path("large")).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&bytes).unwrap();
        expected.resize(expected.len().max(at as usize + len), 0);
        expected[at as usize..at as usize + len].copy_from_slice(&bytes);
        expected.clone()
    };
    let now = patch(&mount, 1_000_001, 100_000, 4);
    mount.crash();
    assert!(fs::read(mount.path("large")).unwrap() == now, "patched over a sealed state");
    let now = patch(&mount, 6_000_000, 10, 5);
    mount.checkpoint("again");
    mount.crash();
    assert!(fs::read(mount.path("large")).unwrap() == now, "with a hole in between");
    let now = patch(&mount, 4_999_990, 1_000_000, 6);
    mount.remount();
    assert!(fs::read(mount.path("large")).unwrap() == now);
}

#[test]
fn a_kill_at_any_instant_keeps_what_was_acknowledged_in_order() {
    let mut mount = TestMount::new();
    for round in 0..12u64 {
        // The writer says on its standard output, which is no file of ours, what has returned.
        let script = format!(
            r#"
import os, sys
n = 0
while True:
    n += 1
    with open(f'r{round}-{{n % 50}}', 'w') as f: f.write(f'{{n}}' * (n % 700))
    os.rename(f'r{round}-{{n % 50}}', f'done{round}-{{n % 50}}')
    os.write(1, f'{{n}}\n'.encode())
    if n % 100 == 0: open('.memento/checkpoint', 'w').write(f'at {{n}}')
"#
        );
        let mut writer = Command::new("python3");
        let mut writer =
            writer.args(["-c", &script]).current_dir(mount.top()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(30 + round * 37 % 200));
        mount.kill();
        let output = writer.wait_with_output_of();
        mount.mount(&[]);
        let last: u64 = output.lines().last().map_or(0, |line| line.parse().unwrap());
        for n in last.saturating_sub(49).max(1)..=last {
            let path = mount.path(format!("done{round}-{}", n % 50));
            let text = fs::read_to_string(&path).unwrap_or_else(|err| panic!("round {round}: {n} of {last} is lost: {err}"));
            let expected = n.to_string().repeat((n % 700) as usize);
            let later = (n + 50).to_string().repeat(((n + 50) % 700) as usize); // Returned, but the daemon died before the line.
            assert!(text == expected || text == later, "round {round}: {n} of {last} holds {} bytes", text.len());
        }
        mount.write("alive", round.to_string());
    }
    mount.terminate();
    succeeded("fsck", program().arg("fsck").arg(mount.store()).arg("--read-data").output().unwrap());
}

trait Finish {
    fn wait_with_output_of(&mut self) -> String;
}

impl Finish for std::process::Child {
    fn wait_with_output_of(&mut self) -> String {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.stdout.take().unwrap(), &mut text).unwrap();
        self.wait().unwrap();
        match text.rfind('\n') {
            Some(end) => text[..end].to_owned(),
            None => String::new(),
        }
    }
}

#[test]
fn sigterm_drains_and_ends_with_success() {
    let mut mount = TestMount::new();
    mount.write("file", "1");
    mount.terminate();
    assert!(!mount.path("file").exists(), "unmounted");
    mount.mount(&[]);
    assert_eq!(mount.read("file"), "1");
}

#[test]
fn a_dead_mount_point_is_freed_by_the_next_mount() {
    let mut mount = TestMount::new();
    mount.write("file", "1");
    mount.kill();
    let dead = fs::metadata(mount.top()).unwrap_err();
    assert_eq!(dead.raw_os_error(), Some(libc::ENOTCONN));
    let output = program().arg("mount").arg(mount.store()).arg(mount.top()).output().unwrap();
    succeeded("mount", output);
    assert_eq!(mount.read("file"), "1");
    succeeded("umount", program().arg("umount").arg(mount.top()).output().unwrap());
    assert!(fs::read_dir(mount.top()).unwrap().next().is_none());
}

/// Kills the daemon at the `nth` call of `syscall` while `command` runs; says whether the daemon got that far.
fn killed_at(mount: &mut TestMount, syscall: &str, nth: u32, command: impl FnOnce(&TestMount)) -> bool {
    let said = with_fault(mount, syscall, &format!("signal=SIGKILL:when={nth}"), command);
    let dead = said.contains("killed by SIGKILL") || !mount.is_served();
    if dead {
        mount.crash();
    }
    dead
}

/// Runs `command` while calls of `syscall` meet `fault`, and returns what the tracer saw.
fn with_fault(mount: &TestMount, syscall: &str, fault: &str, command: impl FnOnce(&TestMount)) -> String {
    traced(mount, &["-e", &format!("trace={syscall}"), "-e", &format!("inject={syscall}:{fault}")], command)
}

/// Runs `command` while the daemon is traced, and returns what the tracer saw.
fn traced(mount: &TestMount, arguments: &[&str], command: impl FnOnce(&TestMount)) -> String {
    let (pid, trace) = (mount.pid(), mount.outside("trace"));
    let mut tracer = Command::new("strace")
        .args(["-f", "-p", &pid.to_string()])
        .args(arguments)
        .arg("-o")
        .arg(&trace)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("strace is installed");
    let attached = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        !status.lines().any(|line| line.trim_end() == "TracerPid:\t0")
    };
    while !attached() {
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(Duration::from_millis(20)); // All threads, not only the first.
    command(mount);
    tracer.kill().unwrap();
    tracer.wait().unwrap();
    fs::read_to_string(&trace).unwrap()
}

/// Found by `scripts/campaigns/sweep`: the transaction was in the database's log, and a crash brought it back.
#[test]
fn a_restore_that_failed_when_it_was_synced_does_not_come_back_after_a_crash() {
    let mut mount = TestMount::new();
    mount.write("file", "1");
    let first = mount.checkpoint("first");
    mount.write("file", "2");
    let second = mount.checkpoint("second");
    for fault in ["error=EIO:when=1", "error=EIO"] {
        let mut refused = None;
        let said = with_fault(&mount, "fsync", fault, |mount| refused = Some(mount.refusal("restore", &first)));
        assert!(said.contains("INJECTED"), "{fault}: the database was not synced");
        assert_eq!(refused, Some(libc::EIO));
        assert_eq!(mount.read("file"), "2");
        // Once, and what failed is overwritten at once. Always, and nobody knows: then nothing may change any more.
        let written = fs::write(mount.path("more"), fault);
        assert_eq!(written.is_ok(), fault.ends_with("when=1"), "{written:?}");
        mount.crash();
        let (file, newest) = (mount.read("file"), mount.newest());
        if fault.ends_with("when=1") {
            assert_eq!((file.as_str(), &newest), ("2", &second));
            assert_eq!(mount.read("more"), fault);
            mount.checkpoint("with more");
            mount.tell("restore", &second);
        } else {
            assert!((&*file, &newest) == ("2", &second) || (&*file, &newest) == ("1", &first), "whole or not at all: {file}");
        }
    }
}

#[test]
fn killed_between_bytes_and_transaction_history_is_as_before_and_nothing_is_lost() {
    let mut mount = TestMount::new();
    mount.write("base", "base");
    mount.write("dir/large", noise(400_000, 9));
    let mut acknowledged = mount.checkpoint("base");
    for syscall in ["fdatasync", "pwrite64", "unlink"] {
        let mut nth = 1;
        loop {
            let content = format!("{syscall} {nth}");
            mount.write("dir/file", &content);
            mount.write("dir/large", noise(400_000 + nth as usize, 10 + u64::from(nth)));
            let mut outcome = false;
            let fired = killed_at(&mut mount, syscall, nth, |mount| outcome = mount.command("checkpoint", "staged").is_ok());
            assert_eq!(mount.read("dir/file"), content, "the live tree is whole");
            assert_eq!(fs::metadata(mount.path("dir/large")).unwrap().len(), 400_000 + u64::from(nth));
            let newest = mount.newest();
            if outcome {
                assert_ne!(newest, acknowledged, "an acknowledged checkpoint is there");
            }
            // Not acknowledged: it is there whole, or not at all.
            for id in mount.says("log").lines().map(|line| line[..64].to_owned()) {
                assert_eq!(fs::read_to_string(mount.control(format!("checkpoints/{id}/base"))).unwrap(), "base");
                assert!(fs::read(mount.control(format!("checkpoints/{id}/dir/large"))).is_ok());
            }
            acknowledged = newest;
            if !fired || nth > 40 {
                break;
            }
            nth += 1;
        }
        assert!(nth > 1, "{syscall} never killed the daemon");
    }
    mount.write("last", "1");
    mount.checkpoint("last");
    mount.tell("gc", r#"{"grace_secs":0}"#);
    mount.terminate();
    succeeded("fsck", program().arg("fsck").arg(mount.store()).arg("--read-data").output().unwrap());
}

#[test]
fn fsync_of_a_file_and_of_a_directory_answer() {
    let mount = TestMount::new();
    let mut file = fs::File::create(mount.path("file")).unwrap();
    file.write_all(b"1").unwrap();
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    mount.write("large", noise(2_000_000, 1));
    fs::File::open(mount.path("large")).unwrap().sync_all().unwrap();
    fs::File::open(mount.top()).unwrap().sync_all().unwrap();
    mount.shell("mkdir d; sync d; sync");
}

#[test]
fn a_signal_at_once_after_the_mount_drains_too() {
    let mut mount = TestMount::unmounted();
    for round in 0..10 {
        mount.mount(&[]);
        mount.terminate();
        assert!(!mount.path("is-it-served").exists(), "round {round}");
    }
}

/// Their names were made durable and their bytes were not: a power cut soon after left zeros.
#[test]
fn an_unmount_makes_the_bytes_of_large_files_durable() {
    let mut mount = TestMount::new();
    mount.write("large", noise(1 << 20, 1));
    let synced = traced(&mount, &["-y", "-e", "trace=fsync,fdatasync"], |mount| {
        let pid = mount.pid();
        send_signal(pid, "TERM");
        let ended = || fs::read_to_string(format!("/proc/{pid}/status")).map_or(true, |status| status.contains("State:\tZ"));
        while !ended() {
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    assert!(synced.contains("/staging/1/"), "{synced}");
    mount.crash();
    assert!(fs::read(mount.path("large")).unwrap() == noise(1 << 20, 1));
}
