//! `apply`: what changed in the workspace, written into an ordinary directory outside, such as the one it was imported from.
//!
//! `target` is that directory, never left and never reached through a symbolic link; `plan` compares it with the base and
//! says what is to be done; `write` does it, file by file, each replaced in one step.

mod plan;
mod target;
mod write;

use super::args::ApplyArgs;
use super::client::Client;
use super::error::CliError;
use super::{DONE, FAILED, progress, report, run};
use crate::control::{DIRECTORY_SYSTEM, directory_id, quoted_path};
use plan::{Plan, Standing, Step};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use target::Target;

/// Ties a directory to the checkpoint that an apply began to write into it, so that one that was interrupted can go on.
const APPLYING_SYSTEM: &str = "applying";
/// Drifted paths named in the sentence that refuses.
const NAMED_MAX: usize = 20;

/// Applies, or says what would be done.
pub fn apply(args: &ApplyArgs, json: bool) -> Result<i32, CliError> {
    let (client, workplace) = run::mounted(args.place.clone().into())?;
    let done = apply_from(&client, args, json);
    workplace.map_or(Ok(()), run::Workplace::close)?;
    done
}

/// The states compared, as directories.
struct States {
    /// What the directory is expected to hold: one of these, path by path.
    expected: Vec<PathBuf>,
    /// What it is to hold.
    new: PathBuf,
}

/// An apply to one directory.
struct Run<'a> {
    client: &'a Client,
    /// Where the live tree and the checkpoints are.
    top: &'a Path,
    checkpoints: PathBuf,
    target: Target,
}

fn apply_from(client: &Client, args: &ApplyArgs, json: bool) -> Result<i32, CliError> {
    let unmounted = || CliError::new("an apply needs a mount");
    let (top, control) = (client.top().ok_or_else(unmounted)?, client.control().ok_or_else(unmounted)?);
    let target = Target::open(&args.directory, top)?;
    let id = directory_id(target.path());
    let base = base_of(client, args, &target, id.as_deref())?;
    let begun = id.as_ref().and_then(|id| checkpoint_of(client, &format!("{APPLYING_SYSTEM}:{id}")).ok());
    let begun = begun.filter(|begun| *begun != base && args.since.is_none());
    let run = Run { client, top, checkpoints: control.join("checkpoints"), target };
    let new = if args.dry_run { None } else { Some(checkpoint(client, &run.target)?) };
    let bases: Vec<&str> = begun.iter().map(String::as_str).chain([base.as_str()]).collect();
    let (plan, _) = run.plan(&bases, new.as_deref())?;
    let Some(new) = new else { return show(&plan, &run.target, &base, None, json) };
    refuse_drifted(&plan, &run.target, &base)?;
    if let Some(begun) = &begun {
        run.write(&base, begun, id.as_deref())?; // What was interrupted is finished first: from then on one state is expected.
    }
    run.write(begun.as_ref().unwrap_or(&base), &new, id.as_deref())?;
    show(&plan, &run.target, &base, Some(&new), json)
}

impl Run<'_> {
    /// Compares the directory with the states it may hold, and with the one it is to hold: the live tree without `new`.
    fn plan(&self, expected: &[&str], new: Option<&str>) -> Result<(Plan, States), CliError> {
        let states = States {
            expected: expected.iter().map(|id| self.checkpoints.join(id)).collect(),
            new: new.map_or_else(|| self.top.to_owned(), |id| self.checkpoints.join(id)),
        };
        let failed = |err| CliError::at("cannot compare with", self.target.path(), err);
        let mut paths = BTreeSet::new();
        for base in expected {
            let changes = self.client.run(&json!({ "do": "diff", "from": base, "to": new }))?;
            plan::collect(&changes["changes"], &states, &mut paths).map_err(failed)?;
        }
        Ok((Plan::make(&self.target, &states, paths).map_err(failed)?, states))
    }

    /// Brings the directory from one checkpoint to another, and records both that it began and that it is done.
    fn write(&self, base: &str, new: &str, id: Option<&str>) -> Result<(), CliError> {
        let (plan, states) = self.plan(&[base], Some(new))?;
        refuse_drifted(&plan, &self.target, base)?;
        id.map_or(Ok(()), |id| tie(self.client, new, APPLYING_SYSTEM, id))?;
        let written = progress::spinning("applying", || write::write(&plan, &self.target, &states));
        written.map_err(|err| {
            CliError::new(format!("{err}; run it again to go on: mementofs apply {}", self.target.path().display()))
        })?;
        id.map_or(Ok(()), |id| tie(self.client, new, DIRECTORY_SYSTEM, id))
    }
}

/// Finds the checkpoint that the directory is expected to hold.
fn base_of(client: &Client, args: &ApplyArgs, target: &Target, id: Option<&str>) -> Result<String, CliError> {
    match (&args.since, id) {
        (Some(since), _) => checkpoint_of(client, since),
        (None, Some(id)) => checkpoint_of(client, &format!("{DIRECTORY_SYSTEM}:{id}")).map_err(|_| unknown(target)),
        (None, None) => Err(unknown(target)),
    }
}

fn unknown(target: &Target) -> CliError {
    CliError::new(format!(
        "{} was neither imported into this workspace nor applied to before; say which checkpoint it holds: --since REF",
        target.path().display()
    ))
}

fn checkpoint_of(client: &Client, reference: &str) -> Result<String, CliError> {
    Ok(client.run(&json!({ "do": "show", "ref": reference }))?["id"].as_str().unwrap_or_default().to_owned())
}

fn checkpoint(client: &Client, target: &Target) -> Result<String, CliError> {
    let message = format!("before apply to {}", target.path().display());
    let reply = client.run(&json!({ "do": "checkpoint", "message": message }))?;
    Ok(reply["id"].as_str().unwrap_or_default().to_owned())
}

fn tie(client: &Client, reference: &str, system: &str, id: &str) -> Result<(), CliError> {
    client.run(&json!({ "do": "link", "ref": reference, "links": { system: id } })).map(drop)
}

fn refuse_drifted(plan: &Plan, target: &Target, base: &str) -> Result<(), CliError> {
    let drifted: Vec<(&Path, &str)> = plan.drifted().collect();
    if drifted.is_empty() {
        return Ok(());
    }
    let line = |(path, why): &(&Path, &str)| format!("\n  {}: {why}", shown(path));
    let more = drifted.len().saturating_sub(NAMED_MAX);
    let rest = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    Err(CliError::new(format!(
        "{} changed meanwhile: it does not hold what checkpoint {} has there, and nothing was written:{}{rest}",
        target.path().display(),
        report::short(&base.into()),
        drifted.iter().take(NAMED_MAX).map(line).collect::<String>()
    )))
}

fn shown(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    quoted_path(path.as_os_str().as_bytes())
}

/// Prints what was done, or would be done.
fn show(plan: &Plan, target: &Target, base: &str, new: Option<&str>, json: bool) -> Result<i32, CliError> {
    let due: Vec<Value> = plan
        .steps
        .iter()
        .filter(|step| !matches!(step.standing, Standing::Done))
        .map(|step| json!({ "letter": letter(step), "path": shown(&step.path) }))
        .collect();
    let drifted: Vec<Value> = plan.drifted().map(|(path, why)| json!({ "path": shown(path), "why": why })).collect();
    let reply = json!({
        "directory": target.path().to_string_lossy(),
        "since": base,
        "id": new,
        "dry_run": new.is_none(),
        "changes": due,
        "drifted": drifted,
    });
    super::commands::show(&reply, json, |reply| {
        let mut text = report::changes(&reply["changes"]);
        for drifted in reply["drifted"].as_array().into_iter().flatten() {
            let (path, why) = (drifted["path"].as_str().unwrap_or("?"), drifted["why"].as_str().unwrap_or("?"));
            text += &format!("in the way: {path}: {why}\n");
        }
        let count = due.len();
        text + &match new {
            Some(new) => {
                format!("{count} changed in {}, which holds checkpoint {}\n", target.path().display(), report::short(&new.into()))
            }
            None => format!("{count} would change in {}; nothing was written: this was a dry run\n", target.path().display()),
        }
    })?;
    Ok(if drifted.is_empty() { DONE } else { FAILED })
}

fn letter(step: &Step) -> &'static str {
    match (step.expected, step.new) {
        (false, _) => "A",
        (true, false) => "D",
        (true, true) => "M",
    }
}
