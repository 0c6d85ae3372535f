//! Where nodes come from and go to.

use super::TreeError;
use crate::object::{ChildRef, ObjectId, Root, TreeNode};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Hands out stored nodes.
pub trait NodeSource {
    /// Returns the node of that id, decoded from verified bytes.
    fn node(&self, id: &ObjectId) -> Result<Arc<TreeNode>, TreeError>;

    /// Returns the root of that id, decoded from verified bytes.
    fn root(&self, id: &ObjectId) -> Result<Root, TreeError>;
}

/// Stores nodes. What was put can be read back at once.
pub trait NodeSink: NodeSource {
    /// Stores a node, unless it is stored already, and returns its id.
    fn put_node(&self, node: &TreeNode) -> Result<ObjectId, TreeError>;

    /// Stores a root, unless it is stored already, and returns its id.
    fn put_root(&self, root: &Root) -> Result<ObjectId, TreeError>;
}

/// Returns the node that `child` names, after checking that it is what the index node said: its
/// level, last name, number of names and links.
pub(super) fn read_child(source: &dyn NodeSource, child: &ChildRef, level: u8) -> Result<Arc<TreeNode>, TreeError> {
    let node = source.node(&child.id)?;
    let what = if node.level() != level {
        "its level is not one below its parent"
    } else if node.last() != Some(&child.last) {
        "its last name is not the one its parent has"
    } else if node.count() != child.count {
        "its number of names is not the one its parent has"
    } else if node.has_links() != child.has_links {
        "its parent disagrees on hard links in it"
    } else {
        return Ok(node);
    };
    Err(TreeError::Structure { id: child.id, what })
}

/// Keeps nodes and roots in memory, for tests.
#[derive(Default)]
pub struct MemoryNodes {
    objects: Mutex<Objects>,
}

#[derive(Default)]
struct Objects {
    nodes: HashMap<ObjectId, Arc<TreeNode>>,
    roots: HashMap<ObjectId, Root>,
    reads: usize,
}

impl MemoryNodes {
    /// Starts empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns how many different nodes are stored.
    pub fn node_count(&self) -> usize {
        self.objects().nodes.len()
    }

    /// Returns how many times a node was read.
    pub fn read_count(&self) -> usize {
        self.objects().reads
    }

    /// Puts `node` under an id that need not be its own, as a damaged store would.
    pub fn corrupt(&self, id: ObjectId, node: TreeNode) {
        self.objects().nodes.insert(id, Arc::new(node));
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NodeSource for MemoryNodes {
    fn node(&self, id: &ObjectId) -> Result<Arc<TreeNode>, TreeError> {
        let mut objects = self.objects();
        objects.reads += 1;
        objects.nodes.get(id).cloned().ok_or(TreeError::Missing { id: *id })
    }

    fn root(&self, id: &ObjectId) -> Result<Root, TreeError> {
        self.objects().roots.get(id).cloned().ok_or(TreeError::Missing { id: *id })
    }
}

impl NodeSink for MemoryNodes {
    fn put_node(&self, node: &TreeNode) -> Result<ObjectId, TreeError> {
        let id = ObjectId::of(&node.encode());
        self.objects().nodes.entry(id).or_insert_with(|| Arc::new(node.clone()));
        Ok(id)
    }

    fn put_root(&self, root: &Root) -> Result<ObjectId, TreeError> {
        let id = ObjectId::of(&root.encode());
        self.objects().roots.insert(id, root.clone());
        Ok(id)
    }
}
