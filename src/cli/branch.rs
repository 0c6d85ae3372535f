//! `branch`, and `restore --branches`.

use super::args::{BranchArgs, RestoreArgs};
use super::client::Client;
use super::commands::show;
use super::error::CliError;
use super::report;
use serde_json::{Value, json};

/// Lists branches, or makes, renames or deletes one.
pub fn branch(args: BranchArgs, json: bool) -> Result<i32, CliError> {
    let client = Client::find(&args.place.into())?;
    let Some(name) = args.name else {
        let reply = client.run(&json!({ "do": "branches" }))?;
        return show(&reply, json, |reply| reply["branches"].as_array().into_iter().flatten().map(line).collect());
    };
    if args.delete {
        let reply = client.run(&json!({ "do": "delete_branch", "branch": name }))?;
        return show(&reply, json, |_| format!("deleted {name}; `mementofs undo` brings it back until gc\n"));
    }
    if let (true, Some(new_name)) = (args.rename, args.new_name) {
        let reply = client.run(&json!({ "do": "rename_branch", "branch": name, "name": new_name }))?;
        return show(&reply, json, |_| format!("{name} is {new_name} now\n"));
    }
    let reply = client.run(&json!({ "do": "fork", "name": name, "at": args.at }))?;
    show(&reply, json, |reply| {
        let place = client.control().map(|control| format!("  {}", control.join("branches").join(&name).display()));
        format!("{name} {}{}\n", report::short(&reply["newest"]), place.unwrap_or_default())
    })
}

fn line(branch: &Value) -> String {
    let mark = if branch["current"] == true { "*" } else { " " };
    format!("{mark} {} {}\n", branch["name"].as_str().unwrap_or("-"), report::short(&branch["newest"]))
}

/// Restores several branches at once.
pub fn restore(args: RestoreArgs, json: bool) -> Result<i32, CliError> {
    let mut references = vec![args.reference];
    references.extend(args.rest.iter().map(|reference| reference.to_string_lossy().into_owned()));
    let client = Client::find(&args.place.into())?;
    let reply = client.run(&json!({ "do": "restore", "branches": args.branches, "refs": references }))?;
    show(&reply, json, |reply| {
        let one = |moved: &Value| {
            let name = moved["branch"].as_str().unwrap_or("-");
            format!("{name} {}\n{}", report::short(&moved["newest"]), report::changes(&moved["changes"]))
        };
        reply["branches"].as_array().into_iter().flatten().map(one).collect()
    })
}
