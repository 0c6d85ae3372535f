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

    /// Says whether what is written into it is a command.
    pub fn takes_commands(&self) -> bool {
        matches!(self, Self::Request(_)) || matches!(self, Self::File(kind) if kind.is_command())
    }

    /// Returns the number that a file of an old state has each time: programs know the names of a file with several by it,
    /// and the kernel forgets such files as soon as nobody looks at them.
    pub fn lasting_number(&self) -> Option<u64> {
        let Self::Sealed(commit, identity) = self else { return None };
        let mut bytes = commit.as_bytes().to_vec();
        bytes.extend(identity.to_le_bytes());
        let hash = ObjectId::of(&bytes);
        let [a, b, c, d, e, f, ..] = *hash.as_bytes();
        Some(LASTING_MIN | (u64::from_le_bytes([a, b, c, d, e, f, 0, 0]) % LASTING_MIN))
    }
}

/// Numbers from here on are made of what the node is; those below are given one after the other. Numbers have 48 bits.
const LASTING_MIN: u64 = 1 << 47;

/// Gives each node a number for as long as the kernel refers to it; the same node has the same number meanwhile.
///
/// What commands are written into has a number for each process that looks it up: the kernel puts what a program writes into
/// the pages of the number before it asks, and whoever reads at that instant must find what the file says, not the command.
#[derive(Debug, Default)]
pub struct NodeTable {
    numbers: HashMap<(Node, u32), u64>,
    nodes: HashMap<u64, Known>,
    last: u64,
}

/// What a number stands for.
#[derive(Debug)]
struct Known {
    node: Node,
    /// The process that has it to itself; 0 when all share it.
    process: u32,
    /// How often the kernel refers to it.
    references: u64,
}

impl NodeTable {
    /// Returns the number that a node has for a process, making one if there is none. Does not add a reference.
    pub fn number(&mut self, node: &Node, process: u32) -> u64 {
        let process = if node.takes_commands() { process } else { 0 };
        let key = (node.clone(), process);
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let lasting = node.lasting_number().filter(|number| !self.nodes.contains_key(number));
        let number = lasting.unwrap_or_else(|| {
            self.last += 1;
            self.last
        });
        self.numbers.insert(key, number);
        self.nodes.insert(number, Known { node: node.clone(), process, references: 0 });
        number
    }

    /// Adds a reference of the kernel.
    pub fn remember(&mut self, number: u64) {
        if let Some(known) = self.nodes.get_mut(&number) {
            known.references += 1;
        }
    }

    /// Says whether no node has a number.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Returns the node of a number.
    pub fn node(&self, number: u64) -> Option<&Node> {
        self.nodes.get(&number).map(|known| &known.node)
    }

    /// Takes back references; returns the node when it was the last.
    pub fn forget(&mut self, number: u64, count: u64) -> Option<Node> {
        let known = self.nodes.get_mut(&number)?;
        known.references = known.references.saturating_sub(count);
        if known.references > 0 {
            return None;
        }
        let Known { node, process, .. } = self.nodes.remove(&number)?;
        self.numbers.remove(&(node.clone(), process));
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
        let number = table.number(&latest, 1);
        table.remember(number);
        assert_eq!(table.number(&latest, 2), number);
        assert_eq!(table.forget(number, 1), Some(latest.clone()));
        assert_eq!(table.node(number), None);
        assert_ne!(table.number(&latest, 1), number);
    }

    #[test]
    fn a_file_of_an_old_state_has_its_number_again_after_it_was_forgotten() {
        let commit = ObjectId::of(b"a checkpoint");
        let (one, other) = (Node::Sealed(commit, 25), Node::Sealed(commit, 26));
        let mut table = NodeTable::default();
        let number = table.number(&one, 1);
        assert_ne!(table.number(&other, 1), number);
        table.remember(number);
        table.forget(number, 1);
        assert_eq!(table.number(&one, 2), number);
        assert!(number < 1 << 48);
    }

    #[test]
    fn each_process_has_a_number_of_its_own_for_what_takes_commands() {
        let mut table = NodeTable::default();
        for node in [Node::File(FileKind::Checkpoint), Node::Request("mine".to_owned())] {
            let (one, other) = (table.number(&node, 1), table.number(&node, 2));
            assert_ne!(one, other);
            assert_eq!((table.number(&node, 1), table.node(one), table.node(other)), (one, Some(&node), Some(&node)));
        }
        let log = Node::File(FileKind::Log);
        assert_eq!(table.number(&log, 1), table.number(&log, 2));
    }
}
