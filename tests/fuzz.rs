//! Every decoder against bytes that are almost right.
//!
//! Real encodings (from a store and a journal made here) are changed at random, many times over; what a decoder accepts is
//! changed further. Nothing panics, nothing allocates more than a multiple of its input, and what is accepted is the one
//! encoding of its value: encoding it again gives the same bytes.
//!
//! `MEMENTOFS_FUZZ_SECS` says how long each target runs (2 by default), `MEMENTOFS_FUZZ_SEED` repeats a run; a failure
//! prints seed, step and input.

use mementofs::control::{Command, parse_checkpoint, parse_gc, parse_request, parse_restore, quoted_path, unquoted_path};
use mementofs::object::{Author, Commit, EntryKind, Manifest, Name, ObjectKind, Root, TreeNode};
use mementofs::repository::Repository;
use mementofs::store::reread_record;
use mementofs::workspace::{
    Branches, CheckpointRequest, NewNode, ROOT, RangeChange, RangeOptions, RenameMode, Workspace, XattrMode, rewritten_records,
};
use peak_alloc::PeakAlloc;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// A decoded item takes at most so many bytes for each byte of its encoding, and this much anyway.
const ALLOCATED_PER_BYTE: usize = 256;
const ALLOCATED_ANYWAY: usize = 256 << 10;
/// Accepted inputs kept to go on from.
const CORPUS_MAX: usize = 2_000;
const INPUT_BYTES_MAX: usize = 8 << 10;

/// Real encodings of each kind.
#[derive(Default)]
struct Real {
    trees: Vec<Vec<u8>>,
    roots: Vec<Vec<u8>>,
    manifests: Vec<Vec<u8>>,
    commits: Vec<Vec<u8>>,
    journal: Vec<Vec<u8>>,
    records: Vec<Vec<u8>>,
}

fn real() -> &'static Real {
    static REAL: OnceLock<Real> = OnceLock::new();
    REAL.get_or_init(make_real)
}

fn make_real() -> Real {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let repository = Repository::create(&store).unwrap();
    let workspace = Branches::new(repository.clone()).open("main").unwrap();
    work(&workspace, "a");
    let journal = std::fs::read(store.join("journal/1/0000000000000001.log")).unwrap()[16..].to_vec();
    let author = Author { uid: 7, pid: 9, command: "fuzz".into() };
    let mut request = CheckpointRequest::new("first", author.clone());
    request.links = vec![mementofs::object::ExternalLink { system: "s".into(), external_id: "x/y".into() }];
    workspace.checkpoint(&request).unwrap();
    work(&workspace, "b");
    workspace.checkpoint(&CheckpointRequest::new("", author)).unwrap();
    let mut real = Real::default();
    let mut objects = Vec::new();
    repository.history().each_object(|id, kind, location, _| objects.push((id, kind, location))).unwrap();
    for (id, kind, location) in objects {
        let bytes = repository.read_object(&id).unwrap();
        let pack = std::fs::read(repository.packs().path_of(location.container)).unwrap();
        let record = location.offset as usize - 60..(location.offset + location.stored_bytes) as usize;
        if record.len() < INPUT_BYTES_MAX {
            real.records.push(pack[record].to_vec());
        }
        match kind {
            ObjectKind::Tree => real.trees.push(bytes),
            ObjectKind::Root => real.roots.push(bytes),
            ObjectKind::Manifest => real.manifests.push(bytes),
            ObjectKind::Commit => real.commits.push(bytes),
            ObjectKind::Blob => {}
        }
    }
    // Records one by one, and a few together.
    let mut at = 0;
    while journal.len() >= at + 8 {
        let len = u32::from_le_bytes(journal[at..at + 4].try_into().unwrap()) as usize + 8;
        if len == 8 || at + len > journal.len() {
            break;
        }
        if len < INPUT_BYTES_MAX / 4 {
            real.journal.push(journal[at..at + len].to_vec());
        }
        at += len;
    }
    real.journal.push(real.journal[..8].concat());
    real
}

/// One operation of each kind.
fn work(workspace: &Workspace, prefix: &str) {
    let name = |text: &str| Name::new(format!("{prefix}{text}").as_bytes()).unwrap();
    let node = |kind| NewNode { kind, mode: 0o640, uid: 3, gid: 1 << 20, device: 259, target: (*b"to/where").into() };
    let kinds = [EntryKind::Directory, EntryKind::File, EntryKind::Symlink, EntryKind::Fifo, EntryKind::CharDevice];
    for (at, kind) in kinds.into_iter().enumerate() {
        workspace.create(ROOT, &name(&format!("k{at}")), node(kind), 0).unwrap();
    }
    let directory = workspace.lookup(ROOT, &name("k0")).unwrap().unwrap().ino;
    for at in 0..60 {
        let file = workspace.create(directory, &name(&at.to_string()), node(EntryKind::File), 0).unwrap().ino;
        workspace.write(file, at, &vec![b'x'; at as usize * 20], at % 2 == 0).unwrap();
    }
    let file = workspace.lookup(ROOT, &name("k1")).unwrap().unwrap().ino;
    workspace.write(file, 5 << 20, b"behind a hole", false).unwrap();
    let kept = RangeOptions { keep_size: true, strip_privileges: false };
    workspace.change_range(file, 4096, 65536, RangeChange::Zero, kept).unwrap();
    workspace.set_xattr(file, b"user.a", b"value", XattrMode::Set).unwrap();
    workspace.set_xattr(file, b"user.b", b"", XattrMode::Set).unwrap();
    workspace.link(file, directory, &name("link")).unwrap();
    workspace.rename(directory, &name("3"), ROOT, &name("moved"), RenameMode::Replace, None).unwrap();
    workspace.rename(directory, &name("4"), ROOT, &name("moved"), RenameMode::Exchange, None).unwrap();
    let whiteout = Some(NewNode { mode: 0, device: 0, ..node(EntryKind::CharDevice) });
    workspace.rename(directory, &name("6"), ROOT, &name("left"), RenameMode::Replace, whiteout).unwrap();
    workspace.unlink(directory, &name("5")).unwrap();
}

/// A small generator of numbers (xorshift64*), so that a seed repeats a run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Changes `bytes` in one to four ways.
fn change(bytes: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    const INTERESTING: [&[u8]; 9] = [
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\xff\xff\xff\xff\x0f",
        b"\x80\x00",
        b"\x01.",
        b"\x02..",
        b"\x03a/b",
        b"\x03a\0b",
        b"\x00",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    ];
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(9) {
            _ if bytes.is_empty() => bytes.push(random.next() as u8),
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes[at] = bytes[at].wrapping_add(if random.below(2) == 0 { 1 } else { 255 }),
            3 => drop(bytes.drain(at..(at + 1 + random.below(16)).min(bytes.len()))),
            4 => bytes.truncate(at),
            5 => {
                let piece = INTERESTING[random.below(INTERESTING.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            6 => {
                let piece = INTERESTING[random.below(INTERESTING.len())];
                let end = (at + piece.len()).min(bytes.len());
                bytes.splice(at..end, piece.iter().copied());
            }
            7 => {
                let end = (at + 1 + random.below(64)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => {
                let other = &others[random.below(others.len())];
                let from = random.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes.truncate(INPUT_BYTES_MAX);
}

/// What a decoder made of its input.
enum Outcome {
    Refused,
    /// It was accepted, and is worth changing further.
    Accepted,
}

/// One target at a time: memory is counted for the whole process.
static ALONE: Mutex<()> = Mutex::new(());

fn fuzz(target: &str, real: &[Vec<u8>], mend: fn(&mut [u8]), check: impl Fn(&[u8]) -> Outcome) {
    fuzz_with_room(target, real, mend, |_| 0, check);
}

/// As [`fuzz`]; `room` says how many bytes an input may take beyond what every one may.
fn fuzz_with_room(
    target: &str,
    real: &[Vec<u8>],
    mend: fn(&mut [u8]),
    room: impl Fn(&[u8]) -> usize,
    check: impl Fn(&[u8]) -> Outcome,
) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let time = Duration::from_secs(number("MEMENTOFS_FUZZ_SECS").unwrap_or(2));
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("MEMENTOFS_FUZZ_SEED").unwrap_or(clock) | 1;
    let mut random = Random(seed);
    let mut corpus: Vec<Vec<u8>> = real.to_vec();
    for bytes in &corpus {
        assert!(matches!(check(bytes), Outcome::Accepted), "{target}: a real encoding is refused: {bytes:?}");
    }
    let begun = Instant::now();
    let (mut steps, mut accepted) = (0u64, 0u64);
    while begun.elapsed() < time {
        for _ in 0..256 {
            steps += 1;
            let mut bytes = corpus[random.below(corpus.len())].clone();
            change(&mut bytes, real, &mut random);
            if random.below(8) > 0 {
                mend(&mut bytes);
            }
            let before = MEMORY.current_usage();
            MEMORY.reset_peak_usage();
            let outcome = catch_unwind(AssertUnwindSafe(|| check(&bytes)));
            let allocated = MEMORY.peak_usage().saturating_sub(before);
            let allowed = ALLOCATED_ANYWAY + ALLOCATED_PER_BYTE * bytes.len() + room(&bytes);
            assert!(outcome.is_ok(), "{target}: seed {seed}, step {steps}: {bytes:?}");
            assert!(allocated <= allowed, "{target}: seed {seed}, step {steps}: {allocated} bytes for {bytes:?}");
            if let Ok(Outcome::Accepted) = outcome {
                accepted += 1;
                if corpus.len() < CORPUS_MAX {
                    corpus.push(bytes);
                } else {
                    let at = real.len() + random.below(CORPUS_MAX - real.len());
                    corpus[at] = bytes;
                }
            }
        }
    }
    eprintln!("{target}: {steps} inputs in {} s, {accepted} accepted, seed {seed}", begun.elapsed().as_secs());
    assert!(accepted > 0, "{target}: nothing that was changed was accepted: the target tests little");
}

fn nothing_to_mend(_: &mut [u8]) {}

/// Says that what was decoded must have the one encoding.
fn canonical<E>(bytes: &[u8], encoded: Result<Vec<u8>, E>) -> Outcome {
    match encoded {
        Ok(encoded) => {
            assert_eq!(encoded, bytes, "accepted, and not the one encoding");
            Outcome::Accepted
        }
        Err(_) => Outcome::Refused,
    }
}

#[test]
fn tree_nodes() {
    fuzz("tree node", &real().trees, nothing_to_mend, |bytes| {
        let node = TreeNode::decode(bytes);
        if let Ok(TreeNode::Leaf(items)) = &node {
            for (name, _) in items {
                let name = name.as_bytes();
                assert!(!name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0));
            }
        }
        canonical(bytes, node.map(|node| node.encode()))
    });
}

#[test]
fn roots() {
    fuzz("root", &real().roots, nothing_to_mend, |bytes| canonical(bytes, Root::decode(bytes).map(|root| root.encode())));
}

#[test]
fn manifests() {
    fuzz("manifest", &real().manifests, nothing_to_mend, |bytes| {
        let manifest = Manifest::decode(bytes);
        assert!(manifest.as_ref().is_ok_and(|manifest| manifest.size_bytes() <= i64::MAX as u64) || manifest.is_err());
        canonical(bytes, manifest.map(|manifest| manifest.encode()))
    });
}

#[test]
fn commits() {
    fuzz("commit", &real().commits, nothing_to_mend, |bytes| {
        canonical(bytes, Commit::decode(bytes).map(|commit| commit.encode()))
    });
}

/// Gives the first record the length and the checksum that its bytes have, so that what is in it gets looked at.
fn mend_journal(bytes: &mut [u8]) {
    if let Some(payload) = bytes.get(8..).filter(|payload| !payload.is_empty()) {
        let (len, checksum) = (payload.len() as u32, crc32fast::hash(payload));
        bytes[..4].copy_from_slice(&len.to_le_bytes());
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    }
}

#[test]
fn journals() {
    fuzz("journal", &real().journal, mend_journal, |bytes| {
        let written = rewritten_records(bytes);
        assert!(bytes.starts_with(&written), "what was read is what was there");
        if written.is_empty() { Outcome::Refused } else { Outcome::Accepted }
    });
}

/// Gives the header the checksum that it has.
fn mend_record(bytes: &mut [u8]) {
    if bytes.len() >= 60 {
        let checksum = crc32fast::hash(&bytes[..56]);
        bytes[56..60].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// What a compressed record may take: what it claims to hold, if compression can do that, which is 128 KiB in four bytes.
fn claimed(bytes: &[u8]) -> usize {
    let claimed = bytes.get(12..20).map_or(0, |size| u64::from_le_bytes(size.try_into().unwrap()));
    usize::try_from(claimed).ok().filter(|claimed| claimed / (32 << 10) <= bytes.len()).unwrap_or(0)
}

#[test]
fn pack_records() {
    fuzz_with_room("pack record", &real().records, mend_record, claimed, |bytes| match reread_record(bytes) {
        None => Outcome::Refused,
        Some((header, object)) => {
            assert_eq!(header, bytes[..60], "a header has one encoding");
            if let Some(object) = object {
                let id = mementofs::object::ObjectId::of(&object);
                assert_eq!(id.as_bytes()[..], bytes[20..52], "bytes are handed out only under their hash");
            }
            Outcome::Accepted
        }
    });
}

#[test]
fn control_commands() {
    let lines: [&[u8]; 12] = [
        b"a message\n",
        br#"{"message":"m","name":"n","links":{"langgraph":"t/ns/1"},"meta":{"ok":[1,{"a":null}]},"allow_empty":true,"expect":"ab"}"#,
        b"@~2 src/a file.rs",
        br#"{"ref":"name","path":"a/b","dry_run":true}"#,
        br#"@ "a\tb\377/c""#,
        b"run",
        br#"{"dry_run":true,"grace_secs":5,"keep_last":3,"keep_hourly":4294967295}"#,
        br#"{"do":"restore","ref":"x","path":"../../etc/passwd"}"#,
        br#"{"do":"checkpoint","message":"m"}"#,
        br#"{"do":"import","from":"/a","into":"b/c"}"#,
        br#"{"do":"diff","from":"a","to":"b"}"#,
        br#"[[[[[[[[[[[[[[[[{"do":{"do":"#,
    ];
    let real: Vec<Vec<u8>> = lines.iter().map(|line| line.to_vec()).collect();
    fuzz("control command", &real, nothing_to_mend, |bytes| {
        for command in
            [parse_checkpoint(bytes), parse_restore(bytes), parse_gc(bytes), parse_request(bytes)].into_iter().flatten()
        {
            assert!(bytes.len() < 4096 && !bytes.contains(&0), "too long, or with a NUL");
            let path = match &command {
                Command::Restore { path, .. } => path.clone(),
                Command::Import { into, .. } => into.clone(),
                _ => None,
            };
            for name in path.into_iter().flatten() {
                assert!(!matches!(name.as_bytes(), b"" | b"." | b"..") && !name.as_bytes().contains(&b'/'));
            }
        }
        assert_eq!(unquoted_path(quoted_path(bytes).as_bytes()), bytes, "a path survives its quotes");
        Outcome::Accepted
    });
}
