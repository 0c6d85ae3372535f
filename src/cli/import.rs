//! `import`: a directory of this machine becomes part of the workspace.

use super::client::{Client, Place};
use super::error::CliError;
use super::{DONE, FAILED, progress, report};
use crate::control::{Caller, import_into, quoted_path};
use crate::object::Name;
use crate::sys;
use crate::workspace::{ImportProgress, Workspace};
use serde_json::{Value, json};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Imports and checkpoints.
pub fn import(directory: &Path, into: Option<&Path>, message: Option<&str>, place: &Place, json: bool) -> Result<i32, CliError> {
    let directory = directory.canonicalize().map_err(|err| CliError::at("cannot import", directory, err))?;
    let default = format!("import {}", directory.display());
    let message = message.unwrap_or(&default);
    let reply = match Client::open_or_make(place)? {
        Client::Direct { workspace, .. } => import_here(&workspace, &directory, into, message)?,
        client => {
            if client.top().is_some_and(|top| directory.starts_with(top) || top.starts_with(&directory)) {
                return Err(CliError::new(format!("{} and the workspace lie within one another", directory.display())));
            }
            let into = into.map(|path| client.relative(path)).transpose()?;
            let quoted = |path: &Path| quoted_path(path.as_os_str().as_bytes()); // Names need not be UTF-8.
            let (from, into) = (quoted(&directory), into.as_deref().map(quoted));
            let request = json!({ "do": "import", "from": from, "into": into, "message": message });
            progress::spinning("importing", || client.run(&request))?
        }
    };
    super::commands::show(&reply, json, text)?;
    let troubled = reply["troubled"].as_array().is_some_and(|troubled| !troubled.is_empty());
    Ok(if troubled { FAILED } else { DONE })
}

fn import_here(workspace: &Workspace, directory: &Path, into: Option<&Path>, message: &str) -> Result<Value, CliError> {
    let mut names = Vec::new();
    for part in into.into_iter().flat_map(Path::components) {
        if let std::path::Component::Normal(part) = part {
            names.push(Name::new(part.as_bytes()).map_err(|err| CliError::new(err.to_string()))?);
        }
    }
    let caller = Caller { uid: sys::effective_uid(), gid: sys::effective_gid(), pid: std::process::id() };
    let counted = ImportProgress::default();
    let bar = progress::bytes("importing");
    let done = std::sync::atomic::AtomicBool::new(false);
    let reply = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                bar.set_length(counted.bytes_found.load(Ordering::Relaxed));
                bar.set_position(counted.bytes_done.load(Ordering::Relaxed));
                bar.set_message(format!("importing {} files", counted.files_done.load(Ordering::Relaxed)));
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let reply = import_into(workspace, directory, &names, message, &caller.author(), &counted);
        done.store(true, Ordering::Relaxed);
        reply
    });
    bar.finish_and_clear();
    Ok(reply.map_err(|err| CliError::new(err.to_string()))?.json)
}

fn text(reply: &Value) -> String {
    let mut text = format!(
        "{} files, {} imported; checkpoint {}\n",
        reply["files"],
        report::size(reply["bytes"].as_u64().unwrap_or(0)),
        report::short(&reply["id"])
    );
    for trouble in reply["troubled"].as_array().into_iter().flatten() {
        text +=
            &format!("not as it was: {}: {}\n", trouble["path"].as_str().unwrap_or("-"), trouble["why"].as_str().unwrap_or("-"));
    }
    text
}
