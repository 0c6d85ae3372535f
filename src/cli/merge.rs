//! `merge`: the work of another branch, or of a checkpoint, comes into this one.

use super::DONE;
use super::args::MergeArgs;
use super::client::Client;
use super::error::CliError;
use super::report;
use serde_json::{Value, json};

/// Merges, or says what a merge would do.
pub fn merge(args: MergeArgs, json: bool) -> Result<i32, CliError> {
    let policy = match (args.ours, args.theirs, args.fail) {
        (true, ..) => "ours",
        (_, true, _) => "theirs",
        (.., true) => "fail",
        _ => "markers",
    };
    let mut request = json!({ "do": "merge", "policy": policy, "dry_run": args.dry_run });
    match (&args.other, &args.reference) {
        (Some(branch), _) => request["branch"] = branch.strip_prefix("branch/").unwrap_or(branch).into(),
        (None, Some(reference)) => request["ref"] = reference.as_str().into(),
        (None, None) => return Err(CliError::new("say which branch to merge, or --ref REF")),
    }
    let reply = Client::find(&args.place.into())?.run(&request)?;
    super::commands::show(&reply, json, text)?;
    Ok(DONE)
}

fn text(reply: &Value) -> String {
    let dry_run = reply["dry_run"] == true;
    let conflicts: Vec<String> = reply["conflicts"].as_array().into_iter().flatten().map(conflict).collect();
    let changes = report::changes(&reply["changes"]);
    let count = reply["changes"].as_array().map_or(0, Vec::len);
    let summary = match (reply["up_to_date"] == true, dry_run) {
        (true, _) => "nothing to merge: this branch has all of it\n".to_owned(),
        (_, true) => format!("{count} would change; nothing was changed: this was a dry run\n"),
        _ => format!("{count} changed; checkpoint {}; `mementofs undo` takes the merge back\n", report::short(&reply["id"])),
    };
    let warning = match conflicts.len() {
        0 => String::new(),
        count => format!("{count} in conflict:\n{}", conflicts.concat()),
    };
    changes + &warning + &summary
}

fn conflict(conflict: &Value) -> String {
    let (path, kind) = (conflict["path"].as_str().unwrap_or("?"), conflict["kind"].as_str().unwrap_or("?"));
    let other = conflict["other"].as_str().map(|other| format!(" (the other is {other})")).unwrap_or_default();
    format!("  {path}: {kind}{other}\n")
}
