//! `mount` and `umount`.

use super::args::{IoMode, MountArgs};
use super::error::CliError;
use super::serve::{self, MountPlan};
use crate::fuse::MountOptions;
use crate::sys;
use std::ffi::OsString;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Options of mount(8) and fstab(5) that say nothing to a mount of ours, which is nosuid and nodev whatever is asked.
const IGNORED: [&str; 25] = [
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "nousers",
    "owner",
    "noowner",
    "group",
    "nogroup",
    "_netdev",
    "nofail",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "silent",
    "default_permissions",
];
/// The same, of options with a value.
const IGNORED_WITH_VALUE: [&str; 4] = ["comment", "user", "helper", "uhelper"];
/// Options that only take back another.
const TAKES_BACK: [(&str, &str); 3] = [("exec", "noexec"), ("atime", "noatime"), ("async", "sync")];

/// Mounts a store, in the foreground or as a daemon.
pub fn mount(args: &MountArgs) -> Result<(), CliError> {
    if args.io == IoMode::Passthrough {
        return Err(CliError::new("--io passthrough is not available in this version; use --io auto"));
    }
    let mut plan = MountPlan {
        store: args.store.clone(),
        mount_point: args.mount_point.clone(),
        branch: branch_of(args),
        options: options_of(&args.options)?,
    };
    serve::prepare(&mut plan)?;
    if args.foreground {
        start_log();
        return serve::serve(&plan, serve::announce_ready);
    }
    let mut arguments: Vec<OsString> = vec!["mount".into(), "-f".into(), "--branch".into(), args.branch.clone().into()];
    if !args.options.is_empty() {
        arguments.extend(["-o".into(), args.options.join(",").into()]);
    }
    arguments.extend([plan.store.clone().into_os_string(), plan.mount_point.clone().into_os_string()]);
    serve::start_daemon(&arguments, &plan.store)
}

/// The branch to show; `-o branch=NAME` is for fstab(5), where there are no other options.
fn branch_of(args: &MountArgs) -> String {
    let named = args.options.iter().rev().find_map(|word| word.trim().strip_prefix("branch="));
    named.unwrap_or(&args.branch).to_owned()
}

fn options_of(words: &[String]) -> Result<MountOptions, CliError> {
    let mut options = MountOptions::default();
    for word in words.iter().map(|word| word.trim()).filter(|word| !word.is_empty()) {
        match word.split_once('=') {
            None if word == "allow_other" => options.allow_other = true,
            None if word == "ro" => options.read_only = true,
            None if word == "rw" => options.read_only = false,
            None if IGNORED.contains(&word) || word.starts_with("x-") || word.starts_with("X-") => {}
            Some(("control", name)) => {
                crate::object::Name::new(name.as_bytes()).map_err(|err| CliError::new(format!("-o control={name}: {err}")))?;
                options.control_name = name.to_owned();
            }
            Some(("branch", _)) => {} // branch_of
            Some((key, _)) if key.starts_with("x-") || key.starts_with("X-") || IGNORED_WITH_VALUE.contains(&key) => {}
            _ => match TAKES_BACK.iter().find(|(taker, _)| *taker == word) {
                Some((_, taken)) => options.further.retain(|other| other != taken),
                None => options.further.push(word.to_owned()),
            },
        }
    }
    Ok(options)
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
    if lazy {
        sys::detach(&point);
    } else if let Err(err) = sys::unmount(&point) {
        return Err(CliError::new(format!(
            "cannot unmount {}: {err}; a program is still using it (see: fuser -vm), or use --lazy",
            point.display()
        )));
    }
    sys::wait_until_unlocked(&store.join("lock"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::options_of;

    fn further(words: &[&str]) -> Vec<String> {
        options_of(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()).unwrap().further
    }

    #[test]
    fn words_of_mount_8_are_dropped() {
        let words = ["rw", "user=alice", "nofail", "_netdev", "X-mount.mkdir", "x-systemd.after=a", "comment=b", "dev", "suid"];
        assert!(further(&words).is_empty());
    }

    #[test]
    fn later_words_take_back_earlier_ones() {
        assert!(further(&["noexec", "exec"]).is_empty());
        assert_eq!(further(&["exec", "noexec"]), ["noexec"]);
        assert!(!options_of(&["ro".to_owned(), "rw".to_owned()]).unwrap().read_only);
        assert!(options_of(&["rw".to_owned(), "ro".to_owned()]).unwrap().read_only);
    }

    #[test]
    fn unknown_words_reach_the_kernel() {
        assert_eq!(further(&["max_read=4096", "bogus"]), ["max_read=4096", "bogus"]);
    }
}
