//! What the kernel refers to of old states, and by which names it came to it.

use super::node::Node;
use super::sealed::SealedFile;
use crate::object::{Name, ObjectId};
use std::collections::{HashMap, HashSet};

/// A name in the directory of that number.
pub type Place = (u64, Name);

/// The files and directories of old states that the kernel refers to.
#[derive(Default)]
pub struct KeptFiles(HashMap<Node, Kept>);

struct Kept {
    file: SealedFile,
    /// Where the kernel may remember it.
    places: Vec<Place>,
}

impl KeptFiles {
    /// Keeps a file that was found at a place.
    pub fn keep(&mut self, node: Node, file: SealedFile, place: Place) {
        let kept = self.0.entry(node).or_insert(Kept { file, places: Vec::new() });
        if !kept.places.contains(&place) {
            kept.places.push(place);
        }
    }

    /// Returns a file that is kept.
    pub fn file(&self, node: &Node) -> Option<SealedFile> {
        self.0.get(node).map(|kept| kept.file.clone())
    }

    /// Says that the kernel calls what was at `from` another name.
    pub fn moved(&mut self, from: &Place, to: Place) {
        for kept in self.0.values_mut().filter(|kept| kept.places.contains(from)) {
            kept.places.push(to.clone());
        }
    }

    /// Lets go of a file that the kernel has forgotten.
    pub fn forget(&mut self, node: &Node) {
        self.0.remove(node);
    }

    /// Returns the checkpoints of which something is kept.
    pub fn commits(&self) -> HashSet<ObjectId> {
        self.0.values().map(|kept| kept.file.commit).collect()
    }

    /// Returns where the kernel may remember something of these checkpoints.
    pub fn places_of(&self, commits: &HashSet<ObjectId>) -> Vec<Place> {
        let of_them = self.0.values().filter(|kept| commits.contains(&kept.file.commit));
        of_them.flat_map(|kept| kept.places.iter().cloned()).collect()
    }
}
