//! A store and its mount, for one test.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take before a test gives up; nothing depends on how long it takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A store with its daemon. Dropping it ends the daemon and removes everything.
pub struct TestMount {
    daemon: Option<Child>,
    dir: TempDir,
    /// Words with which every mount of it is made.
    way: Vec<String>,
}

impl TestMount {
    /// Makes a store and mounts it.
    pub fn new() -> Self {
        let mut mount = Self::unmounted();
        mount.mount(&[]);
        mount
    }

    /// Makes room for a store and a mount.
    pub fn unmounted() -> Self {
        Self::within(tempfile::Builder::new().prefix("mementofs-test-").tempdir().unwrap())
    }

    /// Uses `dir` for store and mount point.
    pub fn within(dir: TempDir) -> Self {
        fs::create_dir(dir.path().join("mnt")).unwrap();
        // So that every test can be run another way too, as campaigns and suites are.
        let way = std::env::var("MEMENTOFS_MOUNT_OPTIONS").unwrap_or_default();
        Self { daemon: None, dir, way: way.split_whitespace().map(str::to_owned).collect() }
    }

    /// Makes a store and mounts it with files handed to the kernel; nothing where this machine or its file system cannot, which
    /// the program then says in a sentence.
    pub fn passthrough() -> Option<Self> {
        let mut mount = Self::unmounted();
        mount.way = ["--io", "passthrough"].map(str::to_owned).to_vec();
        let tried = program().arg("mount").args(&mount.way).arg(mount.store()).arg(mount.top()).output().unwrap();
        let said = String::from_utf8_lossy(&tried.stderr);
        if !tried.status.success() {
            assert!(said.contains("--io passthrough: "), "refused for another reason: {said}");
            eprintln!("not tried here: {said}");
            return None;
        }
        succeeded("umount", program().arg("umount").arg(mount.top()).output().unwrap());
        mount.mount(&[]);
        Some(mount)
    }

    /// Has every mount of it made without handing files to the kernel, whatever the tests are run with.
    pub fn through_the_daemon(&mut self) {
        self.way.clear();
    }

    /// Says whether files are handed to the kernel.
    pub fn hands_over(&self) -> bool {
        self.way.iter().any(|word| word == "passthrough")
    }

    /// Lets other users reach the mount point.
    pub fn let_others_in(&self) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(self.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Starts the daemon in the foreground and waits until it serves.
    pub fn mount(&mut self, options: &[&str]) {
        self.mount_with(options, &[]);
    }

    /// Starts the daemon with further environment variables.
    pub fn mount_with(&mut self, options: &[&str], variables: &[(&str, &str)]) {
        assert!(self.daemon.is_none(), "already mounted");
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut command = program();
        command.envs(variables.iter().copied());
        command.args(["mount", "-f"]).args(&self.way).args(options).arg(self.store()).arg(self.top());
        self.daemon = Some(command.stdin(Stdio::null()).stderr(log).spawn().unwrap());
        let begun = Instant::now();
        while !self.is_served() {
            let ended = self.daemon.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the daemon ended: {}", self.log());
            assert!(begun.elapsed() < PATIENCE, "the mount does not serve: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Says whether a living daemon answers for the mount point.
    pub fn is_served(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let top = self.top();
        let mounted = mounts.lines().any(|line| line.split(' ').nth(1) == top.to_str());
        // A name nobody asked for before is in no cache: only a living daemon says that it does not exist.
        static ASKED: AtomicU64 = AtomicU64::new(0);
        let fresh = top.join(format!("is-it-served-{}", ASKED.fetch_add(1, Ordering::Relaxed)));
        let answered = fs::metadata(fresh).is_err_and(|err| err.kind() == io::ErrorKind::NotFound);
        // Between the freeing of a dead mount and the new one, the bare directory would answer so too.
        let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
        mounted && answered && device(&top).is_some_and(|dev| Some(dev) != device(self.dir.path()))
    }

    /// Returns what the daemon said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Returns the daemon's process id.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("mounted").id()
    }

    /// Ends the daemon as a crash would.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("mounted");
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// Ends the daemon as a shutdown would, and checks that it says so.
    pub fn terminate(&mut self) {
        let mut daemon = self.daemon.take().expect("mounted");
        send_signal(daemon.id(), "TERM");
        let status = daemon.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }

    /// Ends the daemon as a crash would and mounts again: the dead mount point is freed by the way.
    pub fn crash(&mut self) {
        self.kill();
        self.mount(&[]);
    }

    /// Ends the daemon likewise; the mount is then as it was.
    pub fn crash_and_find_all(&mut self) {
        let before = described(&self.top());
        self.crash();
        assert_eq!(described(&self.top()), before);
    }

    /// Unmounts in good order and mounts again.
    pub fn remount(&mut self) {
        self.terminate();
        self.mount(&[]);
    }

    /// Returns the top of the mount.
    pub fn top(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// Returns the store's directory.
    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Returns a directory of the test's own outside the mount.
    pub fn outside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns a path in the workspace.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.top().join(relative)
    }

    /// Writes a file in the workspace, with the directories above it.
    pub fn write(&self, relative: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
    }

    /// Reads a text file of the workspace.
    pub fn read(&self, relative: impl AsRef<Path>) -> String {
        fs::read_to_string(self.path(relative)).unwrap()
    }

    /// Returns a path in the control directory.
    pub fn control(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.top().join(".memento").join(relative)
    }

    /// Reads a file of the control directory.
    pub fn says(&self, relative: impl AsRef<Path>) -> String {
        fs::read_to_string(self.control(relative)).unwrap()
    }

    /// Writes a command in one write(2).
    pub fn command(&self, file: &str, text: impl AsRef<[u8]>) -> io::Result<()> {
        let mut opened = fs::File::options().write(true).open(self.control(file))?;
        opened.write(text.as_ref()).map(drop)
    }

    /// Writes a command that must work.
    pub fn tell(&self, file: &str, text: impl AsRef<[u8]>) {
        self.command(file, text).unwrap_or_else(|err| panic!("{file}: {err}: {}", self.says("error")));
    }

    /// Writes a command that must fail and returns its errno.
    pub fn refusal(&self, file: &str, text: impl AsRef<[u8]>) -> i32 {
        self.command(file, text).expect_err("the command must fail").raw_os_error().unwrap()
    }

    /// Takes a checkpoint and returns its id.
    pub fn checkpoint(&self, command: &str) -> String {
        self.tell("checkpoint", command);
        self.newest()
    }

    /// Returns the id of the newest checkpoint.
    pub fn newest(&self) -> String {
        self.says("checkpoint").trim().to_owned()
    }

    /// Runs a JSON command and returns its reply.
    pub fn request(&self, command: &serde_json::Value) -> serde_json::Value {
        let file = self.control("requests").join(format!("test-{}", std::process::id()));
        let _ = fs::write(&file, command.to_string()); // The reply says what failed.
        serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap()
    }

    /// Runs the program on this mount.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        program().args(arguments).current_dir(self.top()).output().unwrap()
    }

    /// Runs the program on this mount; it must succeed. Returns what it printed.
    pub fn cli_ok(&self, arguments: &[&str]) -> String {
        succeeded(format!("mementofs {arguments:?}"), self.cli(arguments))
    }

    /// Runs a shell script at the top of the mount; it must succeed. Returns what it printed.
    pub fn shell(&self, script: &str) -> String {
        let output = Command::new("bash").args(["-ec", script]).current_dir(self.top()).output().unwrap();
        succeeded(script, output)
    }

    /// Runs SQL on the store's database, read-only, as a stranger may.
    pub fn query(&self, sql: &str) -> Vec<String> {
        let database = rusqlite::Connection::open(self.store().join("store.db")).unwrap();
        let mut statement = database.prepare(sql).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let cell = |at| match row.get_ref(at)? {
                rusqlite::types::ValueRef::Null => Ok(String::new()),
                rusqlite::types::ValueRef::Integer(number) => Ok(number.to_string()),
                value => Ok(String::from_utf8_lossy(value.as_bytes()?).into_owned()),
            };
            Ok((0..columns).map(cell).collect::<rusqlite::Result<Vec<_>>>()?.join("|"))
        });
        rows.unwrap().map(|row| row.unwrap()).collect()
    }

    /// Returns the bytes that the store takes on disk.
    pub fn store_bytes(&self) -> u64 {
        disk_bytes(&self.store())
    }
}

impl TestMount {
    /// Ends the daemon, whatever state it is in, and frees the mount point.
    pub fn end(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            send_signal(daemon.id(), "TERM");
            let begun = Instant::now();
            while daemon.try_wait().ok().flatten().is_none() {
                if begun.elapsed() > Duration::from_secs(10) {
                    let _ = daemon.kill();
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = Command::new("umount").arg("-l").arg(self.top()).stderr(Stdio::null()).status();
        let _ = Command::new("fusermount3").arg("-uzq").arg(self.top()).stderr(Stdio::null()).status();
    }
}

impl Drop for TestMount {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let ended = self.daemon.as_mut().map(Child::try_wait);
            eprintln!("the daemon ({ended:?}) said: {}", self.log());
        }
        self.end();
    }
}

/// Returns the program under test, away from any mount.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mementofs"));
    command.current_dir("/");
    command
}

/// Sends a signal by name.
pub fn send_signal(pid: u32, signal: &str) {
    Command::new("kill").args([format!("-{signal}"), pid.to_string()]).stderr(Stdio::null()).status().unwrap();
}

/// Returns the standard output of something that must have succeeded.
pub fn succeeded(what: impl AsRef<OsStr>, output: Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} failed: {}\n{text}\n{errors}", what.as_ref().display(), output.status);
    text
}

/// Returns the bytes that a directory takes on disk.
pub fn disk_bytes(dir: &Path) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.path().symlink_metadata() else { continue };
        bytes += metadata.blocks() * 512;
        if metadata.is_dir() {
            bytes += disk_bytes(&entry.path());
        }
    }
    bytes
}

/// Returns everything that belongs to a tree, a line for each file: kind, mode, owner, times, links, xattrs, content.
pub fn described(top: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut groups = std::collections::HashMap::new();
    describe(top, Path::new(""), &mut groups, &mut lines);
    lines
}

fn describe(top: &Path, relative: &Path, groups: &mut std::collections::HashMap<u64, PathBuf>, lines: &mut Vec<String>) {
    let path = top.join(relative);
    let metadata = path.symlink_metadata().unwrap();
    let mut xattrs: Vec<_> = xattr::list(&path).unwrap().collect();
    xattrs.sort();
    let xattrs: Vec<_> = xattrs.iter().map(|name| (name, xattr::get(&path, name).unwrap())).collect();
    let content = match metadata.file_type() {
        kind if kind.is_file() => format!("{:016x}", hash(&fs::read(&path).unwrap())),
        kind if kind.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
        _ => String::new(),
    };
    let group = groups.entry(metadata.ino()).or_insert_with(|| relative.to_owned()).clone();
    let links = if metadata.is_dir() { String::new() } else { format!("{} of {}", metadata.nlink(), group.display()) };
    lines.push(format!(
        "{relative:?} {:o} {}:{} size {} mtime {}.{:09} rdev {} links {links} xattrs {xattrs:?} content {content}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        if metadata.is_dir() { 0 } else { metadata.size() },
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.rdev(),
    ));
    if metadata.is_dir() {
        let mut names: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            describe(top, &relative.join(name), groups, lines);
        }
    }
}

fn hash(bytes: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// Tells a thread of a test to end, also when the test fails: a scope waits for it.
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Returns `len` bytes that do not compress and depend on `seed` alone.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
