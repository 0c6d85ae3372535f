//! `fsck --repair`: makes the store consistent without inventing content. What is lost is listed, never made up.
//!
//! Each step writes what is new before it takes anything away, so it can be killed at any instant and run again.

use super::rebuild::{FoundBranch, open_locked, rebuild_database};
use super::verify::{Check, Verified};
use super::{FIRST_SEGMENT, Repository, RepositoryError};
use crate::history::{BranchRow, BranchState};
use crate::object::{Container, ObjectId};
use crate::tree::NodeSource;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

/// What a repair did.
#[derive(Debug)]
pub struct Repaired {
    /// What was done, a sentence each.
    pub done: Vec<String>,
    /// What a check finds afterwards: what is lost for good.
    pub left: Verified,
}

/// Repairs the store at `path`. `branches` returns where the journals say that branches stand.
pub fn repair(
    path: &Path,
    branches: &dyn Fn() -> io::Result<Vec<FoundBranch>>,
    check: &Check<'_>,
) -> Result<Repaired, RepositoryError> {
    let mut done = Vec::new();
    let branches = branches().map_err(|source| RepositoryError::Io { what: "cannot read the journals", source })?;
    let thorough = Check { read_data: true, progress: check.progress };
    let (repository, found) = match Repository::open_as_is(path) {
        Ok(repository) => {
            let found = repository.verify(&thorough);
            (Some(repository), found)
        }
        Err(RepositoryError::History(err)) => {
            done.push(format!("the database cannot be used: {err}"));
            (None, Verified::default())
        }
        Err(err) => return Err(err),
    };
    let unsound = found.findings.iter().any(|finding| finding.about == "database");
    let (repository, found) = match repository {
        Some(repository) if !unsound => (repository, found),
        other => {
            drop(other);
            let (dir, lock) = open_locked(path)?;
            rebuild_database(dir, lock, &branches, &mut done)?;
            let repository = Repository::open_as_is(path)?;
            let found = repository.verify(&thorough);
            (repository, found)
        }
    };
    repository.mend(&found, &branches, &mut done)?;
    Ok(Repaired { done, left: repository.verify(&thorough) })
}

impl Repository {
    fn mend(&self, found: &Verified, branches: &[FoundBranch], done: &mut Vec<String>) -> Result<(), RepositoryError> {
        if found.findings.iter().any(|finding| finding.about == "pack") {
            self.mend_packs(done)?;
        }
        let lost: HashSet<ObjectId> = found.lost().filter_map(|finding| finding.object).collect();
        let gone = self.replace_lost(&lost)?;
        if !lost.is_empty() {
            let again = lost.len() - gone.len();
            done.push(format!("{again} damaged objects were found whole elsewhere, {} are lost", gone.len()));
        }
        for row in self.history.branches()? {
            self.mend_branch(&row, branches, done)?;
        }
        if found.findings.iter().any(|finding| finding.about == "events") {
            self.history.rewrite_mirror()?;
            done.push("events.log was written anew".into());
        }
        Ok(())
    }

    /// Writes headers anew: all they say is known. A large object whose list is damaged makes way for packs.
    fn mend_packs(&self, done: &mut Vec<String>) -> Result<(), RepositoryError> {
        let mut mended = 0u64;
        for container in self.history.usage()?.into_keys() {
            if self.packs.check_header(container).is_err() {
                let done_so = match container {
                    Container::Pack(number) => self.packs.mend_header(number).map_err(RepositoryError::from),
                    Container::Large(_) => self.rewrite(container),
                };
                match done_so {
                    Ok(()) => mended += 1,
                    Err(err) if err.is_full() => return Err(err),
                    Err(err) => done.push(err.to_string()), // The file is not there, say: what it held is lost.
                }
            }
        }
        let mut objects = Vec::new();
        self.history.each_object(|id, kind, location, _| {
            if self.packs.check_frame(&id, kind, &location).is_err() {
                objects.push((id, kind, location));
            }
        })?;
        for (id, kind, location) in objects {
            if self.packs.read(&id, &location).is_ok() {
                self.packs.mend_frame(&id, kind, &location)?;
                mended += 1;
            }
        }
        done.push(format!("{mended} headers in packs were written anew"));
        Ok(())
    }

    /// A branch whose state cannot be read goes where its journal says, or to its newest checkpoint that can be read.
    fn mend_branch(&self, row: &BranchRow, branches: &[FoundBranch], done: &mut Vec<String>) -> Result<(), RepositoryError> {
        let is_readable = |root: &ObjectId| self.root(root).is_ok();
        let has_head = row.head.is_none_or(|head| self.commit(&head).is_ok());
        if is_readable(&row.live_root) && has_head {
            return Ok(());
        }
        let found = branches.iter().find(|branch| branch.id == row.id && is_readable(&branch.state.live_root));
        let found = found.filter(|branch| branch.state.live_root != row.live_root);
        if let Some(branch) = found {
            self.history.place_branch(row.id, &row.name, &branch.state)?;
            done.push(format!("the branch {} stands where its journal says", row.name));
            return Ok(());
        }
        let newest = self.history.log(row.id, None)?.into_iter().find(|commit| is_readable(&commit.root_tree));
        let Some(newest) = newest else {
            done.push(format!("the branch {} stands on nothing that can be read", row.name));
            return Ok(());
        };
        let live_root = if is_readable(&row.live_root) { row.live_root } else { newest.root_tree };
        if live_root != row.live_root {
            self.set_journal_aside(row.id, done)?;
        }
        let journal_seq = if live_root == row.live_root { row.journal_seq } else { FIRST_SEGMENT };
        self.history.place_branch(row.id, &row.name, &BranchState { head: Some(newest.id), live_root, journal_seq })?;
        done.push(format!("the branch {} stands on checkpoint {} now: its own state cannot be read", row.name, newest.id));
        Ok(())
    }

    /// What was changed over a state that is lost cannot be replayed over another; it is kept.
    fn set_journal_aside(&self, branch_id: i64, done: &mut Vec<String>) -> Result<(), RepositoryError> {
        for part in ["journal", "staging"] {
            let dir = self.path().join(part);
            let own = dir.join(branch_id.to_string());
            if !own.exists() {
                continue;
            }
            let aside = (1u32..).map(|number| dir.join(format!("damaged-{branch_id}-{number}"))).find(|path| !path.exists());
            let aside = aside.ok_or_else(|| RepositoryError::Other("too much is set aside".into()))?;
            fs::rename(&own, &aside).map_err(|source| RepositoryError::Io { what: "cannot set the journal aside", source })?;
            done.push(format!("what cannot be replayed is kept as {}", aside.display()));
        }
        Ok(())
    }
}
