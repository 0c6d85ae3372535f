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
}

/// How file data moves between programs and the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IoMode {
    /// The best way that the machine allows.
    Auto,
    /// Through the kernel's page cache, each write reaching the daemon before it returns.
    Cached,
    /// Large files handed to the kernel.
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
    #[command(after_help = "Examples: mementofs restore @~1\n          mementofs restore start src/main.rs")]
    Restore {
        /// An id or the start of one, a name, `@`, `@~N`, `branch/NAME` or `SYSTEM:ID`.
        #[arg(value_name = "REF")]
        reference: String,
        /// Only this path.
        path: Option<PathBuf>,
        /// Only says what would change.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        place: PlaceArgs,
    },
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
    #[command(after_help = "Examples: mementofs diff\n          mementofs diff start..@ src")]
    Diff {
        /// `REF` or `REF..REF`; `@` when left out.
        #[arg(value_name = "REF[..REF]")]
        range: Option<String>,
        /// Only what is at or below this path.
        path: Option<PathBuf>,
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
    /// Lists branches, or forks one.
    Branch {
        /// Name of a new branch; without it, branches are listed.
        name: Option<String>,
        #[command(flatten)]
        place: PlaceArgs,
    },
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
    Doctor,
    /// Mounts, runs a command inside, checkpoints before and after, and says what changed.
    #[command(after_help = "Example: mementofs run ~/.stores/try -- sh -c 'git init && make'")]
    Run {
        /// The store; made if there is none.
        store: PathBuf,
        /// The command and its arguments.
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
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
    /// Mount options, separated by commas: allow_other, ro, control=NAME, branch=NAME, and those of mount(8).
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
