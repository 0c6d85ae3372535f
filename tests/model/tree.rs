//! The model of one branch's tree: a map of paths.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A file of the model. Hard links share a number.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFile {
    pub directory: bool,
    pub bytes: Arc<Vec<u8>>,
    pub xattr: Option<u8>,
}

/// A state of the model: which file each path leads to, and the files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    pub paths: BTreeMap<Vec<u8>, usize>,
    pub files: BTreeMap<usize, ModelFile>,
    pub next: usize,
}

/// What both sides look like, in the same form: for each path the first path of the same file, and the file.
pub type Picture = BTreeMap<Vec<u8>, (Vec<u8>, ModelFile)>;

pub fn join(directory: &[u8], name: u8) -> Vec<u8> {
    let name = format!("n{name}").into_bytes();
    if directory.is_empty() { name } else { [directory, b"/", &name].concat() }
}

pub fn is_below(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}

impl Model {
    pub fn directories(&self) -> Vec<Vec<u8>> {
        let nested = self.paths.iter().filter(|(_, file)| self.files[file].directory).map(|(path, _)| path.clone());
        std::iter::once(Vec::new()).chain(nested).collect()
    }

    pub fn regular(&self, at: usize) -> Option<Vec<u8>> {
        let files: Vec<_> = self.paths.iter().filter(|(_, file)| !self.files[file].directory).map(|(path, _)| path).collect();
        (!files.is_empty()).then(|| files[at % files.len()].clone())
    }

    pub fn any(&self, at: usize) -> Option<Vec<u8>> {
        (!self.paths.is_empty()).then(|| self.paths.keys().nth(at % self.paths.len()).unwrap().clone())
    }

    pub fn add(&mut self, path: Vec<u8>, directory: bool) {
        self.next += 1;
        self.files.insert(self.next, ModelFile { directory, bytes: Arc::default(), xattr: None });
        self.paths.insert(path, self.next);
    }

    pub fn file(&mut self, path: &[u8]) -> &mut ModelFile {
        self.files.get_mut(&self.paths[path]).unwrap()
    }

    pub fn bytes(&mut self, path: &[u8]) -> &mut Vec<u8> {
        Arc::make_mut(&mut self.file(path).bytes)
    }

    pub fn has_hard_links(&self) -> bool {
        self.picture().iter().any(|(path, (first, _))| path != first)
    }

    pub fn is_empty_directory(&self, path: &[u8]) -> bool {
        !self.paths.keys().any(|other| is_below(other, path))
    }

    pub fn picture(&self) -> Picture {
        let mut first: BTreeMap<usize, &Vec<u8>> = BTreeMap::new();
        let mut picture = Picture::new();
        for (path, file) in &self.paths {
            let first = (*first.entry(*file).or_insert(path)).clone();
            picture.insert(path.clone(), (first, self.files[file].clone()));
        }
        picture
    }
}
