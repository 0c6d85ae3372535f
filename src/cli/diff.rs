//! `diff`: changed paths, and what changed inside the files.

use super::client::Client;
use super::error::CliError;
use super::report;
use crate::control::unquoted_path;
use serde_json::{Value, json};
use similar::{ChangeTag, TextDiff};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Files larger than this are only said to differ.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Bytes looked at to tell text from other content.
const PROBE_BYTES: usize = 8000;
const CONTEXT_LINES: usize = 3;

/// What is to be compared and how it is shown.
pub struct Options {
    /// The older state.
    from: String,
    /// The newer state; the live tree when absent.
    to: Option<String>,
    /// Only what is at or below this path.
    path: Option<PathBuf>,
    /// Only the changed paths.
    name_only: bool,
    /// JSON instead of text.
    json: bool,
}

impl Options {
    /// Takes `[REF[..REF] [PATH]]` or `REF REF [PATH]` apart. A second word is a path if there is a file of that name.
    pub fn parse(client: &Client, words: &[OsString], name_only: bool, json: bool) -> Result<Self, CliError> {
        let text = |word: &OsString| word.to_string_lossy().into_owned();
        let mut words = words.iter();
        let first = words.next().map_or_else(|| "@".to_owned(), text);
        let (from, mut to) = match first.split_once("..") {
            Some((from, to)) => (from.to_owned(), Some(to.to_owned())),
            None => (first, None),
        };
        let mut next = words.next();
        if let (None, Some(word)) = (&to, next.filter(|word| is_reference(client, word))) {
            to = Some(text(word));
            next = words.next();
        }
        match words.next() {
            None => Ok(Self { from, to, path: next.map(PathBuf::from), name_only, json }),
            Some(_) => Err(CliError::usage("say REF, REF..REF or REF REF, and then one path at most")),
        }
    }
}

/// Says whether a word that may be a path, also that of a file that is gone, names a state.
fn is_reference(client: &Client, word: &OsStr) -> bool {
    let text = word.to_string_lossy();
    if text.starts_with("branch/") || text.starts_with('@') {
        return true;
    }
    let place = client.top().zip(client.relative(Path::new(word)).ok()).map(|(top, relative)| top.join(relative));
    let exists = place.is_some_and(|place| place.symlink_metadata().is_ok());
    !exists && client.run(&json!({ "do": "show", "ref": text })).is_ok()
}

/// Prints differences.
pub fn diff(client: &Client, options: &Options) -> Result<(), CliError> {
    let (from, to) = (options.from.as_str(), options.to.as_deref());
    let below = options.path.as_deref().map(|path| client.relative(path)).transpose()?;
    let reply = client.run(&json!({ "do": "diff", "from": from, "to": to }))?;
    let changes: Vec<Value> =
        reply["changes"].as_array().into_iter().flatten().filter(|change| concerns(change, below.as_deref())).cloned().collect();
    if options.json {
        report::print(&format!("{}\n", json!({ "changes": changes })));
        return Ok(());
    }
    if options.name_only {
        report::print(&report::changes(&changes.into()));
        return Ok(());
    }
    let (old, new) = (state(client, Some(from))?, state(client, to)?);
    for change in &changes {
        report::print(&one(change, &old, &new));
    }
    Ok(())
}

fn concerns(change: &Value, below: Option<&Path>) -> bool {
    below.is_none_or(|below| ["path", "from"].iter().any(|key| path_of(change, key).is_some_and(|path| path.starts_with(below))))
}

fn path_of(change: &Value, key: &str) -> Option<PathBuf> {
    Some(PathBuf::from(OsStr::from_bytes(&unquoted_path(change[key].as_str()?.as_bytes()))))
}

/// Returns the directory that shows a state: a checkpoint's, or the live tree.
fn state(client: &Client, reference: Option<&str>) -> Result<PathBuf, CliError> {
    let unmounted = || CliError::new("differences inside files need a mount");
    let Some(reference) = reference else { return Ok(client.top().ok_or_else(unmounted)?.to_owned()) };
    let id = client.run(&json!({ "do": "show", "ref": reference }))?["id"].as_str().unwrap_or_default().to_owned();
    Ok(client.control().ok_or_else(unmounted)?.join("checkpoints").join(id))
}

fn one(change: &Value, old: &Path, new: &Path) -> String {
    let header = report::changes(&Value::Array(vec![change.clone()]));
    let Some(path) = path_of(change, "path") else { return header };
    let old_path = path_of(change, "from").unwrap_or_else(|| path.clone());
    match (readable(&old.join(&old_path)), readable(&new.join(&path))) {
        (Some(before), Some(after)) if before != after => header + &body(&old_path, &path, &before, &after),
        _ => header,
    }
}

/// Returns the content of a regular file that is not too large; of a file that is absent, nothing.
fn readable(path: &Path) -> Option<Vec<u8>> {
    match path.symlink_metadata() {
        Ok(file) if file.is_symlink() => std::fs::read_link(path).ok().map(|target| target.into_os_string().as_bytes().to_vec()),
        Ok(file) if file.is_file() && file.len() <= FILE_BYTES_MAX => std::fs::read(path).ok(),
        Ok(_) => None,
        Err(_) => Some(Vec::new()),
    }
}

fn body(old_path: &Path, path: &Path, before: &[u8], after: &[u8]) -> String {
    let is_text = |bytes: &[u8]| !bytes[..bytes.len().min(PROBE_BYTES)].contains(&0);
    if !is_text(before) || !is_text(after) {
        return format!(
            "  binary content differs: {} before, {} after\n",
            report::size(before.len() as u64),
            report::size(after.len() as u64)
        );
    }
    let diff = TextDiff::from_lines(before, after);
    let mut text = format!("--- {}\n+++ {}\n", old_path.display(), path.display());
    for hunk in diff.unified_diff().context_radius(CONTEXT_LINES).iter_hunks() {
        text += &coloured("36", &format!("{}\n", hunk.header()));
        for change in hunk.iter_changes() {
            let (sign, colour) = match change.tag() {
                ChangeTag::Delete => ('-', "31"),
                ChangeTag::Insert => ('+', "32"),
                ChangeTag::Equal => (' ', "0"),
            };
            let line = String::from_utf8_lossy(change.value());
            text += &coloured(colour, &format!("{sign}{}\n", line.trim_end_matches('\n')));
            if change.missing_newline() {
                text += "\\ No newline at end of file\n";
            }
        }
    }
    text
}

fn coloured(code: &str, line: &str) -> String {
    if report::is_terminal() && code != "0" {
        format!("\x1b[{code}m{}\x1b[0m\n", line.trim_end_matches('\n'))
    } else {
        line.to_owned()
    }
}
