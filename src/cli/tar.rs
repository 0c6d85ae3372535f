//! A checkpoint as a tar file: with hard links, extended attributes and nanoseconds, in the POSIX (pax) form.

use crate::sys;
use indicatif::ProgressBar;
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header, HeaderMode};

/// Bytes written at a time.
const WRITE_BYTES: usize = 1 << 20;

/// Writes `found`, paths below `source`, to the file `destination`, or to standard output when it is `-`.
/// Sockets are left out: tar(5) has no form for them. Returns the number of files written.
pub fn write(source: &Path, found: &[(PathBuf, Metadata)], destination: &Path, bar: &ProgressBar) -> io::Result<usize> {
    let output: Box<dyn Write> =
        if destination == Path::new("-") { Box::new(io::stdout().lock()) } else { Box::new(File::create_new(destination)?) };
    let mut archive = Builder::new(io::BufWriter::with_capacity(WRITE_BYTES, output));
    let mut links: HashMap<u64, &Path> = HashMap::new();
    let mut written = 0;
    for (path, metadata) in found.iter().filter(|(path, _)| !path.as_os_str().is_empty()) {
        if metadata.file_type().is_socket() {
            continue;
        }
        let first = match metadata.is_dir() || metadata.nlink() < 2 {
            true => None,
            false => Some(*links.entry(metadata.ino()).or_insert(path)).filter(|first| *first != path),
        };
        append(&mut archive, source, path, metadata, first)?;
        bar.inc(if metadata.is_file() { metadata.len() } else { 0 });
        written += 1;
    }
    archive.into_inner()?.flush()?;
    Ok(written)
}

fn append<W: Write>(
    archive: &mut Builder<W>,
    source: &Path,
    path: &Path,
    metadata: &Metadata,
    first: Option<&Path>,
) -> io::Result<()> {
    let from = source.join(path);
    let mut header = Header::new_ustar();
    header.set_metadata_in_mode(metadata, HeaderMode::Complete);
    if metadata.mtime() < 0 {
        header.set_mtime(0); // The field holds no negative number; the extension says it.
    }
    if let Some(first) = first {
        header.set_entry_type(EntryType::Link);
        header.set_size(0);
        return archive.append_link(&mut header, path, first);
    }
    append_extensions(archive, &from, metadata)?;
    let kind = metadata.file_type();
    if kind.is_file() {
        let mut file = File::open(&from)?;
        let has_holes = metadata.blocks() * 512 < metadata.len();
        if has_holes && metadata.mtime() >= 0 {
            return archive.append_file(path, &mut file); // Which knows how to write holes.
        }
        return archive.append_data(&mut header, path, file.take(metadata.len()));
    }
    header.set_size(0);
    if kind.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        return archive.append_link(&mut header, path, std::fs::read_link(&from)?);
    }
    if kind.is_dir() {
        header.set_entry_type(EntryType::Directory);
    } else if kind.is_fifo() {
        header.set_entry_type(EntryType::Fifo);
    } else {
        header.set_entry_type(if kind.is_char_device() { EntryType::Char } else { EntryType::Block });
        let (major, minor) = sys::device_numbers(metadata.rdev());
        header.set_device_major(major)?;
        header.set_device_minor(minor)?;
    }
    archive.append_data(&mut header, path, io::empty())
}

/// Writes what a plain header cannot say: the time to the nanosecond, a large size, extended attributes.
fn append_extensions<W: Write>(archive: &mut Builder<W>, from: &Path, metadata: &Metadata) -> io::Result<()> {
    let mut records: Vec<(String, Vec<u8>)> = Vec::new();
    if metadata.mtime_nsec() != 0 || metadata.mtime() < 0 {
        records.push(("mtime".into(), decimal(metadata.mtime(), metadata.mtime_nsec()).into_bytes()));
    }
    if metadata.is_file() && metadata.len() >= 8 << 30 {
        records.push(("size".into(), metadata.len().to_string().into_bytes()));
    }
    for name in xattr::list(from)? {
        if let Some(value) = xattr::get(from, &name)? {
            records.push((format!("SCHILY.xattr.{}", String::from_utf8_lossy(name.as_bytes())), value));
        }
    }
    if records.is_empty() {
        return Ok(());
    }
    archive.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), value.as_slice())))
}

/// Returns a time as pax writes it: seconds since 1970 with a decimal point.
fn decimal(secs: i64, nanos: i64) -> String {
    const NANOS: i64 = 1_000_000_000;
    match (secs < 0, nanos) {
        (true, 1..) => format!("-{}.{:09}", -(secs + 1), NANOS - nanos),
        _ => format!("{secs}.{nanos:09}"),
    }
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn times_before_1970_count_down_to_the_whole_second() {
        assert_eq!(decimal(5, 20), "5.000000020");
        assert_eq!(decimal(-2, 500_000_000), "-1.500000000");
        assert_eq!(decimal(-1, 900_000_000), "-0.100000000");
        assert_eq!(decimal(-3, 0), "-3.000000000");
    }
}
