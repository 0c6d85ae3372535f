//! What ext4 does in the corners, and the mount too. Small Python programs ask, as any program would.

use crate::mount::{TestMount, succeeded};
use crate::trouble::is_root;
use std::process::Command;

/// What the small programs share.
const PRELUDE: &str = r#"
import ctypes, errno, os, stat, sys, time
LIBC = ctypes.CDLL(None, use_errno=True)
class Timespec(ctypes.Structure):
    _fields_ = [('secs', ctypes.c_int64), ('nanos', ctypes.c_int64)]
def checked(result):
    if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def utimens(path, atime, mtime):
    checked(LIBC.utimensat(-100, os.fsencode(path), (Timespec * 2)(Timespec(*atime), Timespec(*mtime)), 0x100))
def fallocate(fd, mode, offset, length):
    checked(LIBC.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)))
def renameat2(old, new, flags):
    checked(LIBC.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags))
def refused(code, call, *arguments, **options):
    try: call(*arguments, **options)
    except OSError as err: assert err.errno == code, (errno.errorcode.get(err.errno), errno.errorcode[code])
    else: raise AssertionError('not refused with ' + errno.errorcode[code])
def become_stranger(): # Without rights of its own in the mount.
    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
def put(path, data=b'', mode=0o644):
    fd = os.open(path, os.O_RDWR | os.O_CREAT, mode); os.write(fd, data); return fd
"#;

/// Runs a Python program at the top of the mount.
pub fn python(mount: &TestMount, code: &str) -> String {
    let output = Command::new("python3").args(["-c", &format!("{PRELUDE}{code}")]).current_dir(mount.top()).output().unwrap();
    succeeded(code, output)
}

/// Runs a Python program as another user than the mount's.
fn python_as_stranger(mount: &TestMount, code: &str) -> String {
    python(mount, &format!("become_stranger()\n{code}"))
}

/// A mount that every user may enter; only root can make it.
fn shared_mount() -> Option<TestMount> {
    if !is_root() {
        return None;
    }
    let mut mount = TestMount::unmounted();
    mount.let_others_in();
    mount.mount(&["-o", "allow_other"]);
    Some(mount)
}

#[test]
fn times_before_1970_and_after_2038_keep_their_nanoseconds() {
    let mut mount = TestMount::new();
    let times = "[(0, 0), (-1, 0), (-1, 500000007), (-2147483649, 999999999), (2147483653, 1), (8589934592, 999999999)]";
    python(&mount, &format!("for at, t in enumerate({times}): os.close(put(str(at))); utimens(str(at), t, t)"));
    let check = format!(
        "for at, t in enumerate({times}): info = os.stat(str(at)); assert info.st_mtime_ns == info.st_atime_ns == t[0] * 10**9 + t[1], (t, info)"
    );
    python(&mount, &check);
    mount.checkpoint("times");
    mount.remount();
    python(&mount, &check);
}

#[test]
fn extended_attributes_are_named_and_limited_as_on_ext4() {
    let mount = TestMount::new();
    python(
        &mount,
        r#"
os.close(put('f'))
refused(errno.EINVAL, os.setxattr, 'f', 'user.', b'x')
refused(errno.ENOTSUP, os.setxattr, 'f', 'other.name', b'x')
refused(errno.ENOTSUP, os.getxattr, 'f', 'other.name')
refused(errno.ENODATA, os.getxattr, 'f', 'user.none')
refused(errno.ENODATA, os.setxattr, 'f', 'user.none', b'x', os.XATTR_REPLACE)
refused(errno.ENODATA, os.removexattr, 'f', 'user.none')
refused(errno.ERANGE, os.setxattr, 'f', 'user.' + 'n' * 251, b'x')
os.setxattr('f', 'user.' + 'n' * 250, b'')
os.setxattr('f', 'user.one', b'value', os.XATTR_CREATE)
refused(errno.EEXIST, os.setxattr, 'f', 'user.one', b'x', os.XATTR_CREATE)
refused(errno.E2BIG, os.setxattr, 'f', 'user.large', b'x' * 65537)
os.setxattr('f', 'user.large', b'x' * 60000)
refused(errno.ENOSPC, os.setxattr, 'f', 'user.more', b'x' * 10000)
before = os.stat('f').st_ctime_ns
os.setxattr('f', 'user.one', b'value')
assert os.stat('f').st_ctime_ns == before, 'the same value is no change'
os.setxattr('f', 'user.one', b'other')
assert os.stat('f').st_ctime_ns > before
os.symlink('f', 'l')
refused(errno.EPERM, os.setxattr, 'l', 'user.one', b'x', follow_symlinks=False)
"#,
    );
}

/// Found by `scripts/suites/differential` in a mount where the kernel leaves the question to us.
#[test]
fn what_nobody_may_execute_is_not_executable_for_root_either() {
    let mount = TestMount::new();
    python(
        &mount,
        r#"
os.close(put('file'))
os.mkfifo('fifo', 0o644)
os.mkdir('dir', 0o600)
os.symlink('dir', 'link')
for name, may in ('file', False), ('fifo', False), ('dir', os.getuid() == 0), ('link', os.getuid() == 0):
    assert os.access(name, os.X_OK) == may, name
os.chmod('fifo', 0o645)
assert os.access('fifo', os.X_OK) == (os.getuid() == 0)
"#,
    );
}

#[test]
fn trusted_attributes_are_for_root_alone() {
    let Some(mount) = shared_mount() else { return };
    python(&mount, "os.close(put('f')); os.setxattr('f', 'trusted.one', b'1'); assert os.listxattr('f') == ['trusted.one']");
    python_as_stranger(&mount, "assert os.listxattr('f') == []; refused(errno.ENODATA, os.getxattr, 'f', 'trusted.one')");
}

#[test]
fn fallocate_moves_times_and_ends_privileges() {
    let mount = TestMount::new();
    python(
        &mount,
        r#"
fd = put('f', b'x' * 5000)
for mode, offset in [(3, 100_000), (1, 100_000), (3, 0), (0, 0), (17, 0), (0, 4000), (1, 20_000)]:
    before = os.fstat(fd)
    fallocate(fd, mode, offset, 100)
    after = os.fstat(fd)
    assert after.st_mtime_ns > before.st_mtime_ns and after.st_ctime_ns > before.st_ctime_ns, (mode, offset)
assert after.st_size == 5000
refused(errno.ENOTSUP, fallocate, fd, 2, 0, 100) # PUNCH_HOLE needs KEEP_SIZE
refused(errno.EFBIG, fallocate, fd, 0, 2**63 - 1, 1)
refused(errno.EINVAL, fallocate, fd, 0, 0, 0)
"#,
    );
    if let Some(mount) = shared_mount() {
        python(&mount, "os.close(put('f', b'x' * 10, 0o666)); os.chmod('f', 0o6777)");
        python_as_stranger(
            &mount,
            "fallocate(os.open('f', os.O_RDWR), 0, 0, 100); assert os.stat('f').st_mode & 0o7777 == 0o777",
        );
    }
}

#[test]
fn a_chown_of_nothing_ends_privileges_but_not_for_strangers() {
    let Some(mount) = shared_mount() else { return };
    python(&mount, "os.close(put('f', b'x')); os.chmod('f', 0o6755)");
    let stranger = "\
try: os.chown('f', -1, -1)
except PermissionError: pass
assert os.stat('f').st_mode & 0o7777 == 0o6755";
    python_as_stranger(&mount, stranger);
    python(&mount, "os.chown('f', -1, -1); assert os.stat('f').st_mode & 0o7777 == 0o755");
}

#[test]
fn a_terminal_is_asked_for_without_a_word_in_the_log() {
    let mount = TestMount::new();
    python(&mount, "fd = put('f'); assert not os.isatty(fd)");
    assert!(!mount.log().contains("ioctl"), "{}", mount.log());
}

/// Lists of a directory and of what is made in it, as getfacl(1) prints them.
const LISTS: &str = r#"
umask 022; mkdir d; chmod 755 d; echo x > f; chmod 640 f; setfacl -m u:65534:rw f
getfacl -cn f; stat -c %a f; chmod 600 f; getfacl -cn f; setfacl -b f; stat -c %a f; setfacl -m u:65534:r f
setfacl -d -m u:65534:rwx,g:5:r-x d; (umask 077; echo y > d/g; mkdir d/sub); touch d/sub/h; getfacl -cn d d/g d/sub d/sub/h
"#;

#[test]
fn access_control_lists_are_inherited_changed_by_chmod_and_kept() {
    let mut mount = TestMount::new();
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    let expected = "user::rw- user:65534:rw- group::r-- mask::rw- other::--- 660 \
        user::rw- user:65534:rw- #effective:--- group::r-- #effective:--- mask::--- other::--- 600 \
        user::rwx group::r-x other::r-x default:user::rwx default:user:65534:rwx default:group::r-x default:group:5:r-x \
        default:mask::rwx default:other::r-x \
        user::rw- user:65534:rwx #effective:rw- group::r-x #effective:r-- group:5:r-x #effective:r-- mask::rw- other::r-- \
        user::rwx user:65534:rwx group::r-x group:5:r-x mask::rwx other::r-x default:user::rwx default:user:65534:rwx \
        default:group::r-x default:group:5:r-x default:mask::rwx default:other::r-x \
        user::rw- user:65534:rwx #effective:rw- group::r-x #effective:r-- group:5:r-x #effective:r-- mask::rw- other::r--";
    assert_eq!(words(&mount.shell(LISTS)), words(expected));
    let all = "getfacl -Rn .";
    let before = mount.shell(all);
    mount.crash();
    assert_eq!(mount.shell(all), before, "replayed");
    mount.checkpoint("lists");
    mount.remount();
    assert_eq!(mount.shell(all), before, "sealed");
    mount.shell("setfacl -Rb d f");
    assert_ne!(mount.shell(all), before);
    mount.tell("restore", "@");
    assert_eq!(mount.shell(all), before, "restored, with what the kernel remembered of the lists");
    mount.shell("rm -r d f");
    mount.tell("restore", "@");
    assert_eq!(mount.shell(all), before);
}

#[test]
fn access_control_lists_are_enforced() {
    let Some(mount) = shared_mount() else { return };
    mount.shell("echo x > f; chmod 600 f");
    let may = "assert open('f').read() == 'x\\n'";
    let may_not = "refused(errno.EACCES, open, 'f')";
    python_as_stranger(&mount, may_not);
    mount.shell("setfacl -m u:65534:r f");
    python_as_stranger(&mount, may);
    let with = mount.checkpoint("with");
    mount.shell("chmod 600 f");
    python_as_stranger(&mount, may_not);
    mount.tell("restore", &with);
    python_as_stranger(&mount, may);
    mount.tell("undo", "x");
    python_as_stranger(&mount, may_not);
    mount.shell("setfacl -m u:65534:r f; chmod 2755 f; chown 0:5 f; chmod 2755 f; setfacl -m u:65534:rwx f; chown 65534 f");
    python_as_stranger(&mount, "os.setxattr('f', 'system.posix_acl_access', os.getxattr('f', 'system.posix_acl_access'))");
    assert_eq!(mount.shell("stat -c %a f"), "775\n", "setgid ends when somebody outside the group sets a list");
}

#[test]
fn copies_of_checkpointed_files_share_what_is_stored() {
    let mut mount = TestMount::new();
    let bytes = crate::mount::noise(20 << 20, 3);
    mount.write("large", &bytes);
    mount.write("small", &bytes[..5000]);
    mount.checkpoint("one");
    let before = mount.store_bytes();
    mount.shell("cp --sparse=never large copy; cp --sparse=never small little; echo longer than the other > over; cp small over");
    let same = |mount: &TestMount| {
        mount.shell("cmp large copy; cmp small little; cmp small over; test $(stat -c %b copy) -gt 40000");
    };
    same(&mount);
    mount.crash();
    same(&mount);
    mount.checkpoint("two");
    let grown = mount.store_bytes() - before;
    assert!(grown < 5 << 20, "{grown} bytes for copies of what is there");
    python(&mount, "fd = os.open('copy', os.O_RDWR); os.pwrite(fd, b'other', 1 << 20)");
    assert!(std::fs::read(mount.path("large")).unwrap() == bytes, "the original stays");
    python(
        &mount,
        r#"
whole = open('large', 'rb').read()
source, target = os.open('large', os.O_RDONLY), put('parts', b'x' * 100)
assert os.copy_file_range(source, target, 5000, 7, 50) == 5000
assert open('parts', 'rb').read() == b'x' * 50 + whole[7:5007]
target = put('bigger', b'y' * 30_000_000)
done = 0
while done < len(whole): done += os.copy_file_range(source, target, len(whole) - done, done, done)
assert open('bigger', 'rb').read() == whole + b'y' * (30_000_000 - len(whole))
"#,
    );
    mount.shell("rm large small");
    mount.tell("gc", r#"{"grace_secs":0}"#);
    mount.shell("test $(wc -c < copy) = 20971520; test $(wc -c < over) = 5000");
}

#[test]
fn synchronous_writes_reach_the_disk() {
    let mount = TestMount::new();
    for (how, code) in [
        ("O_SYNC", "fd = os.open('f', os.O_RDWR | os.O_SYNC)\nfor at in range(5): os.pwrite(fd, b'x', at)"),
        ("O_DSYNC", "fd = os.open('f', os.O_RDWR | os.O_DSYNC)\nfor at in range(5): os.pwrite(fd, b'x', at)"),
        ("RWF_DSYNC", "fd = os.open('f', os.O_RDWR)\nfor at in range(5): os.pwritev(fd, [b'x'], at, os.RWF_DSYNC)"),
        (
            "RWF_DSYNC where small files were made before",
            "os.mkdir('d')\nfor at in range(20): os.close(put(f'd/{at}', b'x'))\nfd = os.open('d/f', os.O_WRONLY | os.O_CREAT)\n\
             for at in range(5): os.pwritev(fd, [b'x'], at, os.RWF_DSYNC)",
        ),
        ("no flag", "fd = os.open('f', os.O_RDWR)\nfor at in range(5): os.pwrite(fd, b'x', at)"),
    ] {
        mount.write("f", "y");
        let log = mount.outside("syncs");
        let mut tracer = Command::new("strace");
        tracer.args(["-f", "-qq", "-p", &mount.pid().to_string(), "-e", "trace=fsync,fdatasync", "-o"]).arg(&log);
        let mut tracer = tracer.spawn().unwrap();
        let tasks = format!("/proc/{}/task", mount.pid());
        let untraced = |task: std::io::Result<std::fs::DirEntry>| {
            let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap_or_default();
            status.contains("TracerPid:\t0\n")
        };
        while std::fs::read_dir(&tasks).unwrap().any(untraced) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        python(&mount, code);
        crate::mount::send_signal(tracer.id(), "INT");
        tracer.wait().unwrap();
        let syncs = std::fs::read_to_string(&log).unwrap().matches("sync(").count();
        assert!((how == "no flag") == (syncs < 5), "{how}: {syncs} syncs");
    }
}

#[test]
fn a_rename_may_leave_a_whiteout() {
    let mut mount = TestMount::new();
    python(
        &mount,
        r#"
os.mkdir('d'); os.mkdir('e'); os.close(put('d/f', b'moved')); os.close(put('e/there'))
renameat2('d/f', 'e/g', 4)
def whiteout(path):
    info = os.lstat(path)
    assert stat.S_IFMT(info.st_mode) == stat.S_IFCHR and stat.S_IMODE(info.st_mode) == 0 and info.st_rdev == 0, info
    assert (info.st_uid, info.st_gid, info.st_nlink) == (os.getuid(), os.getgid(), 1), info
whiteout('d/f'); assert os.listdir('d') == ['f'] and open('e/g', 'rb').read() == b'moved'
refused(errno.EEXIST, renameat2, 'd', 'e', 4 | 1)
refused(errno.EINVAL, renameat2, 'd', 'e', 4 | 2)
renameat2('e/g', 'e/there', 4); whiteout('e/g'); assert open('e/there', 'rb').read() == b'moved'
renameat2('d', 'e/d', 4); whiteout('d'); whiteout('e/d/f'); assert os.stat('e').st_nlink == 3 and os.stat('.').st_nlink == 3
"#,
    );
    let check = r#"
for path in ('d', 'e/g', 'e/d/f'):
    info = os.lstat(path); assert stat.S_ISCHR(info.st_mode) and info.st_rdev == 0, (path, info)
assert open('e/there', 'rb').read() == b'moved' and sorted(os.listdir('e')) == ['d', 'g', 'there']
"#;
    mount.crash();
    python(&mount, check);
    mount.checkpoint("with whiteouts");
    python(&mount, "for path in ('d', 'e/g'): os.unlink(path)");
    mount.tell("restore", "@");
    python(&mount, check);
}

#[test]
fn what_says_nothing_new_of_a_file_moves_no_time() {
    let mount = TestMount::new();
    python(
        &mount,
        r#"
import struct
os.close(put('f')); before = os.stat('f').st_ctime_ns; time.sleep(0.02)
acl = lambda group: struct.pack('<I', 2) + b''.join(struct.pack('<HHi', *entry) for entry in [(1, 6, -1), (4, group, -1), (32, 4, -1)])
os.setxattr('f', 'system.posix_acl_access', acl(4))
assert os.stat('f').st_ctime_ns == before, 'a list that says what the mode says'
os.setxattr('f', 'system.posix_acl_access', acl(6))
assert os.stat('f').st_ctime_ns != before and stat.S_IMODE(os.stat('f').st_mode) == 0o664
"#,
    );
}

#[test]
fn an_attribute_that_must_and_must_not_exist_is_refused_with_what_is() {
    let mount = TestMount::new();
    python(
        &mount,
        r#"
os.close(put('f')); os.setxattr('f', 'user.there', b'x')
refused(errno.ENODATA, os.setxattr, 'f', 'user.new', b'x', 3)
refused(errno.EEXIST, os.setxattr, 'f', 'user.there', b'x', 3)
refused(errno.EINVAL, os.setxattr, 'f', 'user.there', b'x', 4)
"#,
    );
}

#[test]
fn a_hole_to_the_end_of_a_file_stays_one_when_the_file_grows() {
    let mount = TestMount::new();
    python(
        &mount,
        r#"
fd = put('f', b'x' * 311395); fallocate(fd, 3, 262144, 70000)
os.pwrite(fd, b'behind', 1204224)
assert os.lseek(fd, 262144, os.SEEK_DATA) == 1204224 and os.fstat(fd).st_blocks == 8 * 65, os.fstat(fd)
"#,
    );
}

#[test]
fn space_that_is_not_there_cannot_be_asked_for() {
    let mount = TestMount::new();
    python(
        &mount,
        r#"
fd = put('f', b'x' * 5000)
for mode in (0, 1, 16): refused(errno.ENOSPC, fallocate, fd, mode, 0, 1 << 43)
os.ftruncate(fd, 1 << 43); refused(errno.ENOSPC, fallocate, fd, 0, 4096, 1 << 42)
fallocate(fd, 0, 0, 100000); fallocate(fd, 3, 0, 1 << 43)
assert os.fstat(fd).st_size == 1 << 43 and os.fstat(fd).st_blocks == 0, os.fstat(fd)
"#,
    );
}

#[test]
fn a_listing_has_the_numbers_of_the_directory_and_of_the_one_it_is_in() {
    python(
        &TestMount::new(),
        r#"
def listed(path):
    fd, buffer = os.open(path, os.O_RDONLY), ctypes.create_string_buffer(8192)
    size, at, numbers = LIBC.syscall(217, fd, buffer, 8192), 0, {} # getdents64
    while at < size:
        number = ctypes.c_uint64.from_buffer(buffer, at).value
        length = ctypes.c_uint16.from_buffer(buffer, at + 16).value
        numbers[buffer.raw[at + 19:at + length].split(b'\0')[0]] = number
        at += length
    return numbers[b'.'], numbers[b'..']
def check(path):
    assert listed(path) == (os.stat(path).st_ino, os.stat(os.path.dirname(path) or '.').st_ino), path
for path in ('a/b', 'c/moved', 'c/other'): os.makedirs(path)
top = os.stat('.').st_ino
assert listed('.') == (top, top)
for path in ('a', 'a/b', 'c/moved', 'c/other'): check(path)
os.rename('c/moved', 'a/moved') # The kernel remembers what was listed.
check('a/moved')
assert LIBC.renameat2(-100, b'a/b', -100, b'c/other', 2) == 0 # RENAME_EXCHANGE
for path in ('a/b', 'c/other'): check(path)
"#,
    );
}
