//! Reads back what the database names and says what is not as it was stored.

use super::{Repository, RepositoryError};

/// What a check found.
#[derive(Debug, Default)]
pub struct Verified {
    /// Objects looked at.
    pub objects: u64,
    /// What is wrong, a sentence each.
    pub findings: Vec<String>,
}

impl Repository {
    /// Checks the database, and with `read_data` every byte that it names.
    pub fn verify(&self, read_data: bool) -> Result<Verified, RepositoryError> {
        let mut found = Verified { objects: 0, findings: self.history.integrity()? };
        let mut objects = Vec::new();
        self.history.each_object(|id, _, location, _| objects.push((id, location)))?;
        for (id, location) in objects {
            found.objects += 1;
            if read_data && let Err(err) = self.packs.read(&id, &location) {
                found.findings.push(err.to_string());
            }
        }
        Ok(found)
    }
}
