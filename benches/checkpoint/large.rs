//! One very large file, and restores across very many small ones.

use crate::bench::{Bench, disk_bytes, median_ms, noise, timed};
use crate::kit::{Table, median};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
/// The daemon looks for files that went quiet every five seconds, twice; then it reads them.
const QUIET: Duration = Duration::from_secs(13);

/// A file of `mib` MiB is rewritten, then one block of it is changed; somebody else works meanwhile.
pub fn file(mib: usize, table: &mut Table) {
    let mut bench = Bench::new();
    bench.mount();
    let path = bench.top().join("large");
    let mut rewritten = Vec::new();
    let mut longest = Vec::new();
    let rewrite = |round: u64| {
        let mut file = File::create(&path).expect("a file");
        for at in 0..mib {
            file.write_all(&noise(MIB, round << 32 | at as u64)).expect("a write");
        }
    };
    for round in 0..3 {
        rewrite(round);
        let (took, waited) = beside_work(&bench, || bench.tell("checkpoint", "rewritten"));
        rewritten.push(took.as_secs_f64() * 1e3);
        longest.push(waited.as_secs_f64() * 1e3);
    }
    table.add(format!("checkpoint, a file of {mib} MiB rewritten"), median(rewritten), "ms", "600 for 1 GiB");
    table.add("longest wait of small operations meanwhile (median of 3)", median(longest), "ms", "5");
    rewrite(3);
    std::thread::sleep(QUIET);
    let took = timed(|| bench.tell("checkpoint", "quiet")).as_secs_f64() * 1e3;
    table.add(
        format!("checkpoint, a file of {mib} MiB that nobody wrote to for {} s", QUIET.as_secs()),
        took,
        "ms",
        "600 for 1 GiB",
    );
    let before = disk_bytes(&bench.store().join("packs"));
    let changed = median_ms(3, |round| {
        let file = File::options().write(true).open(&path).expect("the file");
        file.write_all_at(&noise(4096, 77 + round as u64), (mib * MIB / 2 + round * 40_960) as u64).expect("a write");
        timed(|| bench.tell("checkpoint", "one block"))
    });
    table.add(format!("checkpoint, one block changed in a file of {mib} MiB"), changed, "ms", "600 for 1 GiB");
    let growth = (disk_bytes(&bench.store().join("packs")) - before) as f64 / 3.0 / 1024.0;
    table.add("store growth of each", growth, "KiB", "a few pieces");
}

/// Runs `work` while another thread makes small changes. Returns how long it took, and the longest that a change waited.
fn beside_work(bench: &Bench, work: impl FnOnce()) -> (Duration, Duration) {
    let ended = AtomicBool::new(false);
    let directory = bench.top().join("beside");
    fs::create_dir_all(&directory).expect("a directory");
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            for at in 0u64.. {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let begun = Instant::now();
                fs::write(directory.join((at % 50).to_string()), at.to_string()).expect("a write");
                longest = longest.max(begun.elapsed());
                std::thread::sleep(Duration::from_micros(300)); // An agent does something else too.
            }
            longest
        });
        let took = timed(work);
        ended.store(true, Ordering::Relaxed);
        (took, worker.join().expect("the worker ends"))
    })
}

/// Restores across `count` changed files.
pub fn many_differences(count: usize, table: &mut Table) {
    let mut bench = Bench::new();
    bench.mount();
    let path = |at: usize| bench.top().join(format!("d{}/f{at}", at % 100));
    for at in 0..count {
        fs::create_dir_all(path(at).parent().expect("a parent")).expect("a directory");
        fs::write(path(at), format!("old {at}")).expect("a file");
    }
    bench.tell("checkpoint", "old");
    let old = bench.says("checkpoint");
    for at in 0..count {
        fs::write(path(at), format!("new {at}")).expect("a file");
    }
    bench.tell("checkpoint", "new");
    let new = bench.says("checkpoint");
    let took = median_ms(5, |round| {
        for at in 0..count {
            fs::read(path(at)).expect("a file"); // The kernel knows them all.
        }
        let (target, word) = if round % 2 == 0 { (&old, "old") } else { (&new, "new") };
        let took = timed(|| bench.tell("restore", target));
        for at in 0..count {
            assert_eq!(fs::read_to_string(path(at)).expect("a file"), format!("{word} {at}"), "the first look is true");
        }
        took
    });
    table.add(format!("restore across {count} changed files"), took, "ms", "150 for 10,000");
}
