//! Workloads of single system calls: nothing but the calls is timed.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const FILES: usize = 10_000;
const DIRECTORIES: usize = 100;
const SMALL_BYTES: usize = 4096;
const LARGE_BLOCKS: usize = 512;
const BLOCK_BYTES: usize = 1 << 20;
const APPENDS: usize = 50_000;

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

fn make_directories(top: &Path) {
    for at in 0..DIRECTORIES {
        fs::create_dir_all(top.join(format!("d{at}"))).expect("a directory");
    }
}

fn paths(top: &Path) -> Vec<PathBuf> {
    (0..FILES).map(|at| top.join(format!("d{}/f{at}", at % DIRECTORIES))).collect()
}

fn create_all(paths: &[PathBuf]) {
    let data = [7; SMALL_BYTES];
    for path in paths {
        File::create_new(path).and_then(|mut file| file.write_all(&data)).expect("a file is written");
    }
}

fn read_all(paths: &[PathBuf]) {
    let mut data = [0; SMALL_BYTES];
    for path in paths {
        let read = File::open(path).and_then(|mut file| file.read(&mut data)).expect("a file is read");
        assert_eq!(read, SMALL_BYTES);
    }
}

fn filled(top: &Path) -> Vec<PathBuf> {
    make_directories(top);
    let paths = paths(top);
    create_all(&paths);
    paths
}

/// Creates, writes and closes files.
pub fn create(top: &Path) -> Duration {
    make_directories(top);
    let paths = paths(top);
    timed(|| create_all(&paths))
}

/// Removes files.
pub fn unlink(top: &Path) -> Duration {
    let paths = filled(top);
    timed(|| paths.iter().for_each(|path| fs::remove_file(path).expect("a file is removed")))
}

/// Writes files again, in place.
pub fn overwrite(top: &Path) -> Duration {
    let paths = filled(top);
    let data = [9; SMALL_BYTES];
    timed(|| {
        for path in &paths {
            let file = OpenOptions::new().write(true).open(path).expect("a file is opened");
            file.write_all_at(&data, 0).expect("a file is written");
        }
    })
}

/// Looks at files that were looked at before.
pub fn stat(top: &Path) -> Duration {
    let paths = filled(top);
    let look = || paths.iter().for_each(|path| assert_eq!(fs::symlink_metadata(path).expect("a file").len(), SMALL_BYTES as u64));
    look();
    timed(look)
}

/// Lists directories and looks at what is in them, which was done before.
pub fn walk_and_stat(top: &Path) -> Duration {
    filled(top);
    let walk = || {
        let mut count = 0;
        for directory in fs::read_dir(top).expect("a listing") {
            for file in fs::read_dir(directory.expect("an entry").path()).expect("a listing") {
                count += usize::from(file.expect("an entry").metadata().expect("a file").len() == SMALL_BYTES as u64);
            }
        }
        assert_eq!(count, FILES);
    };
    walk();
    timed(walk)
}

/// Reads files that were read before.
pub fn read_small(top: &Path) -> Duration {
    let paths = filled(top);
    read_all(&paths);
    timed(|| read_all(&paths))
}

fn large(top: &Path) -> PathBuf {
    fs::create_dir_all(top).expect("a directory");
    top.join("large")
}

fn block(at: usize) -> Vec<u8> {
    let mut state = (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut word).take(BLOCK_BYTES / 8).flatten().collect()
}

fn write_blocks(path: &Path) -> Duration {
    let blocks: Vec<Vec<u8>> = (0..8).map(block).collect();
    timed(|| {
        let mut file = File::create(path).expect("a file is made");
        for at in 0..LARGE_BLOCKS {
            file.write_all(&blocks[at % blocks.len()]).expect("a block is written");
        }
        file.sync_all().expect("the file is synced");
    })
}

/// Writes a large file in large blocks and makes it durable.
pub fn write_large(top: &Path) -> Duration {
    write_blocks(&large(top))
}

fn read_blocks(path: &Path) {
    let mut data = vec![0; BLOCK_BYTES];
    let mut file = File::open(path).expect("the file is opened");
    let mut total = 0;
    loop {
        match file.read(&mut data).expect("a block is read") {
            0 => break,
            read => total += read,
        }
    }
    assert_eq!(total, LARGE_BLOCKS * BLOCK_BYTES);
}

/// Reads a large file, which is in the page cache or nowhere in it.
pub fn read_large(top: &Path, cold: bool) -> Duration {
    let path = large(top);
    write_blocks(&path);
    if cold {
        fs::write("/proc/sys/vm/drop_caches", "3").expect("the caches can be dropped");
    } else {
        read_blocks(&path);
    }
    timed(|| read_blocks(&path))
}

/// Appends little by little.
pub fn append(top: &Path) -> Duration {
    let path = large(top);
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a file is opened");
    timed(|| (0..APPENDS).for_each(|_| file.write_all(&[b'x'; 100]).expect("a line is written")))
}

fn by_clients(paths: &[PathBuf], clients: usize, work: impl Fn(&[PathBuf]) + Sync) -> Duration {
    timed(|| {
        std::thread::scope(|scope| {
            for part in paths.chunks(paths.len().div_ceil(clients)) {
                scope.spawn(|| work(part));
            }
        });
    })
}

/// Creates files from several threads at once.
pub fn create_by(top: &Path, clients: usize) -> Duration {
    make_directories(top);
    by_clients(&paths(top), clients, create_all)
}

/// Reads files, which were read before, from several threads at once.
pub fn read_by(top: &Path, clients: usize) -> Duration {
    let paths = filled(top);
    read_all(&paths);
    by_clients(&paths, clients, read_all)
}
