//! Looks at journals and staging files without opening a branch: what a replay would find. Changes nothing.

use super::journal::{segment_path, segments};
use super::operation::Operation;
use super::replay::{SET_ASIDE, newest_standing};
use super::segment::{Ending, Record, has_header, scan};
use super::staging_dir::number_of;
use super::standing::{choose, is_unbroken};
use crate::history::{BranchRow, BranchState};
use crate::repository::{Finding, FoundBranch, Repository};
use crate::tree::NodeSource;
use std::collections::HashSet;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What was found.
#[derive(Debug, Default)]
pub struct Inspected {
    /// Records that a replay will apply.
    pub records: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What is worth knowing and not wrong.
    pub notes: Vec<String>,
}

/// Looks at the journal and the staging files of every branch.
pub fn inspect(repository: &Repository) -> Inspected {
    let mut found = Inspected::default();
    let branches = repository.history().branches().unwrap_or_default(); // A database that says nothing is found elsewhere.
    for row in &branches {
        if let Err(err) = found.branch(repository, row) {
            found.findings.push(Finding::new("journal", format!("the journal of branch {} cannot be read: {err}", row.name)));
        }
    }
    for part in ["journal", "staging"] {
        let deleted = repository.history().deleted_branches().unwrap_or_default();
        let known: HashSet<String> = branches.iter().map(|row| row.id).chain(deleted).map(|id| id.to_string()).collect();
        for name in names_in(&repository.path().join(part)) {
            if name.starts_with(SET_ASIDE) {
                found.notes.push(format!("{part}/{name} keeps what could not be used; remove it when it is of no use to you"));
            } else if !known.contains(&name) {
                found.notes.push(format!("{part}/{name} belongs to no branch"));
            }
        }
    }
    found
}

/// Returns where the journals of a store say that its branches stand, as far as they can be replayed from there.
pub fn found_branches(store: &Path) -> io::Result<Vec<FoundBranch>> {
    let journals = store.join("journal");
    let mut found = Vec::new();
    for name in names_in(&journals) {
        let dir = journals.join(&name);
        if name.parse::<i64>().is_err() || !dir.is_dir() {
            continue;
        }
        let Some(standing) = newest_standing(&dir)? else { continue };
        if name == standing.branch_id.to_string() && is_unbroken(&segments(&dir)?, standing.journal_seq) {
            let (head, live_root, journal_seq) = (standing.head, standing.live_root, standing.journal_seq);
            found.push(FoundBranch {
                id: standing.branch_id,
                name: standing.branch,
                state: BranchState { head, live_root, journal_seq },
                identity_max: largest_identity(&dir)?,
            });
        }
    }
    Ok(found)
}

/// Returns the largest identity that a journal gives to a new file.
fn largest_identity(dir: &Path) -> io::Result<u64> {
    let mut largest = 0;
    for number in segments(dir)? {
        let Ok(_) = scan::<Infallible>(&fs::read(segment_path(dir, number))?, |record| {
            if let Record::Operation(Operation::Create { identity, .. }) = record {
                largest = largest.max(identity);
            }
            Ok(())
        });
    }
    Ok(largest)
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

impl Inspected {
    fn branch(&mut self, repository: &Repository, row: &BranchRow) -> io::Result<()> {
        let dir = repository.path().join("journal").join(row.id.to_string());
        let numbers = match segments(&dir) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Vec::new(), // Never mounted.
            numbers => numbers?,
        };
        let standing = newest_standing(&dir)?;
        let choice = choose(row, standing.as_ref(), &numbers, |id| repository.root(id).is_ok());
        if let Some(why) = choice.distrust {
            self.findings.push(Finding::new("database", format!("branch {}: {why}", row.name)));
        }
        let mut staged = HashSet::new();
        let mut next = choice.journal_seq;
        for number in numbers.into_iter().filter(|number| *number >= choice.journal_seq) {
            if number != next {
                let sentence = format!("branch {}: journal segment {next:016x} is missing", row.name);
                self.findings.push(Finding::new("journal", sentence));
            }
            next = number + 1;
            self.segment(&segment_path(&dir, number), row, &mut staged)?;
        }
        self.staging(repository, row, &staged);
        for name in names_in(&dir).into_iter().filter(|name| name.starts_with(SET_ASIDE)) {
            let part = format!("journal/{}/{name}", row.id);
            self.notes.push(format!("{part} keeps what could not be replayed; remove it when it is of no use to you"));
        }
        Ok(())
    }

    fn segment(&mut self, path: &Path, row: &BranchRow, staged: &mut HashSet<u64>) -> io::Result<()> {
        let bytes = fs::read(path)?;
        let Ok(scanned) = scan::<Infallible>(&bytes, |record| {
            self.records += 1;
            if let Record::Operation(Operation::Layer { staging, .. } | Operation::Hand { staging, .. }) = record {
                staged.insert(staging);
            }
            Ok(())
        });
        let name = path.file_name().unwrap_or_default().display();
        let place = format!("branch {}: journal segment {name}", row.name);
        match scanned.ending {
            Ending::Damaged => {
                let sentence = format!("{place} is damaged at byte {}: changes from there on are lost", scanned.good);
                self.findings.push(Finding::new("journal", sentence));
            }
            Ending::Torn => {
                let rest = bytes.len() - scanned.good;
                self.notes.push(format!("{place} ends in {rest} bytes of a change that was being written when the daemon ended"));
            }
            Ending::Whole if !has_header(&bytes) => {
                self.findings.push(Finding::new("journal", format!("{place} has a damaged header; its records are whole")));
            }
            Ending::Whole => {}
        }
        Ok(())
    }

    fn staging(&mut self, repository: &Repository, row: &BranchRow, staged: &HashSet<u64>) {
        let dir: PathBuf = repository.path().join("staging").join(row.id.to_string());
        let mut unnamed = 0;
        for name in names_in(&dir) {
            match number_of(name.as_ref()) {
                Some(number) if staged.contains(&number) => {}
                Some(_) => unnamed += 1,
                None if name.starts_with(SET_ASIDE) => {
                    let part = format!("staging/{}/{name}", row.id);
                    self.notes.push(format!("{part} keeps what could not be used; remove it when it is of no use to you"));
                }
                None => self.notes.push(format!("staging/{}/{name} is none of ours", row.id)),
            }
        }
        if unnamed > 0 {
            self.notes
                .push(format!("branch {}: {unnamed} staging files belong to no change; the next mount removes them", row.name));
        }
    }
}
