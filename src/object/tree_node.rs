//! One node of a directory: a leaf of entries, or an index of further nodes.

use super::entry::decode_identity;
use super::{DecodeError, Entry, Name, Node, ObjectId, Reader, Writer};

/// What a directory has under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeItem {
    /// A file with this one name, or a directory.
    Entry(Entry),
    /// A name of a hard-linked inode; the link table of the [`super::Root`] describes it.
    Link(u64),
}

impl TreeItem {
    /// Says whether a hard link is here or, for a directory, anywhere below.
    pub fn has_links(&self) -> bool {
        match self {
            Self::Link(_) => true,
            Self::Entry(entry) => matches!(entry.node, Node::Directory { has_links: true, .. }),
        }
    }

    /// Returns the identity of the file.
    pub fn identity(&self) -> u64 {
        match self {
            Self::Entry(entry) => entry.identity,
            Self::Link(identity) => *identity,
        }
    }
}

/// A node below an index node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildRef {
    /// The last name in the node.
    pub last: Name,
    /// The node.
    pub id: ObjectId,
    /// How many names it holds, all levels included.
    pub count: u64,
    /// Whether one of its items has links.
    pub has_links: bool,
}

/// One node of a directory, items in the order of [`Name`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeNode {
    /// Names and what they stand for.
    Leaf(Vec<(Name, TreeItem)>),
    /// Nodes of the level below; the level of this node is 1 or more.
    Index {
        /// Distance from the leaves.
        level: u8,
        /// The nodes, at least one.
        children: Vec<ChildRef>,
    },
}

const TAG: u8 = b'T';
const VERSION: u8 = 1;
const LEVEL_MAX: u8 = 16;
/// An item takes at least a length, a byte of name and a link with its identity.
const ITEM_BYTES_MIN: usize = 4;
const ITEM_ENTRY: u8 = 0;
const ITEM_LINK: u8 = 1;

impl TreeNode {
    /// Returns how many names the node holds, all levels included.
    pub fn count(&self) -> u64 {
        match self {
            Self::Leaf(items) => items.len() as u64,
            Self::Index { children, .. } => children.iter().map(|child| child.count).sum(),
        }
    }

    /// Returns the distance from the leaves.
    pub fn level(&self) -> u8 {
        match self {
            Self::Leaf(_) => 0,
            Self::Index { level, .. } => *level,
        }
    }

    /// Says whether a hard link is anywhere below.
    pub fn has_links(&self) -> bool {
        match self {
            Self::Leaf(items) => items.iter().any(|(_, item)| item.has_links()),
            Self::Index { children, .. } => children.iter().any(|child| child.has_links),
        }
    }

    /// Returns the last name of the node.
    pub fn last(&self) -> Option<&Name> {
        match self {
            Self::Leaf(items) => items.last().map(|(name, _)| name),
            Self::Index { children, .. } => children.last().map(|child| &child.last),
        }
    }

    /// Returns the one encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(TAG);
        writer.u8(VERSION);
        writer.u8(self.level());
        match self {
            Self::Leaf(items) => {
                writer.uint(items.len() as u64);
                for (name, item) in items {
                    writer.bytes(name.as_bytes());
                    match item {
                        TreeItem::Entry(entry) => {
                            writer.u8(ITEM_ENTRY);
                            entry.encode(&mut writer);
                        }
                        TreeItem::Link(identity) => {
                            writer.u8(ITEM_LINK);
                            writer.uint(*identity);
                        }
                    }
                }
            }
            Self::Index { children, .. } => {
                writer.uint(children.len() as u64);
                for child in children {
                    writer.bytes(child.last.as_bytes());
                    writer.id(&child.id);
                    writer.uint(child.count);
                    writer.u8(u8::from(child.has_links));
                }
            }
        }
        writer.finish()
    }

    /// Reads an encoding. Names are checked and in order, so what comes back can be handed to the kernel.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != TAG || reader.u8()? != VERSION {
            return Err(DecodeError::new("not a tree node of a known version"));
        }
        let level = reader.u8()?;
        if level > LEVEL_MAX {
            return Err(DecodeError::new("tree is too deep"));
        }
        let count = reader.count(ITEM_BYTES_MIN)?;
        if count == 0 {
            return Err(DecodeError::new("empty tree node"));
        }
        let node = if level == 0 { decode_leaf(count, &mut reader)? } else { decode_index(level, count, &mut reader)? };
        reader.finish()?;
        Ok(node)
    }
}

fn decode_leaf(count: usize, reader: &mut Reader<'_>) -> Result<TreeNode, DecodeError> {
    let mut items: Vec<(Name, TreeItem)> = Vec::with_capacity(count);
    for _ in 0..count {
        let name = decode_name(items.last().map(|(name, _)| name), reader)?;
        let item = match reader.u8()? {
            ITEM_ENTRY => TreeItem::Entry(Entry::decode(reader)?),
            ITEM_LINK => TreeItem::Link(decode_identity(reader)?),
            _ => return Err(DecodeError::new("unknown item form")),
        };
        items.push((name, item));
    }
    Ok(TreeNode::Leaf(items))
}

fn decode_index(level: u8, count: usize, reader: &mut Reader<'_>) -> Result<TreeNode, DecodeError> {
    let mut children: Vec<ChildRef> = Vec::with_capacity(count);
    for _ in 0..count {
        let last = decode_name(children.last().map(|child| &child.last), reader)?;
        let id = reader.id()?;
        let names = reader.uint()?;
        if names == 0 || names > u64::from(u32::MAX) {
            return Err(DecodeError::new("name count out of range"));
        }
        let has_links = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::new("unknown child form")),
        };
        children.push(ChildRef { last, id, count: names, has_links });
    }
    Ok(TreeNode::Index { level, children })
}

fn decode_name(before: Option<&Name>, reader: &mut Reader<'_>) -> Result<Name, DecodeError> {
    let name = Name::new(reader.bytes()?).map_err(|_| DecodeError::new("forbidden name"))?;
    if before.is_some_and(|before| *before >= name) {
        return Err(DecodeError::new("names out of order"));
    }
    Ok(name)
}
