//! The store, the control directory and what comes from elsewhere: nothing of it is trusted.

use crate::mount::TestMount;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Lets each call of `syscall` by the daemon begin later. Ends when dropped.
struct Delayed(std::process::Child);

impl Delayed {
    fn calls(mount: &TestMount, syscall: &str, delay: Duration) -> Self {
        let pid = mount.pid();
        let tracer = Command::new("strace")
            .args(["-f", "-qq", "-p", &pid.to_string(), "-e", &format!("trace={syscall}"), "-e"])
            .arg(format!("inject={syscall}:delay_enter={}", delay.as_micros()))
            .stderr(Stdio::null())
            .spawn()
            .expect("strace is installed");
        let attached = || {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
            tasks.flatten().all(|task| {
                let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
                !status.lines().any(|line| line.trim_end() == "TracerPid:\t0")
            })
        };
        while !attached() {
            std::thread::sleep(Duration::from_millis(2));
        }
        Self(tracer)
    }
}

impl Drop for Delayed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_request_that_hangs_is_named_in_the_log_with_what_it_waits_for() {
    let mut mount = TestMount::unmounted();
    mount.mount_with(&[], &[("MEMENTOFS_HANG_MILLIS", "300")]);
    let file = fs::File::create(mount.path("file")).unwrap();
    let slow = Delayed::calls(&mount, "fdatasync", Duration::from_secs(3));
    let begun = Instant::now();
    file.sync_all().unwrap();
    assert!(begun.elapsed() > Duration::from_secs(1), "the call was not delayed");
    drop(slow);
    let log = mount.log();
    let named: Vec<&str> = log.lines().filter(|line| line.contains("fsync of inode")).collect();
    assert!(named.len() == 1 && named[0].contains("waits for") && named[0].contains("journal"), "{log}");
    mount.write("other", "1"); // Others were answered, and are not named.
    assert!(!mount.log().contains("write of inode"), "{log}");
}
