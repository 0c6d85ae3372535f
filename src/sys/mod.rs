//! System calls that std lacks, made safe and typed; the home of all unsafe code.
#![allow(unsafe_code)]

mod below;
mod beneath;
mod file;
mod mount;
mod namespace;
mod passthrough;
mod path;
mod process;
mod users;

pub use below::{Below, path_of_open, path_within, pin};
pub use beneath::{open_beneath, open_directory};
pub use file::{Space, change_range, data_ranges, lock_exclusive, memory_file, punch, reserve, space_at, wait_until_unlocked};
pub use mount::{detach, free_dead_mount, is_mounted, mount_points_of, source_of, unmount};
pub use namespace::{may_isolate, show_at};
pub use passthrough::{administers_machine, close_backing, has_others, is_on_known_file_system, store_through_mapping};
pub use path::{device_numbers, make_node, may_write, set_times, set_times_of};
pub use process::{
    OtherProcess, coarse_millis, effective_gid, effective_uid, give_memory_back, give_way, groups_of, is_readable,
    let_go_of_standard_streams, open_files_limit, process_millis, raise_open_files_limit, set_umask, tune_allocator,
};
pub use users::process_within;
