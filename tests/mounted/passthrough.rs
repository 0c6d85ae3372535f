//! Files handed to the kernel: the same promises, though their bytes do not pass the daemon.

use crate::mount::{SetOnDrop, TestMount, described, noise};
use crate::posix::python;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

fn open(path: impl AsRef<Path>) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// Says how many bytes the daemon was asked to write since it started: none of those that the kernel writes by itself.
fn journal_bytes(mount: &TestMount) -> u64 {
    crate::mount::disk_bytes(&mount.store().join("journal"))
}

#[test]
fn large_files_do_not_pass_the_daemon() {
    let Some(mount) = TestMount::passthrough() else { return };
    let (before, bytes) = (journal_bytes(&mount), noise(8 << 20, 1));
    let mut file = open(mount.path("large"));
    for block in bytes.chunks(100) {
        file.write_all(block).unwrap(); // A record of each in the journal would take more than the bytes.
    }
    assert!(journal_bytes(&mount) - before < 2 << 20, "{}", journal_bytes(&mount) - before);
    assert_eq!(fs::metadata(mount.path("large")).unwrap().len(), 8 << 20);
    assert!(fs::read(mount.path("large")).unwrap() == bytes);
    drop(file);
    assert!(fs::read(mount.path("large")).unwrap() == bytes);
}

#[test]
fn what_was_written_survives_sigkill_with_its_times() {
    let Some(mut mount) = TestMount::passthrough() else { return };
    let bytes = noise(3_000_000, 2);
    mount.write("closed", &bytes);
    mount.write("small", "small");
    let mut file = open(mount.path("open"));
    file.write_all(&bytes).unwrap();
    file.set_len(2_500_001).unwrap();
    mount.shell("touch -d '2001-02-03 04:05:06.700000001' closed; ln closed linked; mv small moved; chmod 600 open");
    let before = described(&mount.top());
    mount.crash();
    assert_eq!(described(&mount.top()), before, "never sealed");
    drop(file);
    let file = open(mount.path("open"));
    mount.checkpoint("sealed");
    file.write_all_at(b"after", 1_000_000).unwrap();
    file.write_all_at(b"end", 4_000_000).unwrap();
    let before = described(&mount.top());
    mount.crash();
    assert_eq!(described(&mount.top()), before, "changed over a sealed state");
    mount.checkpoint("again");
    let before = described(&mount.top());
    mount.crash();
    assert_eq!(described(&mount.top()), before, "sealed again");
    mount.remount();
    assert_eq!(described(&mount.top()), before, "after a good end");
}

#[test]
fn a_checkpoint_has_what_returned_before_it_while_files_are_open() {
    let Some(mount) = TestMount::passthrough() else { return };
    let mut file = open(mount.path("log"));
    let mut expected = noise(1_000_000, 3);
    file.write_all(&expected).unwrap();
    for round in 0..5u64 {
        let id = mount.checkpoint(&format!("round {round}"));
        let sealed = mount.control(format!("checkpoints/{id}/log"));
        assert!(fs::read(&sealed).unwrap() == expected, "round {round}");
        assert_eq!(fs::metadata(&sealed).unwrap().mtime_nsec(), fs::metadata(mount.path("log")).unwrap().mtime_nsec());
        assert_eq!(mount.checkpoint("nothing changed"), id);
        assert_eq!(mount.says("status"), "");
        let more = noise(1000, round);
        file.write_all(&more).unwrap();
        file.write_all_at(&more, round * 10_000).unwrap();
        expected.extend_from_slice(&more);
        expected[round as usize * 10_000..][..1000].copy_from_slice(&more);
        assert_eq!(mount.says("status"), "M log\n");
    }
    drop(file);
    let id = mount.checkpoint("closed");
    assert!(fs::read(mount.control(format!("checkpoints/{id}/log"))).unwrap() == expected);
    assert!(fs::read(mount.path("log")).unwrap() == expected);
}

#[test]
fn mappings_are_seen_by_checkpoints_and_survive_sigkill() {
    let Some(mut mount) = TestMount::passthrough() else { return };
    let script = |steps: &str| {
        format!(
            r#"python3 -c "
import mmap, os, subprocess
def checkpoint(): open('.memento/checkpoint', 'w').write('x')
def sealed(): return open('.memento/checkpoints/latest/f', 'rb').read()
f = os.open('f', os.O_RDWR | os.O_CREAT)
os.ftruncate(f, 1 << 20)
m = mmap.mmap(f, 1 << 20)
os.close(f)
{steps}
""#
        )
    };
    mount.shell(&script(
        "m[5:10] = b'first'\ncheckpoint()\nassert sealed()[5:10] == b'first'\nm[5:10] = b'after'\ncheckpoint()\nassert sealed()[5:10] == b'after', 'the page was writable still'\n\
         m[9000:9004] = b'last'",
    ));
    let text = |mount: &TestMount| fs::read(mount.path("f")).unwrap();
    assert_eq!((&text(&mount)[5..10], &text(&mount)[9000..9004]), (&b"after"[..], &b"last"[..]));
    mount.crash();
    assert_eq!((&text(&mount)[5..10], &text(&mount)[9000..9004]), (&b"after"[..], &b"last"[..]));
    let before = mount.newest();
    assert_ne!(mount.checkpoint("what was stored last"), before);
}

#[test]
fn a_restore_leaves_open_files_their_version() {
    let Some(mount) = TestMount::passthrough() else { return };
    let (first, second) = (noise(700_000, 4), noise(900_000, 5));
    let file = open(mount.path("file"));
    file.write_all_at(&first, 0).unwrap();
    let id = mount.checkpoint("first");
    file.set_len(0).unwrap();
    file.write_all_at(&second, 0).unwrap();
    mount.tell("restore", &id);
    assert!(fs::read(mount.path("file")).unwrap() == first);
    let mut seen = Vec::new();
    (&file).read_to_end(&mut seen).unwrap();
    assert!(seen == second, "the handle keeps its version");
    file.write_all_at(b"more", 900_000).unwrap();
    assert!(fs::read(mount.path("file")).unwrap() == first);
    mount.tell("undo", "x");
    assert!(fs::read(mount.path("file")).unwrap() == second);
    assert_eq!(file.metadata().unwrap().len(), 900_004);
}

#[test]
fn a_file_that_a_restore_does_not_change_stays_open_as_it_is() {
    let Some(mut mount) = TestMount::passthrough() else { return };
    let mut file = open(mount.path("kept"));
    file.write_all(&noise(400_000, 6)).unwrap();
    mount.write("other", "1");
    let id = mount.checkpoint("one");
    mount.write("other", "2");
    mount.tell("restore", &id);
    file.write_all(b"goes on").unwrap();
    assert_eq!(fs::metadata(mount.path("kept")).unwrap().len(), 400_007);
    mount.crash_and_find_all();
}

#[test]
fn the_way_of_a_file_is_held_from_its_first_open_to_its_last_close() {
    let Some(mount) = TestMount::passthrough() else { return };
    mount.write("grows", "small and closed");
    let reader = File::open(mount.path("grows")).unwrap(); // Through the daemon, as long as anybody has it open.
    let mut writer = File::options().append(true).open(mount.path("grows")).unwrap();
    let bytes = noise(2_000_000, 7);
    writer.write_all(&bytes).unwrap();
    let truncating = File::create(mount.path("grows")).unwrap();
    assert_eq!(reader.metadata().unwrap().len(), 0);
    truncating.write_all_at(&bytes, 0).unwrap();
    let mut seen = Vec::new();
    (&reader).read_to_end(&mut seen).unwrap();
    assert!(seen == bytes);
    drop((reader, writer, truncating));
    let handed = File::create(mount.path("grows")).unwrap();
    handed.write_all_at(&bytes[..300_000], 0).unwrap();
    let second = open(mount.path("grows"));
    second.write_all_at(b"second", 0).unwrap();
    let mut seen = vec![0; 6];
    File::open(mount.path("grows")).unwrap().read_exact(&mut seen).unwrap();
    assert_eq!(seen, b"second");
    for round in 0..300 {
        drop(File::options().write(true).truncate(true).create(true).open(mount.path("again")).unwrap());
        fs::write(mount.path("again"), noise(round * 1000, 1)).unwrap();
        assert_eq!(fs::read(mount.path("again")).unwrap().len(), round * 1000);
    }
}

#[test]
fn files_that_lost_their_names_are_read_and_written_on() {
    let Some(mount) = TestMount::passthrough() else { return };
    let mut file = open(mount.path("gone"));
    file.write_all(&noise(300_000, 8)).unwrap();
    fs::remove_file(mount.path("gone")).unwrap();
    file.write_all(b"more").unwrap();
    mount.checkpoint("without it");
    file.write_all(b"and more").unwrap();
    assert_eq!(file.metadata().unwrap().len(), 300_012);
    file.seek(SeekFrom::Start(300_000)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "moreand more");
    let mut over = open(mount.path("replaced"));
    over.write_all(b"old version").unwrap();
    mount.write("new", "new version");
    fs::rename(mount.path("new"), mount.path("replaced")).unwrap();
    over.write_all(b", written on").unwrap();
    assert_eq!(mount.read("replaced"), "new version");
}

#[test]
fn holes_ranges_and_copies_work_on_the_kernels_own() {
    let Some(mount) = TestMount::passthrough() else { return };
    mount.shell(
        r#"
        exec 3<>sparse; dd if=/dev/urandom bs=1M count=4 >&3 2>/dev/null
        fallocate -p -o 1048576 -l 1048576 sparse; fallocate -o 5242880 -l 3145728 sparse; truncate -s 16M sparse
        test "$(stat -c %s sparse)" = 16777216; test "$(stat -c %b sparse)" -lt 20000
        cp --sparse=never sparse copy; cmp sparse copy; cp --reflink=auto sparse again; cmp sparse again
        python3 -c "
import os
f = os.open('sparse', os.O_RDWR)
assert os.lseek(f, 0, os.SEEK_HOLE) == 1 << 20 and os.lseek(f, 1 << 20, os.SEEK_DATA) == 2 << 20 and os.lseek(f, 0, 0) == 0
g = os.open('ranges', os.O_RDWR | os.O_CREAT)
left = 3 << 20
while left: left -= os.copy_file_range(f, g, left)
assert os.fstat(g).st_size == 3 << 20"
        cmp -n 3145728 sparse ranges; exec 3>&-
        "#,
    );
    let id = mount.checkpoint("sparse");
    mount.shell(&format!(
        "cmp sparse .memento/checkpoints/{id}/sparse; test $(stat -c %b .memento/checkpoints/{id}/sparse) -lt 20000"
    ));
}

#[test]
fn direct_and_synchronous_writes_are_the_file_systems_own() {
    let Some(mut mount) = TestMount::passthrough() else { return };
    let block = noise(1 << 20, 9);
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    let direct = options.clone().custom_flags(libc::O_DIRECT).open(mount.path("direct")).unwrap();
    let mut aligned = vec![0; (1 << 20) + 4096];
    let start = aligned.as_ptr().align_offset(4096);
    aligned[start..start + (1 << 20)].copy_from_slice(&block);
    direct.write_all_at(&aligned[start..start + (1 << 20)], 0).unwrap();
    assert!(fs::read(mount.path("direct")).unwrap() == block);
    let synced = options.custom_flags(libc::O_SYNC).open(mount.path("synced")).unwrap();
    synced.write_all_at(&block, 0).unwrap();
    direct.sync_all().unwrap();
    mount.crash_and_find_all();
}

#[test]
fn views_of_one_branch_share_what_is_in_the_kernels_hand() {
    let Some(mount) = TestMount::passthrough() else { return };
    mount.tell("checkpoint", "base");
    fs::create_dir(mount.control("branches/other")).unwrap();
    let second = mount.outside("second");
    fs::create_dir(&second).unwrap();
    let store = mount.store();
    let arguments = ["mount", "--branch", "other", store.to_str().unwrap(), second.to_str().unwrap()];
    crate::mount::succeeded("mount", crate::mount::program().args(arguments).output().unwrap());
    let view = mount.control("branches/other");
    let mut file = open(view.join("file"));
    let bytes = noise(500_000, 10);
    file.write_all(&bytes).unwrap();
    assert!(fs::read(second.join("file")).unwrap() == bytes);
    let other = open(second.join("file"));
    other.write_all_at(b"through the mount", 100_000).unwrap();
    let mut seen = [0; 17];
    file.read_exact_at(&mut seen, 100_000).unwrap();
    assert_eq!(&seen, b"through the mount");
    file.write_all(b"more").unwrap();
    assert_eq!(fs::metadata(second.join("file")).unwrap().len(), 500_004);
    assert!(!mount.path("file").exists(), "another branch");
    drop((file, other));
    assert_eq!(fs::read(second.join("file")).unwrap(), fs::read(view.join("file")).unwrap());
    let refused = crate::mount::program().args(["mount", "--io", "cached"]).args(&arguments[1..]).output().unwrap();
    assert!(!refused.status.success(), "all mounts of a store have one way");
    crate::mount::succeeded("umount", crate::mount::program().arg("umount").arg(&second).output().unwrap());
}

#[test]
fn privileges_end_with_the_first_write() {
    let Some(mount) = TestMount::passthrough() else { return };
    mount.shell("touch program; chmod 4755 program; chown 1000 program; chmod 4755 program");
    let program = File::options().write(true).open(mount.path("program")).unwrap();
    program.write_all_at(b"x", 0).unwrap();
    assert_eq!(fs::metadata(mount.path("program")).unwrap().mode() & 0o7777, 0o4755, "root keeps them, as on ext4");
    assert_eq!(mount.read("program"), "x");
}

/// Found by `scripts/suites/differential`: the kernel leaves it to us to end privileges, and says nothing of what it writes.
#[test]
fn privileges_that_a_program_gets_while_others_write_it_end_with_what_they_write() {
    let Some(mut mount) = TestMount::passthrough() else { return };
    mount.kill();
    mount.let_others_in();
    mount.mount(&["-o", "allow_other"]);
    let said = mount.shell(
        r#"python3 -c "
import os
def modes(user):
    fd = os.open(f'by{user}', os.O_WRONLY | os.O_CREAT, 0o755)
    os.chown(f'by{user}', user, user)
    if user:
        os.seteuid(user)
        os.close(fd)
        fd = os.open(f'by{user}', os.O_WRONLY)
        os.seteuid(0)
    os.write(fd, b'before')
    for change in (lambda: os.chmod(f'by{user}', 0o6755)), (lambda: os.utime(fd, (1, 1))), (lambda: os.write(fd, b'x')):
        change()
        yield oct(os.stat(f'by{user}').st_mode & 0o7777)
print(*modes(0), *modes(1000))
""#,
    );
    assert_eq!(said.trim(), "0o6755 0o6755 0o6755 0o6755 0o6755 0o755");
}

#[test]
fn a_checkpoint_beside_a_writer_that_never_stops_ends_and_has_what_had_returned() {
    let Some(mount) = TestMount::passthrough() else { return };
    let path = mount.path("counter");
    let file = open(&path);
    file.set_len(4 << 20).unwrap();
    let log = open(mount.path("log"));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let returned = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1u64.. {
                file.write_all_at(&round.to_le_bytes(), 1 << 20).unwrap();
                log.write_all_at(&round.to_le_bytes(), (round - 1) * 8).unwrap();
                returned.store(round, std::sync::atomic::Ordering::SeqCst);
                if stop.load(std::sync::atomic::Ordering::SeqCst) {
                    return;
                }
            }
        });
        let _set = SetOnDrop(&stop);
        for _ in 0..10 {
            let before = returned.load(std::sync::atomic::Ordering::SeqCst);
            let id = mount.checkpoint("beside");
            let mut sealed = [0; 8];
            let sealed_file = File::open(mount.control(format!("checkpoints/{id}/counter"))).unwrap();
            sealed_file.read_exact_at(&mut sealed, 1 << 20).unwrap();
            assert!(u64::from_le_bytes(sealed) >= before, "{} returned, {} sealed", before, u64::from_le_bytes(sealed));
            mount.tell("restore", &id);
            if path.metadata().unwrap().ino() != file.metadata().unwrap().ino() {
                break; // It was written between the checkpoint and the restore: the handle has a version of its own now.
            }
        }
    });
}

/// Writes to an open file turn about with new directories, while checkpoints are taken: returns how far the file in each was ahead of its
/// directories. `write` makes the change of a number, `count` finds the last one that a sealed file has.
fn ahead_in_checkpoints(
    mount: &TestMount,
    checkpoints: usize,
    size_bytes: u64,
    write: impl Fn(&File, u64) + Sync,
    count: impl Fn(&File) -> u64,
) -> Vec<i64> {
    let file = open(mount.path("file"));
    (&file).write_all(&noise(size_bytes as usize, size_bytes)).unwrap();
    fs::create_dir(mount.path("d")).unwrap();
    let change = |number: u64| {
        write(&file, number);
        fs::create_dir(mount.path(format!("d/{number}"))).unwrap();
    };
    change(1);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 2.. {
                change(number);
                if stop.load(std::sync::atomic::Ordering::SeqCst) {
                    return;
                }
            }
        });
        let _set = SetOnDrop(&stop);
        let ahead = (0..checkpoints).map(|_| {
            let top = mount.control(format!("checkpoints/{}", mount.checkpoint("beside")));
            let directories = fs::read_dir(top.join("d")).unwrap().count();
            count(&File::open(top.join("file")).unwrap()) as i64 - directories as i64
        });
        ahead.collect()
    })
}

/// Found by `scripts/campaigns/kill` with passthrough: a checkpoint had what was appended to a file of 3 MB while it was read, and nothing
/// else of that time.
#[test]
fn what_is_appended_to_a_large_open_file_is_not_ahead_of_the_rest_in_a_checkpoint() {
    const START_BYTES: u64 = 5 << 20; // More than is copied at a cut.
    let Some(mount) = TestMount::passthrough() else { return };
    let append = |file: &File, number| file.write_all_at(&[1; 100], START_BYTES + (number - 1) * 100).unwrap();
    let ahead =
        ahead_in_checkpoints(&mount, 10, START_BYTES, append, |file| (file.metadata().unwrap().len() - START_BYTES) / 100);
    assert!(ahead.iter().all(|ahead| (0..=1).contains(ahead)), "{ahead:?}");
}

#[test]
fn what_is_written_over_an_open_file_is_not_ahead_of_the_rest_in_a_checkpoint() {
    let Some(mount) = TestMount::passthrough() else { return };
    let over = |file: &File, number: u64| file.write_all_at(&number.to_le_bytes(), 2 << 20).unwrap();
    let ahead = ahead_in_checkpoints(&mount, 10, 3 << 20, over, |file| {
        let mut number = [0; 8];
        file.read_exact_at(&mut number, 2 << 20).unwrap();
        u64::from_le_bytes(number)
    });
    assert!(ahead.iter().all(|ahead| (0..=1).contains(ahead)), "{ahead:?}");
}

#[test]
fn the_daemon_keeps_no_descriptor_of_small_files_nor_of_sealed_ones() {
    let Some(mount) = TestMount::passthrough() else { return };
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", mount.pid())).unwrap().count();
    let before = descriptors();
    for at in 0..500 {
        mount.write(&format!("small/{at}"), noise(at * 10, 1));
    }
    for at in 0..10 {
        mount.write(&format!("large/{at}"), noise(300_000, at));
    }
    mount.checkpoint("sealed");
    for _ in 0..200 {
        if descriptors() <= before + 5 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50)); // Closes arrive later.
    }
    assert!(descriptors() <= before + 5, "{} and now {}", before, descriptors());
}

#[test]
fn where_files_cannot_be_handed_over_a_sentence_says_why() {
    let memory = tempfile::Builder::new().prefix("mementofs-test-").tempdir().unwrap();
    let (store, top) = (memory.path().join("disk/store"), memory.path().join("mnt"));
    fs::create_dir(memory.path().join("disk")).unwrap();
    fs::create_dir(&top).unwrap();
    let disk = memory.path().join("disk");
    let in_memory = std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&disk).status().unwrap().success();
    let tried = crate::mount::program().args(["mount", "--io", "passthrough"]).arg(&store).arg(&top).output().unwrap();
    if in_memory {
        std::process::Command::new("umount").arg("-l").arg(&disk).status().unwrap();
    }
    let said = String::from_utf8_lossy(&tried.stderr).into_owned();
    if in_memory || TestMount::passthrough().is_none() {
        assert!(!tried.status.success() && said.contains("--io passthrough: ") && said.lines().count() == 1, "{said}");
    }
    assert!(!in_memory || said.contains("in its times") || said.contains("precisely"), "{said}");
}

#[test]
fn times_of_open_files_move_with_what_is_done_and_with_nothing_else() {
    let Some(mount) = TestMount::passthrough() else { return };
    let times = |file: &File| {
        let now = file.metadata().unwrap();
        ((now.mtime(), now.mtime_nsec()), (now.ctime(), now.ctime_nsec()))
    };
    let file = open(mount.path("file"));
    let made = times(&file);
    mount.checkpoint("nothing is written yet");
    assert_eq!(times(&file), made, "a checkpoint moves no time");
    let mut last = made;
    for round in 0..50u32 {
        mount.shell(&format!("chmod {} file", if round % 2 == 0 { "600" } else { "644" }));
        let changed = times(&file);
        assert!(changed.1 > last.1 && changed.0 == last.0, "chmod: {changed:?} after {last:?}");
        file.write_all_at(b"x", u64::from(round)).unwrap();
        last = times(&file);
        assert!(last.1 > changed.1 && last.0 != changed.0, "write: {last:?} after {changed:?}");
    }
}

/// Found by `scripts/suites/ask`: the kernel's clock for files is a little behind, so that a file was older than a directory made before it.
#[test]
fn what_the_kernel_writes_is_no_older_than_what_was_changed_before() {
    let Some(mount) = TestMount::passthrough() else { return };
    let file = open(mount.path("file"));
    let mut last = (0, 0);
    let mut in_order = |path: &Path| {
        let found = fs::metadata(path).unwrap();
        let time = (found.mtime(), found.mtime_nsec());
        assert!(last <= time, "{last:?}, then {time:?} of {}", path.display());
        last = time;
    };
    for round in 0..50 {
        std::thread::sleep(std::time::Duration::from_millis(7)); // A tick of the kernel's clock is 1 to 10 ms: most rounds begin within a new one.
        let dir = mount.path(format!("d{round}"));
        fs::create_dir(&dir).unwrap();
        in_order(&dir);
        file.write_all_at(b"x", 0).unwrap();
        in_order(&mount.path("file"));
    }
}

/// Found by reading: what the daemon changes in a file that it gave to the kernel before is stamped by the kernel too.
#[test]
fn what_is_truncated_while_nobody_has_it_open_is_no_older_than_what_was_changed_before() {
    let Some(mount) = TestMount::passthrough() else { return };
    mount.write("large", noise(300_000, 1));
    python(
        &mount,
        r#"
import time
for at in range(50):
    time.sleep(0.007) # A tick.
    os.mkdir(f'd{at}')
    os.truncate('large', 300_000 + at)
    made, cut = os.stat(f'd{at}').st_mtime_ns, os.stat('large').st_mtime_ns
    assert made <= cut, (at, made, cut)
"#,
    );
}

#[test]
fn a_copy_into_a_longer_open_file_keeps_what_is_behind_it() {
    let Some(mount) = TestMount::passthrough() else { return };
    mount.write("source", noise(500_000, 11));
    mount.checkpoint("sealed");
    mount.shell(
        r#"python3 -c "
import os
source, target = os.open('source', os.O_RDONLY), os.open('target', os.O_RDWR | os.O_CREAT)
os.write(target, b'y' * 600_000)
done = 0
while done < 500_000: done += os.copy_file_range(source, target, 500_000 - done, done, done)
assert open('target', 'rb').read() == open('source', 'rb').read() + b'y' * 100_000"
"#,
    );
}

#[test]
fn who_goes_on_writing_after_the_daemons_death_writes_to_the_file_that_is_mounted_again() {
    let Some(mut mount) = TestMount::passthrough() else { return };
    let file = open(mount.path("file"));
    file.write_all_at(&noise(200_000, 12), 0).unwrap();
    mount.crash();
    // The kernel has the bytes in hand still; whether it lets a file of a dead mount be written is its own affair.
    if file.write_all_at(b"after the crash", 1000).is_ok() {
        assert_eq!(&fs::read(mount.path("file")).unwrap()[1000..1015], b"after the crash");
        let id = mount.checkpoint("beside the old one");
        file.write_all_at(b"once more", 5000).unwrap();
        assert_eq!(&fs::read(mount.path("file")).unwrap()[5000..5009], b"once more");
        let next = mount.checkpoint("again");
        assert_ne!(next, id);
        assert_eq!(&fs::read(mount.control(format!("checkpoints/{next}/file"))).unwrap()[5000..5009], b"once more");
    }
}

#[test]
fn what_was_handed_over_is_at_hand_when_the_store_is_mounted_the_other_way() {
    let Some(mut mount) = TestMount::passthrough() else { return };
    let bytes = noise(900_000, 13);
    mount.write("large", &bytes);
    mount.write("small", "small");
    let held = open(mount.path("held"));
    held.write_all_at(&bytes[..70_000], 10_000_000).unwrap();
    let before = described(&mount.top());
    mount.kill();
    drop(held);
    mount.through_the_daemon();
    mount.mount(&[]);
    assert_eq!(described(&mount.top()), before);
    mount.shell(
        "echo more >> large; truncate -s 10000001 held; fallocate -p -o 0 -l 4096 large; touch -d @1000000000 small; chmod 600 held; cp large copy",
    );
    let before = described(&mount.top());
    let mut expected = bytes.clone();
    expected[..4096].fill(0);
    expected.extend_from_slice(b"more\n");
    assert!(fs::read(mount.path("large")).unwrap() == expected);
    mount.kill();
    mount.mount(&[]);
    assert_eq!(described(&mount.top()), before, "after another crash");
    let id = mount.checkpoint("sealed");
    assert_eq!(described(&mount.top()), before);
    mount.shell("echo again >> large; truncate -s 5 held");
    mount.tell("restore", &id);
    assert_eq!(described(&mount.top()), before);
}
