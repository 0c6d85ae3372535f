//! The kernel's side: translates requests, replies, attributes and errnos, and tells the kernel what to forget.
//!
//! Every handler translates, calls one method of [`crate::workspace`] or [`crate::control`], and translates back.
//! Whatever may wait (commands, syncs, large reads) runs on a pool, so that the one reader thread never does.

mod attr;
mod errno;
mod filesystem;
mod linger;
mod listing;
mod mount;
mod notify;
mod number;
mod pool;
mod reply;
mod requests;
mod translate;

pub use mount::{Mount, MountError, MountOptions, Unmounter};
