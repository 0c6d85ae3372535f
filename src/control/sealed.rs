//! Old states as read-only files: what lies below `checkpoints/ID`.

use super::error::CommandError;
use crate::object::{Entry, Name, Node as EntryNode, ObjectId, Root, TreeItem};
use crate::repository::{Held, Repository};
use crate::tree;
use crate::tree::NodeSource;
use std::sync::Arc;

/// A file or directory of an old state.
#[derive(Clone, Debug)]
pub struct SealedFile {
    /// The checkpoint.
    pub commit: ObjectId,
    /// The state it belongs to.
    pub root: Arc<Root>,
    /// What it is.
    pub entry: Arc<Entry>,
    /// Whoever has it open goes on reading, also when the checkpoint is deleted meanwhile.
    _held: Arc<Held>,
}

/// One name of an old directory.
pub struct SealedName {
    /// The name.
    pub name: Name,
    /// The file's identity.
    pub identity: u64,
    /// The file's kind.
    pub kind: crate::object::EntryKind,
}

impl SealedFile {
    /// Opens the top of a checkpoint.
    pub fn top(repository: &Repository, commit: &ObjectId) -> Result<Self, CommandError> {
        let record = repository.commit(commit)?;
        let held = Arc::new(repository.hold(record.root_tree));
        repository.history().check_kept(commit)?; // Now that it is held.
        let root = repository.root(&record.root_tree)?;
        let entry = Arc::new(root.directory.clone());
        Ok(Self { commit: *commit, root: Arc::new(root), entry, _held: held })
    }

    /// Finds a name in the directory.
    pub fn child(&self, repository: &Repository, name: &Name) -> Result<Option<Self>, CommandError> {
        let Some(item) = tree::lookup(repository, self.tree()?, name)? else { return Ok(None) };
        let entry = Arc::new(self.described(repository, item)?);
        Ok(Some(Self { entry, ..self.clone() }))
    }

    /// Lists up to `limit` names behind a position.
    pub fn list(&self, repository: &Repository, after: u64, limit: usize) -> Result<Vec<SealedName>, CommandError> {
        let mut names = Vec::new();
        for item in tree::list(repository, self.tree()?, after).take(limit) {
            let (name, item) = item?;
            let entry = self.described(repository, item)?;
            names.push(SealedName { name, identity: entry.identity, kind: entry.node.kind() });
        }
        Ok(names)
    }

    /// Reads a range of the file.
    pub fn read(&self, repository: &Repository, offset: u64, len: u32) -> Result<Vec<u8>, CommandError> {
        let EntryNode::File { size_bytes, content, .. } = &self.entry.node else { return Err(CommandError::IsDirectory) };
        let end = offset.saturating_add(u64::from(len)).min(*size_bytes);
        if matches!(content, crate::object::Content::Empty) {
            return Ok(vec![0; end.saturating_sub(offset) as usize]);
        }
        Ok(repository.read_content(content, offset.min(end)..end)?)
    }

    /// Finds the next data (or hole) from `offset` on; the end of the file counts as a hole.
    pub fn seek(&self, repository: &Repository, offset: u64, hole: bool) -> Result<u64, CommandError> {
        let EntryNode::File { size_bytes, content, .. } = &self.entry.node else { return Err(CommandError::IsDirectory) };
        let holes = match content {
            crate::object::Content::Empty => std::iter::once(0..*size_bytes).collect(),
            content => repository.holes_of(content)?,
        };
        let mut at = offset;
        for range in &holes {
            if range.start <= at && at < range.end {
                if hole {
                    return Ok(at);
                }
                at = range.end;
            } else if range.start > at {
                return Ok(if hole { range.start } else { at });
            }
        }
        if offset >= *size_bytes || (!hole && at >= *size_bytes) {
            return Err(CommandError::NoSuchOffset);
        }
        Ok(if hole { *size_bytes } else { at })
    }

    fn tree(&self) -> Result<Option<ObjectId>, CommandError> {
        match self.entry.node {
            EntryNode::Directory { tree, .. } => Ok(tree),
            _ => Err(CommandError::NotDirectory),
        }
    }

    fn described(&self, repository: &Repository, item: TreeItem) -> Result<Entry, CommandError> {
        match item {
            TreeItem::Entry(entry) => Ok(entry),
            TreeItem::Link(identity) => tree::link_entry(repository, &self.root, identity)?
                .ok_or_else(|| CommandError::NotFound(format!("description of the hard-linked file {identity}"))),
        }
    }
}
