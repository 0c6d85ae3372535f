//! Requests and their replies, for callers that share a mount.

use std::collections::{HashMap, VecDeque};

/// Replies kept; the oldest go first.
const REPLIES_MAX: usize = 1024;

/// The files of `requests/`.
#[derive(Default)]
pub(super) struct Requests {
    replies: HashMap<String, String>,
    /// Names, the oldest first.
    order: VecDeque<String>,
}

impl Requests {
    /// Makes a request without a reply; one that has the name already starts anew.
    pub fn open(&mut self, name: &str) {
        self.remove(name);
        self.replies.insert(name.to_owned(), String::new());
        self.order.push_back(name.to_owned());
        if self.order.len() > REPLIES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.replies.remove(&oldest);
        }
    }

    /// Keeps the reply to a request, if it still is there.
    pub fn answer(&mut self, name: &str, reply: String) {
        if let Some(kept) = self.replies.get_mut(name) {
            *kept = reply;
        }
    }

    /// Returns the reply, empty before there is one.
    pub fn reply(&self, name: &str) -> String {
        self.replies.get(name).cloned().unwrap_or_default()
    }

    /// Says whether there is such a request.
    pub fn contains(&self, name: &str) -> bool {
        self.replies.contains_key(name)
    }

    /// Returns the names, the oldest first.
    pub fn names(&self) -> Vec<String> {
        self.order.iter().cloned().collect()
    }

    /// Removes a request. Says whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let removed = self.replies.remove(name).is_some();
        if removed {
            self.order.retain(|kept| kept != name);
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_reply_goes_first_whatever_its_name() {
        let mut requests = Requests::default();
        for at in 0..=REPLIES_MAX {
            requests.open(&format!("{}", REPLIES_MAX - at));
        }
        assert!(!requests.contains(&REPLIES_MAX.to_string()));
        assert!(requests.contains("0"));
        assert_eq!(requests.names().len(), REPLIES_MAX);
    }
}
