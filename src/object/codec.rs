//! The byte-level encoding shared by every format: LEB128 integers and length-prefixed bytes.

use super::ObjectId;
use std::fmt;

/// Says why bytes are not a valid encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    what: &'static str,
}

impl DecodeError {
    /// Makes an error that says `what` was wrong.
    pub const fn new(what: &'static str) -> Self {
        Self { what }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a valid encoding: {}", self.what)
    }
}

impl std::error::Error for DecodeError {}

/// Appends values to a byte buffer.
#[derive(Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Starts an empty encoding.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts an empty encoding in the memory of `buffer`.
    pub fn reuse(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self { bytes: buffer }
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Appends an unsigned integer, LEB128: small values are short.
    pub fn uint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// Appends a signed integer, zigzag LEB128.
    pub fn int(&mut self, value: i64) {
        self.uint(((value << 1) ^ (value >> 63)) as u64);
    }

    /// Appends bytes with their length before them.
    pub fn bytes(&mut self, value: &[u8]) {
        self.uint(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    /// Appends bytes without a length: the reader knows it.
    pub fn raw(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }

    /// Appends an object id, 32 bytes.
    pub fn id(&mut self, id: &ObjectId) {
        self.bytes.extend_from_slice(id.as_bytes());
    }

    /// Returns how many bytes are written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Says whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns the encoding.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Takes values off the front of a byte slice.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Takes one byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        let (&first, rest) = self.rest.split_first().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(first)
    }

    /// Takes an unsigned integer. Refuses encodings longer than needed, so that equal values have equal bytes.
    pub fn uint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::new("integer overflows"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(DecodeError::new("integer is not in shortest form"));
                }
                return Ok(value);
            }
        }
        Err(DecodeError::new("integer is too long"))
    }

    /// Takes an unsigned integer that fits 32 bits.
    pub fn uint32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.uint()?).map_err(|_| DecodeError::new("integer exceeds 32 bits"))
    }

    /// Takes a signed integer.
    pub fn int(&mut self) -> Result<i64, DecodeError> {
        let raw = self.uint()?;
        Ok(((raw >> 1) as i64) ^ -((raw & 1) as i64))
    }

    /// Takes bytes that carry their length.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = usize::try_from(self.uint()?).map_err(|_| TRUNCATED)?;
        self.raw(len)
    }

    /// Takes `len` bytes.
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        if len > self.rest.len() {
            return Err(TRUNCATED);
        }
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(taken)
    }

    /// Takes an object id.
    pub fn id(&mut self) -> Result<ObjectId, DecodeError> {
        let raw: [u8; 32] = self.raw(32)?.try_into().map_err(|_| TRUNCATED)?;
        Ok(ObjectId::from_bytes(raw))
    }

    /// Takes UTF-8 text that carries its length.
    pub fn text(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::new("text is not UTF-8"))
    }

    /// Takes an item count, refusing one that the remaining bytes cannot hold (each item takes `item_bytes_min` or more).
    pub fn count(&mut self, item_bytes_min: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.uint()?).map_err(|_| TRUNCATED)?;
        if count.saturating_mul(item_bytes_min) > self.rest.len() {
            return Err(TRUNCATED);
        }
        Ok(count)
    }

    /// Returns how many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Ends the reading; trailing bytes are an error.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::new("bytes follow the end")) }
    }
}

const TRUNCATED: DecodeError = DecodeError::new("ends too early");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_round_trip(unsigned: u64, signed: i64) {
            let mut writer = Writer::new();
            writer.uint(unsigned);
            writer.int(signed);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.uint().unwrap(), unsigned);
            prop_assert_eq!(reader.int().unwrap(), signed);
            reader.finish().unwrap();
        }
    }

    #[test]
    fn a_length_beyond_the_end_is_an_error_not_an_allocation() {
        let mut writer = Writer::new();
        writer.uint(u64::MAX);
        let bytes = writer.finish();
        assert!(Reader::new(&bytes).bytes().is_err());
        assert!(Reader::new(&bytes).count(1).is_err());
    }

    #[test]
    fn overlong_integers_are_refused() {
        assert!(Reader::new(&[0x80, 0x00]).uint().is_err());
    }
}
