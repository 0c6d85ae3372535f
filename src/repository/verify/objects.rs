//! Does each object lie where the index says, and is it what its id says?

use super::trees::{Mark, Marks};
use super::{Check, Finding, Verified, failed};
use crate::object::{Container, Location, ObjectId, ObjectKind};
use crate::repository::Repository;
use std::collections::HashSet;

/// Objects are looked at in the order of their places, this many at a time.
const BATCH: usize = 100_000;

impl Repository {
    pub(super) fn verify_objects(&self, check: &Check<'_>, marks: &mut Marks, found: &mut Verified) {
        let mut used: HashSet<Container> = HashSet::new();
        let total = self.history.object_totals().map_or(0, |(objects, ..)| objects);
        let mut batch: Vec<(ObjectId, ObjectKind, Location)> = Vec::new();
        let mut work = |batch: &mut Vec<(ObjectId, ObjectKind, Location)>| {
            batch.sort_unstable_by_key(|(_, _, at)| (at.container, at.offset));
            for (id, kind, at) in batch.drain(..) {
                found.objects += 1;
                found.stored_bytes += at.stored_bytes;
                if found.objects.is_multiple_of(256) {
                    (check.progress)("objects", found.objects, total);
                }
                used.insert(at.container);
                let mark = marks.entry(id).or_default();
                *mark |= Mark::KNOWN;
                if let Err((sentence, lost)) = self.verify_object(&id, kind, &at, check.read_data) {
                    if lost {
                        *mark |= Mark::DAMAGED;
                        found.findings.push(Finding::of_object(id, sentence));
                    } else {
                        found.findings.push(Finding::new("pack", sentence));
                    }
                }
            }
        };
        let scanned = self.history.each_object(|id, kind, location, _| {
            batch.push((id, kind, location));
            if batch.len() == BATCH {
                work(&mut batch);
            }
        });
        work(&mut batch);
        if let Err(err) = scanned {
            found.findings.push(failed("database", &err.into()));
        }
        self.verify_containers(&used, found);
    }

    /// Returns what is wrong with an object, and whether its bytes are lost.
    fn verify_object(&self, id: &ObjectId, kind: ObjectKind, at: &Location, read: bool) -> Result<(), (String, bool)> {
        let place = self.packs.describe(at);
        let frame = self.packs.check_frame(id, kind, at);
        if read || frame.is_err() {
            self.packs.read(id, at).map_err(|err| (format!("{err} ({place})"), true))?;
        }
        frame.map_err(|err| (format!("{err} ({place}; its bytes are whole)"), false))
    }

    /// A pack in which nothing is named may be what a crash left of one that was begun.
    fn verify_containers(&self, used: &HashSet<Container>, found: &mut Verified) {
        for container in used {
            if let Err(err) = self.packs.check_header(*container) {
                found.findings.push(Finding::new("pack", err.to_string()));
            }
        }
    }
}
