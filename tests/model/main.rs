//! Random operations on the branches of a store without a kernel, compared with a plain model: for each branch a map of
//! paths and what an undo would take back, and the checkpoints of all.
//!
//! `MEMENTOFS_MODEL_TRANSITIONS` says how many steps to do (default 2,000), `PROPTEST_RNG_SEED` which; what failed is kept
//! by proptest and tried first the next time.

mod files;
mod real;
mod steps;
mod store;
mod tree;

use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, RngSeed, TestError, TestRunner};
use std::cell::Cell;
use steps::{Step, step};
use store::Pair;

/// Sequences that one seed stands for.
const SEQUENCES: u32 = 20;
const STEPS_MAX: usize = 80;

fn wanted() -> u64 {
    std::env::var("MEMENTOFS_MODEL_TRANSITIONS").ok().and_then(|wanted| wanted.parse().ok()).unwrap_or(2000)
}

/// Does the steps one by one; returns how many of them did something.
fn run(steps: &[Step]) -> Result<u64, TestCaseError> {
    let mut pair = Pair::new();
    let mut done = 0;
    for step in steps {
        done += u64::from(pair.apply(step).is_some());
        let same = if step.concerns_all() { pair.check_all() } else { pair.check_here() };
        same.map_err(|differs| TestCaseError::fail(format!("after {step:?}: {differs}")))?;
    }
    pair.check_all().map_err(|differs| TestCaseError::fail(format!("at the end: {differs}")))?;
    pair.check_store().map_err(|found| TestCaseError::fail(format!("a check at the end finds {found}")))?;
    pair.crash();
    pair.check_all().map_err(|differs| TestCaseError::fail(format!("after a last crash: {differs}")))?;
    Ok(done)
}

#[test]
fn every_branch_does_what_its_model_does() {
    let first = match ProptestConfig::default().rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => {
            u64::from(std::process::id()) << 32 | u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos())
        }
    };
    let (wanted, done) = (wanted(), Cell::new(0));
    for seed in first.. {
        let config = ProptestConfig {
            cases: SEQUENCES,
            rng_seed: RngSeed::Fixed(seed),
            max_shrink_iters: 2000,
            source_file: Some(file!()),
            failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
            ..ProptestConfig::default()
        };
        let tried = TestRunner::new(config).run(&proptest::collection::vec(step(), 1..STEPS_MAX), |steps| {
            done.set(done.get() + run(&steps)?);
            Ok(())
        });
        match tried {
            Err(TestError::Fail(why, steps)) => panic!("seed {seed}: {why}\nthe shortest found is {steps:#?}"),
            other => other.unwrap_or_else(|err| panic!("seed {seed}: {err}")),
        }
        if done.get() >= wanted {
            println!("{} transitions from seed {first} to {seed}", done.get());
            return;
        }
    }
}
