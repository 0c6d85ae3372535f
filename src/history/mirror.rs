//! The events once more, as lines of a plain file beside the database: what names, links and deletions are known from
//! when the database is lost, and how a database that went back in time is noticed.
//!
//! A line is the CRC-32 of what follows it, a space, and one JSON object. Lines are appended after their transaction and
//! never synced on their own: a power cut may take the newest ones, and the next start writes them again.

use super::outbox::Event;
use crate::object::Timestamp;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Name of the file in the store.
pub const FILE_NAME: &str = "events.log";
/// The last line is looked for in this much of the end first.
const TAIL_BYTES: u64 = 64 << 10;

/// The file, open for appending.
pub struct Mirror {
    state: Mutex<State>,
}

struct State {
    file: Option<File>,
    last_seq: i64,
}

/// What the file holds.
#[derive(Debug, Default)]
pub struct MirrorContent {
    /// Its events, in order.
    pub events: Vec<Event>,
    /// Numbers of the lines that are damaged, from 1. A last line that is cut short is none.
    pub damaged: Vec<usize>,
}

impl Mirror {
    /// Opens the file beside the database at `database`. One that cannot be opened is done without.
    pub fn open(database: &Path) -> Self {
        let opened = open_at(&path_beside(database));
        let (file, last_seq) = match opened {
            Ok((file, last_seq)) => (Some(file), last_seq),
            Err(err) => {
                tracing::warn!(%err, "events are not written a second time");
                (None, 0)
            }
        };
        Self { state: Mutex::new(State { file, last_seq }) }
    }

    /// Returns the number of the last event in the file.
    pub fn last_seq(&self) -> i64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).last_seq
    }

    /// Appends what `events_after` returns for the number of the last line. A failure costs a line until the next start.
    pub fn follow<E: std::fmt::Display>(&self, events_after: impl FnOnce(i64) -> Result<Vec<Event>, E>) -> usize {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let events = match events_after(state.last_seq) {
            Ok(events) => events,
            Err(err) => {
                tracing::debug!(%err, "events were not written a second time");
                return 0;
            }
        };
        let (Some(last), Some(file)) = (events.last(), state.file.as_mut()) else { return 0 };
        let lines: String = events.iter().map(line_of).collect();
        match file.write_all(lines.as_bytes()) {
            Ok(()) => state.last_seq = last.seq,
            // A part of a line may be there; the next start cuts it off.
            Err(err) => {
                tracing::debug!(%err, "events were not written a second time");
                state.file = None;
            }
        }
        events.len()
    }
}

fn path_beside(database: &Path) -> PathBuf {
    database.with_file_name(FILE_NAME)
}

fn open_at(path: &Path) -> io::Result<(File, i64)> {
    let mut file = File::options().read(true).append(true).create(true).mode(0o600).open(path)?;
    let len = file.metadata()?.len();
    if len == 0 {
        return Ok((file, 0));
    }
    let start = len.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let mut last_seq = tail.split(|byte| *byte == b'\n').rev().find_map(parse_line).map(|event| event.seq);
    if last_seq.is_none() && start > 0 {
        last_seq = read(path)?.events.last().map(|event| event.seq);
    }
    let torn = tail.iter().rev().take_while(|byte| **byte != b'\n').count();
    if torn > 0 && torn < tail.len() + usize::from(start == 0) && parse_line(&tail[tail.len() - torn..]).is_none() {
        file.set_len(len - torn as u64)?; // Cut short by a crash: the database has the event, and it is written again.
    } else if torn > 0 {
        file.write_all(b"\n")?;
    }
    Ok((file, last_seq.unwrap_or(0)))
}

/// Reads the file beside the database at `database`, empty when there is none.
pub fn read_beside(database: &Path) -> io::Result<MirrorContent> {
    match read(&path_beside(database)) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(MirrorContent::default()),
        read => read,
    }
}

fn read(path: &Path) -> io::Result<MirrorContent> {
    let mut content = MirrorContent::default();
    let mut lines = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let whole = line.pop_if(|last| *last == b'\n').is_some();
        match parse_line(&line) {
            Some(event) => content.events.push(event),
            None if whole && !line.is_empty() => content.damaged.push(number),
            None => {}
        }
    }
    content.events.sort_by_key(|event| event.seq);
    content.events.dedup_by_key(|event| event.seq);
    Ok(content)
}

/// Writes the file anew, beside the database at `database`; the old one is there until the new one is whole.
pub fn rewrite(database: &Path, events: &[Event]) -> io::Result<()> {
    let path = path_beside(database);
    let fresh = path.with_extension("new");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    let lines: String = events.iter().map(line_of).collect();
    file.write_all(lines.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(fresh, path)
}

fn line_of(event: &Event) -> String {
    let object = json!({
        "seq": event.seq,
        "type": event.event_type,
        "payload": event.payload,
        "idempotency_key": event.idempotency_key,
        "time": event.time.nanos_since_epoch(),
    });
    let object = object.to_string();
    format!("{:08x} {object}\n", crc32fast::hash(object.as_bytes()))
}

fn parse_line(line: &[u8]) -> Option<Event> {
    let (checksum, object) = line.split_at_checked(9)?;
    let checksum = std::str::from_utf8(checksum.strip_suffix(b" ")?).ok()?;
    if u32::from_str_radix(checksum, 16).ok()? != crc32fast::hash(object) {
        return None;
    }
    let object: Value = serde_json::from_slice(object).ok()?;
    let text = |key: &str| object[key].as_str().map(str::to_owned);
    Some(Event {
        seq: object["seq"].as_i64().filter(|seq| *seq > 0)?,
        event_type: text("type")?,
        payload: text("payload")?,
        idempotency_key: text("idempotency_key")?,
        time: Timestamp::from_nanos(object["time"].as_i64()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: i64) -> Event {
        Event {
            seq,
            event_type: "checkpoint.created".into(),
            payload: "{\"message\":\"line\\nbreak\"}".into(),
            idempotency_key: format!("commit:{seq}"),
            time: Timestamp::from_nanos(seq),
        }
    }

    fn follow(mirror: &Mirror, upto: i64) {
        mirror.follow::<io::Error>(|after| Ok((after + 1..=upto).map(event).collect()));
    }

    #[test]
    fn events_come_back_and_a_torn_or_damaged_line_costs_itself_alone() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("store.db");
        follow(&Mirror::open(&database), 3);
        let path = path_beside(&database);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"00000000 {\"seq\":4,");
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let mirror = Mirror::open(&database);
        assert_eq!(mirror.last_seq(), 3);
        follow(&mirror, 4);
        let content = read_beside(&database).unwrap();
        assert_eq!(content.events, [event(2), event(3), event(4)]);
        assert_eq!(content.damaged, [1]); // What was cut short was cut off.
        rewrite(&database, &[event(1)]).unwrap();
        assert_eq!(read_beside(&database).unwrap().events, [event(1)]);
    }

    #[test]
    fn a_line_that_was_cut_short_at_any_byte_is_written_again_and_is_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("store.db");
        let whole: String = [event(1), event(2)].iter().map(line_of).collect();
        for len in 0..=whole.len() {
            std::fs::write(path_beside(&database), &whole[..len]).unwrap();
            let mirror = Mirror::open(&database);
            let last = mirror.last_seq();
            follow(&mirror, 2);
            let content = read_beside(&database).unwrap();
            assert_eq!(content.damaged, Vec::<usize>::new(), "cut at {len}, last event {last}");
            assert_eq!(content.events, [event(1), event(2)], "cut at {len}, last event {last}");
        }
    }
}
