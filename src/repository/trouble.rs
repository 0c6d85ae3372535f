//! What went wrong with the store lately, kept for people: the log says all of it, this says the last.

use super::{Repository, RepositoryError};
use crate::store::StoreError;
use std::sync::PoisonError;

impl Repository {
    /// Says in the log that something in the store is damaged, and keeps the sentence.
    pub fn note_trouble(&self, sentence: &str) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.as_deref() != Some(sentence) {
            tracing::error!("{sentence}");
            *trouble = Some(sentence.to_owned());
        }
    }

    /// Returns the last thing found damaged since the store was opened, or since it was forgotten.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets what was found damaged: something newer is to be said.
    pub fn forget_trouble(&self) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Keeps the sentence of an error about damaged bytes.
    pub(super) fn troubled(&self, err: StoreError) -> RepositoryError {
        if matches!(err, StoreError::Damaged { .. } | StoreError::Missing { .. }) {
            self.note_trouble(&err.to_string());
        }
        err.into()
    }
}
