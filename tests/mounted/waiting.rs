//! A long command never keeps file operations waiting. What makes a command long here: somebody else writes to the database.

use crate::mount::{TestMount, noise};
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A mount with commands that go on until this is dropped, or until they lose patience with the database.
struct Held {
    mount: TestMount,
    database: rusqlite::Connection,
    commands: Vec<Child>,
}

impl Held {
    /// Starts `count` checkpoints.
    fn new(count: usize) -> Self {
        let mount = TestMount::new();
        mount.write("dirty", "1");
        mount.write("large", noise(4 << 20, 1));
        mount.checkpoint("before");
        mount.write("dirty", "2");
        let database = rusqlite::Connection::open(mount.store().join("store.db")).unwrap();
        database.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut held = Self { mount, database, commands: Vec::new() };
        for number in 0..count {
            let file = held.mount.control(format!("requests/held-{number}"));
            let script = r#"echo '{"do":"checkpoint"}' > "$0""#;
            held.commands.push(Command::new("sh").args(["-c", script]).arg(file).stderr(Stdio::null()).spawn().unwrap());
        }
        std::thread::sleep(Duration::from_millis(500)); // They are under way by then; if not, nothing is tested and nothing fails.
        held
    }

    fn goes_on(&mut self) -> bool {
        self.commands.iter_mut().all(|command| command.try_wait().unwrap().is_none())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.database.execute_batch("ROLLBACK");
        self.commands.iter_mut().for_each(|command| drop(command.wait()));
    }
}

/// Commands took all the threads that large reads need too.
#[test]
fn many_commands_leave_a_thread_for_reading() {
    let mut held = Held::new(12);
    let large = fs::File::options().read(true).custom_flags(libc::O_DIRECT).open(held.mount.path("large")).unwrap();
    let mut bytes = vec![0; 1 << 20];
    std::os::unix::fs::FileExt::read_exact_at(&large, &mut bytes, 0).unwrap();
    assert!(held.goes_on(), "the read waited for a command");
    assert!(bytes == noise(4 << 20, 1)[..1 << 20]);
}

/// The reader of requests looked up each name of the control directory itself, `status` too, which seals and waits for the
/// checkpoint that goes on.
#[test]
fn a_listing_of_the_control_directory_waits_without_the_reader_of_requests() {
    let mut held = Held::new(1);
    let mut listing = Command::new("ls").arg("-la").arg(held.mount.control("")).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    fs::write(held.mount.path("dirty"), "3").unwrap();
    assert!(held.goes_on(), "the write waited for a command");
    held.database.execute_batch("ROLLBACK").unwrap();
    assert!(listing.wait().unwrap().success());
    assert_eq!(held.mount.read("dirty"), "3");
}

/// The first new file of a branch took identities from the database, in which somebody else's transaction may go on for long; and
/// everything else waited for that file.
#[test]
fn the_first_new_file_of_a_branch_waits_for_no_transaction() {
    let held = Held::new(0);
    held.database.execute_batch("ROLLBACK").unwrap();
    fs::create_dir(held.mount.control("branches/fork")).unwrap();
    held.database.execute_batch("BEGIN IMMEDIATE").unwrap();
    fs::write(held.mount.control("branches/fork/new"), "1").unwrap();
    assert_eq!(held.mount.read(".memento/branches/fork/new"), "1");
}
