//! System calls that std lacks, made safe and typed; the home of all unsafe code.
#![allow(unsafe_code)]

mod beneath;
mod file;
mod mount;
mod namespace;
mod path;
mod process;
mod users;

pub use beneath::{open_beneath, open_directory};
pub use file::{Space, data_ranges, lock_exclusive, reserve, space_at, wait_until_unlocked, write_out};
pub use mount::{detach, free_dead_mount, is_mounted, mount_points_of, source_of, unmount};
pub use namespace::{may_isolate, show_at};
pub use path::{device_numbers, make_node, may_write, set_times};
pub use process::{
    coarse_millis, effective_gid, effective_uid, give_way, is_readable, let_go_of_standard_streams, raise_open_files_limit,
    set_umask, tune_allocator,
};
pub use users::process_within;
