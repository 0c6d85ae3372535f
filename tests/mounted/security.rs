//! The store, the control directory and what comes from elsewhere: nothing of it is trusted.

use crate::mount::{SetOnDrop, TestMount, succeeded};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Lets each call of `syscall` by the daemon begin later. Ends when dropped.
pub struct Delayed(std::process::Child);

impl Delayed {
    pub fn calls(mount: &TestMount, syscall: &str, delay: Duration) -> Self {
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
    // Calls are delayed only some time after the tracer says that it is attached.
    let (begun, mut longest) = (Instant::now(), Duration::ZERO);
    while longest < Duration::from_secs(1) {
        assert!(begun.elapsed() < Duration::from_secs(60), "no call was delayed");
        let asked = Instant::now();
        mount.write("file", "changed");
        file.sync_all().unwrap();
        longest = asked.elapsed();
    }
    drop(slow);
    let log = mount.log();
    let named: Vec<&str> = log.lines().filter(|line| line.contains("fsync of inode")).collect();
    assert!(named.len() == 1 && named[0].contains("waits for") && named[0].contains("journal"), "{log}");
    mount.write("other", "1"); // Others were answered, and are not named.
    assert!(!mount.log().contains("write of inode"), "{log}");
}

/// Calls `harm` again and again while `work` goes on.
fn harmed_meanwhile<T>(harm: impl Fn(u64) + Sync, work: impl FnOnce() -> T) -> T {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0.. {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                harm(round);
            }
        });
        let _set = SetOnDrop(&ended);
        work()
    })
}

#[test]
fn an_export_follows_no_link_that_is_put_in_its_way() {
    let mount = TestMount::new();
    mount.shell("for d in $(seq 300); do mkdir -p a/d$d; echo x > a/d$d/file; done");
    mount.checkpoint("many directories");
    let trap = mount.outside("trap");
    fs::create_dir(&trap).unwrap();
    let mut caught = 0;
    for round in 0..5 {
        let to = mount.outside(&format!("export{round}"));
        let away = mount.outside(&format!("away{round}"));
        // As soon as the directory is there, it is moved away and a link put in its place.
        let harm = |_| {
            if fs::rename(to.join("a"), &away).is_ok() {
                let _ = symlink(&trap, to.join("a"));
            }
        };
        let output = harmed_meanwhile(harm, || mount.cli(&["export", "@", to.to_str().unwrap()]));
        caught += u32::from(!output.status.success());
        assert_eq!(fs::read_dir(&trap).unwrap().count(), 0, "round {round} wrote through the link");
    }
    assert!(caught > 0, "no export met the link");
    let to = mount.outside("whole");
    mount.cli_ok(&["export", "@", to.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(to.join("a/d300/file")).unwrap(), "x\n");
}

#[test]
fn an_import_of_what_changes_meanwhile_stays_inside_and_says_what_it_met() {
    let mount = TestMount::new();
    let (from, secrets) = (mount.outside("from"), mount.outside("secrets"));
    for dir in [&from.join("d"), &from.join("plain"), &secrets] {
        fs::create_dir_all(dir).unwrap();
    }
    for at in 0..400 {
        fs::write(from.join(format!("plain/f{at}")), format!("plain {at}")).unwrap();
        fs::write(secrets.join(format!("f{at}")), "TOP SECRET").unwrap();
        fs::write(from.join(format!("d/f{at}")), format!("harmless {at}")).unwrap();
    }
    let (dir, away) = (from.join("d"), mount.outside("away"));
    let victim = from.join("plain/f7");
    let harm = |round: u64| {
        // The directory becomes a link to the secrets and comes back; a file becomes a link, a pipe, a longer file.
        if fs::rename(&dir, &away).is_ok() {
            let _ = symlink(&secrets, &dir);
            std::thread::sleep(Duration::from_micros(200));
            let _ = fs::remove_file(&dir);
            let _ = fs::rename(&away, &dir);
        }
        let _ = fs::remove_file(&victim);
        match round % 3 {
            0 => symlink(secrets.join("f1"), &victim).unwrap(),
            1 => drop(Command::new("mkfifo").arg(&victim).status()),
            _ => fs::write(&victim, "x".repeat(round as usize % 5_000)).unwrap(),
        }
    };
    let mut met = 0;
    for round in 0..4 {
        let into = format!("import{round}");
        let output = harmed_meanwhile(harm, || mount.cli(&["import", from.to_str().unwrap(), "--into", &into]));
        met += u32::from(String::from_utf8_lossy(&output.stdout).contains("not as it was"));
        let found = Command::new("grep").args(["-rl", "SECRET"]).arg(mount.path(&into)).output().unwrap();
        assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
        let whole = fs::read_dir(mount.path(&into).join("plain")).map(Iterator::count).unwrap_or(0);
        assert!(whole >= 399, "what nobody touched is there: {whole}; {output:?}");
    }
    assert!(met > 0, "nothing that changed was met");
}

#[test]
fn odd_files_are_imported_and_exported_as_they_are() {
    let mount = TestMount::new();
    let from = mount.outside("from");
    fs::create_dir(&from).unwrap();
    let script = r#"
        ln -s . loop; ln -s loop/loop a; ln -s b c; ln -s c b; ln -s /etc/passwd absolute; ln -s ../../../../etc/passwd up
        n=$(printf 'n%.0s' $(seq 255)); mkdir -p "$n/$n"; echo x > "$n/$n/$n"; mkfifo fifo
        truncate -s 8T giant; printf end | dd of=giant bs=1 seek=1000000 conv=notrunc status=none
        python3 -c "import socket; socket.socket(socket.AF_UNIX).bind('socket')"
        chmod 4711 "$n/$n/$n"; setfattr -n user.a -v b "$n"; ln "$n/$n/$n" hard; touch -d '1960-01-02 03:04:05.6' "$n"
    "#;
    succeeded("files", Command::new("bash").args(["-ec", script]).current_dir(&from).output().unwrap());
    mount.cli_ok(&["import", from.to_str().unwrap(), "--into", "in"]);
    let sparse_and_all = |top: &Path| {
        let mut script = Command::new("bash");
        let list = "find . -mindepth 1 -printf '%p %y %m %n %s %l %T@\n' | sort; head -c 1000003 giant | tail -c 3; getfattr -Rd -m- . | sort";
        succeeded("find", script.args(["-ec", list]).current_dir(top).output().unwrap())
    };
    let expected = sparse_and_all(&from);
    assert_eq!(sparse_and_all(&mount.path("in")), expected);
    let to = mount.outside("to");
    mount.cli_ok(&["export", "@", to.to_str().unwrap()]);
    assert_eq!(sparse_and_all(&to.join("in")), expected);
    assert!(crate::mount::disk_bytes(&to) < 10 << 20, "holes stay holes");
}

/// Returns the files of a store that hold `bytes`.
fn holding(dir: &Path, bytes: &[u8]) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holding(&path, bytes));
        } else if fs::read(&path).is_ok_and(|all| all.windows(bytes.len()).any(|window| window == bytes)) {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_purge_leaves_nothing_of_deleted_content_in_the_store() {
    let mut mount = TestMount::new();
    let (secret, name) = (b"correct horse battery staple", "name-that-says-too-much");
    mount.write("large", crate::mount::noise(3 << 20, 1)); // So that the secret is no quarter of any file.
    mount.write(name, secret);
    mount.write("kept", "kept");
    let with_secret = mount.checkpoint("one");
    assert!(!holding(&mount.store(), secret).is_empty(), "it is found where it is");
    fs::remove_file(mount.path(name)).unwrap();
    mount.checkpoint("without");
    fs::remove_dir(mount.control(format!("checkpoints/{with_secret}"))).unwrap();
    mount.tell("gc", r#"{"grace_secs":0}"#);
    assert!(!holding(&mount.store(), secret).is_empty(), "an ordinary run leaves small remains");
    mount.cli_ok(&["gc", "--purge"]);
    assert_eq!(holding(&mount.store(), secret), Vec::<std::path::PathBuf>::new());
    // The checkpoint that removed the file goes on saying so, by name; the one that had it does not.
    let mementos = "SELECT count(*) FROM file_mementos WHERE commit_id = '";
    assert_eq!(mount.query(&format!("{mementos}{with_secret}'")), ["0"]);
    assert_eq!(mount.read("kept"), "kept");
    assert!(fs::read(mount.path("large")).unwrap() == crate::mount::noise(3 << 20, 1));
    assert_eq!(fs::read_to_string(mount.control("checkpoints/latest/kept")).unwrap(), "kept");
    mount.terminate();
    crate::fsck::clean(&mount); // What was purged is no damage.
}

/// Hand-made nodes that a store of somebody else may hold, each under the hash that it has.
mod hostile {
    use super::*;
    use mementofs::object::{
        Author, Commit, CommitKind, Content, Entry, Manifest, Node, ObjectId, ObjectKind, Root, Timestamp, TreeItem, TreeNode,
        Writer,
    };
    use mementofs::repository::{CommitRequest, Repository};
    use mementofs::tree::{NodeSink, update};

    fn entry(identity: u64, node: Node) -> Entry {
        let time = Timestamp { secs: 1, nanos: 0 };
        let mode = if matches!(node, Node::Directory { .. }) { 0o755 } else { 0o644 };
        Entry { identity, mode, uid: 0, gid: 0, nlink: 1, mtime: time, ctime: time, atime: time, xattrs: None, node }
    }

    fn file(identity: u64, size_bytes: u64, content: Content) -> Entry {
        entry(identity, Node::File { size_bytes, data_bytes: size_bytes, content })
    }

    /// A leaf with one name, whatever it is.
    fn leaf(name: &[u8], entry: &Entry) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.raw(b"T\x01\x00\x01");
        writer.bytes(name);
        writer.u8(0);
        entry.encode(&mut writer);
        writer.finish()
    }

    /// Makes a store whose live state has a directory for each hostile node, beside an honest file.
    fn make(store: &Path) -> Vec<&'static str> {
        let repository = Repository::create(store).unwrap();
        let put = |kind, bytes: &[u8]| repository.put(kind, bytes).unwrap();
        let blob = Content::Blob(put(ObjectKind::Blob, b"honest"));
        let short = Content::Blob(put(ObjectKind::Blob, b"sh"));
        let pieces = Manifest { extents: vec![mementofs::object::Extent { len: 1 << 40, blob: short.object() }] };
        let pieces = Content::Manifest(put(ObjectKind::Manifest, &pieces.encode()));
        let honest = file(1000, 6, blob);
        let missing = ObjectId::of(b"nobody has it");
        let mut deep_index = b"T\x01\x10\x01".to_vec();
        deep_index.extend_from_slice(b"\x01a");
        deep_index.extend_from_slice(missing.as_bytes());
        deep_index.extend_from_slice(b"\x01\x00");
        let nodes: Vec<(&str, Vec<u8>)> = vec![
            ("up", leaf(b"..", &honest)),
            ("here", leaf(b".", &honest)),
            ("slash", leaf(b"../../etc/passwd", &honest)),
            ("nul", leaf(b"a\0b", &honest)),
            ("empty", leaf(b"", &honest)),
            ("long", leaf(&[b'x'; 4096], &honest)),
            ("alias", leaf(b"a", &Entry { identity: (1 << 48) | 7, ..honest.clone() })),
            ("zero", leaf(b"a", &Entry { identity: 0, ..honest.clone() })),
            ("target", leaf(b"a", &entry(1001, Node::Symlink((*b"a\0b").into())))),
            ("wide", leaf(b"a", &file(1002, u64::MAX, blob))),
            ("none", leaf(b"a", &file(1003, 1 << 40, Content::Empty))),
            ("many", b"T\x01\x00\xff\xff\xff\xff\x0f".to_vec()),
            ("lost", deep_index),
            ("garbage", b"T\x01\x00".to_vec()),
        ];
        let mut items = Vec::new();
        let mut add = |name: &str, entry: Entry| {
            items.push((mementofs::object::Name::new(name.as_bytes()).unwrap(), Some(TreeItem::Entry(entry))));
        };
        for (at, (name, bytes)) in nodes.iter().enumerate() {
            let tree = Some(put(ObjectKind::Tree, bytes));
            add(name, entry(10 + at as u64, Node::Directory { tree, has_links: false }));
        }
        add("honest", honest.clone());
        add("short", file(2000, 1 << 30, short));
        add("shorter", file(2001, 1 << 40, pieces));
        add("root", file(1, 6, blob)); // The identity of the top directory.
        add("twin", file(1000, 6, blob));
        add("lost-blob", file(2002, 6, Content::Blob(missing)));
        add("fake-directory", entry(2003, Node::Directory { tree: blob.object(), has_links: true }));
        items.sort_by(|(a, _), (b, _)| a.cmp(b));
        let built = update(&*repository, None, &items).unwrap();
        assert!(TreeNode::decode(&nodes[0].1).is_err(), "such a node never leaves the decoder");
        let directory = entry(1, Node::Directory { tree: built.tree, has_links: built.has_links });
        let live_root = repository.put_root(&Root { directory, links: None }).unwrap();
        let row = repository.branch("main").unwrap();
        let author = Author { uid: 0, pid: 0, command: String::new() };
        let (time, branch) = (Timestamp { secs: 1, nanos: 0 }, "main".to_owned());
        let (message, metadata, links) = ("hostile".to_owned(), "{}".to_owned(), Vec::new());
        let kind = CommitKind::Manual;
        let commit = Commit { parent: None, root: live_root, time, message, metadata, links, branch, author, kind };
        let (before_root, journal_seq) = (row.live_root, row.journal_seq);
        let request =
            CommitRequest { branch_id: row.id, commit: &commit, name: None, changes: &[], before_root, journal_seq, merge: None };
        repository.record_commit(&request).unwrap();
        nodes.iter().map(|(name, _)| *name).collect()
    }

    #[test]
    fn a_hostile_store_gives_errors_and_never_a_bad_name() {
        let mut mount = TestMount::unmounted();
        let directories = make(&mount.store());
        mount.mount(&[]);
        for name in directories.iter().chain(&["fake-directory"]) {
            let listed = fs::read_dir(mount.path(name)).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
            assert_eq!(listed.unwrap_err().raw_os_error(), Some(libc::EIO), "{name}");
            let found = fs::symlink_metadata(mount.path(name).join("a"));
            assert_eq!(found.unwrap_err().raw_os_error(), Some(libc::EIO), "{name}/a");
        }
        for name in ["short", "shorter", "lost-blob"] {
            let mut file = fs::File::open(mount.path(name)).unwrap();
            let read = std::io::Read::read(&mut file, &mut [0; 4096]);
            assert_eq!(read.unwrap_err().raw_os_error(), Some(libc::EIO), "{name}");
        }
        let mut file = fs::OpenOptions::new().append(true).open(mount.path("lost-blob")).unwrap();
        let written = std::io::Write::write(&mut file, b"x");
        assert_eq!(written.unwrap_err().raw_os_error(), Some(libc::EIO), "a small file is wanted whole before it is changed");
        mount.shell("echo x >> short; echo x >> shorter"); // Large ones take what is new; the rest of them cannot be sealed.
        assert_eq!(mount.refusal("checkpoint", "cannot be whole"), libc::EIO);
        assert!(mount.says("error").contains("damaged"), "{}", mount.says("error"));
        mount.shell("rm short shorter; : > lost-blob");
        for name in ["honest", "root", "twin"] {
            assert_eq!(mount.read(name), "honest", "{name}");
        }
        assert_eq!(mount.shell("stat -c %i . root | sort -u | wc -l").trim(), "2", "nothing else is the top directory");
        mount.write("new", "new");
        mount.checkpoint("beside what is broken");
        mount.refusal("restore", "@ up");
        let _ = mount.command("gc", "run");
        let _ = mount.cli(&["status"]);
        mount
            .shell("echo more >> honest; mv twin moved; rm root; rmdir up 2>/dev/null || true; rm -rf slash 2>/dev/null || true");
        assert_eq!(mount.read("honest"), "honestmore\n");
        mount.crash();
        assert_eq!((mount.read("new"), mount.read("moved")), ("new".into(), "honest".into()));
        assert!(!mount.log().contains("panicked") && !mount.log().contains("fault of our own"), "{}", mount.log());
    }
}
