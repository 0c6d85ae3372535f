//! Where bits rot, and how.

use crate::store::Original;
use mementofs::object::{Container, ObjectKind};
use mementofs::repository::Repository;
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Numbers that look random and depend on the seed alone.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound.max(1)
    }
}

/// A kind of place, and all places of it: a file, and a range in it.
pub type Classes = BTreeMap<&'static str, Vec<(PathBuf, Range<u64>)>>;

/// Finds the places of a store. It is opened as a copy, so that the original stays as it is.
pub fn classes(original: &Original, scratch: &Path) -> Classes {
    let copy = scratch.join("classes");
    crate::store::copy(&original.path, &copy);
    let repository = Repository::open_as_is(&copy).unwrap();
    let mut classes = Classes::new();
    let visit = |_, kind, at: mementofs::object::Location, _| {
        let Container::Pack(number) = at.container else {
            let path = repository.packs().path_of(at.container).strip_prefix(&copy).unwrap().to_owned();
            classes.entry("large object").or_default().push((path, at.offset..at.offset + at.stored_bytes));
            return;
        };
        let path = PathBuf::from(format!("packs/{number:08}.pack"));
        let compressed = at.encoding == mementofs::object::Encoding::Zstd;
        let class = match kind {
            ObjectKind::Blob if compressed => "blob, compressed",
            ObjectKind::Blob if at.size_bytes > 65_536 => "blob, large",
            ObjectKind::Blob => "blob, small",
            ObjectKind::Manifest => "manifest",
            ObjectKind::Tree => "tree node",
            ObjectKind::Root => "root",
            ObjectKind::Commit => "commit",
        };
        classes.entry("record header").or_default().push((path.clone(), at.offset - 60..at.offset));
        classes.entry(class).or_default().push((path, at.offset..at.offset + at.stored_bytes));
    };
    repository.history().each_object(visit).unwrap();
    for container in repository.packs().containers().unwrap() {
        let Container::Large(_) = container.container else { continue };
        let path = repository.packs().path_of(container.container).strip_prefix(&copy).unwrap().to_owned();
        let data = classes["large object"].iter().filter(|(other, _)| *other == path).map(|(_, range)| range.end).max();
        let list = (path, data.unwrap()..container.size_bytes);
        classes.entry("list of a large object").or_default().push(list);
    }
    drop(repository);
    fs::remove_dir_all(copy).unwrap();
    for (part, class) in [("packs", "pack header"), ("journal/1", "journal"), ("staging/1", "staging file")] {
        for entry in fs::read_dir(original.path.join(part)).unwrap() {
            let entry = entry.unwrap();
            let path = Path::new(part).join(entry.file_name());
            let len = entry.metadata().unwrap().len();
            match class {
                "pack header" => classes.entry(class).or_default().push((path, 0..8)),
                "journal" => {
                    classes.entry("journal header").or_default().push((path.clone(), 0..16));
                    classes.entry(class).or_default().extend((len > 16).then_some((path, 16..len)));
                }
                _ => classes.entry(class).or_default().push((path, 0..len)),
            }
        }
    }
    let files = [("store.db", "database page"), ("store.db-wal", "database log"), ("events.log", "events"), ("format", "format")];
    for (file, class) in files {
        if let Ok(metadata) = fs::metadata(original.path.join(file)).as_ref().map(fs::Metadata::len)
            && metadata > 0
        {
            // A page is as likely as another, however much there is in it.
            let ranges = (0..metadata.div_ceil(4096)).map(|page| page * 4096..metadata.min((page + 1) * 4096));
            classes.entry(class).or_default().extend(ranges.map(|range| (PathBuf::from(file), range)));
        }
    }
    classes
}

/// What was done to which byte.
#[derive(Debug)]
pub struct Damage {
    pub class: &'static str,
    pub what: String,
    /// Whether the file only became shorter.
    pub cut: bool,
}

/// Damages the store at `path` in a place of the class.
pub fn damage(path: &Path, class: &'static str, places: &[(PathBuf, Range<u64>)], random: &mut Random) -> Damage {
    let (file, range) = &places[random.below(places.len() as u64) as usize];
    let at = range.start + random.below(range.end - range.start);
    let full = path.join(file);
    let mut permissions = fs::metadata(&full).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    fs::set_permissions(&full, permissions).unwrap();
    let opened = fs::File::options().read(true).write(true).open(&full).unwrap();
    let mut byte = [0];
    opened.read_exact_at(&mut byte, at).unwrap();
    let (how, cut) = match random.below(20) {
        0 => {
            opened.set_len(at).unwrap();
            ("cut off from".to_owned(), true)
        }
        1 => {
            let end = opened.metadata().unwrap().len().min(at + 512);
            opened.write_all_at(&vec![0; (end - at) as usize], at).unwrap();
            ("zeros over 512 bytes from".to_owned(), false)
        }
        2 => {
            let end = opened.metadata().unwrap().len().min(at + 16);
            let noise: Vec<u8> = (at..end).map(|_| random.below(256) as u8).collect();
            opened.write_all_at(&noise, at).unwrap();
            ("noise over 16 bytes from".to_owned(), false)
        }
        _ => {
            let bit = random.below(8);
            opened.write_all_at(&[byte[0] ^ (1 << bit)], at).unwrap();
            (format!("bit {bit} flipped of"), false)
        }
    };
    Damage { class, what: format!("{how} byte {at} of {} ({class})", file.display()), cut }
}
