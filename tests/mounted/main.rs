//! Tests of the built program through real mounts. Each makes its own store and mount and takes both away again.

mod branches;
mod checkpoint;
mod cli;
mod control;
mod durability;
mod files;
mod fsck;
mod links;
mod mount;
mod restore;
mod space;
mod trouble;
