//! Compression of single objects, with contexts that are kept between them.

use std::io;
use std::sync::{Mutex, PoisonError};
use zstd::bulk::{Compressor, Decompressor};

const LEVEL: i32 = 1;
/// A block of zstd holds at most 128 KiB and takes four bytes at least (RFC 8878, section 3.1.1.2).
const RATIO_MAX: u64 = (128 << 10) / 4;

/// Contexts that nobody uses at the moment: making one costs more than compressing a small object with it. There are as many as
/// were in use at once, however many threads took turns.
struct Idle<T>(Mutex<Vec<T>>);

static COMPRESSORS: Idle<Compressor<'static>> = Idle(Mutex::new(Vec::new()));
static DECOMPRESSORS: Idle<Decompressor<'static>> = Idle(Mutex::new(Vec::new()));

impl<T> Idle<T> {
    /// Runs `work` with a context, an idle one or what `make` makes.
    fn with<R>(&self, make: impl FnOnce() -> io::Result<T>, work: impl FnOnce(&mut T) -> io::Result<R>) -> io::Result<R> {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut context = idle.map_or_else(make, Ok)?;
        let done = work(&mut context);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(context);
        done
    }

    fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Returns the compressed form of an object.
pub fn compressed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESSORS.with(|| Compressor::new(LEVEL), |compressor| compressor.compress(bytes))
}

/// Undoes [`compressed`]; what has more than `size_bytes` is an error.
pub fn decompressed(stored: &[u8], size_bytes: usize) -> io::Result<Vec<u8>> {
    DECOMPRESSORS.with(Decompressor::new, |decompressor| decompressor.decompress(stored, size_bytes))
}

/// Says whether compressed bytes claim `size_bytes` themselves, and do not claim more than compression can do: asked before
/// room is made for them.
pub fn may_hold(stored: &[u8], size_bytes: u64) -> bool {
    let claimed = zstd::zstd_safe::get_frame_content_size(stored).ok().flatten();
    claimed == Some(size_bytes) && size_bytes / RATIO_MAX <= stored.len() as u64
}

/// Lets go of the contexts that nobody uses, half a megabyte each.
pub fn rest() {
    COMPRESSORS.clear();
    DECOMPRESSORS.clear();
}
