//! `fsck`: is everything there, and is it what it was? And putting right what can be put right.

use super::error::CliError;
use super::{DONE, FAILED, USAGE, progress};
use crate::control::quoted_path;
use crate::repository::{Check, Finding, Holder, Repaired, Repository, RepositoryError, Verified, repair};
use crate::store::StoreError;
use crate::sys;
use crate::workspace::{self, Inspected};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

/// Checkpoints named for each damaged path; the JSON names all.
const CHECKPOINTS_SHOWN: usize = 8;
/// Hex digits of an id that people see.
const ID_DIGITS: usize = 12;

/// Checks a store that is not mounted, and repairs it if asked. 0: all is well, 1: something is damaged, 2: it cannot be checked.
pub fn fsck(store: &Path, read_data: bool, mend: bool, json: bool) -> Result<i32, CliError> {
    let bar = progress::steps();
    let report = |what: &str, done: u64, total: u64| progress::step(&bar, what, done, total);
    let check = Check { read_data: read_data || mend, progress: &report };
    let umask = sys::set_umask(0o077);
    let checked = if mend { mended(store, &check) } else { looked_at(store, &check) };
    sys::set_umask(umask);
    bar.finish_and_clear();
    let (found, inspected, done) = match checked {
        Ok(checked) => checked,
        Err(err) => return refused(store, &err, json),
    };
    let findings: Vec<&Finding> = found.findings.iter().chain(&inspected.findings).collect();
    let notes: Vec<&String> = found.notes.iter().chain(&inspected.notes).collect();
    let reply = json!({
        "objects": found.objects,
        "stored_bytes": found.stored_bytes,
        "nodes": found.nodes,
        "checkpoints": found.checkpoints,
        "journal_records": inspected.records,
        "damaged": findings.iter().map(|finding| finding_json(finding)).collect::<Vec<_>>(),
        "notes": notes,
        "repaired": done,
    });
    super::commands::show(&reply, json, |_| {
        let mut text = String::new();
        done.iter().for_each(|step| text += &format!("repaired: {step}\n"));
        findings.iter().for_each(|finding| text += &finding_text(finding));
        notes.iter().for_each(|note| text += &format!("note: {note}\n"));
        let bytes = super::report::size(found.stored_bytes);
        let how = if check.read_data { "read and verified" } else { "looked at" };
        text += &format!(
            "{} checkpoints, {} directory nodes and {} objects ({bytes}) {how}, {} problems\n",
            found.checkpoints,
            found.nodes,
            found.objects,
            findings.len()
        );
        if !mend && !findings.is_empty() {
            text += &format!("what can be repaired, is by: mementofs fsck --repair {}\n", store.display());
        }
        text
    })?;
    Ok(if findings.is_empty() { DONE } else { FAILED })
}

type Checked = (Verified, Inspected, Vec<String>);

fn looked_at(store: &Path, check: &Check<'_>) -> Result<Checked, RepositoryError> {
    let repository = Repository::open_as_is(store)?;
    let found = repository.verify(check);
    Ok((found, workspace::inspect(&repository), Vec::new()))
}

fn mended(store: &Path, check: &Check<'_>) -> Result<Checked, RepositoryError> {
    let Repaired { done, left } = repair(store, &|| workspace::found_branches(store), check)?;
    let inspected = workspace::inspect(&*Repository::open_as_is(store)?);
    Ok((left, inspected, done))
}

/// Says why a store was not checked, or that nothing in it can be.
fn refused(store: &Path, err: &RepositoryError, json: bool) -> Result<i32, CliError> {
    let (code, advice) = match err {
        RepositoryError::Store(StoreError::Busy { .. }) => {
            let points = sys::mount_points_of(&store.canonicalize().unwrap_or_else(|_| store.to_owned()));
            let advice = points.first().map_or("another program has it open".to_owned(), |point| {
                format!("it is mounted; unmount it first: mementofs umount {}", point.display())
            });
            (USAGE, advice)
        }
        _ if std::fs::read_dir(store).is_err() => (USAGE, "name the directory of a store that you may read".to_owned()),
        RepositoryError::History(_) => (FAILED, format!("run: mementofs fsck --repair {}", store.display())),
        RepositoryError::Store(StoreError::Refused { .. }) => (USAGE, String::new()),
        _ => (FAILED, String::new()),
    };
    if json {
        super::commands::show(&json!({ "error": err.to_string(), "advice": advice }), true, |_| String::new())?;
    }
    let advice = if advice.is_empty() { advice } else { format!("; {advice}") };
    eprintln!("mementofs: the store {} cannot be checked: {err}{advice}", store.display());
    Ok(code)
}

fn finding_json(finding: &Finding) -> Value {
    let places = finding.places.iter().map(|place| {
        let (kind, holder) = match &place.holder {
            Holder::Checkpoint(id) => ("checkpoint", id.to_hex()),
            Holder::Branch(name) => ("branch", name.clone()),
            Holder::Operation => ("undo", String::new()),
        };
        json!({ kind: holder, "path": quoted_path(&place.path) })
    });
    json!({
        "about": finding.about,
        "problem": finding.sentence,
        "object": finding.object.map(|id| id.to_hex()),
        "places": places.collect::<Vec<_>>(),
    })
}

/// One line a path, with the checkpoints that hold it, then nothing more; one line alone when no path is known.
fn finding_text(finding: &Finding) -> String {
    if finding.places.is_empty() {
        let unused = if finding.object.is_some() { " (no kept state needs it)" } else { "" };
        return format!("{}: {}{unused}\n", finding.about, finding.sentence);
    }
    let mut text = String::new();
    for places in finding.places.chunk_by(|a, b| a.path == b.path) {
        let holder = |holder: &Holder| match holder {
            Holder::Checkpoint(id) => format!("checkpoint {:.*}", ID_DIGITS, id.to_hex()),
            Holder::Branch(name) => format!("branch {name}"),
            Holder::Operation => "undo".to_owned(),
        };
        let mut holders: Vec<String> = places.iter().take(CHECKPOINTS_SHOWN).map(|place| holder(&place.holder)).collect();
        if places.len() > CHECKPOINTS_SHOWN {
            holders.push(format!("{} more", places.len() - CHECKPOINTS_SHOWN));
        }
        let path = match places[0].path.as_slice() {
            b"" => "all of it".to_owned(),
            path => quoted_path(path),
        };
        let _ = writeln!(text, "{} {path}: {}", holders.join(", "), finding.sentence); // A string takes everything.
    }
    text
}
