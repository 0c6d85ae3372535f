//! The kernel's side: translates requests, replies, attributes and errnos, and tells the kernel what to forget.
//!
//! Every handler translates, calls one method of [`crate::workspace`] or [`crate::control`], and translates back.
//! Whatever may wait (commands, syncs, large reads) runs on a pool, so that the one reader thread never does.

mod attr;
mod errno;
mod filesystem;
mod linger;
mod listing;
mod makers;
mod mount;
mod mounts;
mod naming;
mod notify;
mod number;
mod opens;
mod options;
mod pool;
mod reply;
mod requests;
mod retries;
mod translate;
mod view;
mod views;
mod writing;

pub use mount::MountError;
pub use mounts::Mounts;
pub use options::MountOptions;
