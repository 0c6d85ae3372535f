"""Small disks: a tmpfs or a file system on a loop image, to be filled, turned read-only or taken away."""

import os

from .mount import run


class Disk:
    """A file system of its own at `path`."""

    def __init__(self, base, kind, size_mib, inodes=None, options=""):
        """Makes and mounts it. `kind` is tmpfs, ext4 or xfs."""
        self.base, self.kind, self.path = base, kind, base + "/disk"
        self.image, self.options = base + "/disk.img", options
        os.makedirs(self.path)
        if kind == "tmpfs":
            run("mount", "-t", "tmpfs", "-o", f"size={size_mib}m" + (f",nr_inodes={inodes}" if inodes else ""), "tmpfs", self.path)
            return
        run("truncate", "-s", f"{size_mib}M", self.image)
        make = ["mkfs.ext4", "-q", "-F"] + (["-N", str(inodes)] if inodes else []) if kind == "ext4" else ["mkfs.xfs", "-q"]
        run(*make, self.image)
        self.mount()

    def mount(self):
        run("mount", "-o", ",".join(filter(None, ["loop", self.options])), self.image, self.path)

    def device(self):
        """Returns the loop device's name."""
        return os.path.basename(run("findmnt", "-n", "-o", "SOURCE", self.path).stdout.strip())

    def inodes_free(self):
        return os.statvfs(self.path).f_favail

    def turn_read_only(self):
        """Turns it read-only under open files, as ext4 does when it finds itself damaged."""
        with open(f"/sys/fs/ext4/{self.device()}/trigger_fs_error", "w") as trigger:
            trigger.write("1")

    def repair(self):
        """Mounts it again, writable."""
        run("umount", self.path)
        run("e2fsck", "-fy", self.image, check=False)
        self.mount()

    def end(self):
        run("umount", "-l", self.path, check=False)
