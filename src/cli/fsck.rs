//! `fsck`: is everything there, and is it what it was?

use super::error::CliError;
use super::{DONE, FAILED, progress, report};
use crate::repository::Repository;
use serde_json::json;
use std::path::Path;

/// Checks a store that is not mounted.
pub fn fsck(store: &Path, read_data: bool, repair: bool, json: bool) -> Result<i32, CliError> {
    if repair {
        return Err(CliError::new("--repair is not possible yet in this version"));
    }
    let repository =
        Repository::open(store).map_err(|err| CliError::new(format!("cannot open the store {}: {err}", store.display())))?;
    let found = progress::spinning("checking", || repository.verify(read_data)).map_err(|err| CliError::new(err.to_string()))?;
    let reply = json!({ "objects": found.objects, "damaged": found.findings });
    super::commands::show(&reply, json, |_| {
        let findings: String = found.findings.iter().map(|finding| format!("{finding}\n")).collect();
        format!("{findings}{} objects checked, {} problems\n", found.objects, found.findings.len())
    })?;
    let _ = report::is_terminal();
    Ok(if found.findings.is_empty() { DONE } else { FAILED })
}
