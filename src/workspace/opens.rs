//! Opens that are told: which way a file is opened is decided at its first open and held until its last close.

use super::Workspace;
use super::changes::Live;
use super::error::WorkspaceError;
use super::file::FileBody;
use super::inode::Ino;
use super::operation::{Operation, Resting};
use super::staging::StagingFile;
use crate::sys;
use std::path::Path;
use std::sync::Arc;

/// Plain files up to this size are taken into the journal and memory when nobody has them any more: each keeps a
/// descriptor and takes an inode of the store's file system.
pub const REST_BYTES_MAX: u64 = 128 << 10;
const SETUID_OR_SETGID: u32 = 0o6000;

/// How a file is open.
#[derive(Clone, Copy, Debug)]
pub struct Opens {
    /// The kernel was given its staging file.
    handed: bool,
    /// How often.
    count: u64,
}

/// A file that was closed, and what is due then.
#[derive(Clone, Copy, Debug)]
pub struct Closed {
    /// Length of the file, if it still is one.
    pub size_bytes: Option<u64>,
    /// A seal is due.
    pub seal: bool,
    /// [`Workspace::rest_closed_files`] is, a moment later.
    pub rest: bool,
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug)]
pub struct Purpose {
    /// To be written, not only read.
    pub write: bool,
    /// By root, whose writes leave a program its privileges.
    pub as_root: bool,
    /// What comes into it while it is empty will be small, as far as one can tell: a staging file of its own is not worth it.
    pub small: bool,
}

/// Which way a file is opened.
#[derive(Clone, Debug)]
pub enum Opened {
    /// What is read and written passes the daemon.
    Cached,
    /// The kernel reads and writes this file by itself.
    Handed(Arc<StagingFile>),
}

impl Live {
    /// Opens a file.
    pub fn open(&mut self, ino: Ino, purpose: Purpose) -> Result<Opened, WorkspaceError> {
        self.regular(ino)?;
        let handed = match self.opens.get(&ino) {
            Some(opens) => opens.handed,
            None => self.is_to_hand(ino, purpose)? && self.hand(ino),
        };
        self.opens.entry(ino).or_insert(Opens { handed, count: 0 }).count += 1;
        match self.tree.plain_mut(ino) {
            Some(plain) if handed => {
                plain.ends_privileges |= purpose.write && !purpose.as_root;
                let file = plain.file.clone();
                self.tree.held.insert(ino);
                Ok(Opened::Handed(file))
            }
            _ => Ok(Opened::Cached),
        }
    }

    /// Says whether the kernel is to read and write a file by itself.
    fn is_to_hand(&self, ino: Ino, purpose: Purpose) -> Result<bool, WorkspaceError> {
        let inode = self.tree.inode(ino)?;
        if purpose.write && (inode.is_capable() || inode.mode & SETUID_OR_SETGID != 0) {
            return Ok(false); // Such rights end with the first write, which then must reach us.
        }
        Ok(self.tree.plain(ino).is_some() || purpose.write && !purpose.small && self.regular(ino)?.size_bytes() == 0)
    }

    /// Makes a file plain. One for which there is no room is opened the other way.
    fn hand(&mut self, ino: Ino) -> bool {
        if self.tree.plain(ino).is_some() {
            return true;
        }
        let Ok(mtime) = self.tree.inode(ino).map(|inode| inode.mtime) else { return false };
        let file = self.staging.create_plain().and_then(|file| {
            file.set_modified(mtime)?; // From now on it is the file's own.
            Ok((file.stamp()?.ctime, file))
        });
        let handed = file.map_err(WorkspaceError::io("staging file")).and_then(|(changed, file)| {
            let operation = Operation::Hand { identity: self.identity(ino)?, staging: file.number(), changed };
            self.perform(&operation, &[ino])
        });
        if let Err(err) = &handed {
            tracing::debug!(ino, %err, "a file is not handed to the kernel");
        }
        handed.is_ok()
    }

    /// Closes a file.
    pub fn close(&mut self, ino: Ino) {
        let Some(opens) = self.opens.get_mut(&ino) else { return };
        opens.count -= 1;
        if opens.count == 0 {
            let handed = opens.handed;
            self.opens.remove(&ino);
            if handed && !self.rest(ino) {
                self.closed_and_held.push(ino);
            }
        }
    }

    /// Takes a plain file back that nobody has any more: a small one whole, and a large one that is as sealed. Says whether
    /// nobody has it; a mapping outlives its descriptor.
    fn rest(&mut self, ino: Ino) -> bool {
        let Some(plain) = self.tree.plain(ino) else {
            self.tree.held.remove(ino);
            return true;
        };
        if plain.file.has_others() {
            return false;
        }
        self.tree.look(ino);
        self.tree.held.remove(ino);
        if let Some(plain) = self.tree.plain_mut(ino) {
            plain.ends_privileges = false;
        }
        let rested = self.resting(ino).and_then(|operation| match operation {
            Some(operation) => self.perform(&operation, &[ino]),
            None => Ok(()),
        });
        if let Err(err) = rested {
            tracing::debug!(ino, %err, "a file stays in its staging file"); // All of it is there.
        }
        self.tree.drop_unused(ino);
        true
    }

    fn resting(&self, ino: Ino) -> Result<Option<Operation>, WorkspaceError> {
        let inode = self.tree.inode(ino)?;
        let Some(plain) = self.tree.plain(ino).filter(|_| !inode.orphan) else { return Ok(None) };
        let size_bytes = plain.seen.size_bytes;
        let content = if let Some(sealed) = plain.sealed {
            Resting::Sealed(sealed.into())
        } else if size_bytes <= REST_BYTES_MAX && plain.seen.data_bytes >= size_bytes {
            let mut bytes = vec![0; size_bytes as usize];
            plain.file.read_at(0, &mut bytes).map_err(WorkspaceError::io("staging file"))?;
            Resting::Bytes(bytes.into())
        } else {
            return Ok(None);
        };
        Ok(Some(Operation::Rest { identity: inode.identity, content, mtime: inode.mtime, ctime: inode.ctime }))
    }

    /// Takes back what was not free yet when it was closed: the kernel lets go of a file a moment after it says so.
    fn rest_closed(&mut self) {
        for ino in std::mem::take(&mut self.closed_and_held) {
            if !self.opens.contains_key(&ino) {
                self.rest(ino);
            }
        }
    }

    /// Takes back what nobody has any more of the files whose last close did not find them so.
    pub fn rest_all(&mut self) {
        for ino in self.tree.held.to_vec() {
            if !self.opens.contains_key(&ino) {
                self.rest(ino);
            }
        }
    }

    /// Says in a new segment of the journal which files are plain and held. What else is plain is named by segments that
    /// stay until it is sealed.
    pub fn name_held(&mut self) -> Result<(), WorkspaceError> {
        for ino in self.tree.held.to_vec() {
            let Some(plain) = self.tree.plain(ino) else { continue };
            let (staging, changed) = (plain.file.number(), plain.seen.ctime);
            if self.tree.inode(ino)?.orphan {
                continue;
            }
            self.bind(ino)?;
            let operation = Operation::Hand { identity: self.identity(ino)?, staging, changed };
            self.journal.append(&operation).map_err(WorkspaceError::io("journal"))?;
        }
        Ok(())
    }

    /// Says so in the segment that a movement began.
    pub fn name_held_again(&mut self) {
        if let Err(err) = self.name_held() {
            tracing::error!(
                ?err,
                "what is written to open files could be lost with this process; the workspace becomes read-only"
            );
            self.poisoned = true;
        }
    }

    /// Says whether anything changed since the last seal, also in what the kernel writes by itself.
    pub fn is_dirty(&mut self) -> bool {
        self.tree.look_at_all();
        self.tree.is_dirty()
    }
}

impl Workspace {
    /// Opens a file; to be given back with [`Self::close_file`].
    pub fn open_file(&self, ino: Ino, purpose: Purpose) -> Result<Opened, WorkspaceError> {
        if purpose.write { self.live_to_change().open(ino, purpose) } else { self.live().open(ino, purpose) }
    }

    /// Closes a file that was opened with [`Self::open_file`], and says what is due then.
    pub fn close_file(&self, ino: Ino) -> Closed {
        let mut live = self.live();
        live.close(ino);
        let size_bytes = live.regular(ino).ok().map(FileBody::size_bytes);
        Closed { size_bytes, seal: live.is_seal_due(), rest: !live.closed_and_held.is_empty() }
    }

    /// Takes back closed files that the kernel had in hand for a moment longer.
    pub fn rest_closed_files(&self) {
        self.live().rest_closed();
    }
}

/// Says why the files of the store at `path` cannot be handed to the kernel by this process, as far as it is known without a mount.
pub fn why_not_handed(path: &Path) -> Option<String> {
    if !sys::administers_machine() {
        return Some("it needs root with CAP_SYS_ADMIN outside of any container or user namespace".into());
    }
    match super::plain::why_not_plain(path) {
        Ok(why) => why.map(str::to_owned),
        Err(err) => Some(format!("the store {} cannot be tried: {err}", path.display())),
    }
}
