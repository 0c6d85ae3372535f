//! The names of one file.

use super::inode::Ino;
use crate::object::Name;
use std::ops::Deref;

/// Where a name of a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The directory.
    pub parent: Ino,
    /// The name in it.
    pub name: Name,
}

/// The names of a file, as far as they are loaded. Nearly every file has one, which takes no room of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Places {
    /// One.
    One(Place),
    /// None, or several.
    Many(Vec<Place>), // A third variant would make every inode larger.
}

impl Places {
    /// No name.
    pub const NONE: Self = Self::Many(Vec::new());

    /// Adds a name.
    pub fn push(&mut self, place: Place) {
        *self = match std::mem::take(self) {
            Self::Many(all) if all.is_empty() => Self::One(place),
            Self::One(first) => Self::Many(vec![first, place]),
            Self::Many(mut all) => {
                all.push(place);
                Self::Many(all)
            }
        }
    }

    /// Keeps those names that `keep` says yes to.
    pub fn retain(&mut self, keep: impl Fn(&Place) -> bool) {
        match self {
            Self::One(place) if keep(place) => {}
            Self::One(_) => *self = Self::NONE,
            Self::Many(all) => all.retain(keep),
        }
    }
}

impl Default for Places {
    fn default() -> Self {
        Self::NONE
    }
}

impl Deref for Places {
    type Target = [Place];

    fn deref(&self) -> &[Place] {
        match self {
            Self::One(place) => std::slice::from_ref(place),
            Self::Many(all) => all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_and_go() {
        let place = |parent| Place { parent, name: Name::new(b"name").unwrap() };
        let parents = |places: &Places| places.iter().map(|place| place.parent).collect::<Vec<_>>();
        let mut places = Places::default();
        assert!(places.is_empty());
        for parent in 1..=3 {
            places.push(place(parent));
            assert_eq!(parents(&places), (1..=parent).collect::<Vec<_>>());
        }
        places.retain(|place| place.parent != 2);
        assert_eq!(parents(&places), [1, 3]);
        places.retain(|_| false);
        assert!(places.is_empty());
        places = Places::One(place(7));
        places.retain(|place| place.parent == 7);
        assert_eq!(parents(&places), [7]);
        places.retain(|place| place.parent != 7);
        assert_eq!(places, Places::NONE);
    }
}
