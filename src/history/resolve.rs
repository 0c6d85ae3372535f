//! References: an id or the start of one, a name, `@`, `@~N`, `branch/NAME`, `SYSTEM:EXTERNAL-ID`.

use super::objects::{id_at, id_or_none_at};
use super::{History, HistoryError};
use crate::object::ObjectId;

/// Fewer digits than this name nothing.
pub(super) const PREFIX_DIGITS_MIN: usize = 4;
const ID_DIGITS: usize = 64;

impl History {
    /// Finds the checkpoint that `reference` names, seen from `branch`. Deleted ones are not found.
    pub fn resolve(&self, reference: &str, branch: &str) -> Result<ObjectId, HistoryError> {
        let missing = || HistoryError::not_found(reference);
        if let Some(rest) = reference.strip_prefix('@') {
            return self.ancestor(branch, rest, reference);
        }
        if let Some(name) = reference.strip_prefix("branch/") {
            return self.branch(name)?.head.ok_or_else(missing);
        }
        if let Some(id) = self.named(reference)? {
            return Ok(id);
        }
        let digits = reference.bytes().all(|byte| byte.is_ascii_hexdigit());
        if digits && (PREFIX_DIGITS_MIN..=ID_DIGITS).contains(&reference.len()) {
            return self.by_prefix(reference);
        }
        match reference.split_once(':') {
            Some((system, external_id)) => self.link(system, external_id)?.ok_or_else(missing),
            None => Err(missing()),
        }
    }

    fn by_prefix(&self, prefix: &str) -> Result<ObjectId, HistoryError> {
        let prefix = prefix.to_ascii_lowercase();
        let reader = self.reader();
        let mut statement = reader
            .prepare_cached("SELECT id FROM file_commits WHERE id >= ?1 AND id < ?1 || 'g' AND deleted_at IS NULL LIMIT 2")?;
        let mut rows = statement.query([&prefix])?;
        let first = rows.next()?.map(|row| id_at(row, 0)).transpose()?;
        let second = rows.next()?.is_some();
        match first {
            Some(_) if second => Err(HistoryError::Ambiguous { prefix }),
            Some(id) => Ok(id),
            None => Err(HistoryError::not_found(prefix)),
        }
    }

    /// Resolves what follows `@`: nothing, or `~N`.
    fn ancestor(&self, branch: &str, rest: &str, reference: &str) -> Result<ObjectId, HistoryError> {
        let missing = || HistoryError::not_found(reference);
        let steps = match rest.strip_prefix('~') {
            None if rest.is_empty() => 0,
            Some("") => 1,
            Some(count) => count.parse::<u64>().map_err(|_| missing())?,
            None => return Err(missing()),
        };
        let mut id = self.branch(branch)?.head.ok_or_else(missing)?;
        let reader = self.reader();
        let mut statement = reader.prepare_cached("SELECT parent FROM file_commits WHERE id = ?")?;
        for _ in 0..steps {
            let mut rows = statement.query([id.to_hex()])?;
            let parent = rows.next()?.map(|row| id_or_none_at(row, 0)).transpose()?.flatten();
            id = parent.ok_or_else(missing)?;
        }
        drop(statement);
        drop(reader);
        self.by_prefix(&id.to_hex()) // A deleted ancestor is not found.
    }
}
