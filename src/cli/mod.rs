//! The command line: arguments, messages, exit codes, signals, lifetimes.

mod client;
mod doctor;
mod error;
mod report;
mod serve;

pub use error::CliError;

/// Runs the program and returns its exit code.
pub fn main() -> i32 {
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let mut plan = serve::MountPlan {
        store: args[1].clone().into(),
        mount_point: args[2].clone().into(),
        branch: "main".into(),
        options: crate::fuse::MountOptions::default(),
    };
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match serve::prepare(&mut plan).and_then(|()| serve::serve(&plan, serve::announce_ready)) {
        Ok(()) => 0,
        Err(err) => {
            eprintln!("mementofs: {err}");
            1
        }
    }
}
