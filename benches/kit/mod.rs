//! What the benches share.

pub mod table;

pub use table::Table;

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Mounts a store, which is made if there is none, and returns when it serves.
pub fn mounted(store: &Path, top: &Path) -> Child {
    let child = Command::new(env!("CARGO_BIN_EXE_mementofs"))
        .args(["mount", "-f"])
        .args([store, top])
        .env("MEMENTOFS_READY", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.expect("the program starts");
    let mut line = [0; 6];
    child.stdout.as_mut().expect("a pipe").read_exact(&mut line).expect("the mount serves");
    child
}

/// Ends what [`mounted`] began.
pub fn ended(mut daemon: Child, top: &Path) {
    let _ = Command::new("kill").arg(daemon.id().to_string()).status();
    let _ = daemon.wait();
    let _ = Command::new("umount").arg("-l").arg(top).stderr(Stdio::null()).status(); // Where it did not end well.
}

/// Returns the value in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
