//! Looks at everything a store shows, and compares it with the truth.

use mementofs::object::{Content, Entry, Node, ObjectId, Root, TreeItem};
use mementofs::repository::Repository;
use mementofs::tree::{self, NodeSource};
use mementofs::workspace::{Ino, ROOT, Workspace};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};

/// What stands at a path.
#[derive(Clone, Debug, PartialEq)]
pub enum Shown {
    /// A file, link or directory: what stat and xattrs show, and the hash of what it holds.
    File { about: String, digest: u64 },
    /// An error, in words.
    Error(String),
}

/// What stands at each path.
pub type Picture = BTreeMap<Vec<u8>, Shown>;

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

/// Shows the live tree, or what is below one name at the top.
pub fn live(workspace: &Workspace, below: Option<&[u8]>) -> Picture {
    let mut picture = Picture::new();
    let mut waiting: Vec<(Ino, Vec<u8>)> = vec![(ROOT, Vec::new())];
    while let Some((ino, path)) = waiting.pop() {
        let mut after = 0;
        loop {
            let listed = match workspace.list(ino, after, 4096) {
                Ok(listed) if listed.is_empty() => break,
                Ok(listed) => listed,
                Err(err) => {
                    picture.insert(join(&path, b"*"), Shown::Error(err.to_string()));
                    break;
                }
            };
            after = listed.last().unwrap().name.position();
            for found in listed {
                if path.is_empty() && below.is_some_and(|below| below != found.name.as_bytes()) {
                    continue;
                }
                let path = join(&path, found.name.as_bytes());
                match workspace.lookup(ino, &found.name) {
                    Ok(Some(attributes)) => {
                        let directory = attributes.kind == mementofs::object::EntryKind::Directory;
                        picture.insert(path.clone(), one(workspace, &attributes));
                        if directory {
                            waiting.push((attributes.ino, path));
                        }
                    }
                    Ok(None) => drop(picture.insert(path, Shown::Error("listed and not there".into()))),
                    Err(err) => drop(picture.insert(path, Shown::Error(err.to_string()))),
                }
            }
        }
    }
    picture
}

fn one(workspace: &Workspace, attributes: &mementofs::workspace::Attributes) -> Shown {
    use mementofs::object::EntryKind;
    let ino = attributes.ino;
    let content = match attributes.kind {
        EntryKind::File => workspace.read(ino, 0, attributes.size_bytes),
        EntryKind::Symlink => workspace.read_link(ino).map(|target| target.to_vec()),
        _ => Ok(Vec::new()),
    };
    let xattr = workspace.xattr(ino, b"user.about").ok();
    let about = format!(
        "{:?} {:o} {} {} {:?} {xattr:?}",
        attributes.kind, attributes.mode, attributes.nlink, attributes.size_bytes, attributes.mtime
    );
    match content {
        Ok(content) => Shown::File { about, digest: digest(&content) },
        Err(err) => Shown::Error(err.to_string()),
    }
}

/// Shows a sealed state.
pub fn shown_in(repository: &Repository, root: &ObjectId) -> Picture {
    let mut picture = Picture::new();
    let root = match repository.root(root) {
        Ok(root) => root,
        Err(err) => return [(b"*".to_vec(), Shown::Error(err.to_string()))].into(),
    };
    let walked = tree::walk(repository, &root, &mut |path, item| {
        let path: Vec<&[u8]> = path.iter().map(|name| name.as_bytes()).collect();
        let shown = match entry_of(repository, &root, item) {
            Ok(entry) => shown(repository, &entry),
            Err(err) => Shown::Error(err),
        };
        picture.insert(path.join(&b'/'), shown);
        Ok(())
    });
    if let Err(err) = walked {
        picture.insert(b"*".to_vec(), Shown::Error(err.to_string()));
    }
    picture
}

fn entry_of(repository: &Repository, root: &Root, item: &TreeItem) -> Result<Entry, String> {
    match item {
        TreeItem::Entry(entry) => Ok(entry.clone()),
        TreeItem::Link(identity) => {
            let entry = tree::link_entry(repository, root, *identity).map_err(|err| err.to_string())?;
            entry.ok_or_else(|| "a link to nothing".to_owned())
        }
    }
}

fn shown(repository: &Repository, entry: &Entry) -> Shown {
    let content = match &entry.node {
        Node::File { size_bytes, content: Content::Empty, .. } => Ok(vec![0; *size_bytes as usize]),
        Node::File { size_bytes, content, .. } => repository.read_content(content, 0..*size_bytes).map_err(|err| err.to_string()),
        Node::Symlink(target) => Ok(target.to_vec()),
        _ => Ok(Vec::new()),
    };
    let about = format!(
        "{:?} {:o} {} {} {:?} {:?}",
        entry.node.kind(),
        entry.mode,
        entry.nlink,
        entry.size_bytes(),
        entry.mtime,
        entry.xattrs
    );
    content.map_or_else(Shown::Error, |content| Shown::File { about, digest: digest(&content) })
}

/// How a picture differs from the truth.
#[derive(Debug, Default)]
pub struct Difference {
    /// Errors instead of content.
    pub errors: Vec<String>,
    /// Content that was never there, or that is there only by mistake.
    pub wrong: Vec<String>,
    /// Paths that show an older content, or are not there (any more, or yet).
    pub older: Vec<String>,
}

/// Compares a picture with the truth; `was` says whether a path ever held that content.
pub fn compare(truth: &Picture, seen: &Picture, was: &dyn Fn(&[u8], u64) -> bool) -> Difference {
    let mut difference = Difference::default();
    for (path, shown) in seen {
        let text = String::from_utf8_lossy(path).into_owned();
        match shown {
            Shown::Error(err) => difference.errors.push(format!("{text}: {err}")),
            Shown::File { .. } if truth.get(path) == Some(shown) => {}
            Shown::File { digest, .. } if was(path, *digest) => difference.older.push(text),
            Shown::File { about, .. } => difference.wrong.push(format!("{text}: {about}, expected {:?}", truth.get(path))),
        }
    }
    let missing = truth.keys().filter(|path| !seen.contains_key(*path));
    difference.older.extend(missing.map(|path| String::from_utf8_lossy(path).into_owned()));
    difference
}
