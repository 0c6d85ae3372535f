//! Tests of the built program through real mounts. Each makes its own store and mount and takes both away again.

mod apply;
mod binding;
mod branches;
mod branches_more;
mod checkpoint;
mod cli;
mod control;
mod durability;
mod environments;
mod files;
mod fsck;
mod large_objects;
mod links;
mod makers;
mod merge;
mod mount;
mod names;
mod passthrough;
mod posix;
mod posix_limits;
mod restore;
mod security;
mod space;
mod trouble;
mod views;
mod waiting;
