//! The record of a checkpoint.

use super::{DecodeError, ObjectId, Reader, Timestamp, Writer};

/// Who took a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Author {
    /// User id.
    pub uid: u32,
    /// Process id, 0 when unknown.
    pub pid: u32,
    /// Name of the program, empty when unknown.
    pub command: String,
}

/// Why a checkpoint was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommitKind {
    /// Somebody asked for it.
    Manual,
    /// The program decided, for example when a branch was forked.
    Auto,
    /// Taken before a restore, so that the restore can be undone.
    Safety,
}

impl CommitKind {
    /// Every kind, in the order of its code.
    pub const ALL: [Self; 3] = [Self::Manual, Self::Auto, Self::Safety];

    /// Returns the word used in tables and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Auto => "auto",
            Self::Safety => "safety",
        }
    }

    /// Returns the kind called `word`, if there is one.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// Ties a checkpoint to an id of another system.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExternalLink {
    /// Name of the other system, 1 to 64 bytes.
    pub system: String,
    /// The id there, 1 to 1024 bytes.
    pub external_id: String,
}

/// The record of a checkpoint. Its id is the SHA-256 of [`Commit::encode`], so a chain of commits can be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The checkpoint before it.
    pub parent: Option<ObjectId>,
    /// The [`super::Root`] of the state.
    pub root: ObjectId,
    /// When the cut was made.
    pub time: Timestamp,
    /// Free text, may be empty.
    pub message: String,
    /// Free metadata: one JSON object as text, `{}` when there is none.
    pub metadata: String,
    /// Links given with the checkpoint, sorted.
    pub links: Vec<ExternalLink>,
    /// The branch it was taken on.
    pub branch: String,
    /// Who took it.
    pub author: Author,
    /// Why it was taken.
    pub kind: CommitKind,
}

const TAG: u8 = b'K';
const VERSION: u8 = 1;

impl Commit {
    /// Returns the one encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(TAG);
        writer.u8(VERSION);
        match &self.parent {
            None => writer.u8(0),
            Some(id) => {
                writer.u8(1);
                writer.id(id);
            }
        }
        writer.id(&self.root);
        self.time.encode(&mut writer);
        writer.bytes(self.message.as_bytes());
        writer.bytes(self.metadata.as_bytes());
        writer.uint(self.links.len() as u64);
        for link in &self.links {
            writer.bytes(link.system.as_bytes());
            writer.bytes(link.external_id.as_bytes());
        }
        writer.bytes(self.branch.as_bytes());
        writer.uint(u64::from(self.author.uid));
        writer.uint(u64::from(self.author.pid));
        writer.bytes(self.author.command.as_bytes());
        writer.bytes(self.kind.as_str().as_bytes());
        writer.finish()
    }

    /// Reads an encoding.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != TAG || reader.u8()? != VERSION {
            return Err(DecodeError::new("not a commit of a known version"));
        }
        let parent = match reader.u8()? {
            0 => None,
            1 => Some(reader.id()?),
            _ => return Err(DecodeError::new("unknown parent form")),
        };
        let root = reader.id()?;
        let time = Timestamp::decode(&mut reader)?;
        let message = reader.text()?.to_owned();
        let metadata = reader.text()?.to_owned();
        let count = reader.count(2)?;
        let mut links = Vec::with_capacity(count);
        for _ in 0..count {
            links.push(ExternalLink { system: reader.text()?.to_owned(), external_id: reader.text()?.to_owned() });
        }
        let branch = reader.text()?.to_owned();
        let author = Author { uid: reader.uint32()?, pid: reader.uint32()?, command: reader.text()?.to_owned() };
        let kind = CommitKind::from_word(reader.text()?).ok_or(DecodeError::new("unknown commit kind"))?;
        reader.finish()?;
        Ok(Self { parent, root, time, message, metadata, links, branch, author, kind })
    }

    /// Returns the id: the SHA-256 of the encoding.
    pub fn id(&self) -> ObjectId {
        ObjectId::of(&self.encode())
    }
}
