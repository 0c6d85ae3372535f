//! The root of a whole state: its top directory and its table of hard-linked inodes.

use super::{DecodeError, Entry, Node, ObjectId, Reader, Writer};

/// One whole state of a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The top directory.
    pub directory: Entry,
    /// A tree of the inodes that have (or had) several names, each under [`super::Name::of_identity`]; absent when there are none.
    pub links: Option<ObjectId>,
}

const TAG: u8 = b'R';
const VERSION: u8 = 1;

impl Root {
    /// Returns the tree of the top directory; absent when it is empty.
    pub fn tree(&self) -> Option<ObjectId> {
        match self.directory.node {
            Node::Directory { tree, .. } => tree,
            _ => None,
        }
    }

    /// Returns the one encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(TAG);
        writer.u8(VERSION);
        self.directory.encode(&mut writer);
        match &self.links {
            None => writer.u8(0),
            Some(id) => {
                writer.u8(1);
                writer.id(id);
            }
        }
        writer.finish()
    }

    /// Reads an encoding; the top must be a directory.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != TAG || reader.u8()? != VERSION {
            return Err(DecodeError::new("not a root of a known version"));
        }
        let directory = Entry::decode(&mut reader)?;
        if !matches!(directory.node, Node::Directory { .. }) {
            return Err(DecodeError::new("the top is not a directory"));
        }
        let links = match reader.u8()? {
            0 => None,
            1 => Some(reader.id()?),
            _ => return Err(DecodeError::new("unknown link table form")),
        };
        reader.finish()?;
        Ok(Self { directory, links })
    }
}
