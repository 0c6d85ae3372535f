//! The byte format of a pack: a header, then records, each an object's stored bytes behind a header of their own.

use super::StoreError;
use super::compression::{compressed, decompressed, may_hold};
use crate::object::{Encoding, ObjectId, ObjectKind};

/// First bytes of every pack; the last is the version.
pub const PACK_MAGIC: [u8; 8] = *b"mmtpack\x01";
/// Length of the header of a record.
pub const RECORD_HEADER_BYTES: usize = 60;
const RECORD_MAGIC: [u8; 2] = *b"Ob";
/// Objects below this size are not worth compressing.
const COMPRESS_BYTES_MIN: usize = 128;

/// Returns the length of a pack that holds `objects` objects of `stored_bytes` bytes together, and nothing else.
pub fn size_of_pack(objects: u64, stored_bytes: u64) -> u64 {
    PACK_MAGIC.len() as u64 + objects * RECORD_HEADER_BYTES as u64 + stored_bytes
}

/// What a record's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// What the object is for.
    pub kind: ObjectKind,
    /// How the bytes are stored.
    pub encoding: Encoding,
    /// Stored length in bytes.
    pub stored_bytes: u64,
    /// Length of the object in bytes.
    pub size_bytes: u64,
    /// Its id.
    pub id: ObjectId,
}

impl RecordHeader {
    /// Returns the encoding: magic, kind, encoding, two lengths, id, and a checksum of all that.
    pub fn encode(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[..2].copy_from_slice(&RECORD_MAGIC);
        bytes[2] = self.kind.code();
        bytes[3] = matches!(self.encoding, Encoding::Zstd).into();
        bytes[4..12].copy_from_slice(&self.stored_bytes.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.size_bytes.to_le_bytes());
        bytes[20..52].copy_from_slice(self.id.as_bytes());
        let checksum = crc32fast::hash(&bytes[..56]);
        bytes[56..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads an encoding; `None` when it is not one.
    pub fn decode(bytes: &[u8; RECORD_HEADER_BYTES]) -> Option<Self> {
        let checksum = u32::from_le_bytes(bytes[56..].try_into().ok()?);
        if bytes[..2] != RECORD_MAGIC || bytes[52..56] != [0; 4] || crc32fast::hash(&bytes[..56]) != checksum {
            return None;
        }
        let encoding = match bytes[3] {
            0 => Encoding::Raw,
            1 => Encoding::Zstd,
            _ => return None,
        };
        Some(Self {
            kind: ObjectKind::from_code(bytes[2])?,
            encoding,
            stored_bytes: u64::from_le_bytes(bytes[4..12].try_into().ok()?),
            size_bytes: u64::from_le_bytes(bytes[12..20].try_into().ok()?),
            id: ObjectId::from_bytes(bytes[20..52].try_into().ok()?),
        })
    }
}

/// Reads a record as it stands in a pack, header and stored bytes: the header written again, and the object
/// when it is whole. For fuzzing.
#[doc(hidden)]
pub fn reread_record(record: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let (header, stored) = record.split_first_chunk::<RECORD_HEADER_BYTES>()?;
    let header = RecordHeader::decode(header)?;
    let object = original_form(&header.id, header.encoding, stored.to_vec(), header.size_bytes);
    Some((header.encode().to_vec(), object.ok()))
}

/// Returns the bytes to store for an object, compressed when that saves a sixteenth or more.
pub fn stored_form(bytes: &[u8]) -> (Encoding, std::borrow::Cow<'_, [u8]>) {
    if bytes.len() >= COMPRESS_BYTES_MIN
        && let Ok(compressed) = compressed(bytes)
        && compressed.len() + bytes.len() / 16 < bytes.len()
    {
        return (Encoding::Zstd, compressed.into());
    }
    (Encoding::Raw, bytes.into())
}

/// Undoes [`stored_form`]. `size_bytes` bounds what a hostile record can make us allocate.
pub fn original_form(id: &ObjectId, encoding: Encoding, stored: Vec<u8>, size_bytes: u64) -> Result<Vec<u8>, StoreError> {
    let bytes = match encoding {
        Encoding::Raw => stored,
        Encoding::Zstd if !may_hold(&stored, size_bytes) => {
            return Err(StoreError::damaged(*id, "cannot have the size that is recorded"));
        }
        Encoding::Zstd => decompressed(&stored, size_bytes as usize)
            .map_err(|err| StoreError::damaged(*id, format!("cannot be decompressed: {err}")))?,
    };
    if bytes.len() as u64 != size_bytes || ObjectId::of(&bytes) != *id {
        return Err(StoreError::damaged(*id, "the bytes do not have the hash that names them"));
    }
    Ok(bytes)
}
