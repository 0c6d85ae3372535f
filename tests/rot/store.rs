//! A store that holds one of everything, and what it must show.

use crate::look::{Picture, Shown, live, shown_in};
use mementofs::object::{Author, CommitKind, EntryKind, ExternalLink, Name, ObjectId};
use mementofs::repository::Repository;
use mementofs::workspace::{
    Branches, CheckpointRequest, Ino, NewNode, ROOT, RangeChange, RangeOptions, RenameMode, Workspace, XattrMode,
};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a checkpoint is known by.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    pub name: Option<String>,
    pub message: String,
    pub meta: String,
    pub links: Vec<ExternalLink>,
    pub changes: usize,
}

/// A store as a crash left it, and the truth about it.
pub struct Original {
    pub path: PathBuf,
    pub live: Picture,
    pub checkpoints: BTreeMap<ObjectId, (Known, Picture)>,
    /// Every content that each path ever had.
    pub versions: HashMap<Vec<u8>, HashSet<u64>>,
}

/// Bytes that compress well or not at all.
pub fn bytes(len: usize, seed: u64, compressible: bool) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if compressible {
            bytes.extend_from_slice(format!("line {} of {seed}\n", state % 97).as_bytes());
        } else {
            bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
        }
    }
    bytes.truncate(len);
    bytes
}

pub fn author() -> Author {
    Author { uid: 0, pid: 1, command: "rot".into() }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

struct Builder {
    workspace: Arc<Workspace>,
    versions: HashMap<Vec<u8>, HashSet<u64>>,
}

impl Builder {
    fn add(&mut self, parent: Ino, text: &str, kind: EntryKind, target: &str) -> Ino {
        let node = NewNode { kind, mode: 0o644, uid: 0, gid: 0, device: 0, target: target.as_bytes().into() };
        let ino = self.workspace.create(parent, &name(text), node, 0).unwrap().ino;
        if !text.starts_with("name-") {
            self.remember();
        }
        ino
    }

    fn file(&mut self, parent: Ino, text: &str, content: &[u8]) -> Ino {
        let ino = self.add(parent, text, EntryKind::File, "");
        self.write(ino, 0, content);
        ino
    }

    fn write(&mut self, ino: Ino, offset: u64, content: &[u8]) {
        for (at, part) in content.chunks(128 << 10).enumerate() {
            self.workspace.write(ino, offset + ((at as u64) << 17), part, false).unwrap();
            self.remember();
        }
    }

    /// Keeps what every path holds now: a prefix of the changes may come back.
    fn remember(&mut self) {
        let mut top = live(&self.workspace, Some(b"work")); // What lies elsewhere changes only between checkpoints.
        top.extend(live(&self.workspace, Some(b"late")));
        self.keep(&top);
    }

    fn keep(&mut self, picture: &Picture) {
        for (path, shown) in picture {
            if let Shown::File { digest, .. } = shown {
                self.versions.entry(path.clone()).or_default().insert(*digest);
            }
        }
    }

    fn checkpoint(&mut self, message: &str, name: Option<&str>, links: &[(&str, &str)]) -> ObjectId {
        let mut request = CheckpointRequest::new(message, author());
        request.name = name.map(str::to_owned);
        let link = |(system, id): &(&str, &str)| ExternalLink { system: (*system).into(), external_id: (*id).into() };
        request.links = links.iter().map(link).collect();
        request.metadata = format!("{{\"note\":\"{message}\"}}");
        request.kind = CommitKind::Manual;
        let all = live(&self.workspace, None);
        self.keep(&all);
        self.workspace.checkpoint(&request).unwrap().id
    }
}

/// Makes the store at `path`; leaves it as a crash would when `crashed`, else closed in good order.
pub fn build(dir: &Path, crashed: bool) -> Original {
    let making = dir.join("making");
    let branches = Branches::new(Repository::create(&making).unwrap());
    let workspace = branches.open("main").unwrap();
    let mut builder = Builder { workspace, versions: HashMap::new() };
    let work = builder.add(ROOT, "work", EntryKind::Directory, "");
    builder.file(work, "small", b"a few bytes");
    let text = builder.file(work, "text", &bytes(40_000, 1, true));
    builder.file(work, "noise", &bytes(200_000, 2, false));
    let large = builder.file(work, "large", &bytes(1_300_000, 3, false));
    builder.file(work, "taken-over", &bytes(4_400_000, 9, false));
    let many = builder.add(ROOT, "many", EntryKind::Directory, "");
    for at in 0..1200 {
        builder.add(many, &format!("name-{at}"), EntryKind::File, "");
    }
    builder.add(work, "link", EntryKind::Symlink, "small");
    let linked = builder.file(work, "linked", &bytes(5000, 4, false));
    let deep = builder.add(work, "deep", EntryKind::Directory, "");
    builder.workspace.link(linked, deep, &name("other-name")).unwrap();
    builder.workspace.set_xattr(text, b"user.about", b"text", XattrMode::Set).unwrap();
    let first = builder.checkpoint("the first", Some("start"), &[("ci", "run-1")]);
    builder.write(text, 100, b"changed");
    builder.write(large, 600_000, &bytes(3000, 5, false));
    let punched = RangeOptions { keep_size: true, strip_privileges: false };
    builder.workspace.change_range(large, 200_000, 100_000, RangeChange::Punch, punched).unwrap();
    let second = builder.checkpoint("the second, with \"quotes\"", None, &[("ci", "run-2"), ("agent", "t/1")]);
    builder.file(deep, "new", &bytes(9000, 6, true));
    builder.workspace.unlink(work, &name("small")).unwrap();
    let third = builder.checkpoint("the third", Some("gone soon"), &[]);
    builder.file(work, "fourth", b"4");
    builder.checkpoint("the fourth", None, &[]);
    let history = builder.workspace.repository().history();
    history.delete_checkpoint(&third, &author()).unwrap();
    history.set_name(&second, None, Some("renamed"), &author()).unwrap();
    builder.workspace.restore(&first, None, false, &author()).unwrap();
    branches.undo(&builder.workspace, &author()).unwrap();
    branches.fork(&builder.workspace, None, "side", &author()).unwrap();
    branches.rename("side", "aside", &author()).unwrap();
    builder.workspace.seal_now().unwrap();
    // Work that no checkpoint holds: in the journal, and in a staging file.
    let late = builder.add(ROOT, "late", EntryKind::Directory, "");
    builder.file(late, "one", &bytes(3000, 7, true));
    let staged = builder.file(late, "staged", &bytes(400_000, 8, false));
    builder.workspace.rename(work, &name("fourth"), late, &name("moved"), RenameMode::Replace, None).unwrap();
    builder.write(staged, 1000, b"in the middle");
    builder.file(late, "last", b"the last of all");
    builder.workspace.sync().unwrap();
    let all = live(&builder.workspace, None);
    builder.keep(&all);
    let repository = builder.workspace.repository().clone();
    let checkpoints = checkpoints_of(&repository);
    let path = dir.join(if crashed { "crashed" } else { "closed" });
    if crashed {
        copy(&making, &path); // With the database's log as it is.
    }
    let versions = std::mem::take(&mut builder.versions);
    drop((builder, repository, branches));
    if crashed {
        fs::remove_dir_all(making).unwrap();
    } else {
        fs::rename(making, &path).unwrap();
    }
    Original { path, live: all, checkpoints, versions }
}

/// Returns what every checkpoint says and holds.
pub fn checkpoints_of(repository: &Repository) -> BTreeMap<ObjectId, (Known, Picture)> {
    let rows = repository.history().checkpoints().unwrap();
    let describe = |row: mementofs::history::CommitRow| {
        let links = repository.history().links_of(&row.id).unwrap();
        let changes = repository.history().recorded_changes(&row.id).unwrap().len();
        let known = Known { name: row.name, message: row.message, meta: row.meta, links, changes };
        (row.id, (known, shown_in(repository, &row.root_tree)))
    };
    rows.into_iter().map(describe).collect()
}

/// Copies a store.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if !entry.file_name().to_string_lossy().starts_with("reserve") {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
