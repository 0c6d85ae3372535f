//! The list of pieces that make up a large or sparse file.

use super::{DecodeError, ObjectId, Reader, Writer};

/// A run of bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Length in bytes, at least 1.
    pub len: u64,
    /// The blob that holds exactly these bytes; `None` for a hole, which reads as zeros.
    pub blob: Option<ObjectId>,
}

/// The pieces of one file, from its first byte to its last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The pieces, in file order.
    pub extents: Vec<Extent>,
}

const TAG: u8 = b'M';
const VERSION: u8 = 1;
const HOLE: u8 = 0;
const DATA: u8 = 1;

impl Manifest {
    /// Returns the size of the file in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.extents.iter().map(|extent| extent.len).sum()
    }

    /// Returns how many bytes are data and not holes.
    pub fn data_bytes(&self) -> u64 {
        self.extents.iter().filter(|extent| extent.blob.is_some()).map(|extent| extent.len).sum()
    }

    /// Returns the one encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(TAG);
        writer.u8(VERSION);
        writer.uint(self.extents.len() as u64);
        for extent in &self.extents {
            writer.uint(extent.len);
            match &extent.blob {
                None => writer.u8(HOLE),
                Some(id) => {
                    writer.u8(DATA);
                    writer.id(id);
                }
            }
        }
        writer.finish()
    }

    /// Reads an encoding.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != TAG || reader.u8()? != VERSION {
            return Err(DecodeError::new("not a manifest of a known version"));
        }
        let count = reader.count(2)?;
        let mut extents = Vec::with_capacity(count);
        let mut total = 0u64;
        for _ in 0..count {
            let len = reader.uint()?;
            total = total
                .checked_add(len)
                .filter(|total| *total <= i64::MAX as u64)
                .ok_or(DecodeError::new("file size out of range"))?;
            let blob = match reader.u8()? {
                HOLE => None,
                DATA => Some(reader.id()?),
                _ => return Err(DecodeError::new("unknown extent form")),
            };
            if len == 0 {
                return Err(DecodeError::new("empty extent"));
            }
            extents.push(Extent { len, blob });
        }
        reader.finish()?;
        Ok(Self { extents })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_round_trips() {
        let manifest =
            Manifest { extents: vec![Extent { len: 7, blob: Some(ObjectId::of(b"x")) }, Extent { len: 1 << 40, blob: None }] };
        let decoded = Manifest::decode(&manifest.encode()).unwrap();
        assert_eq!(decoded, manifest);
        assert_eq!((decoded.size_bytes(), decoded.data_bytes()), ((1 << 40) + 7, 7));
    }
}
