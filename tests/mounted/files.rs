//! What programs do to files, through the mount.

use crate::mount::{TestMount, noise, program, succeeded};
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::process::Command;

#[test]
fn hard_links_share_everything() {
    let mount = TestMount::new();
    mount.write("d1/a", "1");
    fs::create_dir(mount.path("d2")).unwrap();
    fs::hard_link(mount.path("d1/a"), mount.path("d2/b")).unwrap();
    fs::write(mount.path("d2/b"), "22").unwrap();
    assert_eq!(mount.read("d1/a"), "22");
    let (a, b) = (fs::metadata(mount.path("d1/a")).unwrap(), fs::metadata(mount.path("d2/b")).unwrap());
    assert_eq!((a.ino(), a.nlink()), (b.ino(), 2));
    fs::remove_file(mount.path("d1/a")).unwrap();
    assert_eq!(fs::metadata(mount.path("d2/b")).unwrap().nlink(), 1);
}

#[test]
fn shared_mappings_reach_the_file() {
    let mount = TestMount::new();
    mount.shell(
        r#"python3 - <<'P'
import mmap, os
fd = os.open('m', os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 3 << 20)
m = mmap.mmap(fd, 3 << 20)
m[5] = 7; m[2 << 20] = 9
m.flush()
assert os.pread(fd, 1, 5) == b'\x07'
m.close(); os.close(fd)
P
        python3 -c "d = open('m','rb').read(); assert len(d) == 3 << 20 and d[5] == 7 and d[2 << 20] == 9""#,
    );
    let id = mount.checkpoint("mapped");
    let sealed = fs::read(mount.control(format!("checkpoints/{id}/m"))).unwrap();
    assert_eq!((sealed.len(), sealed[5], sealed[2 << 20]), (3 << 20, 7, 9));
}

#[test]
fn rename_flags() {
    let mount = TestMount::new();
    mount.shell(
        r#"python3 - <<'P'
import ctypes, os, errno
libc = ctypes.CDLL(None, use_errno=True)
def rename(a, b, flags):
    return 0 if libc.renameat2(-100, a.encode(), -100, b.encode(), flags) == 0 else ctypes.get_errno()
open('a', 'w').write('a'); open('b', 'w').write('b'); os.mkdir('d'); open('d/x', 'w').write('x')
assert rename('a', 'b', 1) == errno.EEXIST
assert rename('a', 'c', 1) == 0
assert rename('c', 'b', 2) == 0 and open('c').read() == 'b' and open('b').read() == 'a'
assert rename('c', 'd', 2) == 0 and os.path.isdir('c') and open('d').read() == 'b' and open('c/x').read() == 'x'
assert rename('c', 'nope', 2) == errno.ENOENT
assert rename('c', 'c/inner', 0) == errno.EINVAL
P"#,
    );
}

#[test]
fn sparse_files_have_holes() {
    let mount = TestMount::new();
    let file = fs::File::options().create_new(true).read(true).write(true).open(mount.path("sparse")).unwrap();
    file.set_len(1 << 40).unwrap();
    file.write_all_at(b"data", 1 << 39).unwrap();
    assert!(file.metadata().unwrap().blocks() <= 16);
    let mut byte = [1];
    file.read_exact_at(&mut byte, 1 << 38).unwrap();
    assert_eq!(byte, [0]);
    let found = mount.shell(
        "python3 -c \"import os; f = os.open('sparse', 0); print(os.lseek(f, 0, os.SEEK_DATA), os.lseek(f, 1 << 39, os.SEEK_HOLE))\"",
    );
    let numbers: Vec<u64> = found.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert!(numbers[0] <= 1 << 39 && numbers[0] > (1 << 39) - 65536, "{found}");
    assert!(numbers[1] > 1 << 39 && numbers[1] <= (1 << 39) + 65536, "{found}");
    let id = mount.checkpoint("sparse");
    let old = fs::metadata(mount.control(format!("checkpoints/{id}/sparse"))).unwrap();
    assert_eq!(old.len(), 1 << 40);
    assert!(old.blocks() <= 256, "{}", old.blocks());
    let largest = i64::MAX as u64;
    if mount.hands_over() {
        let refused = file.set_len(largest).unwrap_err(); // As the file system under the store does.
        assert_eq!(refused.raw_os_error(), Some(libc::EFBIG));
    } else {
        file.set_len(largest).unwrap();
        assert_eq!(file.metadata().unwrap().len(), largest);
    }
}

#[test]
fn punched_and_allocated_ranges() {
    let mount = TestMount::new();
    for (name, len) in [("small", 100_000usize), ("large", 3_000_000)] {
        let bytes = noise(len, 1);
        mount.write(name, &bytes);
        let middle = len / 2 / 4096 * 4096;
        mount.shell(&format!("fallocate -p -o {middle} -l 8192 {name}"));
        let mut expected = bytes;
        expected[middle..middle + 8192].fill(0);
        assert!(fs::read(mount.path(name)).unwrap() == expected, "{name}");
        mount.checkpoint(name);
        assert!(fs::read(mount.control(format!("checkpoints/latest/{name}"))).unwrap() == expected, "{name}");
        mount.shell(&format!("fallocate -l {} {name}; fallocate -n -l {} {name}", len + 5000, len + 50_000));
        assert_eq!(fs::metadata(mount.path(name)).unwrap().len(), len as u64 + 5000);
        mount.shell(&format!("fallocate -z -o 0 -l 4096 {name}"));
        assert!(fs::read(mount.path(name)).unwrap()[..4096].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn truncation_and_growth_of_every_size() {
    let mount = TestMount::new();
    for len in [0usize, 1, 4095, 4096, 262_143, 262_144, 262_145, 1_048_576, 2_000_000] {
        let bytes = noise(len, len as u64);
        mount.write("f", &bytes);
        if len % 2 == 0 {
            mount.checkpoint("m");
        }
        let file = fs::File::options().read(true).write(true).open(mount.path("f")).unwrap();
        file.set_len(len as u64 / 2).unwrap();
        file.set_len(len as u64 * 2 + 10).unwrap();
        let mut expected = bytes[..len / 2].to_vec();
        expected.resize(len * 2 + 10, 0);
        assert!(fs::read(mount.path("f")).unwrap() == expected, "{len}");
        file.write_all_at(b"end", len as u64 * 2 + 7).unwrap();
        expected[len * 2 + 7..].copy_from_slice(b"end");
        assert!(fs::read(mount.path("f")).unwrap() == expected, "{len}");
        drop(file);
        mount.checkpoint("m");
        assert!(fs::read(mount.control("checkpoints/latest/f")).unwrap() == expected, "{len}");
        fs::remove_file(mount.path("f")).unwrap();
    }
}

#[test]
fn unlinked_files_live_as_long_as_they_are_open() {
    let mount = TestMount::new();
    for len in [10usize, 3_000_000] {
        let bytes = noise(len, 1);
        mount.write("f", &bytes);
        mount.checkpoint("m");
        let mut file = fs::File::options().read(true).append(true).open(mount.path("f")).unwrap();
        fs::remove_file(mount.path("f")).unwrap();
        file.write_all(b"more").unwrap();
        mount.checkpoint("without it");
        mount.tell("gc", r#"{"grace_secs":0}"#);
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert!(read == [&bytes[..], b"more"].concat());
        assert_eq!(file.metadata().unwrap().nlink(), 0);
    }
}

#[test]
fn names_of_any_bytes_and_lengths() {
    let mount = TestMount::new();
    use std::os::unix::ffi::OsStrExt;
    let mut names: Vec<Vec<u8>> = (1..=255u8).filter(|byte| !matches!(byte, b'/' | b'.')).map(|byte| vec![byte]).collect();
    names.push(vec![b'n'; 255]);
    names.push(b"...".to_vec());
    for name in &names {
        fs::write(mount.path(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
    let too_long = fs::write(mount.path("n".repeat(256)), "x").unwrap_err();
    assert_eq!(too_long.raw_os_error(), Some(libc::ENAMETOOLONG));
    let id = mount.checkpoint("names");
    mount.shell(&format!("find . -mindepth 1 -delete; echo {id} > .memento/restore"));
    for name in &names {
        assert_eq!(fs::read(mount.path(std::ffi::OsStr::from_bytes(name))).unwrap(), *name);
    }
    assert_eq!(fs::read_dir(mount.top()).unwrap().count(), names.len());
}

#[test]
fn deep_trees_and_wide_directories() {
    let mount = TestMount::new();
    mount.shell("mkdir wide; cd wide; seq 1 5000 | xargs touch");
    assert_eq!(fs::read_dir(mount.path("wide")).unwrap().count(), 5000);
    // Deleted while it is listed: every name is met.
    for entry in fs::read_dir(mount.path("wide")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert_eq!(fs::read_dir(mount.path("wide")).unwrap().count(), 0);
    mount.shell(
        "python3 -c \"
import os
for i in range(1000):
    os.mkdir('level'); os.chdir('level')
open('bottom', 'w').write('deep')
\"",
    );
    mount.checkpoint("deep");
    mount.shell("rm -rf level; echo @ > .memento/restore; test $(find level -name bottom | wc -l) = 1");
}

#[test]
fn privileges_end_when_a_file_is_written() {
    let mount = TestMount::new();
    mount.write("f", "x");
    fs::set_permissions(mount.path("f"), fs::Permissions::from_mode(0o6755)).unwrap();
    assert_eq!(fs::metadata(mount.path("f")).unwrap().mode() & 0o7777, 0o6755);
    if crate::trouble::is_root() {
        std::os::unix::fs::chown(mount.path("f"), Some(5), Some(5)).unwrap();
        assert_eq!(fs::metadata(mount.path("f")).unwrap().mode() & 0o7777, 0o755);
        return;
    }
    fs::write(mount.path("f"), "y").unwrap();
    assert_eq!(fs::metadata(mount.path("f")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn times_move_as_posix_says() {
    let mount = TestMount::new();
    mount.write("d/f", "1");
    let moment = |path: &str| {
        let metadata = fs::metadata(mount.path(path)).unwrap();
        ((metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec()))
    };
    let (dir, file) = (moment("d"), moment("d/f"));
    fs::write(mount.path("d/f"), "22").unwrap();
    assert!(moment("d/f").0 > file.0 && moment("d/f").1 > file.1 && moment("d") == dir);
    let file = moment("d/f");
    fs::set_permissions(mount.path("d/f"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(moment("d/f").0 == file.0 && moment("d/f").1 > file.1);
    fs::write(mount.path("d/g"), "1").unwrap();
    assert!(moment("d").0 > dir.0 && moment("d").1 > dir.1);
    let file = moment("d/f");
    fs::hard_link(mount.path("d/f"), mount.path("d/h")).unwrap();
    assert!(moment("d/f").0 == file.0 && moment("d/f").1 > file.1);
    let (dir, file) = (moment("d"), moment("d/f"));
    fs::rename(mount.path("d/f"), mount.path("d/i")).unwrap();
    assert!(moment("d").0 > dir.0 && moment("d/i").1 > file.1);
}

#[test]
fn appends_of_many_processes_are_whole() {
    let mount = TestMount::new();
    mount.shell("for p in 1 2 3 4; do (for i in $(seq 200); do echo line-of-$p-$i >> log; done) & done; wait");
    let text = mount.read("log");
    assert_eq!(text.lines().count(), 800);
    assert!(text.lines().all(|line| line.starts_with("line-of-")), "torn lines");
}

#[test]
fn thousands_of_large_files_do_not_exhaust_descriptors() {
    let mount = TestMount::new();
    mount.shell("mkdir d; cd d; for i in $(seq 2500); do truncate -s 300K f$i; printf x >> f$i; done");
    mount.write("after", "1");
    let open = fs::read_dir(format!("/proc/{}/fd", mount.pid())).unwrap().count();
    assert!(open < 2300, "{open} descriptors");
    assert_eq!(fs::metadata(mount.path("d/f2500")).unwrap().len(), 300 * 1024 + 1);
}

/// Where few descriptors are allowed, writers got ENFILE after some large files, and the seal that gives them back had none to work with.
#[test]
fn a_low_limit_of_descriptors_slows_writers_down_and_fails_none() {
    let mount = TestMount::unmounted();
    let way = if mount.hands_over() { "passthrough" } else { "cached" };
    let (binary, store, top) = (env!("CARGO_BIN_EXE_mementofs"), mount.store(), mount.top());
    let started = format!("ulimit -n 300; exec {binary} mount --io {way} {} {}", store.display(), top.display());
    succeeded(&started, Command::new("bash").args(["-c", &started]).output().unwrap());
    let bytes = noise(300_000, 9);
    for at in 0..600 {
        fs::write(mount.path(format!("f{at}")), &bytes).unwrap();
    }
    for at in 0..600 {
        assert!(fs::read(mount.path(format!("f{at}"))).unwrap() == bytes, "f{at}");
    }
    succeeded("umount", program().arg("umount").arg(top).output().unwrap());
}

#[test]
fn locks_and_append_modes_are_the_kernels() {
    let mount = TestMount::new();
    mount.write("f", "1");
    mount.shell("exec 9< f; flock -n 9; ! flock -n f true; flock -u 9; flock -n f true");
}

#[test]
fn direct_and_synchronous_writes() {
    let mount = TestMount::new();
    mount.shell(
        "dd if=/dev/zero of=direct bs=4096 count=64 oflag=direct status=none; dd if=direct bs=4096 iflag=direct status=none | cmp - <(head -c 262144 /dev/zero)
         dd if=/dev/zero of=sync bs=100 count=10 oflag=sync status=none; test $(stat -c %s sync) = 1000; df . > /dev/null",
    );
}

#[test]
fn nobody_executes_what_has_no_x_bit_and_access_says_so() {
    let mount = TestMount::new();
    mount.shell(
        r#"printf '#!/bin/sh\necho ran\n' > tool
        [ -r tool ] && [ -w tool ] && [ -x . ] && [ ! -x tool ] || exit 1
        ./tool 2>/dev/null && exit 1
        chmod +x tool && [ -x tool ] && [ "$(./tool)" = ran ] || exit 1
        chmod -x tool && [ ! -x tool ]"#,
    );
}

#[test]
fn the_first_open_that_makes_a_file_may_do_what_its_mode_forbids() {
    let mount = TestMount::new();
    mount.shell(
        r#"python3 - <<'P'
import os, errno
fd = os.open('f', os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o000)
os.write(fd, b'data'); assert os.pread(fd, 4, 0) == b'data'; os.close(fd)
assert os.stat('f').st_mode == 0o100000
try:
    os.open('f', os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    raise SystemExit('it exists')
except FileExistsError: pass
os.close(os.open('f', os.O_CREAT | os.O_WRONLY | os.O_TRUNC)); assert os.stat('f').st_size == 0
P"#,
    );
}
