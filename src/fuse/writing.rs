//! Writes into files: where they go, and what the other views of the branch hear of them.

use super::filesystem::MementoFilesystem;
use super::mounts::Mounts;
use super::opens::{UNCACHED, is_synchronous};
use super::reply;
use super::translate::{guarded, refused};
use super::view::View;
use crate::workspace::{Ino, Stale, Workspace, WorkspaceError, Written};
use fuser::{Errno, FileHandle, OpenFlags, ReplyWrite, Request, WriteFlags};
use std::sync::Arc;

/// A write, as the kernel asks for it.
pub(super) struct Asked<'a> {
    pub handle: FileHandle,
    pub offset: u64,
    pub data: &'a [u8],
    pub write_flags: WriteFlags,
    pub open_flags: OpenFlags,
}

impl Asked<'_> {
    /// Says whether it is a page of a mapping that is written back: whoever wrote to it has long gone on.
    fn is_of_mapping(&self) -> bool {
        self.write_flags.contains(WriteFlags::FUSE_WRITE_CACHE)
    }

    /// Says whether the kernel leaves to us what goes with a write: it did not go through its cache.
    fn is_uncached(&self) -> bool {
        self.handle == UNCACHED
    }

    fn appends(&self) -> bool {
        self.open_flags.0 & libc::O_APPEND != 0
    }
}

/// Where a write goes, and how.
#[derive(Clone, Copy)]
struct Way {
    ino: Ino,
    offset: u64,
    /// To the end, which another view may have moved since this one's kernel was told of it.
    append: bool,
    /// All of it: the kernel takes no part of a page for an answer.
    whole: bool,
    /// The rights of set-id files end.
    strip: bool,
}

impl Way {
    /// Writes, and says where.
    fn write(&self, workspace: &Workspace, data: &[u8]) -> Result<(u64, Written), WorkspaceError> {
        if self.append {
            return workspace.append(self.ino, data, self.strip);
        }
        let write = if self.whole { Workspace::write_all } else { Workspace::write };
        Ok((self.offset, write(workspace, self.ino, self.offset, data, self.strip)?))
    }
}

impl MementoFilesystem {
    /// Answers a write into a file.
    pub(super) fn write_file(&self, request: &Request, view: &Arc<View>, ino: Ino, asked: &Asked<'_>, reply: ReplyWrite) {
        let whole = asked.is_of_mapping();
        let append = asked.appends() && !whole && view.is_shared();
        let strip = asked.write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let way = Way { ino, offset: asked.offset, append, whole, strip };
        let to_sync = asked.is_uncached() && is_synchronous(asked.open_flags.0);
        let written = guarded("write", || {
            if strip {
                self.end_setgid(request, view, ino)?;
            }
            if asked.is_uncached() {
                view.workspace.end_capability(ino).map_err(refused("write", ino))?;
            }
            Ok(way.write(&view.workspace, asked.data))
        });
        match written {
            Ok(Err(err)) if err.is_out_of_descriptors() => {
                // A seal gives some back. It takes a while: not on the thread that reads requests.
                let (mounts, view, data) = (self.mounts().clone(), view.clone(), asked.data.to_vec());
                self.mounts().pool().run(move || {
                    let written = guarded("write", || after_seals(&view.workspace, way, &data).map_err(refused("write", ino)));
                    let written = if to_sync { made_durable(&view, ino, written) } else { written };
                    answer_write(&mounts, &view, way, written, reply);
                });
            }
            written => {
                let written = written.and_then(|written| written.map_err(refused("write", ino)));
                if to_sync {
                    let (mounts, view) = (self.mounts().clone(), view.clone());
                    self.mounts().pool().run(move || {
                        let written = made_durable(&view, ino, written);
                        answer_write(&mounts, &view, way, written, reply);
                    });
                } else {
                    answer_write(self.mounts(), view, way, written, reply);
                }
            }
        }
    }
}

/// Makes what was written survive a power cut.
fn made_durable(view: &View, ino: Ino, written: Result<(u64, Written), Errno>) -> Result<(u64, Written), Errno> {
    let written = written?;
    guarded("write", || view.workspace.sync_file(ino).map_err(refused("write", ino)))?;
    Ok(written)
}

/// Writes after a seal, and after another where somebody was faster to take what it gave back.
fn after_seals(workspace: &Workspace, way: Way, data: &[u8]) -> Result<(u64, Written), WorkspaceError> {
    const TRIES: usize = 8;
    let mut tries = 0;
    loop {
        workspace.seal_now()?;
        tries += 1;
        match way.write(workspace, data) {
            Err(err) if err.is_out_of_descriptors() && tries < TRIES => {}
            written => return written,
        }
    }
}

/// Answers a write, and has a long journal sealed.
fn answer_write(mounts: &Mounts, view: &Arc<View>, way: Way, written: Result<(u64, Written), Errno>, reply: ReplyWrite) {
    let seal_due = written.as_ref().is_ok_and(|(_, written)| written.seal_due);
    let moved = written.as_ref().is_ok_and(|(offset, _)| *offset != way.offset);
    let stale = move || vec![Stale::Attributes { ino: way.ino }];
    let own = view.clone();
    let answer = move || {
        reply::written(reply, written.map(|(_, written)| written.len as u32));
        if moved {
            own.forget_own(stale()); // Its kernel has put the bytes where it believed that the end was.
        }
    };
    if way.whole {
        // A page of a mapping is written back, perhaps because another view makes this one forget it: nobody may wait
        // for the other view here.
        answer();
        view.tell_others(stale);
    } else {
        view.after_others(stale, answer);
    }
    if seal_due {
        mounts.seal_later(&view.workspace);
    }
}
