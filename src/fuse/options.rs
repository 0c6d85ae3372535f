//! The words of `-o`.

use crate::sys;

/// Options of mount(8) and fstab(5) that say nothing to a mount of ours, which is nosuid and nodev whatever is asked.
const IGNORED: [&str; 24] = [
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "nousers",
    "owner",
    "noowner",
    "group",
    "nogroup",
    "_netdev",
    "nofail",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "silent",
];
/// The same, of options with a value.
const IGNORED_WITH_VALUE: [&str; 4] = ["comment", "user", "helper", "uhelper"];
/// Options that only take back another.
const TAKES_BACK: [(&str, &str); 3] = [("exec", "noexec"), ("atime", "noatime"), ("async", "sync")];

/// How a mount is made.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Lets other users in; the kernel checks modes.
    pub allow_other: bool,
    /// Has the kernel check modes even where only root is let in; it always does for others.
    pub check_modes: bool,
    /// Refuses changes.
    pub read_only: bool,
    /// Name of the control directory.
    pub control_name: String,
    /// Which way the bytes of files move, if anything was said of it.
    pub passthrough: Option<bool>,
    /// Options handed to the kernel or fusermount as they are.
    pub further: Vec<String>,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            allow_other: false,
            check_modes: false,
            read_only: false,
            control_name: ".memento".into(),
            passthrough: None,
            further: Vec::new(),
        }
    }
}

impl MountOptions {
    /// Says whether the kernel checks modes and access control lists: a mount that admits root alone needs none of it.
    pub fn kernel_checks(&self) -> bool {
        self.allow_other || self.check_modes || sys::effective_uid() != 0
    }

    /// Takes the words of `-o`. Fails with a sentence.
    pub fn parse(words: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        for word in words.iter().map(|word| word.trim()).filter(|word| !word.is_empty()) {
            match word.split_once('=') {
                None if word == "allow_other" => options.allow_other = true,
                None if word == "default_permissions" => options.check_modes = true,
                None if word == "ro" => options.read_only = true,
                None if word == "rw" => options.read_only = false,
                None if IGNORED.contains(&word) || word.starts_with("x-") || word.starts_with("X-") => {}
                Some(("control", name)) => {
                    crate::object::Name::new(name.as_bytes()).map_err(|err| format!("-o control={name}: {err}"))?;
                    options.control_name = name.to_owned();
                }
                Some(("io", "auto")) => options.passthrough = None,
                Some(("io", "cached")) => options.passthrough = Some(false),
                Some(("io", "passthrough")) => options.passthrough = Some(true),
                Some(("branch", _)) => {} // The caller's: it is what is mounted, not how.
                Some((key, _)) if key.starts_with("x-") || key.starts_with("X-") || IGNORED_WITH_VALUE.contains(&key) => {}
                _ => match TAKES_BACK.iter().find(|(taker, _)| *taker == word) {
                    Some((_, taken)) => options.further.retain(|other| other != taken),
                    None => options.further.push(word.to_owned()),
                },
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::MountOptions;

    fn further(words: &[&str]) -> Vec<String> {
        MountOptions::parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()).unwrap().further
    }

    #[test]
    fn words_of_mount_8_are_dropped() {
        let words = ["rw", "user=alice", "nofail", "_netdev", "X-mount.mkdir", "x-systemd.after=a", "comment=b", "dev", "suid"];
        assert!(further(&words).is_empty());
    }

    #[test]
    fn later_words_take_back_earlier_ones() {
        assert!(further(&["noexec", "exec"]).is_empty());
        assert_eq!(further(&["exec", "noexec"]), ["noexec"]);
        assert!(!MountOptions::parse(&["ro".to_owned(), "rw".to_owned()]).unwrap().read_only);
        assert!(MountOptions::parse(&["rw".to_owned(), "ro".to_owned()]).unwrap().read_only);
    }

    #[test]
    fn unknown_words_reach_the_kernel() {
        assert_eq!(further(&["max_read=4096", "bogus"]), ["max_read=4096", "bogus"]);
    }
}
