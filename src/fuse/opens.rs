//! Opens that are answered, as passthrough needs it: counted, with the backing file that the kernel was given for each node.

use super::filesystem::{MementoFilesystem, Place};
use super::makers::Makers;
use super::naming::Done;
use super::number::{NodeNumber, files_of};
use super::reply::{FOREVER, GENERATION, control_created};
use super::translate::{caller, guarded, refused};
use super::view::View;
use crate::workspace::{AttributeChange, Attributes, Closed, Ino, Opened, Purpose, StagingFile, Stale};
use fuser::{BackingId, Errno, FileHandle, FopenFlags, INodeNo, OpenFlags, ReplyCreate, ReplyOpen, Request};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long the kernel may keep a file after it says that it is closed.
const A_MOMENT: Duration = Duration::from_millis(2);
/// There is one state for all handles of a node.
const HANDLE: FileHandle = FileHandle(0);
/// What is written through such a handle does not pass the kernel's cache, nor its care for privileges and synchronous writes.
pub(super) const UNCACHED: FileHandle = FileHandle(1);

/// What is open through one mount.
#[derive(Default)]
pub(super) struct OpenFiles(Mutex<Opens>);

#[derive(Default)]
struct Opens {
    nodes: HashMap<u64, Node>,
    makers: Makers,
}

/// An open node.
struct Node {
    view: Arc<View>,
    ino: Ino,
    count: u64,
    /// The thread that opened it to fill it, if that is how it was opened first.
    maker: Option<u32>,
    /// What the kernel reads and writes by itself; the same for every open of the node.
    backing: Option<Arc<BackingId>>,
}

/// How a file is opened, by whom.
#[derive(Clone, Copy)]
struct How {
    thread: u32,
    as_root: bool,
    flags: i32,
    /// It is empty, and what it is to hold is about to be written.
    to_fill: bool,
}

impl How {
    fn of(request: &Request, flags: i32, to_fill: bool) -> Self {
        Self { thread: request.pid(), as_root: request.uid() == 0, flags, to_fill: to_fill && is_to_write(flags) }
    }
}

impl OpenFiles {
    fn opens(&self) -> MutexGuard<'_, Opens> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a file of a view. Where the kernel is to read and write by itself, `register` makes its file known to it.
    fn open(
        &self,
        view: &Arc<View>,
        ino: Ino,
        how: How,
        register: impl FnOnce(&StagingFile) -> io::Result<BackingId>,
    ) -> Result<Option<Arc<BackingId>>, Errno> {
        let number = NodeNumber { namespace: files_of(view.number()), ino }.pack();
        let appends = how.flags & libc::O_APPEND != 0; // Little by little, to what may become a long log.
        let small = how.to_fill && !appends && self.opens().makers.makes_small_ones(how.thread);
        let purpose = Purpose { write: is_to_write(how.flags), as_root: how.as_root, small };
        let opened = view.workspace.open_file(ino, purpose).map_err(refused("open", ino))?;
        let mut opens = self.opens();
        let maker = how.to_fill.then_some(how.thread);
        let node = opens.nodes.entry(number).or_insert_with(|| Node { view: view.clone(), ino, count: 0, maker, backing: None });
        if let (Opened::Handed(file), None) = (&opened, &node.backing) {
            match register(file) {
                Ok(backing) => node.backing = Some(Arc::new(backing)),
                Err(err) => {
                    tracing::warn!(ino, %err, "the kernel takes no more files in hand");
                    if node.count == 0 {
                        opens.nodes.remove(&number);
                    }
                    view.workspace.close_file(ino);
                    return Err(Errno::ENFILE);
                }
            }
        }
        node.count += 1;
        Ok(node.backing.clone())
    }

    /// Closes a node that was opened; returns its view and what is due there.
    pub fn close(&self, number: INodeNo) -> Option<(Arc<View>, Closed)> {
        let mut opens = self.opens();
        let node = opens.nodes.get_mut(&number.0)?;
        node.count -= 1;
        let (view, ino) = (node.view.clone(), node.ino);
        // With the last one the kernel lets go of the backing file, before it is asked who has it.
        let maker = if node.count == 0 { opens.nodes.remove(&number.0).and_then(|node| node.maker) } else { None };
        drop(opens);
        let closed = view.workspace.close_file(ino);
        if let (Some(maker), Some(size_bytes)) = (maker, closed.size_bytes) {
            self.opens().makers.filled(maker, size_bytes);
        }
        Some((view, closed))
    }
}

impl Drop for OpenFiles {
    fn drop(&mut self) {
        // A kernel that is gone closes nothing.
        for (_, node) in self.opens().nodes.drain() {
            drop(node.backing);
            for _ in 0..node.count {
                node.view.workspace.close_file(node.ino);
            }
        }
    }
}

fn is_to_write(flags: i32) -> bool {
    flags & libc::O_ACCMODE != libc::O_RDONLY
}

fn is_only_to_write(flags: i32) -> bool {
    flags & libc::O_ACCMODE == libc::O_WRONLY
}

/// Says whether each write through such an open is to survive a power cut.
pub(super) fn is_synchronous(flags: i32) -> bool {
    flags & libc::O_DSYNC != 0 // Part of O_SYNC.
}

impl MementoFilesystem {
    /// Answers an open of something that exists.
    pub(super) fn open_node(&self, request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let flags = flags.0;
        let Some(files) = &self.open_files else {
            return reply.error(Errno::ENOSYS); // The kernel opens files by itself from now on.
        };
        let (view, ino) = match self.place(number) {
            Ok(Place::Files(view, ino)) => (view, ino),
            Ok(Place::Control(..)) => return reply.opened(HANDLE, FopenFlags::FOPEN_KEEP_CACHE), // As without opens.
            Err(errno) => return reply.error(errno),
        };
        let opened = guarded("open", || {
            if flags & libc::O_TRUNC != 0 {
                let change = AttributeChange { size_bytes: Some(0), ..AttributeChange::default() };
                self.set_attributes(request, &view, ino, change)?;
            }
            files.open(&view, ino, How::of(request, flags, flags & libc::O_TRUNC != 0), |file| reply.open_backing(file))
        });
        let backing = match opened {
            Ok(backing) => backing,
            Err(errno) => return reply.error(errno),
        };
        let answer = move || match backing {
            Some(backing) => reply.opened_passthrough(HANDLE, FopenFlags::empty(), &backing),
            None => reply.opened(HANDLE, FopenFlags::FOPEN_KEEP_CACHE),
        };
        if is_to_write(flags) {
            self.answer_writer(&view, ino, flags, answer);
        } else {
            answer();
        }
    }

    /// Closes what was opened.
    pub(super) fn close_node(&self, number: INodeNo) -> Result<(), Errno> {
        if let Some((view, closed)) = self.open_files.as_ref().and_then(|files| files.close(number)) {
            if closed.rest {
                let workspace = view.workspace.clone();
                self.mounts().background().run_once(("rest", workspace.branch_id()), move || {
                    std::thread::sleep(A_MOMENT);
                    workspace.rest_closed_files();
                });
            }
            if closed.seal {
                self.mounts().seal_later(&view.workspace);
            }
        }
        Ok(())
    }

    /// Answers when the other views know nothing of the file that may change, and, where each write is to be durable, when
    /// what says where it is written is.
    fn answer_writer(&self, view: &Arc<View>, ino: Ino, flags: i32, answer: impl FnOnce() + Send + 'static) {
        let told = move || vec![Stale::Attributes { ino }];
        if is_synchronous(flags) {
            let view = view.clone();
            self.mounts().pool().run(move || {
                if let Err(err) = view.workspace.sync_file(ino) {
                    tracing::warn!(ino, %err, "an open for synchronous writes could not be synced");
                }
                view.after_others(told, answer);
            });
        } else {
            view.after_others(told, answer);
        }
    }

    /// Answers the making and opening of a file in one.
    pub(super) fn create_node(
        &self,
        request: &Request,
        (parent, name): (INodeNo, &OsStr),
        (mode, umask): (u32, u32),
        flags: i32,
        reply: ReplyCreate,
    ) {
        let Some(files) = &self.open_files else {
            return reply.error(Errno::ENOSYS); // The kernel makes files with mknod from now on, and opens them by itself.
        };
        let view = match self.place(parent) {
            Ok(Place::Files(view, _)) => view,
            Ok(Place::Control(view, parent)) => {
                let who = caller(request);
                return control_created(reply, view.number(), || view.control.create(parent, name.as_bytes(), &who));
            }
            Err(errno) => return reply.error(errno),
        };
        let made: Result<(Done<Attributes>, _), Errno> = guarded("create", || {
            let done = self.make_file(request, (parent, name), (mode, umask))?;
            let ino = done.result().ino;
            let opened = files.open(&view, ino, How::of(request, flags, true), |file| reply.open_backing(file));
            opened.inspect_err(|_| view.forget(ino, 1)).map(|backing| (done, backing)) // It is not handed out.
        });
        let (done, backing) = match made {
            Ok(made) => made,
            Err(errno) => return reply.error(errno),
        };
        let ino = done.result().ino;
        let answer = move || {
            done.answer(move |view, attributes| {
                let attr = super::attr::file_attr(&attributes, files_of(view));
                match backing {
                    Some(backing) => {
                        reply.created_passthrough(&FOREVER, &attr, GENERATION, HANDLE, FopenFlags::empty(), &backing);
                    }
                    // Before it writes through its cache the kernel asks for privileges that end, in a message of its own. Who reads
                    // through the handle too needs that cache.
                    None if is_only_to_write(flags) && !is_synchronous(flags) => {
                        reply.created(&FOREVER, &attr, GENERATION, UNCACHED, FopenFlags::FOPEN_DIRECT_IO);
                    }
                    None => reply.created(&FOREVER, &attr, GENERATION, HANDLE, FopenFlags::FOPEN_KEEP_CACHE),
                }
                super::linger::linger();
            });
        };
        if is_synchronous(flags) { self.answer_writer(&view, ino, flags, answer) } else { answer() }
    }
}
