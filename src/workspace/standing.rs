//! Where a branch stands, written into its journal: the state its changes are to be replayed over.
//!
//! The database says the same and is asked first. The journal's word is what is left when the database is lost or went
//! back in time, and what shows that it did.

use super::error::WorkspaceError;
use super::{journal, replay};
use crate::history::{BranchRow, BranchState};
use crate::object::{DecodeError, ObjectId, Reader, Writer};
use crate::repository::Repository;
use crate::tree::NodeSource;
use std::path::Path;

/// A branch, its newest checkpoint, and the sealed state below its journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its number.
    pub branch_id: i64,
    /// Its name.
    pub branch: String,
    /// Its newest checkpoint.
    pub head: Option<ObjectId>,
    /// The state of its last seal.
    pub live_root: ObjectId,
    /// The first segment to replay over that.
    pub journal_seq: u64,
}

impl Standing {
    /// Marks the record; no operation begins so.
    pub const TAG: u8 = 0xF0;

    /// Appends the encoding.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u8(Self::TAG);
        writer.int(self.branch_id);
        writer.bytes(self.branch.as_bytes());
        match &self.head {
            None => writer.u8(0),
            Some(id) => {
                writer.u8(1);
                writer.id(id);
            }
        }
        writer.id(&self.live_root);
        writer.uint(self.journal_seq);
    }

    /// Takes an encoding.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.u8()? != Self::TAG {
            return Err(DecodeError::new("not a standing"));
        }
        let branch_id = reader.int()?;
        let branch = reader.text()?.to_owned();
        let head = match reader.u8()? {
            0 => None,
            1 => Some(reader.id()?),
            _ => return Err(DecodeError::new("unknown head form")),
        };
        Ok(Self { branch_id, branch, head, live_root: reader.id()?, journal_seq: reader.uint()? })
    }
}

/// What to replay over what, and what was wrong with the database's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The newest checkpoint.
    pub head: Option<ObjectId>,
    /// The sealed state.
    pub live_root: ObjectId,
    /// The first segment.
    pub journal_seq: u64,
    /// Why the journal is believed and not the database.
    pub distrust: Option<String>,
}

/// Decides between what the database and the journal say; `segments` exist, `readable` says whether a state can be read.
pub fn choose(row: &BranchRow, journal: Option<&Standing>, segments: &[u64], readable: impl Fn(&ObjectId) -> bool) -> Choice {
    let by_row = |distrust| Choice { head: row.head, live_root: row.live_root, journal_seq: row.journal_seq, distrust };
    let Some(journal) = journal.filter(|journal| journal.branch_id == row.id) else { return by_row(None) };
    let by_journal = |why: &str| Choice {
        head: journal.head,
        live_root: journal.live_root,
        journal_seq: journal.journal_seq,
        distrust: Some(format!("{why}; what the journal says is used")),
    };
    if (row.live_root, row.journal_seq) == (journal.live_root, journal.journal_seq) {
        return by_row(None);
    }
    let journal_fits = is_unbroken(segments, journal.journal_seq) && readable(&journal.live_root);
    if row.live_root == journal.live_root && journal_fits {
        let why = format!("the database says to replay from segment {}, and not {}", row.journal_seq, journal.journal_seq);
        // Replaying more than needed over the same state gives the same files again; replaying less loses some.
        return Choice { head: row.head, ..by_journal(&why) };
    }
    if row.journal_seq > journal.journal_seq && readable(&row.live_root) {
        // The daemon died between its transaction and the record of it; or a power cut took the names of newer segments, which
        // not every file system writes before what is synced after them.
        return by_row(None);
    }
    if journal_fits {
        return by_journal("the database does not know the last state of the branch");
    }
    by_row(Some("the journal stands on a state that is not there".into()))
}

/// Asks the database and the journal in `journal_dir` where a branch stands.
pub fn decide(repository: &Repository, row: &BranchRow, journal_dir: &Path) -> Result<Choice, WorkspaceError> {
    let journal = replay::newest_standing(journal_dir)?;
    let numbers = if journal.is_some() { journal::segments(journal_dir)? } else { Vec::new() };
    let is_known = |id: &ObjectId| repository.root(id).is_ok();
    if let Some(journal) = journal.as_ref().filter(|journal| journal.journal_seq > row.journal_seq)
        && !is_known(&journal.live_root)
    {
        repository.find_lost_objects()?; // The transaction that named them is gone.
    }
    let choice = choose(row, journal.as_ref(), &numbers, is_known);
    if let Some(why) = &choice.distrust {
        repository.note_trouble(&format!("branch {}: {why}", row.name));
    }
    Ok(choice)
}

/// Returns the newest checkpoint of a branch with its state. One that is not recorded gives way to the newest that is.
pub fn head_of(
    repository: &Repository,
    branch: &BranchRow,
    head: Option<ObjectId>,
) -> Result<(Option<ObjectId>, Option<ObjectId>), WorkspaceError> {
    let Some(head) = head else { return Ok((None, None)) };
    let damage = match repository.commit(&head) {
        Ok(row) => return Ok((Some(head), Some(row.root_tree))),
        Err(err) => err,
    };
    let newest = repository.history().log(branch.id, Some(1))?.into_iter().next();
    repository.note_trouble(&format!("branch {} stands on a checkpoint that is not recorded: {damage}", branch.name));
    Ok((newest.as_ref().map(|row| row.id), newest.map(|row| row.root_tree)))
}

/// Puts the database right where it was not believed.
pub fn correct(repository: &Repository, row: &BranchRow, head: Option<ObjectId>, choice: &Choice) -> Result<(), WorkspaceError> {
    let Choice { live_root, journal_seq, .. } = *choice;
    if (row.head, row.live_root, row.journal_seq) != (head, live_root, journal_seq) {
        let state = BranchState { head, live_root, journal_seq };
        repository.history().place_branch(row.id, &row.name, &state)?;
    }
    Ok(())
}

/// Says whether a replay from `first` on misses no segment.
pub fn is_unbroken(segments: &[u64], first: u64) -> bool {
    let from_first = segments.iter().filter(|number| **number >= first);
    let next = segments.last().map_or(first, |last| last + 1);
    from_first.copied().eq(first..next) && first <= next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(at: u8) -> ObjectId {
        ObjectId::of(&[at])
    }

    fn row(at: u8, journal_seq: u64) -> BranchRow {
        BranchRow { id: 1, name: "main".into(), head: None, live_root: root(at), journal_seq }
    }

    fn standing(at: u8, journal_seq: u64) -> Standing {
        let head = Some(root(100));
        Standing { branch_id: 1, branch: "main".into(), head, live_root: root(at), journal_seq }
    }

    #[test]
    fn a_standing_round_trips() {
        let mut writer = Writer::new();
        standing(1, 7).encode(&mut writer);
        let bytes = writer.finish();
        assert_eq!(Standing::decode(&mut Reader::new(&bytes)), Ok(standing(1, 7)));
        assert!((0..bytes.len()).all(|len| Standing::decode(&mut Reader::new(&bytes[..len])).is_err()));
    }

    #[test]
    fn the_database_is_believed_unless_it_lost_something() {
        let chosen = |row: &BranchRow, journal: Standing, segments: &[u64]| {
            let choice = choose(row, Some(&journal), segments, |id| *id != root(9));
            (choice.live_root, choice.journal_seq, choice.distrust.is_some())
        };
        assert_eq!(chosen(&row(1, 4), standing(1, 4), &[4, 5]), (root(1), 4, false));
        assert_eq!(chosen(&row(2, 5), standing(1, 4), &[4, 5]), (root(2), 5, false), "the record lags behind");
        assert_eq!(chosen(&row(2, 5), standing(1, 4), &[4]), (root(2), 5, false), "the next segment is not there yet");
        assert_eq!(chosen(&row(1, 3), standing(2, 5), &[5, 6]), (root(2), 5, true), "the database went back");
        assert_eq!(chosen(&row(1, 6), standing(1, 4), &[4, 5, 6]), (root(1), 4, true), "a segment would be left out");
        assert_eq!(chosen(&row(1, 900), standing(1, 4), &[4]), (root(1), 4, true));
        assert_eq!(chosen(&row(9, 5), standing(1, 4), &[4, 5]), (root(1), 4, true), "the state cannot be read");
        assert_eq!(
            chosen(&row(3, 6), standing(1, 4), &[4]),
            (root(3), 6, false),
            "the names of later segments never reached the disk"
        );
        assert_eq!(choose(&row(1, 4), None, &[], |_| true).distrust, None);
    }
}
