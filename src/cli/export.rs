//! `export`: a checkpoint as an ordinary directory or a tar file.

use super::client::Client;
use super::error::CliError;
use super::{progress, report};
use crate::sys;
use indicatif::ProgressBar;
use serde_json::json;
use std::collections::HashMap;
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
    if client.top().is_some_and(|top| std::path::absolute(destination).is_ok_and(|path| path.starts_with(top))) {
        return Err(CliError::new(format!("{} is inside the workspace; export to a place outside", destination.display())));
    }
    let bar = progress::bytes("exporting");
    let as_tar = tar || destination.extension().is_some_and(|extension| extension == "tar");
    let written = entries(&source, &bar).and_then(|found| match as_tar {
        true => super::tar::write(&source, &found, destination, &bar),
        false => export_directory(&source, &found, destination, &bar),
    });
    bar.finish_and_clear();
    let files = written.map_err(|err| CliError::at("cannot export to", destination, err))?;
    if destination != Path::new("-") {
        let reply = json!({ "id": id, "destination": destination.to_string_lossy(), "files": files });
        super::commands::show(&reply, json, |_| {
            format!("{files} files of checkpoint {} written to {}\n", report::short(&reply["id"]), destination.display())
        })?;
    }
    Ok(())
}

/// Lists everything below `top`, each directory before what is in it.
fn entries(top: &Path, bar: &ProgressBar) -> io::Result<Vec<(PathBuf, Metadata)>> {
    let mut found = vec![(PathBuf::new(), top.symlink_metadata()?)];
    let mut next = 0;
    while next < found.len() {
        if found[next].1.is_dir() {
            let directory = found[next].0.clone();
            let mut names: Vec<_> = fs::read_dir(top.join(&directory))?.collect::<io::Result<_>>()?;
            names.sort_by_key(fs::DirEntry::file_name);
            for name in names {
                let path = directory.join(name.file_name());
                let metadata = top.join(&path).symlink_metadata()?;
                bar.inc_length(if metadata.is_file() { metadata.len() } else { 0 });
                found.push((path, metadata));
            }
        }
        next += 1;
    }
    Ok(found)
}

fn export_directory(source: &Path, found: &[(PathBuf, Metadata)], destination: &Path, bar: &ProgressBar) -> io::Result<usize> {
    match fs::read_dir(destination) {
        Ok(mut names) => {
            if names.next().is_some() {
                return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, "the directory is not empty"));
            }
        }
        Err(_) => fs::create_dir(destination)?,
    }
    let mut links: HashMap<u64, PathBuf> = HashMap::new();
    for (path, metadata) in found.iter().skip(1) {
        let (from, to) = (source.join(path), destination.join(path));
        if metadata.nlink() > 1 && !metadata.is_dir() {
            if let Some(first) = links.get(&metadata.ino()) {
                fs::hard_link(first, &to)?;
                continue;
            }
            links.insert(metadata.ino(), to.clone());
        }
        export_one(&from, &to, metadata, bar)?;
    }
    // Directories last and from the bottom up: filling them would move their times again.
    for (path, metadata) in found.iter().rev().filter(|(_, metadata)| metadata.is_dir()) {
        finish(&source.join(path), &destination.join(path), metadata)?;
    }
    Ok(found.len() - 1)
}

fn export_one(from: &Path, to: &Path, metadata: &Metadata, bar: &ProgressBar) -> io::Result<()> {
    let kind = metadata.file_type();
    if kind.is_dir() {
        return fs::create_dir(to);
    }
    if kind.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
    } else if kind.is_file() {
        copy(from, to, metadata.len())?;
        bar.inc(metadata.len());
    } else {
        sys::make_node(to, metadata.mode(), metadata.rdev())?;
    }
    finish(from, to, metadata)
}

/// Copies the bytes of a file; holes stay holes.
pub(super) fn copy(from: &Path, to: &Path, size_bytes: u64) -> io::Result<()> {
    let (source, target) = (File::open(from)?, File::create_new(to)?);
    target.set_len(size_bytes)?;
    let mut buffer = vec![0; COPY_BYTES];
    for range in sys::data_ranges(&source, size_bytes)? {
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

/// Gives a file its owner (where we may), mode, extended attributes and times, in an order in which none undoes another.
fn finish(from: &Path, to: &Path, metadata: &Metadata) -> io::Result<()> {
    let owned = std::os::unix::fs::lchown(to, Some(metadata.uid()), Some(metadata.gid()));
    if let Err(err) = owned
        && sys::effective_uid() == 0
    {
        return Err(err);
    }
    for name in xattr::list(from)? {
        if let Some(value) = xattr::get(from, &name)? {
            let _ = xattr::set(to, &name, &value); // The destination may not know the namespace.
        }
    }
    if !metadata.is_symlink() {
        fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    }
    sys::set_times(to, (metadata.atime(), metadata.atime_nsec()), (metadata.mtime(), metadata.mtime_nsec()))
}
