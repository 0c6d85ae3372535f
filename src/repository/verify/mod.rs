//! `fsck`: is everything there, and is it what it was? Changes nothing.
//!
//! Objects first: does each lie where the index says. Then directories, each node once, from every state that is kept:
//! what is damaged in them is told as checkpoints and paths. Then the tables, against the objects and against themselves.

mod objects;
mod places;
mod records;
mod trees;

use super::{Repository, RepositoryError};
use crate::object::ObjectId;
use std::collections::HashMap;
use trees::Marks;

/// How to check.
pub struct Check<'a> {
    /// Reads and hashes every byte.
    pub read_data: bool,
    /// Told how far the check is: what is being looked at, how many of how many.
    pub progress: &'a (dyn Fn(&str, u64, u64) + Sync),
}

/// What a kept state is kept for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A checkpoint.
    Checkpoint(ObjectId),
    /// The live tree of a branch, as it was sealed last.
    Branch(String),
    /// An undo.
    Operation,
}

/// Somewhere that is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whose state.
    pub holder: Holder,
    /// The path in it, empty for all of it.
    pub path: Vec<u8>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What it is about: `object`, `database`, `journal` and so on.
    pub about: &'static str,
    /// What is wrong.
    pub sentence: String,
    /// The object, if it is one.
    pub object: Option<ObjectId>,
    /// What it damages, as people see it.
    pub places: Vec<Place>,
}

impl Finding {
    /// Makes a finding about something other than an object.
    pub fn new(about: &'static str, sentence: impl Into<String>) -> Self {
        Self { about, sentence: sentence.into(), object: None, places: Vec::new() }
    }

    fn of_object(id: ObjectId, sentence: String) -> Self {
        Self { about: "object", sentence, object: Some(id), places: Vec::new() }
    }
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Verified {
    /// Objects looked at.
    pub objects: u64,
    /// Bytes they take on disk.
    pub stored_bytes: u64,
    /// Different directory nodes looked at.
    pub nodes: u64,
    /// Checkpoints looked at, deleted ones too.
    pub checkpoints: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What is worth knowing and not wrong.
    pub notes: Vec<String>,
}

impl Verified {
    /// Returns what can be read nowhere any more: the objects that are damaged or missing.
    pub fn lost(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.object.is_some())
    }
}

impl Repository {
    /// Checks the store.
    pub fn verify(&self, check: &Check<'_>) -> Verified {
        let mut found = Verified::default();
        (check.progress)("database", 0, 1);
        let integrity = self.history.integrity();
        let sound = integrity.is_empty();
        found.findings.extend(integrity.into_iter().map(|line| Finding::new("database", line)));
        let mut marks = Marks::default();
        self.verify_objects(check, &mut marks, &mut found);
        let roots = self.verify_trees(check, &mut marks, &mut found);
        self.verify_records(check, &mut marks, &mut found);
        if sound {
            let references = self.history.broken_references();
            found.findings.extend(references.into_iter().map(|line| Finding::new("database", line)));
        }
        self.verify_mirror(&mut found);
        self.find_places(&roots, &marks, &mut found);
        found
    }
}

/// States by id, each with what it is kept for.
type KeptRoots = Vec<(Holder, ObjectId)>;

/// Paths by damaged object.
type PlacesByObject = HashMap<ObjectId, Vec<Place>>;

fn failed(about: &'static str, err: &RepositoryError) -> Finding {
    Finding::new(about, err.to_string())
}
