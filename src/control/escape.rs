//! External ids as file names.

/// Writes an external id as a file name: `%` is `%25`, `/` is `%2F`. The ids `.` and `..`, which no file can have as its name,
/// are `%2E` and `%2E%2E`.
pub(super) fn escaped(external_id: &str) -> String {
    match external_id {
        "." | ".." => external_id.replace('.', "%2E"),
        _ => external_id.replace('%', "%25").replace('/', "%2F"),
    }
}

/// Reads an external id from a file name; `None` when an escape is not one of ours.
pub(super) fn unescaped(name: &str) -> Option<String> {
    let mut parts = name.split('%');
    let mut external_id = parts.next()?.to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        match code {
            "25" => external_id.push('%'),
            "2F" | "2f" => external_id.push('/'),
            "2E" | "2e" => external_id.push('.'),
            _ => return None,
        }
        external_id.push_str(rest);
    }
    Some(external_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_ids_survive_as_file_names() {
        for id in ["thread/ns/1", "50%/2F", "plain", "%25", "a.b", ".", "..", "..."] {
            assert_eq!(unescaped(&escaped(id)).as_deref(), Some(id));
            assert!(!escaped(id).contains('/') && ![".", ".."].contains(&&*escaped(id)));
        }
        assert_eq!(unescaped("%zz"), None);
    }
}
