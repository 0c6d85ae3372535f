//! The bytes of sealed files: one blob, or the pieces of a manifest, each verified before it is handed out.

use super::{Repository, RepositoryError};
use crate::object::{ChildRef, Content, Manifest, Name, ObjectId, TreeItem, TreeNode};
use crate::store::StoreError;
use quick_cache::sync::Cache;
use quick_cache::{UnitWeighter, Weighter};
use std::ops::Range;
use std::sync::Arc;

/// Weighs a cached blob by its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByBytes;

impl Weighter<ObjectId, Arc<Vec<u8>>> for ByBytes {
    fn weight(&self, key: &ObjectId, value: &Arc<Vec<u8>>) -> u64 {
        UnitWeighter.weight(key, value) + value.len() as u64
    }
}

/// Weighs tree nodes by the memory that they take, roughly: names and rare parts lie elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByItems;

impl Weighter<ObjectId, Arc<TreeNode>> for ByItems {
    fn weight(&self, key: &ObjectId, node: &Arc<TreeNode>) -> u64 {
        const NAME_BYTES: usize = 48;
        let bytes = match &**node {
            TreeNode::Leaf(items) => items.len() * (size_of::<(Name, TreeItem)>() + NAME_BYTES),
            TreeNode::Index { children, .. } => children.len() * size_of::<ChildRef>(),
        };
        UnitWeighter.weight(key, node) + bytes as u64
    }
}

/// Makes a cache of tree nodes bounded by the memory that they take.
pub fn node_cache(bytes_max: u64) -> Cache<ObjectId, Arc<TreeNode>, ByItems> {
    const NODE_BYTES_TYPICAL: u64 = 4 << 10;
    Cache::with_weighter((bytes_max / NODE_BYTES_TYPICAL) as usize, bytes_max, ByItems)
}

/// Makes a cache of blobs bounded by their bytes.
pub fn blob_cache(bytes_max: u64) -> Cache<ObjectId, Arc<Vec<u8>>, ByBytes> {
    const BLOB_BYTES_TYPICAL: u64 = 16 << 10;
    Cache::with_weighter((bytes_max / BLOB_BYTES_TYPICAL) as usize, bytes_max, ByBytes)
}

impl Repository {
    /// Reads a range of a file's content, all of it: content that is shorter than its file says is damaged.
    pub fn read_content(&self, content: &Content, range: Range<u64>) -> Result<Vec<u8>, RepositoryError> {
        match content {
            Content::Empty if range.is_empty() => Ok(Vec::new()),
            Content::Empty => Err(RepositoryError::Other("a file without content has a size".into())),
            Content::Blob(id) => {
                let blob = self.blob(id)?;
                let bytes = blob.get(range.start as usize..range.end as usize).ok_or_else(|| self.short(id))?;
                Ok(bytes.to_vec())
            }
            Content::Manifest(id) => {
                let wanted = range.end.saturating_sub(range.start);
                let bytes = self.read_pieces(&*self.manifest(id)?, range)?;
                if bytes.len() as u64 == wanted { Ok(bytes) } else { Err(self.short(id)) }
            }
        }
    }

    /// Fetches what a change of a file needs to know of its content, so that it is at hand, or the failure known, before the
    /// change is recorded: the blob, or the list of the pieces.
    pub fn fetch(&self, content: &Content) -> Result<(), RepositoryError> {
        match content {
            Content::Empty => Ok(()),
            Content::Blob(id) => self.blob(id).map(drop),
            Content::Manifest(id) => self.manifest(id).map(drop),
        }
    }

    fn read_pieces(&self, manifest: &Manifest, range: Range<u64>) -> Result<Vec<u8>, RepositoryError> {
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        let mut start = 0;
        for extent in &manifest.extents {
            let end = start + extent.len;
            if end > range.start && start < range.end {
                let from = (range.start.max(start) - start) as usize;
                let to = (range.end.min(end) - start) as usize;
                match &extent.blob {
                    None => bytes.resize(bytes.len() + (to - from), 0),
                    Some(id) => {
                        let blob = self.blob(id)?;
                        let piece = blob.get(from..to).ok_or_else(|| self.short(id))?;
                        bytes.extend_from_slice(piece);
                    }
                }
            }
            if start >= range.end {
                break;
            }
            start = end;
        }
        Ok(bytes)
    }

    fn short(&self, id: &ObjectId) -> RepositoryError {
        RepositoryError::Store(StoreError::damaged(*id, "is shorter than its file says"))
    }

    fn blob(&self, id: &ObjectId) -> Result<Arc<Vec<u8>>, RepositoryError> {
        if let Some(blob) = self.blobs.get(id) {
            return Ok(blob);
        }
        let blob = Arc::new(self.read_object(id)?);
        self.blobs.insert(*id, blob.clone());
        Ok(blob)
    }

    /// Reads a manifest.
    pub fn manifest(&self, id: &ObjectId) -> Result<Arc<Manifest>, RepositoryError> {
        if let Some(manifest) = self.manifests.get(id) {
            return Ok(manifest);
        }
        let bytes = self.read_object(id)?;
        let manifest = Manifest::decode(&bytes).map_err(|err| RepositoryError::Decode { id: *id, source: err })?;
        let manifest = Arc::new(manifest);
        self.manifests.insert(*id, manifest.clone());
        Ok(manifest)
    }

    /// Returns the holes of a file's content.
    pub fn holes_of(&self, content: &Content) -> Result<Vec<Range<u64>>, RepositoryError> {
        let Content::Manifest(id) = content else { return Ok(Vec::new()) };
        let mut holes = Vec::new();
        let mut start = 0;
        for extent in &self.manifest(id)?.extents {
            if extent.blob.is_none() {
                holes.push(start..start + extent.len);
            }
            start += extent.len;
        }
        Ok(holes)
    }
}
