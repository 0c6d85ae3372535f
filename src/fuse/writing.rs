//! Writes into files: where they go, and what the other views of the branch hear of them.

use super::filesystem::MementoFilesystem;
use super::reply;
use super::translate::{guarded, refused};
use super::view::View;
use crate::workspace::{Ino, Stale, Workspace, Written};
use fuser::{Errno, OpenFlags, ReplyWrite, Request, WriteFlags};
use std::sync::Arc;

/// A write, as the kernel asks for it.
pub(super) struct Asked<'a> {
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

    fn appends(&self) -> bool {
        self.open_flags.0 & libc::O_APPEND != 0
    }
}

impl MementoFilesystem {
    /// Answers a write into a file.
    pub(super) fn write_file(&self, request: &Request, view: &Arc<View>, ino: Ino, asked: &Asked<'_>, reply: ReplyWrite) {
        let written = guarded("write", || self.write_where_it_goes(request, view, ino, asked));
        let seal_due = written.as_ref().is_ok_and(|(_, written)| written.seal_due);
        let moved = written.as_ref().is_ok_and(|(offset, _)| *offset != asked.offset);
        let stale = move || vec![Stale::Attributes { ino }];
        let own = view.clone();
        let answer = move || {
            reply::written(reply, written.map(|(_, written)| written.len as u32));
            if moved {
                own.forget_own(stale()); // Its kernel has put the bytes where it believed that the end was.
            }
        };
        if asked.is_of_mapping() {
            // A page of a mapping is written back, perhaps because another view makes this one forget it: nobody may wait
            // for the other view here.
            answer();
            view.tell_others(stale);
        } else {
            view.after_others(stale, answer);
        }
        if seal_due {
            self.seal_later(view);
        }
    }

    /// Writes, and says where: what is appended goes to the end, which another view may have moved since this one's kernel
    /// was told of it.
    fn write_where_it_goes(&self, request: &Request, view: &View, ino: Ino, asked: &Asked<'_>) -> Result<(u64, Written), Errno> {
        let strip = asked.write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        if strip {
            self.end_setgid(request, view, ino)?;
        }
        if asked.appends() && !asked.is_of_mapping() && view.is_shared() {
            return view.workspace.append(ino, asked.data, strip).map_err(refused("write", ino));
        }
        // The kernel takes no part of a page for an answer.
        let write = if asked.is_of_mapping() { Workspace::write_all } else { Workspace::write };
        let written = write(&view.workspace, ino, asked.offset, asked.data, strip).map_err(refused("write", ino))?;
        Ok((asked.offset, written))
    }
}
