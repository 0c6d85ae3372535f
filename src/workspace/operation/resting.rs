//! What a file holds that is sealed, or that was all of a staging file.

use super::check_range;
use crate::object::{Content, DecodeError, Reader, Writer};
use crate::workspace::share::Shared;

/// What a file holds that was all of a staging file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resting {
    /// These bytes.
    Bytes(Box<[u8]>),
    /// What is sealed of it.
    Sealed(Shared),
}

impl Resting {
    /// Tag of an operation with bytes.
    pub(super) const BYTES: u8 = 17;
    /// Tag of an operation with sealed content.
    pub(super) const SEALED: u8 = 18;

    pub(super) fn tag(&self) -> u8 {
        match self {
            Self::Bytes(_) => Self::BYTES,
            Self::Sealed(_) => Self::SEALED,
        }
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        match self {
            Self::Bytes(bytes) => w.bytes(bytes),
            Self::Sealed(shared) => shared.encode(w),
        }
    }

    pub(super) fn decode(tag: u8, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(if tag == Self::BYTES { Self::Bytes(r.bytes()?.into()) } else { Self::Sealed(Shared::decode(r)?) })
    }
}

impl Shared {
    pub(super) fn encode(&self, w: &mut Writer) {
        let (tag, id) = match &self.content {
            Content::Empty => (0, None),
            Content::Blob(id) => (1, Some(id)),
            Content::Manifest(id) => (2, Some(id)),
        };
        w.u8(tag);
        if let Some(id) = id {
            w.id(id);
        }
        w.uint(self.size_bytes);
        w.uint(self.data_bytes);
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let content = match r.u8()? {
            0 => Content::Empty,
            1 => Content::Blob(r.id()?),
            2 => Content::Manifest(r.id()?),
            _ => return Err(DecodeError::new("unknown content")),
        };
        let (size_bytes, data_bytes) = (r.uint()?, r.uint()?);
        check_range(0, size_bytes)?;
        Ok(Self { content, size_bytes, data_bytes })
    }
}
