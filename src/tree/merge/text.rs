//! The three-way merge of a text, by line, laid out as git lays it out.

use similar::{Algorithm, DiffTag, capture_diff_slices_deadline};
use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Bytes looked at to tell text from other content, as git does.
const PROBE_BYTES: usize = 8000;
/// Conflicts with no more lines than this between them become one, as in git.
const JOINED_LINES_MAX: usize = 3;
/// After this long a comparison takes what it has, which is right but not the shortest.
const PATIENCE: Duration = Duration::from_secs(2);

/// What becomes of lines that both sides changed differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Favour<'a> {
    /// Both are kept between markers that carry these labels, ours and theirs.
    Markers(&'a str, &'a str),
    /// Ours are kept.
    Ours,
    /// Theirs are kept.
    Theirs,
}

/// A merged text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergedText {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// How many places both sides changed differently.
    pub conflicts: usize,
}

/// Says whether content is text: no NUL in its first 8000 bytes.
pub fn is_text(bytes: &[u8]) -> bool {
    !bytes[..bytes.len().min(PROBE_BYTES)].contains(&0)
}

/// Merges what two sides made of a text.
///
/// Changes that touch or overlap are a conflict unless both sides made the same of them. A conflict is narrowed to the
/// lines that differ; conflicts with up to three lines between them are joined.
pub fn merge_text(base: &[u8], ours: &[u8], theirs: &[u8], favour: Favour<'_>) -> MergedText {
    let mut numbers = HashMap::new();
    let (base, ours, theirs) = (Lines::of(base, &mut numbers), Lines::of(ours, &mut numbers), Lines::of(theirs, &mut numbers));
    let pieces = joined(pieces(&base, &ours, &theirs));
    let mut text = MergedText { bytes: Vec::new(), conflicts: 0 };
    for piece in &pieces {
        match piece {
            Piece::Common(range, _) | Piece::Ours(range) => ours.copy(range.clone(), &mut text.bytes),
            Piece::Theirs(range) => theirs.copy(range.clone(), &mut text.bytes),
            Piece::Conflict(in_ours, in_theirs) => {
                text.conflicts += 1;
                match favour {
                    Favour::Ours => ours.copy(in_ours.clone(), &mut text.bytes),
                    Favour::Theirs => theirs.copy(in_theirs.clone(), &mut text.bytes),
                    Favour::Markers(our_label, their_label) => {
                        let end = line_end(&ours, in_ours, &theirs, in_theirs);
                        marker(&mut text.bytes, b"<<<<<<<", our_label, end);
                        ours.copy_ended(in_ours.clone(), &mut text.bytes, end);
                        marker(&mut text.bytes, b"=======", "", end);
                        theirs.copy_ended(in_theirs.clone(), &mut text.bytes, end);
                        marker(&mut text.bytes, b">>>>>>>", their_label, end);
                    }
                }
            }
        }
    }
    text
}

/// A text cut behind each newline, each different line with a number of its own.
struct Lines<'a> {
    lines: Vec<&'a [u8]>,
    numbers: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a [u8], known: &mut HashMap<&'a [u8], usize>) -> Self {
        let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        let mut number = |line: &&'a [u8]| {
            let next = known.len();
            *known.entry(*line).or_insert(next)
        };
        let numbers = lines.iter().map(&mut number).collect();
        Self { lines, numbers }
    }

    fn copy(&self, range: Range<usize>, into: &mut Vec<u8>) {
        self.lines[range].iter().for_each(|line| into.extend_from_slice(line));
    }

    /// Copies lines so that a marker can follow: a last line without an end gets one.
    fn copy_ended(&self, range: Range<usize>, into: &mut Vec<u8>, end: &[u8]) {
        let ended = self.lines[range.clone()].last().is_none_or(|line| line.ends_with(b"\n"));
        self.copy(range, into);
        if !ended {
            into.extend_from_slice(end);
        }
    }
}

/// Lines of the base that a side replaced by others; one of the ranges may be empty.
struct Hunk {
    base: Range<usize>,
    side: Range<usize>,
}

/// A part of the result, as ranges of lines of the sides.
enum Piece {
    /// Both sides have it.
    Common(Range<usize>, Range<usize>),
    /// Only our side changed it.
    Ours(Range<usize>),
    /// Only their side changed it.
    Theirs(Range<usize>),
    /// Both sides changed it, each in its way.
    Conflict(Range<usize>, Range<usize>),
}

fn hunks(base: &[usize], side: &[usize]) -> Vec<Hunk> {
    let mut hunks: Vec<Hunk> = Vec::new();
    for op in capture_diff_slices_deadline(Algorithm::Histogram, base, side, Some(Instant::now() + PATIENCE)) {
        let (tag, base, side) = op.as_tag_tuple();
        match hunks.last_mut() {
            _ if tag == DiffTag::Equal => {}
            Some(last) if last.base.end == base.start && last.side.end == side.start => {
                (last.base.end, last.side.end) = (base.end, side.end);
            }
            _ => hunks.push(Hunk { base, side }),
        }
    }
    hunks
}

/// One side's hunks, taken in order.
struct Taken<'h> {
    hunks: &'h [Hunk],
    /// Where the side is when the base is at `base`: behind the last region.
    base: usize,
    side: usize,
}

impl<'h> Taken<'h> {
    fn start(&self) -> Option<usize> {
        self.hunks.first().map(|hunk| hunk.base.start)
    }

    /// Takes the next hunk if it touches a region that ends at `end`.
    fn touching(&mut self, end: usize) -> Option<&'h Hunk> {
        let (first, rest) = self.hunks.split_first().filter(|(first, _)| first.base.start <= end)?;
        self.hunks = rest;
        Some(first)
    }

    /// Returns the side's lines for a region of the base whose last hunk on this side is `last`, and moves behind it.
    fn region(&mut self, region: &Range<usize>, last: Option<&Hunk>) -> Range<usize> {
        let start = self.side + (region.start - self.base);
        let end = last.map_or(start + region.len(), |last| last.side.end + (region.end - last.base.end));
        (self.base, self.side) = (region.end, end);
        start..end
    }
}

fn pieces(base: &Lines<'_>, ours: &Lines<'_>, theirs: &Lines<'_>) -> Vec<Piece> {
    let (our_hunks, their_hunks) = (hunks(&base.numbers, &ours.numbers), hunks(&base.numbers, &theirs.numbers));
    let mut our = Taken { hunks: &our_hunks, base: 0, side: 0 };
    let mut their = Taken { hunks: &their_hunks, base: 0, side: 0 };
    let mut pieces = Vec::new();
    while let Some(start) = our.start().into_iter().chain(their.start()).min() {
        let gap = our.base..start;
        push_common(&mut pieces, our.region(&gap, None), their.region(&gap, None));
        let (mut end, mut our_last, mut their_last) = (start, None, None);
        loop {
            let (from_ours, from_theirs) = (our.touching(end), None);
            let from_theirs = if from_ours.is_none() { their.touching(end) } else { from_theirs };
            let Some(hunk) = from_ours.or(from_theirs) else { break };
            end = end.max(hunk.base.end);
            (our_last, their_last) = (from_ours.or(our_last), from_theirs.or(their_last));
        }
        let region = start..end;
        let (in_ours, in_theirs) = (our.region(&region, our_last), their.region(&region, their_last));
        match (our_last, their_last) {
            (Some(_), None) => pieces.push(Piece::Ours(in_ours)),
            (None, _) => pieces.push(Piece::Theirs(in_theirs)),
            (Some(_), Some(_)) => narrowed(&mut pieces, ours, in_ours, theirs, in_theirs),
        }
    }
    push_common(&mut pieces, our.side..ours.lines.len(), their.side..theirs.lines.len());
    pieces
}

fn push_common(pieces: &mut Vec<Piece>, ours: Range<usize>, theirs: Range<usize>) {
    match pieces.last_mut() {
        _ if ours.is_empty() => {}
        Some(Piece::Common(in_ours, in_theirs)) => (in_ours.end, in_theirs.end) = (ours.end, theirs.end),
        _ => pieces.push(Piece::Common(ours, theirs)),
    }
}

/// Adds what both sides changed: lines that both have now are common, the rest is in conflict.
fn narrowed(pieces: &mut Vec<Piece>, ours: &Lines<'_>, in_ours: Range<usize>, theirs: &Lines<'_>, in_theirs: Range<usize>) {
    let (mut our_at, mut their_at) = (in_ours.start, in_theirs.start);
    for hunk in hunks(&ours.numbers[in_ours.clone()], &theirs.numbers[in_theirs.clone()]) {
        let our_part = in_ours.start + hunk.base.start..in_ours.start + hunk.base.end;
        let their_part = in_theirs.start + hunk.side.start..in_theirs.start + hunk.side.end;
        push_common(pieces, our_at..our_part.start, their_at..their_part.start);
        (our_at, their_at) = (our_part.end, their_part.end);
        pieces.push(Piece::Conflict(our_part, their_part));
    }
    push_common(pieces, our_at..in_ours.end, their_at..in_theirs.end);
}

/// Joins conflicts with few lines between them.
fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut joined: Vec<Piece> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        if let Piece::Conflict(ours, theirs) = &piece
            && let [.., Piece::Conflict(..), Piece::Common(gap, _)] = joined.as_slice()
            && gap.len() <= JOINED_LINES_MAX
        {
            joined.pop();
            if let Some(Piece::Conflict(in_ours, in_theirs)) = joined.last_mut() {
                (in_ours.end, in_theirs.end) = (ours.end, theirs.end);
            }
        } else {
            joined.push(piece);
        }
    }
    joined
}

/// Returns how lines end around a conflict, so that markers end likewise.
fn line_end<'l>(ours: &Lines<'l>, in_ours: &Range<usize>, theirs: &Lines<'l>, in_theirs: &Range<usize>) -> &'static [u8] {
    let before = in_ours.start.checked_sub(1).and_then(|at| ours.lines.get(at));
    let near = before.or(ours.lines[in_ours.clone()].first()).or(theirs.lines[in_theirs.clone()].first());
    if near.is_some_and(|line| line.ends_with(b"\r\n")) { b"\r\n" } else { b"\n" }
}

fn marker(into: &mut Vec<u8>, sign: &[u8], label: &str, end: &[u8]) {
    into.extend_from_slice(sign);
    if !label.is_empty() {
        into.push(b' ');
        into.extend_from_slice(label.as_bytes());
    }
    into.extend_from_slice(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(base: &str, ours: &str, theirs: &str) -> (String, usize) {
        let merged = merge_text(base.as_bytes(), ours.as_bytes(), theirs.as_bytes(), Favour::Markers("main", "try"));
        (String::from_utf8(merged.bytes).unwrap(), merged.conflicts)
    }

    #[test]
    fn changes_apart_are_both_taken() {
        assert_eq!(merged("a\nb\nc\nd\n", "A\nb\nc\nd\n", "a\nb\nc\nD\nE\n"), ("A\nb\nc\nD\nE\n".into(), 0));
        assert_eq!(merged("a\nb\n", "a\nb\n", "a\nB\n"), ("a\nB\n".into(), 0));
        assert_eq!(merged("a\nb\nc\n", "a\nX\nc\n", "a\nX\nc\n"), ("a\nX\nc\n".into(), 0));
        assert_eq!(merged("", "same\n", "same\n"), ("same\n".into(), 0));
    }

    #[test]
    fn changes_that_touch_are_a_conflict_with_gits_markers() {
        let text = "a\n<<<<<<< main\nours\n=======\ntheirs\n>>>>>>> try\nc\n";
        assert_eq!(merged("a\nb\nc\n", "a\nours\nc\n", "a\ntheirs\nc\n"), (text.into(), 1));
        let text = "<<<<<<< main\nours\n=======\ntheirs\n>>>>>>> try\n";
        assert_eq!(merged("", "ours", "theirs\n"), (text.into(), 1), "a missing newline is given before the marker");
        let text = "a\r\n<<<<<<< main\r\nours\r\n=======\r\n>>>>>>> try\r\n";
        assert_eq!(merged("a\r\nb\r\n", "a\r\nours\r\n", "a\r\n"), (text.into(), 1));
    }

    #[test]
    fn a_side_can_be_favoured_in_conflicts_alone() {
        let (base, ours, theirs) = ("a\nb\nc\nd\ne\nf\n", "A\nb\nc\nd\ne\nf\n", "X\nb\nc\nd\ne\nF\n");
        let with = |favour| merge_text(base.as_bytes(), ours.as_bytes(), theirs.as_bytes(), favour);
        assert_eq!(with(Favour::Ours), MergedText { bytes: b"A\nb\nc\nd\ne\nF\n".to_vec(), conflicts: 1 });
        assert_eq!(with(Favour::Theirs), MergedText { bytes: b"X\nb\nc\nd\ne\nF\n".to_vec(), conflicts: 1 });
    }

    #[test]
    fn text_is_what_has_no_nul_at_its_start() {
        assert!(is_text(b"") && is_text(&[0xff; 9000]));
        assert!(!is_text(b"a\0b"));
        assert!(is_text(&[vec![b'x'; 8000], vec![0]].concat()));
    }
}
