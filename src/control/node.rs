//! The nodes of the control directory and their numbers.

use crate::object::ObjectId;
use std::collections::HashMap;

/// Something in the control directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// The control directory itself.
    Top,
    /// A file at its top.
    File(FileKind),
    /// A directory at its top.
    Directory(DirectoryKind),
    /// `diff/REF` or `diff/REF..REF`.
    Diff(String),
    /// `links/SYSTEM`.
    LinkSystem(String),
    /// `links/SYSTEM/ID`: a symbolic link to a checkpoint. The kernel keeps what a link holds as long as its number, so one
    /// that leads elsewhere is another node.
    Link(String, String, ObjectId),
    /// `requests/NAME`.
    Request(String),
    /// `checkpoints/latest`, a symbolic link.
    Latest(ObjectId),
    /// A file or directory of an old state, by checkpoint and identity.
    Sealed(ObjectId, u64),
}

/// The files at the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// How to use the directory.
    Readme,
    /// Takes checkpoints.
    Checkpoint,
    /// Restores.
    Restore,
    /// Undoes.
    Undo,
    /// Changes since the last checkpoint.
    Status,
    /// The checkpoints.
    Log,
    /// Reclaims space.
    Gc,
    /// The outbox.
    Events,
    /// Counters and sizes.
    Stats,
    /// The last failure.
    Error,
}

/// The directories at the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DirectoryKind {
    /// Comparisons, by name.
    Diff,
    /// Old states.
    Checkpoints,
    /// Branches.
    Branches,
    /// External ids.
    Links,
    /// Commands with replies of their own.
    Requests,
}

impl FileKind {
    /// Every file with its name.
    pub const ALL: [(Self, &'static str); 10] = [
        (Self::Readme, "README"),
        (Self::Checkpoint, "checkpoint"),
        (Self::Restore, "restore"),
        (Self::Undo, "undo"),
        (Self::Status, "status"),
        (Self::Log, "log"),
        (Self::Gc, "gc"),
        (Self::Events, "events"),
        (Self::Stats, "stats"),
        (Self::Error, "error"),
    ];

    /// Says whether writing into the file is a command.
    pub fn is_command(self) -> bool {
        matches!(self, Self::Checkpoint | Self::Restore | Self::Undo | Self::Gc)
    }
}

impl DirectoryKind {
    /// Every directory with its name.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Diff, "diff"),
        (Self::Checkpoints, "checkpoints"),
        (Self::Branches, "branches"),
        (Self::Links, "links"),
        (Self::Requests, "requests"),
    ];
}

impl Node {
    /// Finds a node at the top by name.
    pub fn at_top(name: &[u8]) -> Option<Self> {
        let file = FileKind::ALL.iter().find(|(_, known)| known.as_bytes() == name).map(|(kind, _)| Self::File(*kind));
        file.or_else(|| {
            DirectoryKind::ALL.iter().find(|(_, known)| known.as_bytes() == name).map(|(kind, _)| Self::Directory(*kind))
        })
    }
}

/// Gives each node a number for as long as the kernel refers to it; the same node has the same number meanwhile.
#[derive(Debug, Default)]
pub struct NodeTable {
    numbers: HashMap<Node, u64>,
    nodes: HashMap<u64, (Node, u64)>,
    last: u64,
}

impl NodeTable {
    /// Returns the number of a node, making one if it has none. Does not add a reference.
    pub fn number(&mut self, node: &Node) -> u64 {
        if let Some(number) = self.numbers.get(node) {
            return *number;
        }
        self.last += 1;
        self.numbers.insert(node.clone(), self.last);
        self.nodes.insert(self.last, (node.clone(), 0));
        self.last
    }

    /// Adds a reference of the kernel.
    pub fn remember(&mut self, number: u64) {
        if let Some((_, references)) = self.nodes.get_mut(&number) {
            *references += 1;
        }
    }

    /// Says whether no node has a number.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Returns the node of a number.
    pub fn node(&self, number: u64) -> Option<&Node> {
        self.nodes.get(&number).map(|(node, _)| node)
    }

    /// Takes back references; returns the node when it was the last.
    pub fn forget(&mut self, number: u64, count: u64) -> Option<Node> {
        let (_, references) = self.nodes.get_mut(&number)?;
        *references = references.saturating_sub(count);
        if *references > 0 {
            return None;
        }
        let (node, _) = self.nodes.remove(&number)?;
        self.numbers.remove(&node);
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_number_until_it_is_forgotten() {
        let latest = Node::Latest(ObjectId::of(b""));
        let mut table = NodeTable::default();
        let number = table.number(&latest);
        table.remember(number);
        assert_eq!(table.number(&latest), number);
        assert_eq!(table.forget(number, 1), Some(latest.clone()));
        assert_eq!(table.node(number), None);
        assert_ne!(table.number(&latest), number);
    }
}
