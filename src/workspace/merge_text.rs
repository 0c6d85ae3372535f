//! Merges the content of files by line, where it is text.

use crate::object::{Content, Node};
use crate::repository::{ByteSource, Repository, RepositoryError, Run};
use crate::tree::{ContentMerger, Favour, MergePolicy, MergedContent, TreeError, is_text, merge_text};
use std::ops::Range;

/// Larger files are not merged by line.
const TEXT_BYTES_MAX: u64 = 8 << 20;

/// Reads, merges and stores texts.
pub struct TextMerger<'a> {
    /// Where contents are.
    pub repository: &'a Repository,
    /// Which side conflicting lines take.
    pub policy: MergePolicy,
    /// What markers call our side and theirs.
    pub labels: (&'a str, &'a str),
}

impl TextMerger<'_> {
    /// Returns the bytes of a file if they are text.
    fn text(&self, node: &Node) -> Result<Option<Vec<u8>>, TreeError> {
        let Node::File { size_bytes, content, .. } = node else { return Ok(None) };
        if *size_bytes > TEXT_BYTES_MAX {
            return Ok(None);
        }
        let bytes = match content {
            Content::Empty => vec![0; *size_bytes as usize],
            content => self.repository.read_content(content, 0..*size_bytes).map_err(TreeError::source)?,
        };
        Ok(is_text(&bytes).then_some(bytes))
    }
}

impl ContentMerger for TextMerger<'_> {
    fn merge(&self, base: Option<&Node>, ours: &Node, theirs: &Node) -> Result<MergedContent, TreeError> {
        let base = match base {
            Some(base) => self.text(base)?,
            None => Some(Vec::new()),
        };
        let (Some(base), Some(ours), Some(theirs)) = (base, self.text(ours)?, self.text(theirs)?) else {
            return Ok(MergedContent::Binary);
        };
        let favour = match self.policy {
            MergePolicy::Markers => Favour::Markers(self.labels.0, self.labels.1),
            MergePolicy::Ours => Favour::Ours,
            MergePolicy::Theirs => Favour::Theirs,
        };
        let merged = merge_text(&base, &ours, &theirs, favour);
        let size_bytes = merged.bytes.len() as u64;
        let content = self.repository.put_content(&Bytes(&merged.bytes)).map_err(TreeError::source)?;
        Ok(MergedContent::Text { node: Node::File { size_bytes, data_bytes: size_bytes, content }, conflicts: merged.conflicts })
    }
}

/// Content in memory, as the repository reads it to store it.
struct Bytes<'a>(&'a [u8]);

impl ByteSource for Bytes<'_> {
    fn size_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn runs(&self) -> Vec<Run> {
        vec![Run { range: 0..self.size_bytes(), hole: false }]
    }

    fn read(&self, range: Range<u64>, bytes: &mut Vec<u8>) -> Result<(), RepositoryError> {
        let part = self.0.get(range.start as usize..range.end as usize);
        bytes.extend_from_slice(part.ok_or_else(|| RepositoryError::Other("a range beyond the end of a text".into()))?);
        Ok(())
    }
}
