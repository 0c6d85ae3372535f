//! The control directory: turns written text into commands, and state into readable text.
//!
//! `command` parses, knowing nothing of files; `execute` runs a command on a workspace; `text` renders what people and
//! programs read; `directory` is the tree of hidden files that ties them together, `actions` what writing there does; `sealed` shows old states as
//! read-only directories below it.

mod actions;
mod branching;
mod command;
mod content;
mod directory;
mod error;
mod escape;
mod execute;
mod kept;
mod link;
mod merge;
mod node;
mod parse;
mod requests;
mod sealed;
mod text;

pub use actions::{Effects, FurtherMount};
pub use command::{Command, ConflictPolicy, GcCommand, MergeCommand};
pub use directory::{CONTROL_NAME_ATTRIBUTE, ControlDirectory, ControlListed, Found, Said};
pub use error::CommandError;
pub use execute::{Caller, MountWish, Reply, execute, import_into};
pub use link::{DIRECTORY_SYSTEM, directory_id};
pub use parse::{parse_checkpoint, parse_gc, parse_request, parse_restore};
pub use text::{change_line, changes_text, in_a_line, log_line, quoted_path, unquoted_path};
