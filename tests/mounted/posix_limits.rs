//! How far things go, and what becomes of programs that are interrupted or ended: as on ext4.

use crate::mount::TestMount;
use crate::posix::python;

/// The memory that the daemon has, in KiB.
fn resident_kib(mount: &TestMount) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", mount.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn paths_go_ten_thousand_levels_deep() {
    let mut mount = TestMount::new();
    python(
        &mount,
        r#"
top = os.getcwd()
for at in range(10_000): os.mkdir('d'); os.chdir('d')
os.close(put('bottom', b'x'))
refused(errno.ENAMETOOLONG, os.stat, 'd/' * 2048)
for at in range(10_000): os.chdir('..')
assert os.getcwd() == top
"#,
    );
    mount.checkpoint("deep");
    mount.remount();
    python(
        &mount,
        r#"
for at in range(10_000): os.chdir('d')
os.unlink('bottom')
for at in range(10_000): os.chdir('..'); os.rmdir('d')
assert os.listdir('.') == []
"#,
    );
}

#[test]
fn twenty_thousand_names_are_deleted_while_they_are_listed() {
    let mount = TestMount::new();
    python(
        &mount,
        r#"
os.mkdir('d')
for at in range(20_000): os.mknod('d/%d' % at)
met = 0
for entry in os.scandir('d'): os.unlink(entry.path); met += 1
assert met == 20_000 and os.listdir('d') == [], met
os.rmdir('d')
"#,
    );
}

/// The long form: `MEMENTOFS_TEST_NAMES=1000000`.
#[test]
fn a_directory_of_many_entries_is_streamed() {
    let mount = TestMount::new();
    let names = std::env::var("MEMENTOFS_TEST_NAMES").unwrap_or_else(|_| "100000".into());
    python(&mount, &format!("os.mkdir('d')\nfor at in range({names}): os.mknod('d/%d' % at)"));
    let before = resident_kib(&mount);
    python(
        &mount,
        &format!(
            r#"
listed = os.scandir('d')
first = next(listed)
os.unlink(first.path)
os.mknod('d/' + first.name)
names = [first.name] + [entry.name for entry in listed]
assert sorted(set(names)) == sorted(str(at) for at in range({names})) and len(names) <= {names} + 1, len(names)
"#
        ),
    );
    let grown = resident_kib(&mount).saturating_sub(before);
    let listing = names.parse::<u64>().unwrap() * 24 / 1024;
    assert!(grown < listing.max(16 << 10), "{grown} KiB more to list a directory");
}

#[test]
fn a_file_has_as_many_links_as_on_ext4() {
    let mount = TestMount::new();
    python(
        &mount,
        r#"
os.close(put('f', b'x')); os.mkdir('d')
for at in range(64_999): os.link('f', 'd/%d' % at)
assert os.stat('f').st_nlink == 65_000
refused(errno.EMLINK, os.link, 'f', 'd/more')
assert not os.path.exists('d/more') and os.stat('f').st_nlink == 65_000
os.unlink('d/7'); os.link('f', 'd/more')
refused(errno.EMLINK, os.link, 'd/more', 'again')
"#,
    );
    let kept = mount.checkpoint("links");
    mount.shell("rm -r d f");
    mount.tell("restore", &kept);
    python(&mount, "assert os.stat('f').st_nlink == 65_000 and os.path.samefile('f', 'd/more')");
}

#[test]
fn sizes_end_where_the_kernel_says() {
    let mount = TestMount::new();
    let code = r#"
import resource, signal
fd = put('f', b'start')
largest = 2**63 - 1
for size in (LARGEST, 2**43 + 5, 5): os.ftruncate(fd, size); assert os.fstat(fd).st_size == size and os.pread(fd, 5, 0) == b'start'
os.pwrite(fd, b'end', 2**43); assert os.pread(fd, 9, 2**43 - 2) == b'\0\0end'
refused(errno.EINVAL, os.pwrite, fd, b'x', -1)
refused(errno.EINVAL, os.ftruncate, fd, -1)
refused(errno.EINVAL, os.pwrite, fd, b'x', largest)
os.ftruncate(fd, 0)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
assert os.pwrite(fd, b'x' * 20_000, 0) == 10_000
refused(errno.EFBIG, os.pwrite, fd, b'x', 10_000)
refused(errno.EFBIG, os.ftruncate, fd, 10_001)
assert os.fstat(fd).st_size == 10_000
"#;
    // What is in the kernel's hand ends where a file of the file system under the store ends.
    python(&mount, &code.replace("LARGEST", if mount.hands_over() { "2**43 + 7" } else { "largest" }));
}

#[test]
fn direct_input_and_output_agree_with_the_page_cache() {
    let mount = TestMount::new();
    python(
        &mount,
        r#"
import mmap
buffer = mmap.mmap(-1, 1 << 20)
buffer[:] = bytes(range(256)) * 4096
fd = os.open('f', os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644)
cached = os.open('f', os.O_RDWR)
assert os.pwrite(fd, buffer, 0) == 1 << 20
assert os.pread(cached, 1 << 20, 0) == buffer[:]
os.pwrite(cached, b'through the cache', 5000)
read = mmap.mmap(-1, 1 << 20)
assert os.preadv(fd, [read], 0) == 1 << 20 and read[5000:5017] == b'through the cache'
view = memoryview(buffer)[:4096]
assert os.pwrite(fd, view, 4096) == 4096 and os.pread(cached, 4096, 4096) == buffer[:4096]
mapped = mmap.mmap(cached, 1 << 20)
mapped[8192:8196] = b'page'
mapped.flush()
assert os.preadv(fd, [read], 8192) == (1 << 20) - 8192 and read[:4] == b'page'
assert os.pwrite(fd, view, 1 << 20) == 4096 and os.fstat(cached).st_size == (1 << 20) + 4096
assert os.preadv(fd, [read], 2 << 20) == 0
del view
"#,
    );
}

#[test]
fn a_wait_for_a_lock_is_interrupted_by_a_signal() {
    let mount = TestMount::new();
    python(
        &mount,
        r#"
import fcntl, signal, struct
fd = put('f', b'x' * 100)
fcntl.lockf(fd, fcntl.LOCK_EX)
flocked = os.open('f', os.O_RDWR); fcntl.flock(flocked, fcntl.LOCK_EX)
class Interrupted(Exception): pass
def interrupt(*_): raise Interrupted
for how in ('fcntl', 'flock'):
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        other = os.open('f', os.O_RDWR)
        signal.signal(signal.SIGALRM, interrupt)
        signal.siginterrupt(signal.SIGALRM, True)
        refused(errno.EAGAIN, fcntl.lockf if how == 'fcntl' else fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try: fcntl.lockf(other, fcntl.LOCK_EX) if how == 'fcntl' else fcntl.flock(other, fcntl.LOCK_EX)
        except Interrupted: os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7, how
# One that is killed while it waits leaves nothing behind.
child = os.fork()
if child == 0:
    fcntl.lockf(os.open('f', os.O_RDWR), fcntl.LOCK_EX); os._exit(0)
time.sleep(0.1); os.kill(child, 9); os.waitpid(child, 0)
fcntl.lockf(fd, fcntl.LOCK_UN)
child = os.fork()
if child == 0: fcntl.lockf(os.open('f', os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB); os._exit(0)
assert os.waitpid(child, 0)[1] == 0
# Two that wait for each other: the kernel says so.
fcntl.lockf(fd, fcntl.LOCK_EX, 1, 0)
child = os.fork()
if child == 0:
    other = os.open('f', os.O_RDWR)
    fcntl.lockf(other, fcntl.LOCK_EX, 1, 1); fcntl.lockf(other, fcntl.LOCK_EX, 1, 0); os._exit(0)
def taken():
    try: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 1)
    except OSError: return True
    fcntl.lockf(fd, fcntl.LOCK_UN, 1, 1)
while not taken(): time.sleep(0.01)
while not any('->' in line and str(child) in line.split() for line in open('/proc/locks')): time.sleep(0.01)
refused(errno.EDEADLK, fcntl.lockf, fd, fcntl.LOCK_EX, 1, 1)
fcntl.lockf(fd, fcntl.LOCK_UN)
assert os.waitpid(child, 0)[1] == 0
"#,
    );
}

#[test]
fn leases_and_inotify_are_as_the_kernel_gives_them() {
    let mount = TestMount::new();
    python(
        &mount,
        r#"
import fcntl, signal, struct
os.close(put('f'))
fd = os.open('f', os.O_RDONLY)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
assert fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_RDLCK
broken = []
signal.signal(signal.SIGIO, lambda *_: (broken.append(1), fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)))
child = os.fork()
if child == 0: os.open('f', os.O_WRONLY); os._exit(0)
assert os.waitpid(child, 0)[1] == 0 and broken
refused(errno.EAGAIN, fcntl.fcntl, os.open('f', os.O_RDWR), fcntl.F_SETLEASE, fcntl.F_RDLCK)
refused(errno.EAGAIN, fcntl.fcntl, fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)

watch = LIBC.inotify_init1(os.O_NONBLOCK)
checked(LIBC.inotify_add_watch(watch, b'.', 0xfff))
os.close(put('new', b'x')); os.rename('new', 'moved'); os.chmod('moved', 0o600); os.unlink('moved')
met, read = [], os.read(watch, 65536)
while read:
    _, mask, _, length = struct.unpack_from('iIII', read)
    met.append((mask, read[16:16 + length].rstrip(b'\0').decode())); read = read[16 + length:]
names = {0x100: 'create', 0x20: 'open', 2: 'modify', 8: 'close', 0x40: 'from', 0x80: 'to', 4: 'attrib', 0x200: 'delete'}
met = [(names.get(mask, mask), name) for mask, name in met]
assert met == [('create', 'new'), ('open', 'new'), ('modify', 'new'), ('close', 'new'), ('from', 'new'), ('to', 'moved'),
    ('attrib', 'moved'), ('delete', 'moved')], met
"#,
    );
}

#[test]
fn programs_in_the_mount_run_and_are_mapped() {
    let mount = TestMount::new();
    mount.shell("cp /bin/sleep program; cp /bin/sh shell; test \"$(./shell -c 'echo works')\" = works");
    python(
        &mount,
        r#"
import mmap, subprocess
running = subprocess.Popen(['./program', '60'])
while os.readlink('/proc/%d/exe' % running.pid) != os.path.realpath('program'): time.sleep(0.01)
refused(errno.ETXTBSY, os.open, 'program', os.O_WRONLY)
os.rename('program', 'elsewhere'); os.unlink('elsewhere') # It goes on.
assert running.poll() is None
running.kill(); running.wait()
# mov eax, 42; ret
os.close(put('code', b'\xb8\x2a\0\0\0\xc3'))
mapped = mmap.mmap(os.open('code', os.O_RDONLY), 6, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC | mmap.PROT_WRITE)
mapped[1] = 43
if os.uname().machine == 'x86_64':
    assert ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(mapped)))() == 43
assert open('code', 'rb').read(2) == b'\xb8\x2a', 'a private mapping stays private'
os.chmod('shell', 0o644)
refused(errno.EACCES, os.execv, './shell', ['shell'])
"#,
    );
}

#[test]
fn a_signal_during_a_long_write_loses_and_repeats_nothing() {
    let mount = TestMount::new();
    python(
        &mount,
        r#"
import signal
ticks = []
signal.signal(signal.SIGALRM, lambda *_: ticks.append(1))
signal.siginterrupt(signal.SIGALRM, True)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
data = os.urandom(1 << 20) * 32
fd, done = put('f'), 0
while done < len(data): done += os.write(fd, memoryview(data)[done:])
os.fsync(fd)
os.mkdir('d')
os.mknod('d/a')
for at in range(200): os.rename(*(['d/b', 'd/a'] if at % 2 else ['d/a', 'd/b']))
read = b''
while len(read) < len(data): read += os.pread(fd, 4 << 20, len(read))
signal.setitimer(signal.ITIMER_REAL, 0)
assert ticks and done == len(data) and read == data
"#,
    );
}

#[test]
fn a_program_killed_in_mid_operation_leaves_no_request_behind() {
    let mount = TestMount::new();
    python(
        &mount,
        r#"
import signal, subprocess
os.mkdir('d')
work = '''
import os
data = os.urandom(1 << 20)
while True:
    fd = os.open('d/f', os.O_RDWR | os.O_CREAT, 0o644)
    os.write(fd, data * 8); os.fsync(fd); os.close(fd)
    os.rename('d/f', 'd/g'); os.listdir('d'); os.unlink('d/g')
'''
for at in range(30):
    child = subprocess.Popen([sys.executable, '-c', work], stderr=subprocess.DEVNULL)
    time.sleep(0.05 + at * 0.003)
    child.kill(); child.wait()
for connection in os.listdir('/sys/fs/fuse/connections') if os.path.isdir('/sys/fs/fuse/connections') else []:
    if int(connection) != os.minor(os.stat('.').st_dev): continue
    waiting = '/sys/fs/fuse/connections/%s/waiting' % connection
    for _ in range(500):
        if open(waiting).read().strip() == '0': break
        time.sleep(0.01)
    else: raise AssertionError('requests wait: ' + open(waiting).read())
for name in os.listdir('d'): os.unlink('d/' + name)
os.rmdir('d')
"#,
    );
    assert!(!mount.log().contains("ERROR"), "{}", mount.log());
}

#[test]
fn a_removed_working_directory_has_no_path() {
    let mount = TestMount::new();
    python(
        &mount,
        r#"
top = os.getcwd()
os.makedirs('a/b'); os.chdir('a/b')
os.rename('../../a', '../../c')
assert os.getcwd() == top + '/c/b'
os.rmdir('../b')
refused(errno.ENOENT, os.getcwd)
refused(errno.ENOENT, os.open, 'f', os.O_CREAT)
refused(errno.ENOENT, os.mkdir, 'd')
assert os.listdir('.') == [] and os.stat('.').st_nlink == 0
refused(errno.EINVAL, os.rmdir, '.')
os.chdir('..'); assert os.getcwd() == top + '/c'
"#,
    );
}

#[test]
fn the_daemon_gives_its_memory_back_when_it_has_nothing_to_do() {
    let mount = TestMount::new();
    mount.write("first", "x");
    let first = mount.checkpoint("first");
    let before = resident_kib(&mount);
    for at in 0..30 {
        mount.write(&format!("large{at}"), crate::mount::noise(2 << 20, at));
    }
    let second = mount.checkpoint("second");
    mount.tell("restore", &first);
    mount.tell("restore", &second);
    mount.shell("cat large* | wc -c"); // From the store: the kernel's pages went with the restores.
    let limit = before + before / 10 + 4096;
    assert!(resident_kib(&mount) > limit, "this is to be more than a daemon at rest has");
    mount.shell("rm large*");
    let begun = std::time::Instant::now();
    while resident_kib(&mount) > limit {
        assert!(begun.elapsed().as_secs() < 60, "{} KiB, {before} at the start", resident_kib(&mount));
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}
