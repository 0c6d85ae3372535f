//! `run STORE -- COMMAND`: from nothing to "here is what it changed" in one line.

use super::args::RunArgs;
use super::client::{Client, Place};
use super::error::CliError;
use super::{FAILED, mount, report, serve};
use crate::sys;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// Exit code of a command that could not be started, as in shells.
const NOT_FOUND: i32 = 127;
/// A command is shown up to here: a request has its limit.
const MESSAGE_CHARS_MAX: usize = 800;

/// Mounts the store (unless it is mounted), runs the command inside, checkpoints before and after, says what changed.
pub fn run(args: &RunArgs, json: bool) -> Result<i32, CliError> {
    let isolated = args.branch.is_some() || args.at.is_some();
    if isolated {
        sys::may_isolate().map_err(|err| forbidden(&err))?; // Before anything is done.
    }
    let here = Workplace::open(&args.store)?;
    let done = if isolated { in_environment(&here, args, json) } else { in_mount(&here, args, json) };
    here.close()?;
    done
}

fn forbidden(err: &std::io::Error) -> CliError {
    CliError::new(format!(
        "mount namespaces are not allowed here ({err}), and nothing was changed; run it as root, allow user namespaces \
         (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns), \
         or work in MOUNT/.memento/branches/NAME"
    ))
}

fn in_mount(here: &Workplace, args: &RunArgs, json: bool) -> Result<i32, CliError> {
    let client = Client::find(&Place { at: Some(here.path.clone()), store: None, branch: None })?;
    let mut command = command_of(&args.command)?;
    command.current_dir(&here.path);
    let reply = watched(&client, command, &line_of(&args.command), false)?;
    show(reply, json)
}

/// Runs a command in mounts of its own, in which a branch appears where the store usually does, or where the user says.
fn in_environment(here: &Workplace, args: &RunArgs, json: bool) -> Result<i32, CliError> {
    let at = args.at.as_deref().unwrap_or(&here.path);
    let at = at.canonicalize().map_err(|err| CliError::at("cannot show the branch at", at, err))?;
    if !at.is_dir() {
        return Err(CliError::at("cannot show the branch at", &at, "it is not a directory"));
    }
    let mount = Client::find(&Place { at: Some(here.path.clone()), store: None, branch: None })?;
    let made = match &args.branch {
        Some(name) => fork_if_missing(&mount, name)?,
        None => false,
    };
    let client = Client::find(&Place { at: Some(here.path.clone()), store: None, branch: args.branch.clone() })?;
    let view = client.top().ok_or_else(|| CliError::new("an environment needs a mount"))?;
    // While this process stands in the branch nobody can delete it.
    std::env::set_current_dir(view).map_err(|err| CliError::at("cannot go into", view, err))?;
    let mut command = command_of(&args.command)?;
    command.env("PWD", &at);
    sys::show_at(&mut command, view, &at).map_err(|err| CliError::at("cannot show the branch at", &at, err))?;
    let reply = watched(&client, command, &line_of(&args.command), true);
    let _ = std::env::set_current_dir("/"); // The mount may have to go.
    let mut reply = reply?;
    reply["branch"] = args.branch.as_deref().into();
    reply["forked"] = made.into();
    reply["at"] = at.to_string_lossy().into();
    show(reply, json)
}

/// Makes the branch from the live state of the mount when there is none of that name. Says whether it did.
fn fork_if_missing(mount: &Client, name: &str) -> Result<bool, CliError> {
    let branches = mount.run(&json!({ "do": "branches" }))?;
    if branches["branches"].as_array().into_iter().flatten().any(|branch| branch["name"] == name) {
        return Ok(false);
    }
    mount.run(&json!({ "do": "fork", "name": name }))?;
    Ok(true)
}

fn command_of(words: &[OsString]) -> Result<Command, CliError> {
    let (program, arguments) = words.split_first().ok_or_else(|| CliError::new("say which command to run after --"))?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

fn line_of(words: &[OsString]) -> String {
    words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Runs a command between two checkpoints. The second has the exit code, if need be though nothing changed.
fn watched(client: &Client, mut command: Command, line: &str, always: bool) -> Result<Value, CliError> {
    let before = checkpoint(client, &format!("before: {line}"), &json!({}), false)?;
    let status = command.status();
    let code = status.as_ref().map_or(NOT_FOUND, exit_code);
    let meta = json!({ "run": { "command": line, "exit_code": code } });
    let after = checkpoint(client, &format!("after: {line}"), &meta, always)?;
    let changes = client.run(&json!({ "do": "diff", "from": before, "to": after }))?;
    let program = command.get_program().to_string_lossy();
    status.map_err(|err| CliError::new(format!("cannot run {program}: {err}")))?;
    Ok(json!({ "before": before, "after": after, "exit_code": code, "changes": changes["changes"] }))
}

/// Prints what a command changed and returns its exit code.
fn show(reply: Value, json: bool) -> Result<i32, CliError> {
    super::commands::show(&reply, json, |reply| {
        let changes = report::changes(&reply["changes"]);
        let summary = match reply["changes"].as_array().map_or(0, Vec::len) {
            0 => "nothing changed".to_owned(),
            count => format!("{count} changed"),
        };
        let branch = match (reply["branch"].as_str(), reply["forked"] == true) {
            (Some(branch), true) => format!(" in the new branch {branch}"),
            (Some(branch), false) => format!(" in the branch {branch}"),
            (None, _) => String::new(),
        };
        format!(
            "{changes}{summary}{branch}; exit code {}; before {}, after {}\n",
            reply["exit_code"],
            report::short(&reply["before"]),
            report::short(&reply["after"])
        )
    })?;
    Ok(reply["exit_code"].as_i64().and_then(|code| i32::try_from(code).ok()).unwrap_or(FAILED))
}

fn checkpoint(client: &Client, message: &str, meta: &Value, always: bool) -> Result<Value, CliError> {
    let message: String = message.chars().take(MESSAGE_CHARS_MAX).collect();
    let mut meta = meta.clone();
    if let Some(line) = meta["run"]["command"].as_str().map(|line| line.chars().take(MESSAGE_CHARS_MAX).collect::<String>()) {
        meta["run"]["command"] = line.into();
    }
    let request = json!({ "do": "checkpoint", "message": message, "meta": meta, "allow_empty": always });
    Ok(client.run(&request)?["id"].clone())
}

fn exit_code(status: &ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| status.signal().map_or(FAILED, |signal| 128 + signal))
}

/// Finds a workspace as a mount; a store that is not mounted is mounted for the occasion, to be closed afterwards.
pub fn mounted(place: Place) -> Result<(Client, Option<Workplace>), CliError> {
    let Some(store) = &place.store else { return Ok((Client::find(&place)?, None)) };
    if !store.exists() {
        return Err(CliError::new(format!("the store {} does not exist", store.display())));
    }
    let workplace = Workplace::open(store)?;
    let client = Client::find(&Place { at: Some(workplace.path.clone()), store: None, branch: place.branch.clone() })?;
    Ok((client, Some(workplace)))
}

/// Where the command runs: the store's mount, or one made for it.
pub struct Workplace {
    path: PathBuf,
    made: Option<PathBuf>,
}

impl Workplace {
    fn open(store: &Path) -> Result<Self, CliError> {
        if let Ok(store) = store.canonicalize()
            && let Some(path) = sys::mount_points_of(&store).into_iter().next()
        {
            return Ok(Self { path, made: None });
        }
        let base = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let path = base.join(format!("mementofs-run-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|err| CliError::at("cannot make the mount point", &path, err))?;
        let arguments: Vec<OsString> = vec!["mount".into(), "-f".into(), absolute(store)?.into(), path.clone().into()];
        if let Err(err) = serve::start_daemon(&arguments, store) {
            let _ = std::fs::remove_dir(&path);
            return Err(err);
        }
        Ok(Self { path: path.clone(), made: Some(path) })
    }

    /// Unmounts what was mounted for the occasion.
    pub fn close(self) -> Result<(), CliError> {
        let Some(path) = self.made else { return Ok(()) };
        if mount::unmount(&path, false).is_err() {
            mount::unmount(&path, true)?; // The command left something running in it.
        }
        std::fs::remove_dir(&path).map_err(|err| CliError::at("cannot remove the mount point", &path, err))
    }
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path).map_err(|err| CliError::at("cannot use", path, err))
}
