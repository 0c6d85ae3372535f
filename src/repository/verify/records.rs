//! Do the tables say what the objects say?

use super::trees::{Mark, Marks};
use super::{Check, Finding, Verified, failed};
use crate::history::{CommitRow, Memento};
use crate::object::Commit;
use crate::repository::Repository;
use crate::repository::commits::memento_of;

impl Repository {
    /// Compares each checkpoint's row with its record, and with `read_data` its changes with the states they lie between.
    pub(super) fn verify_records(&self, check: &Check<'_>, marks: &mut Marks, found: &mut Verified) {
        let total = self.history.counters().map_or(0, |counters| counters.iter().take(2).map(|(_, count)| *count as u64).sum());
        let scanned = self.history.each_commit(|row| {
            found.checkpoints += 1;
            (check.progress)("checkpoints", found.checkpoints, total);
            match row {
                Ok((row, deleted)) => self.verify_record(&row, deleted, check, marks, found),
                Err(err) => {
                    found.findings.push(Finding::new("database", format!("the row of a checkpoint cannot be read: {err}")))
                }
            }
        });
        if let Err(err) = scanned {
            found.findings.push(failed("database", &err.into()));
        }
    }

    fn verify_record(&self, row: &CommitRow, deleted: bool, check: &Check<'_>, marks: &mut Marks, found: &mut Verified) {
        let mark = marks.entry(row.id).or_default();
        if mark.has(Mark::DAMAGED) {
            let mine = found.findings.iter_mut().find(|finding| finding.object == Some(row.id));
            if let Some(finding) = mine {
                finding.sentence += &format!("; it is the record of checkpoint {}", row.id);
            }
            return;
        }
        let record = self.read_stored(&row.id).map_err(|err| err.to_string());
        let record =
            record.and_then(|bytes| Commit::decode(&bytes).map_err(|err| format!("object {} is damaged: {err}", row.id)));
        match record {
            Ok(record) => {
                if let Some(what) = difference(row, &record) {
                    let sentence = format!("the database says another {what} of checkpoint {} than its record", row.id);
                    found.findings.push(Finding::new("database", sentence));
                } else if check.read_data && !deleted {
                    self.verify_changes(row, found);
                }
            }
            Err(sentence) => {
                *mark |= Mark::DAMAGED;
                let sentence = format!("{sentence}; it is the record of checkpoint {}", row.id);
                found.findings.push(Finding::of_object(row.id, sentence));
            }
        }
    }

    /// Compares what a checkpoint is recorded to have done with the states before and after it, where both can be read.
    fn verify_changes(&self, row: &CommitRow, found: &mut Verified) {
        let before = match &row.parent {
            None => None,
            Some(parent) => match self.commit(parent) {
                Ok(parent) => Some(parent.root_tree),
                Err(_) => return, // A finding of its own.
            },
        };
        if before.is_some_and(|root| self.read_stored(&root).is_err()) {
            return; // The checkpoint before is deleted, and its content gone.
        }
        let Ok(changes) = self.changes_between(before.as_ref(), &row.root_tree) else { return };
        let mut expected: Vec<_> = changes.iter().map(memento_of).map(as_recorded).collect();
        expected.sort();
        expected.dedup_by(|a, b| a.0 == b.0);
        match self.history.recorded_changes(&row.id) {
            Ok(recorded) if recorded == expected => {}
            Ok(_) => {
                let sentence = format!("the database says other changes of checkpoint {} than its states do", row.id);
                found.findings.push(Finding::new("database", sentence));
            }
            Err(err) => found.findings.push(failed("database", &err.into())),
        }
    }

    /// Compares the events with what is written beside the database.
    pub(super) fn verify_mirror(&self, found: &mut Verified) {
        let mirrored = match self.history.mirrored() {
            Ok(mirrored) => mirrored,
            Err(err) => return found.findings.push(Finding::new("events", format!("events.log cannot be read: {err}"))),
        };
        for line in &mirrored.damaged {
            found.findings.push(Finding::new("events", format!("line {line} of events.log is damaged")));
        }
        let mut after = 0;
        let mut written = mirrored.events.iter().peekable();
        loop {
            let events = match self.history.events_since(after, 1000) {
                Ok(events) => events,
                Err(err) => return found.findings.push(failed("database", &err.into())),
            };
            let Some(last) = events.last() else { break };
            after = last.seq;
            for event in &events {
                while written.next_if(|other| other.seq < event.seq).is_some() {}
                if written.peek().is_some_and(|other| other.seq == event.seq) && written.next() != Some(event) {
                    let sentence = format!("event {} is another in the database than in events.log", event.seq);
                    found.findings.push(Finding::new("database", sentence));
                }
            }
        }
        if let Some(last) = mirrored.events.last().filter(|last| last.seq > after) {
            let sentence = format!("the database lost its last events: it ends at {after}, events.log at {}", last.seq);
            found.findings.push(Finding::new("database", sentence));
        }
    }
}

fn difference(row: &CommitRow, record: &Commit) -> Option<&'static str> {
    let same = [
        (record.id() == row.id, "id"),
        (record.parent == row.parent, "parent"),
        (record.root == row.root_tree, "state"),
        (record.time.nanos_since_epoch() == row.time.nanos_since_epoch(), "time"),
        (record.message == row.message, "message"),
        (record.metadata == row.meta, "metadata"),
        (record.branch == row.branch, "branch"),
        (record.author == row.author, "author"),
        (record.kind == row.kind, "kind"),
    ];
    same.into_iter().find(|(same, _)| !same).map(|(_, what)| what)
}

type RecordedChange = (Vec<u8>, String, Option<Vec<u8>>, Option<String>, Option<i64>, Option<i64>);

fn as_recorded(memento: Memento) -> RecordedChange {
    (
        memento.path,
        memento.change.to_owned(),
        memento.from_path,
        memento.object.map(|id| id.to_hex()),
        memento.size_bytes.map(|size| size as i64),
        memento.mode.map(i64::from),
    )
}
