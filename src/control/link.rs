//! Ids of other systems, tied to checkpoints that exist; directories of the host among them.

use super::error::CommandError;
use super::escape::escaped;
use super::execute::{Reply, resolve};
use crate::object::{Author, ExternalLink, NAME_BYTES_MAX, Timestamp};
use crate::workspace::Workspace;
use serde_json::json;
use std::path::Path;

/// The system whose ids are directories of the host: the checkpoint tied to one is what the directory holds.
pub const DIRECTORY_SYSTEM: &str = "directory";

/// Returns the id of a directory: its path. One that cannot be shown as a name in `links/` has none.
pub fn directory_id(path: &Path) -> Option<String> {
    path.to_str().filter(|path| escaped(path).len() <= NAME_BYTES_MAX).map(str::to_owned)
}

/// Ties links to a checkpoint.
pub fn link(workspace: &Workspace, reference: &str, links: &[ExternalLink], author: &Author) -> Result<Reply, CommandError> {
    let id = resolve(workspace, reference)?;
    workspace.repository().history().attach(&id, None, links, author, Timestamp::now())?;
    let tied: serde_json::Map<String, serde_json::Value> =
        links.iter().map(|link| (link.system.clone(), link.external_id.clone().into())).collect();
    Ok(json!({ "id": id.to_hex(), "links": tied }).into())
}
