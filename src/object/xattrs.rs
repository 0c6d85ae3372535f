//! Extended attributes.

use super::codec::{DecodeError, Reader, Writer};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Extended attributes by name; shared, since most entries have none and copies are common.
pub type Xattrs = Option<Arc<BTreeMap<Box<[u8]>, Box<[u8]>>>>;

/// Longest name of an extended attribute (XATTR_NAME_MAX of Linux).
const XATTR_NAME_BYTES_MAX: usize = 255;
/// Shortest pair: a name of one byte and an empty value, with their lengths.
const XATTR_BYTES_MIN: usize = 3;

/// Appends attributes in the order of their names.
pub fn encode_xattrs(xattrs: &BTreeMap<Box<[u8]>, Box<[u8]>>, writer: &mut Writer) {
    writer.uint(xattrs.len() as u64);
    for (name, value) in xattrs {
        writer.bytes(name);
        writer.bytes(value);
    }
}

/// Takes attributes, of which there is at least one.
pub fn decode_xattrs(reader: &mut Reader<'_>) -> Result<Xattrs, DecodeError> {
    let count = reader.count(XATTR_BYTES_MIN)?;
    let mut xattrs = BTreeMap::<Box<[u8]>, Box<[u8]>>::new();
    for _ in 0..count {
        let name = reader.bytes()?;
        if name.is_empty() || name.len() > XATTR_NAME_BYTES_MAX || name.contains(&0) {
            return Err(DecodeError::new("bad xattr name"));
        }
        if xattrs.last_key_value().is_some_and(|(last, _)| **last >= *name) {
            return Err(DecodeError::new("xattrs out of order"));
        }
        xattrs.insert(name.into(), reader.bytes()?.into());
    }
    if xattrs.is_empty() {
        return Err(DecodeError::new("empty xattr list"));
    }
    Ok(Some(Arc::new(xattrs)))
}
