//! `run STORE -- COMMAND`: from nothing to "here is what it changed" in one line.

use super::client::{Client, Place};
use super::error::CliError;
use super::{FAILED, mount, report, serve};
use crate::sys;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// Mounts the store (unless it is mounted), runs the command inside, checkpoints before and after, says what changed.
pub fn run(store: &Path, command: &[OsString], json: bool) -> Result<i32, CliError> {
    let here = Workplace::open(store)?;
    let client = Client::find(&Place { at: Some(here.path.clone()), store: None, branch: None })?;
    let (program, arguments) = command.split_first().ok_or_else(|| CliError::new("say which command to run after --"))?;
    let line = command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let before = checkpoint(&client, &format!("before: {line}"), &json!({}))?;
    let status = Command::new(program).args(arguments).current_dir(&here.path).status();
    let code = status.as_ref().map_or(127, exit_code);
    let after = checkpoint(&client, &format!("after: {line}"), &json!({ "command": line, "exit_code": code }))?;
    let changes = client.run(&json!({ "do": "diff", "from": before, "to": after }))?;
    let reply = json!({ "before": before, "after": after, "exit_code": code, "changes": changes["changes"] });
    here.close()?;
    status.map_err(|err| CliError::new(format!("cannot run {}: {err}", program.to_string_lossy())))?;
    super::commands::show(&reply, json, |reply| {
        let changes = report::changes(&reply["changes"]);
        let summary = match reply["changes"].as_array().map_or(0, Vec::len) {
            0 => "nothing changed".to_owned(),
            count => format!("{count} changed"),
        };
        format!(
            "{changes}{summary}; exit code {code}; before {}, after {}\n",
            report::short(&reply["before"]),
            report::short(&reply["after"])
        )
    })?;
    Ok(code)
}

fn checkpoint(client: &Client, message: &str, meta: &Value) -> Result<Value, CliError> {
    const MESSAGE_BYTES_MAX: usize = 1000;
    let message: String = message.chars().take(MESSAGE_BYTES_MAX).collect();
    Ok(client.run(&json!({ "do": "checkpoint", "message": message, "meta": meta }))?["id"].clone())
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
