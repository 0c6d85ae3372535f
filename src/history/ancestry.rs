//! What checkpoints come from: each has a parent, and one that a merge took names what was merged too.

use super::objects::id_or_none_at;
use super::{History, HistoryError};
use crate::object::ObjectId;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The metadata of a merge's checkpoint names the merged checkpoint under this key.
pub const MERGED_KEY: &str = "merged";

/// Which of two checkpoints descends from another.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Seen {
    from_first: bool,
    from_second: bool,
}

impl History {
    /// Finds the newest checkpoint that two others both come from; one of them may be it. Deleted ones do not count:
    /// their content may be gone.
    ///
    /// Costs the checkpoints since then: they are looked at from the newest on.
    pub fn common_ancestor(&self, first: &ObjectId, second: &ObjectId) -> Result<Option<ObjectId>, HistoryError> {
        let reader = self.reader();
        let mut statement =
            reader.prepare_cached("SELECT seq, parent, meta, deleted_at IS NOT NULL FROM file_commits WHERE id = ?")?;
        let mut lookup = |id: &ObjectId| -> Result<Option<(i64, Vec<ObjectId>, bool)>, HistoryError> {
            let mut rows = statement.query([id.to_hex()])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let merged = merged_of(&row.get::<_, String>(2)?);
            Ok(Some((row.get(0)?, id_or_none_at(row, 1)?.into_iter().chain(merged).collect(), row.get(3)?)))
        };
        // By place in the order of all checkpoints, in which everything stands behind what it comes from.
        let mut waiting: BTreeMap<i64, (ObjectId, Vec<ObjectId>, bool)> = BTreeMap::new();
        let mut seen: HashMap<ObjectId, Seen> = HashMap::new();
        for (id, from_first) in [(*first, true), (*second, false)] {
            let entry = seen.entry(id).or_default();
            entry.from_first |= from_first;
            entry.from_second |= !from_first;
            if let Some((seq, parents, deleted)) = lookup(&id)? {
                waiting.insert(seq, (id, parents, deleted));
            }
        }
        while let Some((seq, (id, parents, deleted))) = waiting.pop_last() {
            let from = seen.get(&id).copied().unwrap_or_default();
            if from.from_first && from.from_second && !deleted {
                return Ok(Some(id));
            }
            for parent in parents {
                let entry = seen.entry(parent).or_default();
                entry.from_first |= from.from_first;
                entry.from_second |= from.from_second;
                // An edge that somebody wrote into the metadata may lead anywhere: only what is older is followed.
                if let Some((parent_seq, above, deleted)) = lookup(&parent)?.filter(|(parent_seq, ..)| *parent_seq < seq) {
                    waiting.insert(parent_seq, (parent, above, deleted));
                }
            }
        }
        Ok(None)
    }

    /// Returns the checkpoints at which the lines of the present branches parted or met: where one was forked from another,
    /// and what was merged. Whoever merges branches starts from one of them.
    pub fn fork_points(&self) -> Result<HashSet<ObjectId>, HistoryError> {
        let mut points = HashSet::new();
        let mut seen = HashSet::new();
        let mut waiting: Vec<(ObjectId, i64)> =
            self.branches()?.into_iter().filter_map(|branch| Some((branch.head?, branch.id))).collect();
        let scanner = self.scanner();
        let mut statement = scanner.prepare_cached("SELECT branch_id, parent, meta FROM file_commits WHERE id = ?")?;
        while let Some((id, reached_on)) = waiting.pop() {
            let mut rows = statement.query([id.to_hex()])?;
            let Some(row) = rows.next()? else { continue };
            let taken_on = row.get::<_, Option<i64>>(0)?.unwrap_or_default();
            if taken_on != reached_on {
                points.insert(id);
            }
            if seen.insert(id) {
                let merged = merged_of(&row.get::<_, String>(2)?);
                points.extend(merged);
                waiting.extend(id_or_none_at(row, 1)?.into_iter().chain(merged).map(|parent| (parent, taken_on)));
            }
        }
        Ok(points)
    }
}

/// Returns the checkpoint that a merge brought in, from the metadata of its checkpoint.
fn merged_of(metadata: &str) -> Option<ObjectId> {
    if !metadata.contains(MERGED_KEY) {
        return None;
    }
    let metadata: serde_json::Value = serde_json::from_str(metadata).ok()?;
    metadata[MERGED_KEY].as_str()?.parse().ok()
}
