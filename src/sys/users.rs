//! Who is using a directory of a mount: looked up in /proc (proc(5)), without touching the mount.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Finds a process, other than this one, that stands in `directory` or below, has a file open there, or sees it mounted
/// somewhere. Processes that this one may not look into are not seen.
///
/// `directory` lies in a mount of the store at `source`; its last three names are its path from the top of the mount.
pub fn process_within(directory: &Path, source: &Path) -> Option<u32> {
    let own = std::process::id();
    let mut namespaces = HashSet::new();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let process = entry.path();
        if pid != own && stands_within(&process, directory) {
            return Some(pid);
        }
        if let Ok(namespace) = fs::read_link(process.join("ns/mnt"))
            && namespaces.insert(namespace)
            && sees_mounted(&process, directory, source)
        {
            return Some(pid);
        }
    }
    None
}

fn stands_within(process: &Path, directory: &Path) -> bool {
    // Reading these links asks the kernel for a path and no file system for anything.
    let leads_there = |link: PathBuf| fs::read_link(link).is_ok_and(|target| target.starts_with(directory));
    ["cwd", "root"].iter().any(|link| leads_there(process.join(link)))
        || fs::read_dir(process.join("fd")).into_iter().flatten().flatten().any(|descriptor| leads_there(descriptor.path()))
}

/// Says whether the directory itself, and not the mount it lies in, is mounted somewhere in the process's namespace.
fn sees_mounted(process: &Path, directory: &Path, source: &Path) -> bool {
    let mut names: Vec<OsString> = directory.iter().rev().take(3).map(OsString::from).collect();
    names.push("/".into());
    let root: PathBuf = names.into_iter().rev().collect();
    super::mount::mounted_parts(&process.join("mountinfo"), source).iter().any(|part| part.starts_with(&root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_stands_in_a_directory_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        assert_eq!(process_within(&path, Path::new("/no/store")), None);
        let mut child = std::process::Command::new("sleep").arg("60").current_dir(&path).spawn().unwrap();
        assert_eq!(process_within(&path, Path::new("/no/store")), Some(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(process_within(&path, Path::new("/no/store")), None);
    }
}
