//! What somebody wants done.

use super::execute::MountWish;
use crate::object::{ExternalLink, Name};
use serde::Deserialize;

/// What somebody wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Take a checkpoint.
    Checkpoint {
        /// What people read in the log.
        message: String,
        /// A name for it.
        name: Option<String>,
        /// External ids to tie to it.
        links: Vec<ExternalLink>,
        /// A JSON object as text.
        metadata: String,
        /// Makes a commit though nothing changed.
        allow_empty: bool,
        /// The id the newest checkpoint must have.
        expect: Option<String>,
    },
    /// Restore a checkpoint, whole or one path of it.
    Restore {
        /// Which checkpoint.
        reference: String,
        /// The one path to restore; the whole tree without it.
        path: Option<Vec<Name>>,
        /// Only says what would change.
        dry_run: bool,
        /// The id the newest checkpoint must have.
        expect: Option<String>,
    },
    /// Take back the last restore or undo.
    Undo,
    /// Reclaim space.
    Gc(GcCommand),
    /// Say what changed since the last checkpoint.
    Status,
    /// List checkpoints.
    Log {
        /// At most this many, newest first.
        limit: Option<usize>,
    },
    /// Compare two states; without `to`, with the live tree.
    Diff {
        /// The older state.
        from: String,
        /// The newer state.
        to: Option<String>,
    },
    /// Describe a checkpoint.
    Show {
        /// Which checkpoint.
        reference: String,
    },
    /// Name a checkpoint, or take its name away.
    Name {
        /// Which checkpoint.
        reference: String,
        /// Its new name.
        name: Option<String>,
    },
    /// Delete a checkpoint.
    Delete {
        /// Which checkpoint.
        reference: String,
    },
    /// Take a directory of the host into the workspace.
    Import {
        /// Path on the host.
        from: String,
        /// Where it goes; the root without it.
        into: Option<Vec<Name>>,
        /// What people read in the log.
        message: String,
    },
    /// Tie ids of other systems to a checkpoint.
    Link {
        /// Which checkpoint.
        reference: String,
        /// The ids.
        links: Vec<ExternalLink>,
    },
    /// Bring the work of another branch, or of a checkpoint, into this one.
    Merge(MergeCommand),
    /// Say how large things are.
    Stats,
    /// List the branches.
    Branches,
    /// Make a branch.
    Fork {
        /// Its name.
        name: String,
        /// The checkpoint it begins with; without one, the live state.
        at: Option<String>,
    },
    /// Give a branch another name.
    RenameBranch {
        /// Which.
        branch: String,
        /// Its new name.
        name: String,
    },
    /// Delete a branch.
    DeleteBranch {
        /// Which.
        branch: String,
    },
    /// Restore several branches at once, all or none.
    RestoreBranches {
        /// Which.
        branches: Vec<String>,
        /// One checkpoint for each, or one for all.
        references: Vec<String>,
    },
    /// Mount a branch at a further place.
    Mount(MountWish),
}

/// What is to be merged, and how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MergeCommand {
    /// The other branch.
    pub branch: Option<String>,
    /// A checkpoint instead of a branch.
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    /// What becomes of conflicts.
    #[serde(default)]
    pub policy: ConflictPolicy,
    /// Only says what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// What becomes of what both sides changed differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConflictPolicy {
    /// Texts get both versions between markers; for anything else ours stays.
    #[default]
    Markers,
    /// Ours.
    Ours,
    /// Theirs.
    Theirs,
    /// The merge is refused.
    Fail,
}

/// How space is to be reclaimed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GcCommand {
    /// Only says what would go.
    #[serde(default)]
    pub dry_run: bool,
    /// Leaves nothing of deleted content in the files of the store.
    #[serde(default)]
    pub purge: bool,
    /// Leaves what is younger than this.
    pub grace_secs: Option<u64>,
    /// Keeps this many of the newest checkpoints.
    pub keep_last: Option<u32>,
    /// Keeps the newest of each of this many hours.
    pub keep_hourly: Option<u32>,
    /// Keeps the newest of each of this many days.
    pub keep_daily: Option<u32>,
    /// Keeps the newest of each of this many weeks.
    pub keep_weekly: Option<u32>,
}
