//! `mount` and `umount`.

use super::args::{IoMode, MountArgs};
use super::client::Client;
use super::error::CliError;
use super::serve::{self, MountPlan};
use crate::fuse::MountOptions;
use crate::sys;
use serde_json::json;
use std::ffi::OsString;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// Mounts a store, in the foreground or as a daemon.
pub fn mount(args: &MountArgs) -> Result<(), CliError> {
    let mut words = args.options.clone();
    words.extend(match args.io {
        IoMode::Auto => None,
        IoMode::Cached => Some("io=cached".to_owned()),
        IoMode::Passthrough => Some("io=passthrough".to_owned()),
    });
    let mut plan = MountPlan {
        store: args.store.clone(),
        mount_point: args.mount_point.clone(),
        branch: branch_of(args),
        options: MountOptions::parse(&words).map_err(CliError::new)?,
    };
    serve::prepare(&mut plan)?;
    if let Some(daemon) = running_daemon(&plan.store) {
        if args.foreground {
            let message = "the store is mounted already, and its daemon would serve this mount too: leave out -f";
            return Err(CliError::new(message));
        }
        return mount_further(&daemon, &plan, &words);
    }
    if args.foreground {
        start_log();
        return serve::serve(&plan, serve::announce_ready);
    }
    let mut arguments: Vec<OsString> = vec!["mount".into(), "-f".into(), "--branch".into(), args.branch.clone().into()];
    if !words.is_empty() {
        arguments.extend(["-o".into(), words.join(",").into()]);
    }
    arguments.extend([plan.store.clone().into_os_string(), plan.mount_point.clone().into_os_string()]);
    serve::start_daemon(&arguments, &plan.store)
}

/// Finds a mount through which the daemon of a store can be spoken to.
fn running_daemon(store: &Path) -> Option<Client> {
    sys::mount_points_of(store).iter().find_map(|top| Client::at_mount(top))
}

/// Asks the daemon that has the store for a further mount.
fn mount_further(daemon: &Client, plan: &MountPlan, options: &[String]) -> Result<(), CliError> {
    let path = plan.mount_point.to_str();
    let path = path.ok_or_else(|| CliError::new("a further mount point must have a name in UTF-8"))?;
    daemon.run(&json!({ "do": "mount", "path": path, "branch": plan.branch, "options": options })).map(drop)
}

/// The branch to show; `-o branch=NAME` is for fstab(5), where there are no other options.
fn branch_of(args: &MountArgs) -> String {
    let named = args.options.iter().rev().find_map(|word| word.trim().strip_prefix("branch="));
    named.unwrap_or(&args.branch).to_owned()
}

/// Logs to the file that the parent named, or to standard error. RUST_LOG says how much.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,fuser=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    let file = std::env::var_os("MEMENTOFS_LOG_FILE")
        .and_then(|path| std::fs::File::options().append(true).create(true).mode(0o600).open(path).ok());
    match file {
        Some(file) => builder.with_writer(std::sync::Mutex::new(file)).init(),
        None => builder.with_writer(std::io::stderr).init(),
    }
}

/// How long a daemon may take to end once it has let go of the lock.
const LAST_MOMENT: Duration = Duration::from_secs(5);

/// Unmounts, and returns when the daemon has let go of the store.
pub fn unmount(mount_point: &Path, lazy: bool) -> Result<(), CliError> {
    let point = std::path::absolute(mount_point).map_err(|err| CliError::at("cannot use", mount_point, err))?;
    if sys::free_dead_mount(&point) {
        return Ok(());
    }
    let point = point.canonicalize().map_err(|err| CliError::at("cannot use", mount_point, err))?;
    let Some(store) = sys::source_of(&point) else {
        return Err(CliError::new(format!("nothing is mounted at {}", point.display())));
    };
    let daemon = daemon_of(&store); // As long as it is there.
    if lazy {
        sys::detach(&point);
    } else if let Err(err) = sys::unmount(&point) {
        return Err(CliError::new(format!(
            "cannot unmount {}: {err}; a program is still using it (see: fuser -vm), or use --lazy",
            point.display()
        )));
    }
    if sys::mount_points_of(&store).is_empty() {
        sys::wait_until_unlocked(&store.join("lock"));
        if let Some(daemon) = daemon {
            daemon.wait_until_ended(LAST_MOMENT); // Whoever unmounts what the store lies on finds nothing open there.
        }
    }
    Ok(())
}

/// Returns the process that has the store, as far as the lock says which it is.
fn daemon_of(store: &Path) -> Option<sys::OtherProcess> {
    let pid = std::fs::read_to_string(store.join("lock")).ok()?.trim().parse().ok()?;
    sys::OtherProcess::find(pid).ok()
}
