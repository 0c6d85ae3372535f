//! A store and a history on disk under one lock: objects by id, contents of files, commits.
//!
//! The order that makes it safe lives here: bytes durable first, then the transaction that names them, then the reply.
//! Objects stored since the last transaction are *pending*: known to this process, named by nothing on disk yet.

mod adopt;
mod commits;
mod compact;
mod content;
mod cutter;
mod error;
mod gc;
mod held;
mod identities;
mod objects;
mod put_content;
mod rebuild;
mod repair;
mod reserve;
mod side_by_side;
mod trouble;
mod verify;
mod watch;

pub use adopt::ADOPTED_BYTES_MIN as LARGE_BYTES_MIN;
pub use commits::{CommitRequest, FIRST_SEGMENT, MAIN_BRANCH};
pub use error::RepositoryError;
pub use gc::{GcRules, InUse, UseGuard};
pub use held::Held;
pub use identities::Identities;

use crate::history::History;
use crate::object::{Manifest, ObjectId, ObjectKind, TreeNode};
use crate::store::{PackStore, StoreDir, StoreLock};
use quick_cache::sync::Cache;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

pub use put_content::{ByteSource, Run};
pub use rebuild::FoundBranch;
pub use repair::{Repaired, repair};
pub use reserve::Share;
pub use side_by_side::side_by_side;
pub use verify::{Check, Finding, Holder, Place, Verified};

/// Name of the database in the store.
const DATABASE: &str = "store.db";
/// Memory for decoded tree nodes.
const NODES_CACHED_BYTES: u64 = 48 << 20;
/// Verified blobs kept in memory, so that a large file read in small steps is verified once a piece.
const BLOBS_CACHED_BYTES: u64 = 32 << 20;
/// Decoded manifests kept in memory.
const MANIFESTS_CACHED: usize = 64;

/// A store opened by one process.
pub struct Repository {
    dir: Arc<StoreDir>,
    packs: PackStore,
    history: History,
    pending: Mutex<objects::Pending>,
    nodes: Cache<ObjectId, Arc<TreeNode>, content::ByItems>,
    manifests: Cache<ObjectId, Arc<Manifest>>,
    blobs: Cache<ObjectId, Arc<Vec<u8>>, content::ByBytes>,
    /// Held by the one run of gc.
    collecting: Mutex<()>,
    watch: Mutex<watch::Watch<ObjectId>>,
    held: held::HeldTable,
    /// Shared from the appending of an object until it is pending, or named; gc takes it to know that no object is in between.
    appending: RwLock<()>,
    reserve: reserve::Reserve,
    /// Identities that are taken from the database and given to nobody yet.
    identities: Mutex<std::ops::Range<u64>>,
    trouble: Mutex<trouble::Trouble>,
    _lock: StoreLock,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository").field("path", &self.dir.path()).finish_non_exhaustive()
    }
}

impl Repository {
    /// Makes a store at `path`, which must be absent or an empty directory, and opens it.
    pub fn create(path: &Path) -> Result<Arc<Self>, RepositoryError> {
        let dir = StoreDir::create(path)?;
        let lock = dir.lock()?;
        let history = History::create(&dir.path().join(DATABASE))?;
        let repository = Self::assemble(dir, lock, history)?;
        repository.init_main()?;
        Ok(repository)
    }

    /// Opens the store at `path`. One process at a time.
    pub fn open(path: &Path) -> Result<Arc<Self>, RepositoryError> {
        let repository = Self::open_as_is(path)?;
        repository.restore_lost_events()?;
        Ok(repository)
    }

    /// Opens a store to look at it: nothing is put right.
    pub fn open_as_is(path: &Path) -> Result<Arc<Self>, RepositoryError> {
        let dir = StoreDir::open(path)?;
        let lock = dir.lock()?;
        reserve::Reserve::at(dir.path()).release_if_needed(&dir.space()?);
        let history = History::open(&dir.path().join(DATABASE))?;
        Self::assemble(dir, lock, history)
    }

    fn assemble(dir: StoreDir, lock: StoreLock, history: History) -> Result<Arc<Self>, RepositoryError> {
        let dir = Arc::new(dir);
        let reserve = reserve::Reserve::at(dir.path());
        reserve::fill_index(&history);
        reserve.refill();
        Ok(Arc::new(Self {
            packs: PackStore::open(dir.clone())?,
            dir,
            history,
            pending: Mutex::default(),
            nodes: content::node_cache(NODES_CACHED_BYTES),
            manifests: Cache::new(MANIFESTS_CACHED),
            blobs: content::blob_cache(BLOBS_CACHED_BYTES),
            collecting: Mutex::default(),
            watch: Mutex::default(),
            held: held::HeldTable::default(),
            appending: RwLock::default(),
            reserve,
            identities: Mutex::new(0..0),
            trouble: Mutex::default(),
            _lock: lock,
        }))
    }

    /// Returns the record of what happened.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Returns the packs and large objects.
    pub fn packs(&self) -> &PackStore {
        &self.packs
    }

    /// Returns the store's directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the store's directory, opened.
    pub fn dir(&self) -> &StoreDir {
        &self.dir
    }

    /// Lets go of what is kept in memory and open only because it may be wanted again.
    pub fn rest(&self) {
        self.nodes.clear();
        self.manifests.clear();
        self.blobs.clear();
        self.packs.rest();
        self.history.rest();
    }

    /// Stores an object unless it is stored already, and returns its id. Durable with the next transaction that records it.
    pub fn put(&self, kind: ObjectKind, bytes: &[u8]) -> Result<ObjectId, RepositoryError> {
        let id = ObjectId::of(bytes);
        self.note_use(&id);
        // Directories that changed are new nearly always, so they are not looked for: one that is stored already stays named
        // where it is, and the copy goes with the next rewriting of its pack.
        let known = match kind {
            ObjectKind::Blob | ObjectKind::Manifest => self.contains(&id)?,
            ObjectKind::Tree | ObjectKind::Root | ObjectKind::Commit => self.is_pending(&id),
        };
        if known && self.is_damaged(&id) {
            let _appending = self.appending.read().unwrap_or_else(PoisonError::into_inner);
            self.store_again(id, kind, bytes)?; // It is known, and it is not good.
        } else if !known {
            let _appending = self.appending.read().unwrap_or_else(PoisonError::into_inner);
            let location = self.packs.append(kind, &id, bytes)?;
            self.add_pending(id, kind, location);
        } else if kind == ObjectKind::Blob {
            self.add_reused(id);
        }
        Ok(id)
    }
}
