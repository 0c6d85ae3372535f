//! With passthrough, who makes small files time and again writes the next one through the daemon.

use crate::mount::{TestMount, described, noise};
use crate::posix::python;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;

/// Names of the staging files; those of files that are closed go at some later time.
fn staged(mount: &TestMount) -> BTreeSet<OsString> {
    fs::read_dir(mount.store().join("staging/1")).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

/// Opens a file that is not there yet, and says whether it was given a staging file.
fn is_handed(mount: &TestMount, name: &str, options: &mut fs::OpenOptions) -> (bool, File) {
    let before = staged(mount);
    let file = options.create(true).open(mount.path(name)).unwrap();
    (!staged(mount).is_subset(&before), file)
}

/// Makes small files until they are given no staging files any more.
fn make_small_ones(mount: &TestMount) {
    for at in 0..100 {
        let (handed, mut file) = is_handed(mount, &format!("small/{at}"), File::options().write(true));
        file.write_all(&noise(at * 30, 3)).unwrap();
        if !handed {
            return;
        }
    }
    panic!("each of them has a staging file");
}

#[test]
fn who_makes_small_files_is_given_no_staging_file_for_the_next() {
    let Some(mut mount) = TestMount::passthrough() else { return };
    mount.write("small/first", "");
    make_small_ones(&mount);
    let (handed, large) = is_handed(&mount, "grows", File::options().read(true).write(true));
    assert!(!handed);
    large.write_all_at(&noise(3_000_000, 1), 0).unwrap();
    assert!(fs::read(mount.path("grows")).unwrap() == noise(3_000_000, 1), "through another handle");
    drop(large);
    let told = |name: &str| is_handed(&mount, name, File::options().read(true).write(true)).0;
    assert!((0..20).any(|at| told(&format!("after{at}"))), "it makes large ones now"); // The close may arrive after the next open.
    make_small_ones(&mount);
    let (handed, log) = is_handed(&mount, "log", File::options().append(true));
    assert!(handed, "what is appended to may become long");
    (&log).write_all(b"a line").unwrap();
    assert!(std::thread::scope(|scope| scope.spawn(|| told("other")).join().unwrap()), "another thread");
    mount.crash_and_find_all();
}

/// What is written there does not go through the kernel's cache.
#[test]
fn what_is_only_written_is_seen_at_once_by_readers_and_mappings() {
    let Some(mut mount) = TestMount::passthrough() else { return };
    mount.write("small/first", "");
    python(
        &mount,
        r#"
import mmap, fcntl
for at in range(30): os.close(put(f'small/{at}', b'x'))
fd = os.open('f', os.O_WRONLY | os.O_CREAT | os.O_EXCL)
assert os.write(fd, b'a' * 10000) == 10000
reader = os.open('f', os.O_RDWR)
view = mmap.mmap(reader, 10000)
assert view[:] == os.pread(reader, 20000, 0) == b'a' * 10000
for at in range(200):
    os.pwrite(fd, b'%05d' % at, at * 50 % 9000)
    assert view[at * 50 % 9000:][:5] == os.pread(reader, 5, at * 50 % 9000) == b'%05d' % at
view[9990:10000] = b'mapped ten'
os.pwrite(fd, b'Z', 9989)
assert os.pread(reader, 20, 9980) == b'aaaaaaaaaZmapped ten', os.pread(reader, 20, 9980)
os.lseek(fd, 5, os.SEEK_SET)
fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
assert os.write(fd, b'end') == 3 and os.fstat(fd).st_size == 10003
fcntl.fcntl(fd, fcntl.F_SETFL, 0)
source = os.open('small/1', os.O_RDONLY)
assert os.sendfile(fd, source, 0, 1) == 1 and os.pread(reader, 4, 10000) == b'endx'
os.ftruncate(fd, 20000); os.pwrite(fd, b'b' * 3000000, 20000)
assert os.stat('f').st_size == 3020000 and os.pread(reader, 2, 3019998) == b'bb' and os.pread(reader, 2, 15000) == b'\0\0'
refused(errno.EBADF, os.read, fd, 1)
"#,
    );
    mount.crash_and_find_all();
    let before = described(&mount.top());
    mount.checkpoint("sealed");
    mount.remount();
    assert_eq!(described(&mount.top()), before);
}

/// The kernel asks for a program's capabilities where a write goes through its cache, and leaves them to us elsewhere.
#[test]
fn capabilities_end_with_a_write_by_anybody() {
    let Some(mount) = TestMount::passthrough() else { return };
    mount.write("small/first", "");
    python(
        &mount,
        r#"
for at in range(30): os.close(put(f'small/{at}', b'x'))
fd = os.open('program', os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
os.write(fd, b'before')
capability = bytes.fromhex('0100000200200000000000000000000000000000')
for change in lambda: os.write(fd, b'x'), lambda: os.ftruncate(fd, 3):
    os.setxattr('program', 'security.capability', capability)
    assert os.getxattr('program', 'security.capability')[4:] == capability[4:]
    change()
    refused(errno.ENODATA, os.getxattr, 'program', 'security.capability')
"#,
    );
}
