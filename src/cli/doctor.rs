//! Says whether this machine can mount, which way, and if not why.

use crate::sys;
use crate::workspace::why_not_handed;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Looks at the machine, and at the file system of a store or of temporary files.
pub fn examine(store: Option<&Path>) -> Value {
    let root = sys::effective_uid() == 0;
    let device = Path::new("/dev/fuse");
    let device_there = device.exists();
    let device_open = std::fs::OpenOptions::new().read(true).write(true).open(device).is_ok();
    let helper = find_program("fusermount3");
    let setuid = helper.as_deref().is_some_and(is_setuid_root);
    let way = if root && device_open {
        "mount(2), as root"
    } else if setuid && device_there {
        "fusermount3"
    } else {
        "none"
    };
    let mut problems = Vec::new();
    if !device_there {
        problems.push("/dev/fuse is missing: load the fuse module (modprobe fuse), or give the container --device /dev/fuse");
    }
    if root && device_there && !device_open {
        problems.push("/dev/fuse cannot be opened: this container or sandbox forbids it");
    }
    if !root && helper.is_none() {
        problems.push("fusermount3 is missing: install the package fuse3");
    }
    if !root && helper.is_some() && !setuid {
        problems.push("fusermount3 is not setuid root: reinstall the package fuse3");
    }
    let passthrough = why_no_passthrough(store);
    json!({
        "can_mount": way != "none",
        "way": way,
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "dev_fuse": device_there,
        "dev_fuse_opens": device_open,
        "fusermount3": helper,
        "passthrough": passthrough.is_none(),
        "passthrough_why_not": passthrough,
        "problems": problems,
    })
}

/// Says why files cannot be handed to the kernel. Whether the kernel offers it at all shows only when something is mounted.
fn why_no_passthrough(store: Option<&Path>) -> Option<String> {
    const FIRST_KERNEL: (u32, u32) = (6, 13);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map_while(|number| number.parse().ok());
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < FIRST_KERNEL {
        return Some(format!("it needs Linux {}.{}", FIRST_KERNEL.0, FIRST_KERNEL.1));
    }
    why_not_handed(store.unwrap_or(&std::env::temp_dir()))
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn is_setuid_root(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    path.metadata().is_ok_and(|file| file.mode() & 0o4000 != 0 && file.uid() == 0)
}
