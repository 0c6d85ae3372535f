//! Keeps bytes, gives them back verified, lists and removes them.
//!
//! Small objects lie back to back in packs, so that one sync makes a thousand of them durable; large files are taken over as they
//! are. Where an object lies is
//! said by a [`crate::object::Location`], which callers keep; this module knows files and bytes only.

mod check;
pub mod chunk;
mod compression;
mod dir;
mod error;
mod large;
mod pack;
mod packs;
mod writer;

pub use check::ScannedPack;
pub use dir::{StoreDir, StoreLock};
pub use error::StoreError;
pub use large::LargePiece;
#[doc(hidden)]
pub use pack::reread_record;
pub use pack::stored_form;
pub use packs::{ContainerInfo, PackStore};
