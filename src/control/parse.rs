//! Commands as text and JSON. Parsing knows nothing of files, so tests and fuzzers reach all of it.

use super::command::{Command, GcCommand};
use super::error::CommandError;
use super::execute::MountWish;
use super::text::{quoted_path, unquoted_path};
use crate::object::{ExternalLink, Name};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Longest command in bytes: pipes cut longer writes into several.
const COMMAND_BYTES_MAX: usize = 4095;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckpointJson {
    #[serde(default)]
    message: String,
    name: Option<String>,
    #[serde(default)]
    links: BTreeMap<String, String>,
    #[serde(default)]
    meta: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    allow_empty: bool,
    expect: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RestoreJson {
    #[serde(rename = "ref")]
    reference: Option<String>,
    #[serde(default)]
    branches: Vec<String>,
    #[serde(default)]
    refs: Vec<String>,
    path: Option<String>,
    #[serde(default)]
    dry_run: bool,
    expect: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReferenceJson {
    #[serde(rename = "ref")]
    reference: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NameJson {
    #[serde(rename = "ref")]
    reference: String,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkJson {
    #[serde(rename = "ref")]
    reference: String,
    links: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DiffJson {
    from: String,
    to: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogJson {
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImportJson {
    from: String,
    into: Option<String>,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForkJson {
    name: String,
    at: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RenameBranchJson {
    branch: String,
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BranchJson {
    branch: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MountJson {
    path: String,
    branch: String,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NothingJson {}

/// Parses what is written into `checkpoint`: a message line, or a JSON object.
pub fn parse_checkpoint(bytes: &[u8]) -> Result<Command, CommandError> {
    let line = line_of(bytes)?;
    if line.trim_start().starts_with('{') {
        return checkpoint_of(json(line)?);
    }
    checkpoint_of(CheckpointJson {
        message: line.to_owned(),
        name: None,
        links: BTreeMap::new(),
        meta: serde_json::Map::new(),
        allow_empty: false,
        expect: None,
    })
}

/// Parses what is written into `restore`: `REF`, `REF PATH`, or a JSON object.
pub fn parse_restore(bytes: &[u8]) -> Result<Command, CommandError> {
    let line = bytes_of(bytes)?.trim_ascii_start();
    if line.starts_with(b"{") {
        return restore_of(json(text_of(line)?)?);
    }
    let mut parts = line.splitn(2, |byte| *byte == b' ');
    let reference = text_of(parts.next().unwrap_or_default())?.trim_end().to_owned();
    if reference.is_empty() {
        return Err(CommandError::Invalid("say which checkpoint: REF, or REF PATH".into()));
    }
    // The path is bytes, spaces at its ends too: a name need not be UTF-8, and then it cannot be said in JSON except in quotes.
    let path = parts.next().filter(|path| !path.is_empty()).map(names_of).transpose()?;
    Ok(Command::Restore { reference, path, dry_run: false, expect: None })
}

/// Takes what is written into `restore` for a reference as a whole: names and external ids may have spaces in them. None when it
/// is one word, or something else.
pub fn parse_spaced_reference(bytes: &[u8]) -> Option<&str> {
    let line = line_of(bytes).ok()?.trim();
    (line.contains(' ') && !line.starts_with('{')).then_some(line)
}

/// Parses what is written into `gc`: `run`, `dry-run`, or a JSON object.
pub fn parse_gc(bytes: &[u8]) -> Result<Command, CommandError> {
    let line = line_of(bytes)?.trim();
    match line {
        "run" => Ok(Command::Gc(GcCommand::default())),
        "dry-run" => Ok(Command::Gc(GcCommand { dry_run: true, ..GcCommand::default() })),
        _ if line.starts_with('{') => Ok(Command::Gc(json(line)?)),
        _ => Err(CommandError::Invalid("write `run`, `dry-run` or a JSON object".into())),
    }
}

/// Parses a request: a JSON object whose `do` says which command it is.
pub fn parse_request(bytes: &[u8]) -> Result<Command, CommandError> {
    let mut object: serde_json::Map<String, serde_json::Value> = json(line_of(bytes)?)?;
    let Some(serde_json::Value::String(verb)) = object.remove("do") else {
        return Err(CommandError::Invalid("a request needs \"do\": the name of a command".into()));
    };
    let rest = serde_json::Value::Object(object);
    match verb.as_str() {
        "checkpoint" => checkpoint_of(from_value(rest)?),
        "restore" => restore_of(from_value(rest)?),
        "undo" => from_value(rest).map(|NothingJson {}| Command::Undo),
        "status" => from_value(rest).map(|NothingJson {}| Command::Status),
        "branches" => from_value(rest).map(|NothingJson {}| Command::Branches),
        "stats" => from_value(rest).map(|NothingJson {}| Command::Stats),
        "gc" => from_value(rest).map(Command::Gc),
        "log" => from_value(rest).map(|LogJson { limit }| Command::Log { limit }),
        "diff" => from_value(rest).map(|DiffJson { from, to }| Command::Diff { from, to }),
        "show" => from_value(rest).map(|ReferenceJson { reference }| Command::Show { reference }),
        "name" => from_value(rest).map(|NameJson { reference, name }| Command::Name { reference, name }),
        "delete" => from_value(rest).map(|ReferenceJson { reference }| Command::Delete { reference }),
        "link" => {
            let LinkJson { reference, links } = from_value(rest)?;
            Ok(Command::Link { reference, links: links_of(links) })
        }
        "merge" => from_value(rest).map(Command::Merge),
        "fork" => from_value(rest).map(|ForkJson { name, at }| Command::Fork { name, at }),
        "rename_branch" => from_value(rest).map(|RenameBranchJson { branch, name }| Command::RenameBranch { branch, name }),
        "delete_branch" => from_value(rest).map(|BranchJson { branch }| Command::DeleteBranch { branch }),
        "mount" => {
            from_value(rest).map(|MountJson { path, branch, options }| Command::Mount(MountWish { path, branch, options }))
        }
        "import" => {
            let ImportJson { from, into, message } = from_value(rest)?;
            Ok(Command::Import { from, into: into.as_deref().map(path_of).transpose()?, message })
        }
        _ => Err(CommandError::Invalid(format!("unknown command {verb:?}"))),
    }
}

fn checkpoint_of(json: CheckpointJson) -> Result<Command, CommandError> {
    Ok(Command::Checkpoint {
        message: json.message,
        name: json.name,
        links: links_of(json.links),
        metadata: serde_json::Value::Object(json.meta).to_string(),
        allow_empty: json.allow_empty,
        expect: json.expect,
    })
}

fn links_of(links: BTreeMap<String, String>) -> Vec<ExternalLink> {
    links.into_iter().map(|(system, external_id)| ExternalLink { system, external_id }).collect()
}

fn restore_of(json: RestoreJson) -> Result<Command, CommandError> {
    let RestoreJson { reference, branches, mut refs, path, dry_run, expect } = json;
    if branches.is_empty() {
        let reference = reference.filter(|_| refs.is_empty());
        let reference = reference.ok_or_else(|| CommandError::Invalid("say which checkpoint: \"ref\"".into()))?;
        let path = path.as_deref().filter(|path| !path.is_empty()).map(path_of).transpose()?;
        return Ok(Command::Restore { reference, path, dry_run, expect });
    }
    if path.is_some() || dry_run || expect.is_some() {
        return Err(CommandError::Invalid("several branches are restored whole and at once: no path, dry_run or expect".into()));
    }
    refs.extend(reference);
    Ok(Command::RestoreBranches { branches, references: refs })
}

fn path_of(path: &str) -> Result<Vec<Name>, CommandError> {
    names_of(path.as_bytes())
}

/// Takes a path apart: relative to the top of the workspace, without `..`; in quotes as `status` shows an odd one.
fn names_of(path: &[u8]) -> Result<Vec<Name>, CommandError> {
    let path = unquoted_path(path);
    let mut names = Vec::new();
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
        let bad = |err| CommandError::Invalid(format!("path {}: {err}", quoted_path(&path)));
        names.push(Name::new(part).map_err(bad)?);
    }
    Ok(names)
}

/// Returns a command without its newline.
fn bytes_of(bytes: &[u8]) -> Result<&[u8], CommandError> {
    if bytes.len() > COMMAND_BYTES_MAX {
        return Err(CommandError::TooLong);
    }
    if bytes.contains(&0) {
        return Err(CommandError::Invalid("a command holds no NUL".into()));
    }
    Ok(bytes.strip_suffix(b"\n").unwrap_or(bytes))
}

fn text_of(bytes: &[u8]) -> Result<&str, CommandError> {
    std::str::from_utf8(bytes).map_err(|_| CommandError::Invalid("a command is UTF-8 text".into()))
}

/// Returns the text of a command without its newline.
fn line_of(bytes: &[u8]) -> Result<&str, CommandError> {
    text_of(bytes_of(bytes)?)
}

fn json<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, CommandError> {
    serde_json::from_str(text).map_err(|err| CommandError::Invalid(format!("not the JSON that was expected: {err}")))
}

fn from_value<T: for<'de> Deserialize<'de>>(value: serde_json::Value) -> Result<T, CommandError> {
    serde_json::from_value(value).map_err(|err| CommandError::Invalid(format!("not the JSON that was expected: {err}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_a_line_or_an_object() {
        let Ok(Command::Checkpoint { message, .. }) = parse_checkpoint(b"before the refactoring\n") else { panic!() };
        assert_eq!(message, "before the refactoring");
        let json = br#"{"message":"m","name":"n","links":{"langgraph":"t/ns/1"},"meta":{"ok":true},"allow_empty":true}"#;
        let Ok(Command::Checkpoint { name, links, metadata, allow_empty, .. }) = parse_checkpoint(json) else { panic!() };
        assert_eq!((name.as_deref(), metadata.as_str(), allow_empty), (Some("n"), r#"{"ok":true}"#, true));
        assert_eq!(links, [ExternalLink { system: "langgraph".into(), external_id: "t/ns/1".into() }]);
    }

    #[test]
    fn a_restore_is_a_ref_with_or_without_a_path() {
        let Ok(Command::Restore { reference, path, .. }) = parse_restore(b"@~2\n") else { panic!() };
        assert_eq!((reference.as_str(), path), ("@~2", None));
        let Ok(Command::Restore { path, .. }) = parse_restore(b"abcd src/a file.rs") else { panic!() };
        assert_eq!(path, Some(vec![Name::new(b"src").unwrap(), Name::new(b"a file.rs").unwrap()]));
        let Ok(Command::Restore { reference, path, .. }) = parse_restore(b"@  spaces \n") else { panic!() };
        assert_eq!((reference.as_str(), path), ("@", Some(vec![Name::new(b" spaces ").unwrap()])));
        let Ok(Command::Restore { reference, path, .. }) = parse_restore(b"@ \n") else { panic!() };
        assert_eq!((reference.as_str(), path), ("@", None));
        assert_eq!(parse_spaced_reference(b"before it all\n"), Some("before it all"));
        assert_eq!((parse_spaced_reference(b"@\n"), parse_spaced_reference(b"{\"ref\": \"@\"}")), (None, None));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [&b"{"[..], b"{\"messag\":1}", b"{\"message\":3}", b"\xff\xfe", b"a\0b"] {
            assert!(matches!(parse_checkpoint(bad), Err(CommandError::Invalid(_))), "{bad:?}");
        }
        for bad in [&b"\n"[..], b"", b"@ ../x", b"{\"path\":\"x\"}"] {
            assert!(matches!(parse_restore(bad), Err(CommandError::Invalid(_))), "{bad:?}");
        }
        assert!(matches!(parse_checkpoint(&[b'x'; 4096]), Err(CommandError::TooLong)));
        assert!(parse_checkpoint(&[b'x'; 4095]).is_ok());
        assert!(parse_gc(b"now").is_err());
        assert!(parse_request(b"{\"do\":\"fly\"}").is_err());
    }
}
