//! What can happen, and how often.

use proptest::prelude::*;

/// A step; numbers are taken modulo what exists, so that shrinking keeps every sequence valid.
#[derive(Clone, Debug)]
pub enum Step {
    Create(usize, u8),
    MakeDirectory(usize, u8),
    Write(usize, u32, u32, u8),
    Truncate(usize, u32),
    Punch(usize, u32, u32),
    Rename(usize, usize, u8),
    Link(usize, usize, u8),
    Remove(usize),
    SetXattr(usize, u8),
    Checkpoint,
    Seal,
    DeleteCheckpoint(usize),
    Restore(usize),
    RestorePath(usize, usize),
    Undo,
    Collect,
    Crash,
    /// Goes on in another branch.
    Switch(usize),
    ForkLive(u8),
    ForkAt(usize, u8),
    RenameBranch(usize, u8),
    DeleteBranch(usize),
    /// Restores the branches whose bits are set, each to another checkpoint.
    RestoreSeveral(u8, usize),
}

pub fn step() -> impl Strategy<Value = Step> {
    let any = 0..1000usize;
    let branch = 0..6u8; // Few, so that names are taken and come back.
    // Sizes on both sides of what lies in memory, of a block and of a blob.
    let size = prop_oneof![0..100u32, 4000..4200u32, 262_000..262_300u32, 1_048_000..1_049_000u32];
    prop_oneof![
        5 => (any.clone(), 0..12u8).prop_map(|(at, name)| Step::Create(at, name)),
        2 => (any.clone(), 0..12u8).prop_map(|(at, name)| Step::MakeDirectory(at, name)),
        6 => (any.clone(), size.clone(), size.clone(), 0..=255u8).prop_map(|(at, offset, len, byte)| Step::Write(at, offset, len, byte)),
        2 => (any.clone(), size.clone()).prop_map(|(at, size)| Step::Truncate(at, size)),
        1 => (any.clone(), size.clone(), size).prop_map(|(at, offset, len)| Step::Punch(at, offset, len)),
        4 => (any.clone(), any.clone(), 0..12u8).prop_map(|(at, to, name)| Step::Rename(at, to, name)),
        2 => (any.clone(), any.clone(), 0..12u8).prop_map(|(at, to, name)| Step::Link(at, to, name)),
        3 => any.clone().prop_map(Step::Remove),
        1 => (any.clone(), 0..=255u8).prop_map(|(at, value)| Step::SetXattr(at, value)),
        3 => Just(Step::Checkpoint),
        1 => Just(Step::Seal),
        1 => any.clone().prop_map(Step::DeleteCheckpoint),
        2 => any.clone().prop_map(Step::Restore),
        1 => (any.clone(), any.clone()).prop_map(|(at, path)| Step::RestorePath(at, path)),
        3 => Just(Step::Undo),
        1 => Just(Step::Collect),
        2 => Just(Step::Crash),
        5 => any.clone().prop_map(Step::Switch),
        3 => branch.clone().prop_map(Step::ForkLive),
        1 => (any.clone(), branch.clone()).prop_map(|(at, name)| Step::ForkAt(at, name)),
        1 => (any.clone(), branch).prop_map(|(at, name)| Step::RenameBranch(at, name)),
        2 => any.clone().prop_map(Step::DeleteBranch),
        1 => (0..=255u8, any).prop_map(|(bits, at)| Step::RestoreSeveral(bits, at)),
    ]
}

impl Step {
    /// Whether it is about more than one branch, so that all must be looked at after it.
    pub fn concerns_all(&self) -> bool {
        matches!(self, Self::Crash | Self::Undo | Self::RenameBranch(..) | Self::DeleteBranch(_) | Self::RestoreSeveral(..))
    }
}
