//! The protocols between threads, tried in many orders of events. Each is compiled here once more from the program's own
//! source, with locks and threads whose order is chosen by `shuttle`: at random, from a seed that a failure prints.
//!
//! `MEMENTOFS_SCHEDULES` says how many orders of each are tried.

use shuttle::sync::{Arc, Mutex};
use shuttle::thread;
use std::collections::{BTreeSet, HashSet};
use std::io;

/// What the protocols are built from; see `src/workspace/primitives.rs`.
mod primitives {
    pub(super) use shuttle::sync::atomic::{AtomicU64, Ordering};
    pub(super) use shuttle::sync::{Condvar, Mutex, MutexGuard};
    pub(super) use std::sync::{PoisonError, TryLockError};
}

#[path = "../src/workspace/gate.rs"]
#[allow(dead_code)]
mod gate;
#[path = "../src/workspace/group_sync.rs"]
mod group_sync;
#[path = "../src/repository/watch.rs"]
#[allow(dead_code)]
mod watch;

use gate::Gate;
use group_sync::{GroupSync, Work};
use watch::Watch;

fn try_schedules(scenario: impl Fn() + Send + Sync + 'static) {
    let count = std::env::var("MEMENTOFS_SCHEDULES").ok().and_then(|count| count.parse().ok()).unwrap_or(500);
    shuttle::check_random(scenario, count);
}

/// A journal without files: segments as lists of records, and a disk that has what was synced.
#[derive(Default)]
struct Segments {
    /// Segments that may hold what the disk does not have.
    numbers: Vec<usize>,
}

impl Work for Segments {
    type Batch = Vec<usize>;

    fn take(&mut self) -> Vec<usize> {
        self.numbers.clone()
    }

    fn settle(&mut self, batch: &Vec<usize>) {
        let newest = batch.last().copied().unwrap_or(0);
        self.numbers.retain(|number| *number >= newest);
    }
}

#[derive(Default)]
struct Disk {
    /// What each segment holds in memory, and how much of it is on the disk.
    segments: Vec<(Vec<u64>, usize)>,
}

struct Journal {
    group: GroupSync<Segments>,
    disk: Mutex<Disk>,
}

impl Journal {
    fn start() -> Arc<Self> {
        let journal = Arc::new(Self { group: GroupSync::new(Segments::default()), disk: Mutex::default() });
        journal.rotate();
        journal
    }

    fn rotate(&self) {
        let mut disk = self.disk.lock().unwrap();
        let number = disk.segments.len();
        disk.segments.push((Vec::new(), 0));
        self.group.change(|segments| segments.numbers.push(number));
    }

    fn append(&self, record: u64) {
        self.disk.lock().unwrap().segments.last_mut().unwrap().0.push(record);
        self.group.count(1);
    }

    fn sync(&self, batch: &[usize]) -> io::Result<()> {
        for number in batch {
            let mut disk = self.disk.lock().unwrap();
            let (records, synced) = &mut disk.segments[*number];
            *synced = records.len();
            drop(disk);
            thread::yield_now();
        }
        Ok(())
    }

    fn is_on_disk(&self, record: u64) -> bool {
        let disk = self.disk.lock().unwrap();
        disk.segments.iter().any(|(records, synced)| records[..*synced].contains(&record))
    }
}

#[test]
fn whoever_waited_for_the_journal_finds_his_records_on_the_disk() {
    try_schedules(|| {
        let journal = Journal::start();
        let syncing = journal.clone();
        let syncer = thread::spawn(move || syncing.group.run(|batch| syncing.sync(batch)));
        let told = Arc::new(Mutex::new(0));
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let (journal, told) = (journal.clone(), told.clone());
                thread::spawn(move || {
                    for at in 0..2 {
                        let record = writer * 10 + at;
                        journal.append(record);
                        if writer == 0 {
                            journal.rotate();
                        }
                        let (seen, told) = (journal.clone(), told.clone());
                        journal.group.when_durable(Box::new(move |outcome| {
                            outcome.unwrap();
                            assert!(seen.is_on_disk(record), "{record} was said to be durable");
                            *told.lock().unwrap() += 1;
                        }));
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        journal.group.close();
        syncer.join().unwrap();
        assert_eq!(*told.lock().unwrap(), 6, "nobody waits for ever");
    });
}

#[test]
fn after_a_failed_sync_nobody_is_told_that_something_is_durable() {
    try_schedules(|| {
        let journal = Journal::start();
        let syncing = journal.clone();
        let syncer = thread::spawn(move || {
            let failed = Mutex::new(false);
            syncing.group.run(|batch| {
                let mut failed = failed.lock().unwrap();
                if std::mem::replace(&mut *failed, true) { syncing.sync(batch) } else { Err(io::Error::from_raw_os_error(5)) }
            });
        });
        let writers: Vec<_> = (0..3)
            .map(|record| {
                let journal = journal.clone();
                thread::spawn(move || {
                    journal.append(record);
                    journal.group.when_durable(Box::new(|outcome| assert!(outcome.is_err())));
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        journal.group.close();
        syncer.join().unwrap();
    });
}

#[test]
fn nothing_changes_while_the_gate_is_held_and_everything_afterwards() {
    try_schedules(|| {
        let gate = Arc::new(Gate::new(0));
        let writers: Vec<_> = (0..3)
            .map(|_| {
                let gate = gate.clone();
                thread::spawn(move || (0..2).for_each(|_| *gate.enter_to_change() += 1))
            })
            .collect();
        let holders: Vec<_> = (0..2)
            .map(|_| {
                let gate = gate.clone();
                thread::spawn(move || {
                    let hold = gate.hold();
                    let before = *gate.enter();
                    thread::yield_now();
                    assert_eq!(*gate.enter(), before);
                    drop(hold);
                })
            })
            .collect();
        holders.into_iter().chain(writers).for_each(|thread| thread.join().unwrap());
        assert_eq!(*gate.enter(), 6);
    });
}

/// A store without bytes: what the index has, what transactions named, and the watch.
#[derive(Default)]
struct Store {
    index: Mutex<HashSet<u32>>,
    named: Mutex<BTreeSet<u32>>,
    watch: Mutex<Watch<u32>>,
}

impl Store {
    /// As `Repository::put`: noted before it is looked for.
    fn put(&self, id: u32) {
        self.watch.lock().unwrap().touch(id);
        let known = self.index.lock().unwrap().contains(&id);
        thread::yield_now();
        if !known {
            self.index.lock().unwrap().insert(id);
        }
    }

    /// As a checkpoint: what is put under a use is named before the use ends.
    fn seal(&self, ids: &[u32]) {
        self.watch.lock().unwrap().begin_use();
        ids.iter().for_each(|id| self.put(*id));
        thread::yield_now();
        self.named.lock().unwrap().extend(ids);
        self.watch.lock().unwrap().end_use();
    }

    /// As `Repository::collect`: marks, looks for what is dead, and removes what nobody counts on.
    fn collect(&self) {
        self.watch.lock().unwrap().run(true);
        let reached = self.named.lock().unwrap().clone();
        let mut dead: Vec<u32> = self.index.lock().unwrap().iter().copied().filter(|id| !reached.contains(id)).collect();
        thread::yield_now();
        let watch = self.watch.lock().unwrap();
        dead.retain(|id| !watch.is_touched(id));
        let mut index = self.index.lock().unwrap();
        index.retain(|id| !dead.contains(id));
        drop((index, watch));
        self.watch.lock().unwrap().run(false);
    }
}

#[test]
fn gc_leaves_what_a_seal_was_told_is_stored() {
    try_schedules(|| {
        let store = Arc::new(Store::default());
        store.index.lock().unwrap().extend([1, 2, 3]); // Stored once, named by nothing any more.
        let sealers = [[1, 2], [2, 4]].map(|ids| {
            let store = store.clone();
            thread::spawn(move || store.seal(&ids))
        });
        let collector = {
            let store = store.clone();
            thread::spawn(move || (0..2).for_each(|_| store.collect()))
        };
        sealers.into_iter().chain([collector]).for_each(|thread| thread.join().unwrap());
        let (index, named) = (store.index.lock().unwrap(), store.named.lock().unwrap());
        assert!(named.iter().all(|id| index.contains(id)), "{named:?} is named, {index:?} is there");
    });
}
