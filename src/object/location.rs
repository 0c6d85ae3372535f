//! Where an object's bytes lie in the store.

use super::ObjectId;

/// What an object is for. Informational: the bytes alone decide how they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// File content, or a piece of it.
    Blob,
    /// The list of pieces of a large or sparse file.
    Manifest,
    /// A node of a directory.
    Tree,
    /// The root of a whole state.
    Root,
    /// A commit record.
    Commit,
}

impl ObjectKind {
    /// Every kind, in the order of its code.
    pub const ALL: [Self; 5] = [Self::Blob, Self::Manifest, Self::Tree, Self::Root, Self::Commit];

    /// Returns the word used in tables and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Manifest => "manifest",
            Self::Tree => "tree",
            Self::Root => "root",
            Self::Commit => "commit",
        }
    }

    /// Returns the code used on disk.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Returns the kind with that code, if there is one.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// Returns the kind called `word`, if there is one.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// The file that holds an object's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Container {
    /// `packs/NNNNNNNN.pack`.
    Pack(u32),
    /// `objects/ab/cdef…`: a plain file named by the SHA-256 of the list at its end. Pieces of it are objects of their own.
    Large(ObjectId),
}

/// How the bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As they are.
    Raw,
    /// Compressed with zstd.
    Zstd,
}

/// Where an object's bytes lie and how to get them back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file.
    pub container: Container,
    /// Offset of the stored bytes in it (behind the record header, for packs).
    pub offset: u64,
    /// Stored length in bytes.
    pub stored_bytes: u64,
    /// Length of the object in bytes, after decoding.
    pub size_bytes: u64,
    /// How the bytes are stored.
    pub encoding: Encoding,
}
