//! A new file that a name which moves away leaves in its place: an overlay's whiteout.

use super::NewNode;
use crate::object::{DecodeError, Reader, Writer, Xattrs, decode_xattrs, encode_xattrs};

/// What is left where a name was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// Its identity.
    pub identity: u64,
    /// What it is.
    pub node: NewNode,
    /// What it has from its directory.
    pub xattrs: Xattrs,
}

impl Left {
    pub(super) fn encode(&self, w: &mut Writer) {
        w.uint(self.identity);
        self.node.encode(w);
        w.u8(u8::from(self.xattrs.is_some()));
        if let Some(xattrs) = &self.xattrs {
            encode_xattrs(xattrs, w);
        }
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (identity, node) = (r.uint()?, NewNode::decode(r)?);
        let xattrs = if super::decode_bool(r)? { decode_xattrs(r)? } else { None };
        Ok(Self { identity, node, xattrs })
    }
}
