//! Points in time, to the nanosecond.

use super::{DecodeError, Reader, Writer};
use std::time::{SystemTime, UNIX_EPOCH};

/// A point in time as file systems know it: seconds since 1970, negative before, and nanoseconds after that second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(Rust, packed(4))] // 12 bytes instead of 16: each loaded inode has three.
pub struct Timestamp {
    /// Seconds since the epoch.
    pub secs: i64,
    /// Nanoseconds after `secs`, below 1,000,000,000.
    pub nanos: u32,
}

const NANOS_PER_SEC: u32 = 1_000_000_000;

impl Timestamp {
    /// Returns the current time of the machine.
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// Returns nanoseconds since the epoch, saturating at the ends of `i64`.
    pub fn nanos_since_epoch(self) -> i64 {
        self.secs.saturating_mul(i64::from(NANOS_PER_SEC)).saturating_add(i64::from(self.nanos))
    }

    /// Makes a time from nanoseconds since the epoch.
    pub fn from_nanos(nanos: i64) -> Self {
        let per_sec = i64::from(NANOS_PER_SEC);
        Self { secs: nanos.div_euclid(per_sec), nanos: nanos.rem_euclid(per_sec) as u32 }
    }

    /// Appends the time relative to `base`; the same time takes one byte.
    pub(crate) fn encode_relative(self, base: Self, writer: &mut Writer) {
        if self == base {
            return writer.u8(0);
        }
        writer.u8(1);
        self.encode(writer);
    }

    /// Takes a time written by [`Self::encode_relative`].
    pub(crate) fn decode_relative(base: Self, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            0 => Ok(base),
            1 => match Self::decode(reader)? {
                time if time == base => Err(DecodeError::new("time is not in shortest form")),
                time => Ok(time),
            },
            _ => Err(DecodeError::new("unknown time form")),
        }
    }

    /// Appends the time.
    pub fn encode(self, writer: &mut Writer) {
        writer.int(self.secs);
        writer.uint(u64::from(self.nanos));
    }

    /// Takes a time.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let secs = reader.int()?;
        let nanos = reader.uint32()?;
        if nanos >= NANOS_PER_SEC {
            return Err(DecodeError::new("nanoseconds out of range"));
        }
        Ok(Self { secs, nanos })
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self { secs: after.as_secs() as i64, nanos: after.subsec_nanos() },
            Err(before) => {
                let before = before.duration();
                let whole = -(before.as_secs() as i64);
                match before.subsec_nanos() {
                    0 => Self { secs: whole, nanos: 0 },
                    part => Self { secs: whole - 1, nanos: NANOS_PER_SEC - part },
                }
            }
        }
    }
}

impl From<Timestamp> for SystemTime {
    /// Saturates at the epoch when the machine cannot express the time.
    fn from(time: Timestamp) -> Self {
        use std::time::Duration;
        let nanos = Duration::from_nanos(u64::from(time.nanos));
        let whole = Duration::from_secs(time.secs.unsigned_abs());
        let base = if time.secs >= 0 { UNIX_EPOCH.checked_add(whole) } else { UNIX_EPOCH.checked_sub(whole) };
        base.and_then(|base| base.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_survive_the_trip_through_system_time() {
        for time in [
            Timestamp { secs: -1, nanos: 999_999_999 },
            Timestamp { secs: -5, nanos: 0 },
            Timestamp { secs: 5_000_000_000, nanos: 1 },
        ] {
            assert_eq!(Timestamp::from(SystemTime::from(time)), time);
            assert_eq!(Timestamp::from_nanos(time.nanos_since_epoch()), time);
        }
    }
}
