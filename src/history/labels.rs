//! What names and external ids may look like.

use super::HistoryError;
use crate::object::ExternalLink;

const NAME_BYTES_MAX: usize = 255;
const SYSTEM_BYTES_MAX: usize = 64;
const EXTERNAL_ID_BYTES_MAX: usize = 1024;

fn bad(reason: String) -> HistoryError {
    HistoryError::BadName { reason }
}

/// Checks the name of a checkpoint: 1 to 255 bytes without `/`, control characters, a leading `.`, `-` or `@`, and not all hex digits.
pub fn validate_name(name: &str) -> Result<(), HistoryError> {
    validate_form(name)?;
    if name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(bad(format!("the name {name:?} could be taken for an id: all its characters are hex digits")));
    }
    Ok(())
}

/// Checks the name of a branch: likewise, but that up to three hex digits are allowed (`a`, `b2`): they are no id's start.
pub fn validate_branch_name(name: &str) -> Result<(), HistoryError> {
    if name.len() < super::resolve::PREFIX_DIGITS_MIN { validate_form(name) } else { validate_name(name) }
}

fn validate_form(name: &str) -> Result<(), HistoryError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(bad(format!("a name has 1 to {NAME_BYTES_MAX} bytes")));
    }
    if name.contains('/') || name.chars().any(char::is_control) {
        return Err(bad(format!("the name {name:?} holds a slash or a control character")));
    }
    if name.starts_with(['.', '-', '@']) {
        return Err(bad(format!("the name {name:?} starts with `.`, `-` or `@`")));
    }
    Ok(())
}

/// Checks a link: a system name of 1 to 64 bytes without `:`, `/` or control characters, an id of 1 to 1024 bytes.
pub fn validate_link(link: &ExternalLink) -> Result<(), HistoryError> {
    let system = &link.system;
    if system.is_empty() || system.len() > SYSTEM_BYTES_MAX {
        return Err(bad(format!("the name of a system has 1 to {SYSTEM_BYTES_MAX} bytes")));
    }
    if system.contains([':', '/']) || system.chars().any(char::is_control) || system.starts_with(['.', '@']) {
        return Err(bad(format!(
            "the name of the system {system:?} holds `:`, `/` or a control character, or starts with `.` or `@`"
        )));
    }
    if link.external_id.is_empty() || link.external_id.len() > EXTERNAL_ID_BYTES_MAX || link.external_id.contains('\0') {
        return Err(bad(format!("an external id has 1 to {EXTERNAL_ID_BYTES_MAX} bytes and no NUL")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_mistaken_are_refused() {
        for good in ["v1", "before refactoring", "größe", "deadbeefx", "a.b"] {
            validate_name(good).unwrap();
        }
        for bad in ["", ".hidden", "-x", "@", "a/b", "a\nb", "deadbeef", "12", &"x".repeat(256)] {
            assert!(validate_name(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "b2", "try"] {
            validate_branch_name(good).unwrap();
        }
        for bad in ["", ".x", "a/b", "dead", "0123"] {
            assert!(validate_branch_name(bad).is_err(), "{bad:?}");
        }
    }
}
