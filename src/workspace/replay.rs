//! Replays the journal of a branch, and sets aside what cannot be relied on.

use super::journal::{segment_path, segments};
use super::operation::Operation;
use super::segment::{Ending, HEADER_BYTES, Record, has_header, header, last_standing, previous_end, scan};
use super::standing::Standing;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What bytes that cannot be relied on are kept under, with a number.
pub const SET_ASIDE: &str = "damaged-";

/// What a replay found.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Number for the next segment.
    pub next: u64,
    /// Where the segment before that ends; 0 when there is none.
    pub end: u64,
    /// What was damaged, a sentence each; nothing when the journal merely ended as a crash leaves it.
    pub damage: Vec<String>,
}

/// Hands the operations of every segment from `first` on to `apply`, in order.
///
/// The replay ends at the first record that cannot be relied on: what follows may count on it. A torn end was never
/// promised to survive and is cut off, so that a further replay ends there too. Bytes that were damaged after they were
/// written, and segments behind them, are kept beside the journal.
pub fn replay<E: From<io::Error>>(
    dir: &Path,
    first: u64,
    mut apply: impl FnMut(Operation) -> Result<(), E>,
) -> Result<Replayed, E> {
    fs::create_dir_all(dir)?;
    let mut replayed = Replayed { next: first, end: 0, damage: Vec::new() };
    let mut aside = Aside { dir, target: None };
    let mut ended = false;
    let mut end = None;
    for number in segments(dir)? {
        let path = segment_path(dir, number);
        if number < first {
            fs::remove_file(path)?; // Part of the sealed state.
            continue;
        }
        if ended || number != replayed.next {
            if is_empty(&path)? {
                fs::remove_file(path)?;
                continue;
            }
            if !ended {
                replayed.damage.push(format!("journal segment {:016x} is missing", replayed.next));
                ended = true;
            }
            aside.move_there(&path)?;
            continue;
        }
        let replayed_to = match replay_segment(&path, end, &mut aside, &mut replayed.damage, &mut apply)? {
            Some(replayed_to) => replayed_to,
            None => {
                ended = true; // The end of the segment before never reached the disk: neither was ever promised to be there.
                continue;
            }
        };
        (ended, end) = (replayed_to.cut, Some(replayed_to.end));
        (replayed.next, replayed.end) = (number + 1, replayed_to.end);
    }
    if let Some(target) = aside.target {
        tracing::error!(kept = %target.display(), damage = ?replayed.damage, "the journal cannot be replayed to its end");
    }
    Ok(replayed)
}

/// Returns where the journal in `dir` says that its branch stands.
pub fn newest_standing(dir: &Path) -> io::Result<Option<Standing>> {
    let numbers = match segments(dir) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        numbers => numbers?,
    };
    for number in numbers.into_iter().rev() {
        if let Some(standing) = last_standing(&fs::read(segment_path(dir, number))?) {
            return Ok(Some(standing));
        }
    }
    Ok(None)
}

fn is_empty(path: &Path) -> io::Result<bool> {
    let mut records = 0;
    scan::<io::Error>(&fs::read(path)?, |record| {
        records += usize::from(matches!(record, Record::Operation(_)));
        Ok(())
    })?;
    Ok(records == 0)
}

/// Where the replay of a segment ended.
struct SegmentEnd {
    /// Length of what was replayed.
    end: u64,
    /// Something followed and was cut off: the replay ends here.
    cut: bool,
}

/// Replays a segment; `None` when it counts on an end of the segment before that is not there, which is set aside then.
fn replay_segment<E: From<io::Error>>(
    path: &Path,
    end_before: Option<u64>,
    aside: &mut Aside<'_>,
    damage: &mut Vec<String>,
    apply: &mut impl FnMut(Operation) -> Result<(), E>,
) -> Result<Option<SegmentEnd>, E> {
    let mut bytes = Vec::new();
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    file.read_to_end(&mut bytes)?;
    if let (Some(before), Some(expected)) = (end_before, previous_end(&bytes))
        && before < expected
    {
        tracing::warn!(path = %path.display(), before, expected, "a journal segment stands on records that never reached the disk");
        aside.move_there(path)?;
        return Ok(None);
    }
    let scanned = scan(&bytes, |record| match record {
        Record::Operation(operation) => apply(operation),
        Record::Standing(_) => Ok(()),
    })?;
    let name = path.file_name().unwrap_or_default().display();
    let cut = scanned.ending != Ending::Whole;
    match scanned.ending {
        Ending::Whole => {}
        Ending::Torn => {
            tracing::warn!(path = %path.display(), good = scanned.good, len = bytes.len(), "journal ends in a torn record")
        }
        Ending::Damaged => {
            damage.push(format!("journal segment {name} is damaged at byte {}: what follows is not replayed", scanned.good));
            aside.copy_there(path)?; // Whole, before anything is cut off.
        }
    }
    // Also of a whole one: room that it had taken and did not use.
    if let Err(err) = file.set_len(scanned.good as u64)
        && cut
    {
        return Err(err.into());
    }
    if !has_header(&bytes) || scanned.good < HEADER_BYTES {
        file.write_all_at(&header(0), 0)?;
    }
    if cut {
        file.sync_all()?;
    }
    Ok(Some(SegmentEnd { end: scanned.good.max(HEADER_BYTES) as u64, cut }))
}

/// The directory that keeps what cannot be relied on; made when there is something.
struct Aside<'a> {
    dir: &'a Path,
    target: Option<PathBuf>,
}

impl Aside<'_> {
    fn path_for(&mut self, path: &Path) -> io::Result<PathBuf> {
        let target = match &self.target {
            Some(target) => target.clone(),
            None => self.target.insert(fresh_aside(self.dir)?).clone(),
        };
        Ok(target.join(path.file_name().unwrap_or_default()))
    }

    fn copy_there(&mut self, path: &Path) -> io::Result<()> {
        let copy = self.path_for(path)?;
        fs::copy(path, &copy)?;
        File::open(&copy)?.sync_all()?;
        self.sync()
    }

    fn move_there(&mut self, path: &Path) -> io::Result<()> {
        fs::rename(path, self.path_for(path)?)?;
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        self.target.as_ref().map_or(Ok(()), |target| File::open(target)?.sync_all())
    }
}

/// Makes a directory for what is set aside in `dir`, and returns its path.
pub fn fresh_aside(dir: &Path) -> io::Result<PathBuf> {
    for number in 1u32.. {
        let target = dir.join(format!("{SET_ASIDE}{number}"));
        match fs::create_dir(&target) {
            Ok(()) => return Ok(target),
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
            Err(err) => return Err(err),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::super::journal::Journal;
    use super::*;

    fn layer(staging: u64) -> Operation {
        Operation::Layer { identity: 1, staging }
    }

    fn replayed(dir: &Path, first: u64) -> (Vec<Operation>, u64) {
        let mut seen = Vec::new();
        let next = replay::<io::Error>(dir, first, |operation| {
            seen.push(operation);
            Ok(())
        });
        (seen, next.unwrap().next)
    }

    #[test]
    fn what_was_appended_is_replayed_in_order_across_segments() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::start(dir.path(), 1, 0).unwrap();
        journal.append(&layer(1)).unwrap();
        assert_eq!(journal.rotate().unwrap(), 2);
        journal.append(&layer(2)).unwrap();
        journal.sync().wait().unwrap();
        assert_eq!(replayed(dir.path(), 1), (vec![layer(1), layer(2)], 3));
        assert_eq!(replayed(dir.path(), 2), (vec![layer(2)], 3));
    }

    /// The zeros behind a segment that could not be cut off were taken for records that the next one stands on.
    #[test]
    fn zeros_that_could_not_be_cut_off_cost_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let zeros_behind = |number: u64, len: u64| {
            let file = OpenOptions::new().write(true).open(segment_path(dir.path(), number)).unwrap();
            file.set_len(file.metadata().unwrap().len() + len).unwrap();
        };
        Journal::start(dir.path(), 1, 0).unwrap().append(&layer(1)).unwrap();
        let found = replay::<io::Error>(dir.path(), 1, |_| Ok(())).unwrap();
        zeros_behind(1, 4096); // As when ftruncate(2) fails, on a full disk say.
        Journal::start(dir.path(), found.next, found.end).unwrap().append(&layer(2)).unwrap();
        assert_eq!(replayed(dir.path(), 1), (vec![layer(1), layer(2)], 3));
    }

    #[test]
    fn a_torn_tail_ends_the_replay_and_stays_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::start(dir.path(), 1, 0).unwrap();
        journal.append(&layer(1)).unwrap();
        journal.append(&layer(2)).unwrap();
        let path = segment_path(dir.path(), 1);
        let len = fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(len - 1).unwrap();
        journal.rotate().unwrap();
        journal.append(&layer(3)).unwrap();
        assert_eq!(replayed(dir.path(), 1), (vec![layer(1)], 2));
        let mut journal = Journal::start(dir.path(), 2, 0).unwrap();
        journal.append(&layer(4)).unwrap();
        assert_eq!(replayed(dir.path(), 1), (vec![layer(1), layer(4)], 3));
    }

    /// A power cut may leave a later segment and not the end of the one before: neither had been synced.
    #[test]
    fn a_segment_is_not_replayed_over_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::start(dir.path(), 1, 0).unwrap();
        journal.append(&layer(1)).unwrap();
        let len = fs::metadata(segment_path(dir.path(), 1)).unwrap().len();
        journal.append(&layer(2)).unwrap();
        journal.rotate().unwrap();
        journal.append(&layer(3)).unwrap();
        OpenOptions::new().write(true).open(segment_path(dir.path(), 1)).unwrap().set_len(len).unwrap();
        assert_eq!(replayed(dir.path(), 1), (vec![layer(1)], 2));
        assert_eq!(replayed(dir.path(), 1), (vec![layer(1)], 2), "and not later either");
    }

    #[test]
    fn zeros_behind_the_records_of_any_segment_are_room_that_was_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::start(dir.path(), 1, 0).unwrap();
        journal.sync().wait().unwrap(); // From now on zeros are written ahead.
        journal.append(&layer(1)).unwrap();
        assert!(fs::metadata(segment_path(dir.path(), 1)).unwrap().len() > 100_000);
        journal.append(&layer(2)).unwrap();
        journal.rotate().unwrap();
        journal.append(&layer(3)).unwrap();
        assert_eq!(replayed(dir.path(), 1), (vec![layer(1), layer(2), layer(3)], 3));
        assert!(fs::metadata(segment_path(dir.path(), 1)).unwrap().len() < 1000);
        assert_eq!(replayed(dir.path(), 1), (vec![layer(1), layer(2), layer(3)], 3));
    }

    #[test]
    fn a_flipped_byte_never_gives_another_operation() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::start(dir.path(), 1, 0).unwrap();
        journal.append(&layer(1)).unwrap();
        journal.append(&layer(2)).unwrap();
        let bytes = fs::read(segment_path(dir.path(), 1)).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            fs::write(segment_path(dir.path(), 1), &flipped).unwrap();
            let (seen, _) = replayed(dir.path(), 1);
            assert!([&[][..], &[layer(1)], &[layer(1), layer(2)]].contains(&&seen[..]), "byte {at}: {seen:?}");
        }
    }
}
