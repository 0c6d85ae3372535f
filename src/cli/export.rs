//! `export`: a checkpoint as an ordinary directory or a tar file.

use super::client::Client;
use super::error::CliError;
use super::{progress, report};
use crate::sys::{self, Below};
use indicatif::ProgressBar;
use serde_json::json;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Bytes copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// Writes the checkpoint that `reference` names to `destination`.
pub fn export(client: &Client, reference: &str, destination: &Path, tar: bool, json: bool) -> Result<(), CliError> {
    let id = client.run(&json!({ "do": "show", "ref": reference }))?["id"].as_str().unwrap_or_default().to_owned();
    let control = client.control().ok_or_else(|| CliError::new("an export needs a mount"))?;
    let source = control.join("checkpoints").join(&id);
    let as_tar = tar || destination.extension().is_some_and(|extension| extension == "tar");
    let streams = destination == Path::new("-");
    match client.top() {
        _ if streams && !as_tar => return Err(CliError::usage("only a tar file can be written to standard output: add --tar")),
        Some(top) if !streams => check_destination(destination, top)?,
        _ => {}
    }
    let bar = progress::bytes("exporting");
    let written = entries(&source, &bar).and_then(|found| match as_tar {
        true => super::tar::write(&source, &found, destination, &bar),
        false => export_directory(&source, &found, destination, &bar),
    });
    bar.finish_and_clear();
    let files = written.map_err(|err| CliError::at("cannot export to", destination, err))?;
    if !streams {
        let reply = json!({ "id": id, "destination": destination.to_string_lossy(), "files": files });
        super::commands::show(&reply, json, |_| {
            format!("{files} files of checkpoint {} written to {}\n", report::short(&reply["id"]), destination.display())
        })?;
    }
    Ok(())
}

/// Refuses a destination inside the workspace whose top is `top`, or inside its store.
fn check_destination(destination: &Path, top: &Path) -> Result<(), CliError> {
    let absolute = std::path::absolute(destination).map_err(|err| CliError::at("cannot export to", destination, err))?;
    // It need not exist yet; what leads to it does.
    let parent = absolute.ancestors().skip(1).find_map(|parent| Some((parent.canonicalize().ok()?, parent)));
    let resolved = match (absolute.canonicalize(), parent) {
        (Ok(resolved), _) => resolved,
        (Err(_), Some((resolved, parent))) => resolved.join(absolute.strip_prefix(parent).unwrap_or(&absolute)),
        (Err(_), None) => absolute,
    };
    let refused =
        |place| Err(CliError::new(format!("{} is inside the {place}; export to a place outside", destination.display())));
    if resolved.starts_with(top) {
        return refused("workspace");
    }
    let store = top.ancestors().find_map(sys::source_of); // The top may be a branch's view, inside a mount.
    if store.is_some_and(|store| resolved.starts_with(store)) {
        return refused("store");
    }
    Ok(())
}

/// Lists everything below `top`, each directory before what is in it.
fn entries(top: &Path, bar: &ProgressBar) -> io::Result<Vec<(PathBuf, Metadata)>> {
    let mut below = Below::open(top)?;
    let mut found = vec![(PathBuf::new(), below.directory(Path::new(""))?.metadata()?)];
    let mut next = 0;
    while next < found.len() {
        if found[next].1.is_dir() {
            let path = found[next].0.clone();
            let directory = below.directory(&path)?;
            let mut names: Vec<_> = fs::read_dir(sys::path_of_open(&directory))?.collect::<io::Result<_>>()?;
            names.sort_by_key(fs::DirEntry::file_name);
            for name in names {
                let metadata = name.metadata()?;
                bar.inc_length(if metadata.is_file() { metadata.len() } else { 0 });
                found.push((path.join(name.file_name()), metadata));
            }
        }
        next += 1;
    }
    Ok(found)
}

/// Writes into the directory that was named, and nowhere else: whoever can write there too may put a link in the way, and it is
/// not followed.
fn export_directory(source: &Path, found: &[(PathBuf, Metadata)], destination: &Path, bar: &ProgressBar) -> io::Result<usize> {
    match fs::read_dir(destination) {
        Ok(mut names) => {
            if names.next().is_some() {
                return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, "the directory is not empty"));
            }
        }
        Err(_) => fs::create_dir(destination)?,
    }
    let (mut from, mut to) = (Below::open(source)?, Below::open(destination)?);
    let mut links: HashMap<u64, &Path> = HashMap::new();
    let mut directories = vec![(Path::new(""), &found[0].1, xattrs_of(&*from.directory(Path::new(""))?)?)];
    for (path, metadata) in found.iter().skip(1) {
        let (from, name) = from.parent_of(path)?;
        if metadata.nlink() > 1 && !metadata.is_dir() {
            if let Some(first) = links.get(&metadata.ino()) {
                let (first, first_name) = to.parent_of(first)?;
                let (to, _) = to.parent_of(path)?;
                fs::hard_link(sys::path_within(&first, first_name), sys::path_within(&to, name))?;
                continue;
            }
            links.insert(metadata.ino(), path);
        }
        let (to, _) = to.parent_of(path)?;
        let xattrs = xattrs_of(&sys::pin(&from, name)?)?;
        if metadata.is_dir() {
            fs::create_dir(sys::path_within(&to, name))?;
            directories.push((path, metadata, xattrs));
        } else {
            let made = export_one(&from, &to, name, metadata, bar)?;
            finish(&made, metadata, &xattrs)?;
        }
    }
    // Directories last and from the bottom up: filling them would move their times again.
    for (path, metadata, xattrs) in directories.iter().rev() {
        finish(&*to.directory(path)?, metadata, xattrs)?;
    }
    Ok(found.len() - 1)
}

/// Makes a file that is no directory, and returns it.
fn export_one(from: &File, to: &File, name: &OsStr, metadata: &Metadata, bar: &ProgressBar) -> io::Result<File> {
    let kind = metadata.file_type();
    if kind.is_file() {
        let source = sys::open_beneath(from, Path::new(name), libc::O_RDONLY, 0)?;
        let target = sys::open_beneath(to, Path::new(name), libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o600)?;
        copy(&source, &target, metadata.len())?;
        bar.inc(metadata.len());
        return Ok(target);
    }
    let place = sys::path_within(to, name);
    if kind.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(sys::path_within(from, name))?, &place)?;
    } else {
        sys::make_node(&place, metadata.mode(), metadata.rdev())?;
    }
    sys::pin(to, name)
}

/// Copies the bytes of a file; holes stay holes.
pub(super) fn copy(source: &File, target: &File, size_bytes: u64) -> io::Result<()> {
    target.set_len(size_bytes)?;
    let mut buffer = vec![0; COPY_BYTES];
    for range in sys::data_ranges(source, size_bytes)? {
        let mut at = range.start;
        while at < range.end {
            let want = (range.end - at).min(COPY_BYTES as u64) as usize;
            source.read_exact_at(&mut buffer[..want], at)?;
            target.write_all_at(&buffer[..want], at)?;
            at += want as u64;
        }
    }
    Ok(())
}

type Xattrs = Vec<(OsString, Vec<u8>)>;

fn xattrs_of(file: &File) -> io::Result<Xattrs> {
    let path = sys::path_of_open(file);
    let mut xattrs = Vec::new();
    for name in xattr::list_deref(&path)? {
        if let Some(value) = xattr::get_deref(&path, &name)? {
            xattrs.push((name, value));
        }
    }
    Ok(xattrs)
}

/// Gives a file its owner (where we may), mode, extended attributes and times, in an order in which none undoes another.
fn finish(file: &File, metadata: &Metadata, xattrs: &Xattrs) -> io::Result<()> {
    let path = sys::path_of_open(file);
    let owned = std::os::unix::fs::chown(&path, Some(metadata.uid()), Some(metadata.gid()));
    if let Err(err) = owned
        && sys::effective_uid() == 0
    {
        return Err(err);
    }
    for (name, value) in xattrs {
        let _ = xattr::set_deref(&path, name, value); // The destination may not know the namespace.
    }
    if !metadata.is_symlink() {
        fs::set_permissions(&path, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    }
    sys::set_times_of(file, (metadata.atime(), metadata.atime_nsec()), (metadata.mtime(), metadata.mtime_nsec()))
}
