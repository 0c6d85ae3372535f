//! A workspace filesystem with a memory: mount a store as a directory, checkpoint it, look back, restore.
//!
//! Calls go down and values come back: `cli` → `fuse` → `control` → `workspace` → `repository` → `history`, `tree`,
//! `store` → `object`, `sys`. `watchdog` is told by `fuse` and `workspace` what goes on.

pub mod cli;
pub mod control;
pub mod fuse;
pub mod history;
pub mod object;
pub mod repository;
pub mod store;
pub mod sys;
pub mod tree;
pub mod watchdog;
pub mod workspace;
