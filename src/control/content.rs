//! What the readable files of the control directory say.

use super::directory::ControlDirectory;
use super::error::CommandError;
use super::escape::unescaped;
use super::execute;
use super::node::{FileKind, Node};
use super::text::{changes_text, log_line};
use crate::workspace::{BranchUndo, UndoPlan, WorkspaceError};
use std::fmt::Write;

const README: &str = include_str!("README.txt");

impl ControlDirectory {
    /// Returns the text of a file.
    pub(super) fn text(&self, node: &Node) -> Result<String, CommandError> {
        match node {
            Node::File(kind) => self.file_text(*kind),
            Node::Diff(reference) => self.diff_text(reference),
            Node::Request(name) => Ok(self.state().said.requests.reply(name)),
            _ => Err(CommandError::IsDirectory),
        }
    }

    fn file_text(&self, kind: FileKind) -> Result<String, CommandError> {
        let workspace = &self.workspace;
        Ok(match kind {
            FileKind::Readme => README.to_owned(),
            FileKind::Checkpoint => workspace.newest().map_or_else(String::new, |id| format!("{id}\n")),
            FileKind::Restore => or_nothing(&self.state().said.last_restore),
            FileKind::Undo => self.undo_text()?,
            FileKind::Status => changes_text(&execute::status(workspace)?),
            FileKind::Log => {
                let rows = workspace.repository().history().log(workspace.branch_id(), None)?;
                rows.iter().map(|row| log_line(row) + "\n").collect()
            }
            FileKind::Gc => or_nothing(&self.state().said.last_gc),
            FileKind::Events => self.events_text()?,
            FileKind::Stats => stats_text(&execute::stats_json(workspace)?),
            FileKind::Error => match self.repository().trouble() {
                Some(trouble) => trouble + "\n",
                None => self.state().said.last_error.clone(),
            },
        })
    }

    fn undo_text(&self) -> Result<String, CommandError> {
        match self.workspace.plan_undo() {
            Ok(UndoPlan { branch: Some((id, undo)), .. }) => {
                let name = self.repository().history().branch_by_id(id)?.name;
                Ok(match undo {
                    BranchUndo::Revive => format!("undo the last branch.delete: the branch {name} comes back\n"),
                    BranchUndo::Delete => format!("undo the last undo: the branch {name} is deleted again\n"),
                })
            }
            Ok(plan) => {
                let to = plan.commit.map_or_else(|| "the empty state".to_owned(), |id| id.to_hex());
                Ok(format!("undo the last {}: back to {to}\n", plan.operation))
            }
            Err(WorkspaceError::NotFound(_)) => Ok("nothing to undo\n".to_owned()),
            Err(err) => Err(err.into()),
        }
    }

    fn diff_text(&self, reference: &str) -> Result<String, CommandError> {
        // A slash in a reference is written as in `links/`: `diff/branch%2Fa..branch%2Fb`.
        let unescaped = |part: &str| unescaped(part).unwrap_or_else(|| part.to_owned());
        let (from, to) = match reference.split_once("..") {
            Some((from, to)) => (unescaped(from), Some(unescaped(to))),
            None => (unescaped(reference), None),
        };
        Ok(changes_text(&execute::diff(&self.workspace, &from, to.as_deref())?))
    }

    /// Returns the outbox as JSON lines. What was read before is kept: events are only ever added.
    fn events_text(&self) -> Result<String, CommandError> {
        let mut events = self.events();
        loop {
            let fresh = self.workspace.repository().history().events_since(events.last_seq, EVENTS_STEP)?;
            for event in &fresh {
                let payload: serde_json::Value = serde_json::from_str(&event.payload).unwrap_or_default();
                let line = serde_json::json!({
                    "seq": event.seq,
                    "type": event.event_type,
                    "time": super::text::iso_time(event.time),
                    "key": event.idempotency_key,
                    "payload": payload,
                });
                let _ = writeln!(events.text, "{line}"); // Writing into a string cannot fail.
                events.last_seq = event.seq;
            }
            if fresh.len() < EVENTS_STEP {
                return Ok(events.text.clone());
            }
        }
    }
}

/// Events taken from the database at a time.
const EVENTS_STEP: usize = 1000;

fn stats_text(stats: &serde_json::Value) -> String {
    let mut text = String::new();
    for (key, value) in stats.as_object().into_iter().flatten() {
        let _ = match value {
            serde_json::Value::String(value) => writeln!(text, "{key} {value}"),
            value => writeln!(text, "{key} {value}"),
        };
    }
    text
}

/// Returns a result as JSON, also before there is one.
fn or_nothing(result: &str) -> String {
    if result.is_empty() { "{}\n".to_owned() } else { result.to_owned() }
}
