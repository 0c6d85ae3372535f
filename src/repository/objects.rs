//! Objects by id: where they lie, stored or pending, and the decoded ones that are kept.

use super::{Repository, RepositoryError};
use crate::history::NewObject;
use crate::object::{Container, Location, ObjectId, ObjectKind, Root, TreeNode};
use crate::store::StoreError;
use crate::tree::{NodeSink, NodeSource, TreeError};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, MutexGuard, PoisonError};

/// Reused objects counted per commit at most; the count tells people, nothing depends on it.
const REUSED_MAX: usize = 10_000;

/// Objects stored since the last transaction.
#[derive(Debug, Default)]
pub struct Pending {
    objects: HashMap<ObjectId, (ObjectKind, Location)>,
    /// Content that was to be stored and was found stored.
    reused: Vec<ObjectId>,
}

impl Repository {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add_pending(&self, id: ObjectId, kind: ObjectKind, location: Location) {
        self.pending().objects.insert(id, (kind, location));
    }

    pub(super) fn add_reused(&self, id: ObjectId) {
        let mut pending = self.pending();
        if pending.reused.len() < REUSED_MAX {
            pending.reused.push(id);
        }
    }

    /// Takes what was found stored since the last commit, for its transaction to count.
    pub(super) fn take_reused(&self) -> Vec<ObjectId> {
        std::mem::take(&mut self.pending().reused)
    }

    /// Makes every object stored so far durable and returns those that the next transaction has to name.
    pub fn sync_pending(&self) -> Result<Vec<NewObject>, RepositoryError> {
        // Taken before the sync: what is added meanwhile may not be durable when it ends.
        let objects: Vec<NewObject> =
            self.pending().objects.iter().map(|(id, (kind, location))| (*id, *kind, *location)).collect();
        if !objects.is_empty() {
            self.packs.sync()?;
        }
        Ok(objects)
    }

    /// Says that a transaction named `objects`.
    pub fn forget_pending(&self, objects: &[NewObject]) {
        let mut pending = self.pending();
        for (id, ..) in objects {
            pending.objects.remove(id);
        }
    }

    /// Returns how many objects wait for their transaction.
    pub fn pending_count(&self) -> usize {
        self.pending().objects.len()
    }

    /// Returns the files that hold objects which wait for their transaction.
    pub(super) fn pending_containers(&self) -> HashSet<Container> {
        self.pending().objects.values().map(|(_, location)| location.container).collect()
    }

    /// Says whether an object waits for its transaction.
    pub(super) fn is_pending(&self, id: &ObjectId) -> bool {
        self.pending().objects.contains_key(id)
    }

    /// Says whether an object is stored.
    pub fn contains(&self, id: &ObjectId) -> Result<bool, RepositoryError> {
        Ok(self.is_pending(id) || self.history.locate(id)?.is_some())
    }

    /// Says where an object lies.
    pub fn locate(&self, id: &ObjectId) -> Result<Option<(ObjectKind, Location)>, RepositoryError> {
        let pending = self.pending().objects.get(id).copied();
        match pending {
            Some(found) => Ok(Some(found)),
            None => Ok(self.history.locate(id)?),
        }
    }

    /// Reads an object and verifies it.
    pub fn read_object(&self, id: &ObjectId) -> Result<Vec<u8>, RepositoryError> {
        for attempt in 0.. {
            let found = self.locate(id).inspect_err(|err| self.note_trouble(&format!("object {id} cannot be found: {err}")))?;
            let (_, location) = found.ok_or_else(|| self.troubled(StoreError::Missing { id: *id }))?;
            match self.packs.read(id, &location) {
                Ok(bytes) => return Ok(bytes),
                // gc may have moved it between the look and the reading.
                Err(err) if attempt == 0 && self.locate(id)?.is_none_or(|(_, now)| now != location) => {
                    tracing::debug!(?id, ?err, "object moved while it was read");
                }
                Err(err) => return Err(self.troubled(err)),
            }
        }
        Err(self.troubled(StoreError::Missing { id: *id }))
    }

    /// Reads an object where it is named, past what is cached and without saying anything when it is damaged: for checks.
    pub(super) fn read_stored(&self, id: &ObjectId) -> Result<Vec<u8>, RepositoryError> {
        let (_, location) = self.locate(id)?.ok_or(RepositoryError::Store(StoreError::Missing { id: *id }))?;
        Ok(self.packs.read(id, &location)?)
    }
}

impl NodeSource for Repository {
    fn node(&self, id: &ObjectId) -> Result<Arc<TreeNode>, TreeError> {
        if let Some(node) = self.nodes.get(id) {
            return Ok(node);
        }
        let bytes = self.read_object(id).map_err(TreeError::source)?;
        let node = TreeNode::decode(&bytes).map_err(|err| TreeError::Corrupt { id: *id, source: err })?;
        let node = Arc::new(node);
        self.nodes.insert(*id, node.clone());
        Ok(node)
    }

    fn root(&self, id: &ObjectId) -> Result<Root, TreeError> {
        let bytes = self.read_object(id).map_err(TreeError::source)?;
        Root::decode(&bytes).map_err(|err| TreeError::Corrupt { id: *id, source: err })
    }
}

impl NodeSink for Repository {
    fn put_node(&self, node: &TreeNode) -> Result<ObjectId, TreeError> {
        let id = self.put(ObjectKind::Tree, &node.encode()).map_err(TreeError::source)?;
        self.nodes.insert(id, Arc::new(node.clone()));
        Ok(id)
    }

    fn put_root(&self, root: &Root) -> Result<ObjectId, TreeError> {
        self.put(ObjectKind::Root, &root.encode()).map_err(TreeError::source)
    }
}
