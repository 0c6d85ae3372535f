//! The command line's words.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// A workspace filesystem with a memory.
///
/// Mount a store as a directory, work in it with any program, take checkpoints, look back, restore.
#[derive(Debug, Parser)]
#[command(name = "mementofs", version, max_term_width = 100, propagate_version = true)]
pub struct Cli {
    /// Prints JSON instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Which workspace a command is about: by default the mount around the working directory.
#[derive(Clone, Debug, Default, Args)]
pub struct PlaceArgs {
    /// A path inside a mounted workspace.
    #[arg(long, value_name = "PATH", conflicts_with = "store")]
    pub at: Option<PathBuf>,
    /// A store, mounted or not.
    #[arg(long, value_name = "STORE")]
    pub store: Option<PathBuf>,
    /// A branch of it, instead of the one that is mounted there.
    #[arg(long, value_name = "NAME")]
    pub branch: Option<String>,
}

/// Which store `branch` is about, whose `--at` is a checkpoint.
#[derive(Clone, Debug, Default, Args)]
pub struct BranchPlaceArgs {
    /// A path inside a mounted workspace, by default the working directory.
    #[arg(long = "in", value_name = "PATH", conflicts_with = "store")]
    pub within: Option<PathBuf>,
    /// A store, mounted or not.
    #[arg(long, value_name = "STORE")]
    pub store: Option<PathBuf>,
}

/// How file data moves between programs and the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IoMode {
    /// The best way for trees of small files, on any machine: cached.
    Auto,
    /// Through the kernel's page cache, each write reaching the daemon before it returns.
    Cached,
    /// New files handed to the kernel, which reads and writes them by itself: for large files; root only.
    Passthrough,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mounts a store, making it if there is none; returns when the mount serves.
    #[command(after_help = "Example: mementofs mount ~/.stores/project ~/project")]
    Mount(MountArgs),
    /// Unmounts a workspace.
    #[command(alias = "unmount", after_help = "Example: mementofs umount ~/project")]
    Umount {
        /// The mount point.
        mount_point: PathBuf,
        /// Detaches it even if it is in use.
        #[arg(short = 'z', long)]
        lazy: bool,
    },
    /// Takes a checkpoint.
    #[command(after_help = "Example: mementofs checkpoint -m 'before the refactoring' --name start")]
    Checkpoint(CheckpointArgs),
    /// Brings back a checkpoint, whole or one path of it.
    #[command(after_help = "Examples: mementofs restore @~1\n          mementofs restore start src/main.rs\n          \
                            mementofs restore --branches a,b,c step-4")]
    Restore(RestoreArgs),
    /// Takes back the last restore or undo.
    Undo {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Lists the checkpoints, newest first.
    Log {
        /// At most this many.
        #[arg(short = 'n', long, value_name = "COUNT")]
        limit: Option<usize>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Says what changed since the last checkpoint.
    Status {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Shows differences: with a checkpoint, between two, or since the last.
    #[command(
        after_help = "Examples: mementofs diff\n          mementofs diff start..@ src\n          mementofs diff branch/a branch/b"
    )]
    Diff {
        /// `REF`, `REF..REF` or `REF REF`, `@` when left out; then a path, to see only what is at or below it.
        #[arg(value_name = "REF", num_args = 0..=3)]
        words: Vec<OsString>,
        /// Only the changed paths.
        #[arg(long)]
        name_only: bool,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Describes a checkpoint and what it changed.
    Show {
        /// Which.
        #[arg(value_name = "REF", default_value = "@")]
        reference: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Lists branches, or makes, renames or deletes one.
    #[command(after_help = "Examples: mementofs branch try-2\n          mementofs branch fix --at @~3\n          \
                            mementofs branch --rename old new\n          mementofs branch --delete try-2")]
    Branch(BranchArgs),
    /// Brings the work of another branch into this one.
    ///
    /// What both changed since they parted is merged: texts by line, with conflict markers as git writes them; renames are
    /// followed. For what cannot be merged ours stays. A checkpoint is taken before and after; `undo` takes the merge back.
    #[command(after_help = "Examples: mementofs merge try-2 --dry-run\n          mementofs merge try-2 --theirs")]
    Merge(MergeArgs),
    /// Takes a directory of this machine into the workspace.
    #[command(after_help = "Example: mementofs import ~/old-project --store ~/.stores/project")]
    Import {
        /// The directory.
        directory: PathBuf,
        /// Where it is to appear; at the top when left out.
        #[arg(long, value_name = "PATH")]
        into: Option<PathBuf>,
        /// What to say about the checkpoint that is taken afterwards.
        #[arg(short, long)]
        message: Option<String>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Writes a checkpoint out, as a directory or a tar file.
    #[command(after_help = "Examples: mementofs export @ /tmp/copy\n          mementofs export start /tmp/start.tar --tar")]
    Export {
        /// Which.
        #[arg(value_name = "REF")]
        reference: String,
        /// The directory (absent or empty) or file to write; `-` with --tar for standard output.
        destination: PathBuf,
        /// Writes a tar file. Implied by a name that ends in `.tar`.
        #[arg(long)]
        tar: bool,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Writes what changed into an ordinary directory, such as the one that was imported.
    ///
    /// A file that changed there meanwhile stops it before anything is written; each file is replaced in one step; an apply
    /// that was interrupted goes on when it is run again.
    #[command(after_help = "Examples: mementofs apply ~/project --dry-run\n          mementofs apply ~/project --since start")]
    Apply(ApplyArgs),
    /// Reclaims space that nothing names any more.
    #[command(after_help = "Example: mementofs gc --keep-last 20 --keep-daily 7 --dry-run")]
    Gc(GcArgs),
    /// Checks a store that is not mounted.
    Fsck {
        /// The store.
        store: PathBuf,
        /// Reads and verifies every byte.
        #[arg(long)]
        read_data: bool,
        /// Repairs what can be repaired without inventing content.
        #[arg(long)]
        repair: bool,
    },
    /// Prints counters and sizes.
    Stats {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Says whether this machine can mount, which way, and if not why.
    Doctor {
        /// A store, or the directory for one: whether its file system allows passthrough; by default that of temporary files.
        store: Option<PathBuf>,
    },
    /// Mounts, runs a command inside, checkpoints before and after, and says what changed.
    ///
    /// With --branch or --at the command has mounts of its own, in which the branch appears where the store is mounted, or at
    /// PATH: absolute paths into the workspace work in every branch, and several run at once. Its exit code is ours, and is
    /// kept with the checkpoint that is taken after it.
    #[command(after_help = "Examples: mementofs run ~/.stores/try -- sh -c 'git init && make'\n          \
                            mementofs run ~/.stores/try --branch try-2 -- make test")]
    Run(RunArgs),
    /// Writes man pages or shell completions.
    #[command(hide = true)]
    Generate {
        /// Which.
        what: Generated,
        /// Where to.
        directory: PathBuf,
    },
}

/// What `generate` writes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Generated {
    /// Man pages.
    Man,
    /// Completions for bash, zsh and fish.
    Completions,
}

/// Arguments of `mount`.
#[derive(Debug, Args)]
pub struct MountArgs {
    /// The store's directory.
    pub store: PathBuf,
    /// Where it is to appear.
    pub mount_point: PathBuf,
    /// Mount options, separated by commas: allow_other, ro, control=NAME, branch=NAME, io=MODE, and those of mount(8).
    #[arg(short = 'o', value_name = "OPTIONS", value_delimiter = ',')]
    pub options: Vec<String>,
    /// The branch to show.
    #[arg(long, default_value = "main", value_name = "NAME")]
    pub branch: String,
    /// How file data moves.
    #[arg(long, value_enum, default_value = "auto")]
    pub io: IoMode,
    /// Stays in the foreground and logs to standard error.
    #[arg(short = 'f', long)]
    pub foreground: bool,
    /// Ignored, for mount(8).
    #[arg(short = 's', hide = true)]
    pub sloppy: bool,
    /// Ignored, for mount(8).
    #[arg(short = 'n', hide = true)]
    pub no_mtab: bool,
}

/// Arguments of `branch`.
#[derive(Debug, Args)]
pub struct BranchArgs {
    /// Name of a new branch; without it, branches are listed.
    pub name: Option<String>,
    /// The new name, with --rename.
    #[arg(requires = "rename")]
    pub new_name: Option<String>,
    /// The checkpoint that the new branch begins with; by default the live state, whose changes are checkpointed first.
    #[arg(long, value_name = "REF", requires = "name")]
    pub at: Option<String>,
    /// Deletes the branch; `undo` brings it back until gc.
    #[arg(short, long, requires = "name", conflicts_with_all = ["at", "rename"])]
    pub delete: bool,
    /// Gives the branch the name that follows.
    #[arg(short = 'm', long, requires = "new_name", conflicts_with = "at")]
    pub rename: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: BranchPlaceArgs,
}

/// Arguments of `checkpoint`.
#[derive(Debug, Args)]
pub struct CheckpointArgs {
    /// What to say about it.
    #[arg(short, long, default_value = "")]
    pub message: String,
    /// A name for it.
    #[arg(long)]
    pub name: Option<String>,
    /// Ties it to an id of another system; may be repeated.
    #[arg(long = "link", value_name = "SYSTEM:ID")]
    pub links: Vec<String>,
    /// Free metadata, a JSON object.
    #[arg(long, value_name = "JSON")]
    pub meta: Option<String>,
    /// Takes one even if nothing changed.
    #[arg(long)]
    pub allow_empty: bool,
    /// Takes one only if this checkpoint is the newest.
    #[arg(long, value_name = "REF")]
    pub expect: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,
}

/// Arguments of `merge`.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// The other branch.
    #[arg(value_name = "BRANCH", required_unless_present = "reference", conflicts_with = "reference")]
    pub other: Option<String>,
    /// Merges a checkpoint instead of a branch.
    #[arg(long = "ref", value_name = "REF")]
    pub reference: Option<String>,
    /// Takes our side of every conflict.
    #[arg(long, group = "policy")]
    pub ours: bool,
    /// Takes their side of every conflict.
    #[arg(long, group = "policy")]
    pub theirs: bool,
    /// Changes nothing if there is a conflict.
    #[arg(long, group = "policy")]
    pub fail: bool,
    /// Only says what would change, and which conflicts there are.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,
}

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The directory.
    pub directory: PathBuf,
    /// The checkpoint that the directory holds; when left out, the one that was imported from it or last applied to it.
    #[arg(long, value_name = "REF")]
    pub since: Option<String>,
    /// Only says what would be done.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// An id or the start of one, a name, `@`, `@~N`, `branch/NAME` or `SYSTEM:ID`.
    #[arg(value_name = "REF")]
    pub reference: String,
    /// Only this path; with --branches, the checkpoint of the second branch, and so on.
    #[arg(value_name = "PATH")]
    pub rest: Vec<PathBuf>,
    /// Restores these branches at once, all or none: each to its own checkpoint, or all to the one given.
    #[arg(long, value_name = "NAME", value_delimiter = ',', conflicts_with = "dry_run")]
    pub branches: Vec<String>,
    /// Only says what would change.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The store; made if there is none.
    pub store: PathBuf,
    /// Runs the command in this branch, which is forked from what is mounted if there is none of that name.
    #[arg(long, value_name = "NAME")]
    pub branch: Option<String>,
    /// Where the command sees the branch; by default where the store is mounted.
    #[arg(long, value_name = "PATH")]
    pub at: Option<PathBuf>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Arguments of `gc`.
#[derive(Debug, Args)]
pub struct GcArgs {
    /// Only says what would go.
    #[arg(long)]
    pub dry_run: bool,
    /// Leaves nothing of deleted content in the files of the store, however recent it is.
    #[arg(long)]
    pub purge: bool,
    /// Leaves what is younger than this many seconds.
    #[arg(long, value_name = "SECS")]
    pub grace: Option<u64>,
    /// Keeps this many of the newest checkpoints.
    #[arg(long, value_name = "N")]
    pub keep_last: Option<u32>,
    /// Keeps the newest of each of this many hours.
    #[arg(long, value_name = "N")]
    pub keep_hourly: Option<u32>,
    /// Keeps the newest of each of this many days.
    #[arg(long, value_name = "N")]
    pub keep_daily: Option<u32>,
    /// Keeps the newest of each of this many weeks.
    #[arg(long, value_name = "N")]
    pub keep_weekly: Option<u32>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,
}
