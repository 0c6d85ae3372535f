//! Each command: arguments in, a request through the client, a reply printed.

use super::args::{BranchPlaceArgs, CheckpointArgs, Cli, Command, GcArgs, PlaceArgs, RestoreArgs};
use super::client::{Client, Place};
use super::error::CliError;
use super::{DONE, FAILED, apply, branch, diff, doctor, export, generate, import, merge, mount, progress, report, run};
use crate::control::quoted_path;
use serde_json::{Map, Value, json};
use std::os::unix::ffi::OsStrExt;

impl From<PlaceArgs> for Place {
    fn from(args: PlaceArgs) -> Self {
        Self { at: args.at, store: args.store, branch: args.branch }
    }
}

impl From<BranchPlaceArgs> for Place {
    fn from(args: BranchPlaceArgs) -> Self {
        Self { at: args.within, store: args.store, branch: None }
    }
}

/// Runs a command and returns the exit code.
pub fn dispatch(cli: Cli) -> Result<i32, CliError> {
    let json = cli.json;
    match cli.command {
        Command::Mount(args) => mount::mount(&args).map(|()| DONE),
        Command::Umount { mount_point, lazy } => mount::unmount(&mount_point, lazy).map(|()| DONE),
        Command::Checkpoint(args) => checkpoint(args, json),
        Command::Restore(args) if args.branches.is_empty() => restore(args, json),
        Command::Restore(args) => branch::restore(args, json),
        Command::Undo { place } => {
            let reply = Client::find(&place.into())?.run(&json!({ "do": "undo" }))?;
            show(&reply, json, |reply| {
                format!("{}undone; `mementofs undo` takes this back\n", report::changes(&reply["changes"]))
            })
        }
        Command::Log { limit, place } => {
            let reply = Client::find(&place.into())?.run(&json!({ "do": "log", "limit": limit }))?;
            show(&reply, json, |reply| report::log(&reply["checkpoints"]))
        }
        Command::Status { place } => {
            let reply = Client::find(&place.into())?.run(&json!({ "do": "status" }))?;
            show(&reply, json, |reply| report::changes(&reply["changes"]))
        }
        Command::Diff { words, name_only, place } => {
            let (client, workplace) = run::mounted(place.into())?;
            let options = diff::Options::parse(&client, &words, name_only, json);
            let done = options.and_then(|options| diff::diff(&client, &options)).map(|()| DONE);
            workplace.map_or(Ok(()), run::Workplace::close)?;
            done
        }
        Command::Show { reference, place } => {
            let reply = Client::find(&place.into())?.run(&json!({ "do": "show", "ref": reference }))?;
            show(&reply, json, report::show)
        }
        Command::Branch(args) => branch::branch(args, json),
        Command::Merge(args) => merge::merge(args, json),
        Command::Import { directory, into, message, place } => {
            import::import(&directory, into.as_deref(), message.as_deref(), &place.into(), json)
        }
        Command::Export { reference, destination, tar, place } => {
            let (client, workplace) = run::mounted(place.into())?;
            let done = export::export(&client, &reference, &destination, tar, json).map(|()| DONE);
            workplace.map_or(Ok(()), run::Workplace::close)?;
            done
        }
        Command::Apply(args) => apply::apply(&args, json),
        Command::Gc(args) => gc(args, json),
        Command::Fsck { store, read_data, repair } => super::fsck::fsck(&store, read_data, repair, json),
        Command::Stats { place } => {
            let reply = Client::find(&place.into())?.run(&json!({ "do": "stats" }))?;
            show(&reply, json, report::pairs)
        }
        Command::Doctor { store } => {
            let found = doctor::examine(store.as_deref());
            let code = if found["can_mount"] == true { DONE } else { FAILED };
            show(&found, json, report::pairs).map(|_| code)
        }
        Command::Run(args) => run::run(&args, json),
        Command::Generate { what, directory } => generate::generate(what, &directory).map(|()| DONE),
    }
}

/// Prints a reply as JSON or as text.
pub fn show(reply: &Value, json: bool, text: impl FnOnce(&Value) -> String) -> Result<i32, CliError> {
    if json {
        report::print(&format!("{reply}\n"));
    } else {
        report::print(&text(reply));
    }
    Ok(DONE)
}

fn checkpoint(args: CheckpointArgs, json: bool) -> Result<i32, CliError> {
    let mut request = Map::new();
    request.insert("do".into(), "checkpoint".into());
    request.insert("message".into(), args.message.into());
    request.insert("allow_empty".into(), args.allow_empty.into());
    request.extend(args.name.map(|name| ("name".to_owned(), name.into())));
    request.extend(args.expect.map(|expect| ("expect".to_owned(), expect.into())));
    if let Some(meta) = args.meta {
        let meta: Map<String, Value> =
            serde_json::from_str(&meta).map_err(|err| CliError::usage(format!("--meta is not a JSON object: {err}")))?;
        request.insert("meta".into(), meta.into());
    }
    let mut links = Map::new();
    for link in args.links {
        let (system, id) =
            link.split_once(':').ok_or_else(|| CliError::usage(format!("--link {link}: write it as SYSTEM:ID")))?;
        links.insert(system.to_owned(), id.into());
    }
    request.insert("links".into(), links.into());
    let reply = Client::find(&args.place.into())?.run(&request.into())?;
    show(&reply, json, |reply| {
        let id = reply["id"].as_str().unwrap_or("-");
        match reply["created"].as_bool() {
            Some(true) => format!("{id}  {} changed\n", reply["files_changed"]),
            _ => format!("{id}  nothing changed since\n"),
        }
    })
}

fn restore(args: RestoreArgs, json: bool) -> Result<i32, CliError> {
    if args.rest.len() > 1 {
        return Err(CliError::usage("one path at a time"));
    }
    let dry_run = args.dry_run;
    let client = Client::find(&args.place.into())?;
    let path = args.rest.first().map(|path| client.relative(path)).transpose()?;
    let path = path.as_ref().map(|path| quoted_path(path.as_os_str().as_bytes())); // Names need not be UTF-8.
    let reply = client.run(&json!({ "do": "restore", "ref": args.reference, "path": path, "dry_run": dry_run }))?;
    show(&reply, json, |reply| {
        let mut text = report::changes(&reply["changes"]);
        if let Some(safety) = reply["safety"].as_str() {
            text +=
                &format!("what was there is checkpoint {}; `mementofs undo` brings it back\n", &safety[..safety.len().min(12)]);
        }
        if dry_run {
            text += "nothing was changed: this was a dry run\n";
        }
        text
    })
}

fn gc(args: GcArgs, json: bool) -> Result<i32, CliError> {
    let mut request = json!({ "do": "gc", "dry_run": args.dry_run, "purge": args.purge });
    let numbers = [
        ("grace_secs", args.grace),
        ("keep_last", args.keep_last.map(u64::from)),
        ("keep_hourly", args.keep_hourly.map(u64::from)),
        ("keep_daily", args.keep_daily.map(u64::from)),
        ("keep_weekly", args.keep_weekly.map(u64::from)),
    ];
    for (key, number) in numbers {
        if let Some(number) = number {
            request[key] = number.into();
        }
    }
    let client = Client::find(&args.place.into())?;
    let reply = progress::spinning("collecting", || client.run(&request))?;
    show(&reply, json, report::pairs)
}
