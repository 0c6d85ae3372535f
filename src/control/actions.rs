//! What writing into the control directory does.

use super::command::{Command, parse_checkpoint, parse_gc, parse_request, parse_restore};
use super::directory::ControlDirectory;
use super::error::CommandError;
use super::execute::{Caller, execute, resolve};
use super::node::{DirectoryKind, FileKind, Node};
use crate::workspace::{AttributeChange, Attributes, Stale};
use serde_json::json;

impl ControlDirectory {
    /// Runs what is written into a command file or a request; returns what the kernel must forget.
    pub fn write(&self, number: u64, _offset: u64, data: &[u8], caller: &Caller) -> Result<Vec<Stale>, CommandError> {
        self.admit(caller)?;
        let node = self.node(number)?;
        if matches!(node, Node::Sealed(..)) {
            return Err(CommandError::ReadOnly);
        }
        if data.is_empty() {
            return Ok(Vec::new());
        }
        let done = self.remembered(self.run(&node, data, caller));
        // What was written must not be taken for the content of the file.
        self.state().texts.remove(&node);
        done
    }

    fn run(&self, node: &Node, data: &[u8], caller: &Caller) -> Result<Vec<Stale>, CommandError> {
        let command = match node {
            Node::File(FileKind::Checkpoint) => parse_checkpoint(data),
            Node::File(FileKind::Restore) => parse_restore(data),
            Node::File(FileKind::Undo) if data.len() < 4096 => Ok(Command::Undo),
            Node::File(FileKind::Undo) => Err(CommandError::TooLong),
            Node::File(FileKind::Gc) => parse_gc(data),
            Node::Request(name) => return self.run_request(name, data, caller),
            _ => Err(CommandError::NotPermitted),
        }?;
        let reply = execute(&self.workspace, &command, &caller.author())?;
        let line = format!("{}\n", reply.json);
        match command {
            Command::Restore { .. } => self.state().last_restore = line,
            Command::Gc(_) => self.state().last_gc = line,
            _ => {}
        }
        Ok(reply.stale)
    }

    fn run_request(&self, name: &str, data: &[u8], caller: &Caller) -> Result<Vec<Stale>, CommandError> {
        let done = parse_request(data).and_then(|command| execute(&self.workspace, &command, &caller.author()));
        let (reply, result) = match done {
            Ok(reply) => {
                let mut json = reply.json;
                json["ok"] = true.into();
                (json, Ok(reply.stale))
            }
            Err(err) => (json!({ "ok": false, "error": err.to_string() }), Err(err)),
        };
        self.state().requests.answer(name, format!("{reply}\n"));
        result
    }

    /// Accepts what `>`, editors and `cp` do to a file before they write, and means nothing by it.
    pub fn set_attributes(&self, number: u64, change: &AttributeChange, caller: &Caller) -> Result<Attributes, CommandError> {
        self.admit(caller)?;
        let node = self.node(number)?;
        match node {
            Node::Sealed(..) => Err(CommandError::ReadOnly),
            Node::File(_) | Node::Request(_) if change.mode.is_none() && change.uid.is_none() && change.gid.is_none() => {
                self.describe(number, &node)
            }
            _ => Err(CommandError::NotPermitted),
        }
    }

    /// Creates a request; other files cannot be created.
    pub fn create(&self, parent: u64, name: &[u8], caller: &Caller) -> Result<Attributes, CommandError> {
        self.admit(caller)?;
        match self.node(parent)? {
            Node::Directory(DirectoryKind::Requests) => {}
            Node::Sealed(..) => return Err(CommandError::ReadOnly),
            _ => return Err(CommandError::NotPermitted),
        }
        let name = std::str::from_utf8(name).map_err(|_| CommandError::Invalid("a request's name is UTF-8".into()))?;
        self.state().requests.open(name);
        self.found(Node::Request(name.to_owned()))
    }

    /// Removes a request; other files cannot be removed.
    pub fn unlink(&self, parent: u64, name: &[u8], caller: &Caller) -> Result<(), CommandError> {
        self.admit(caller)?;
        match self.node(parent)? {
            Node::Directory(DirectoryKind::Requests) => {
                let name = String::from_utf8_lossy(name);
                let removed = self.state().requests.remove(&name);
                removed.then_some(()).ok_or_else(|| CommandError::NotFound(name.into_owned()))
            }
            Node::Sealed(..) => Err(CommandError::ReadOnly),
            _ => Err(CommandError::NotPermitted),
        }
    }

    /// `mkdir checkpoints/NAME`: takes a checkpoint of that name.
    pub fn make_directory(&self, parent: u64, name: &[u8], caller: &Caller) -> Result<Attributes, CommandError> {
        self.admit(caller)?;
        let made = match self.node(parent)? {
            Node::Directory(DirectoryKind::Checkpoints) => self.named_checkpoint(name, caller),
            Node::Sealed(..) => Err(CommandError::ReadOnly),
            _ => Err(CommandError::NotPermitted),
        };
        self.found(self.remembered(made)?)
    }

    fn named_checkpoint(&self, name: &[u8], caller: &Caller) -> Result<Node, CommandError> {
        let name = std::str::from_utf8(name).map_err(|_| CommandError::Invalid("a name is UTF-8".into()))?;
        let command = Command::Checkpoint {
            message: String::new(),
            name: Some(name.to_owned()),
            links: Vec::new(),
            metadata: "{}".to_owned(),
            allow_empty: false,
            expect: None,
        };
        execute(&self.workspace, &command, &caller.author())?;
        self.checkpoint_node(name)
    }

    /// `rmdir checkpoints/NAME` removes a name, `rmdir checkpoints/ID` deletes a checkpoint.
    pub fn remove_directory(&self, parent: u64, name: &[u8], caller: &Caller) -> Result<(), CommandError> {
        self.admit(caller)?;
        let done = match self.node(parent)? {
            Node::Directory(DirectoryKind::Checkpoints) => self.remove_checkpoint(name, caller),
            Node::Sealed(..) => Err(CommandError::ReadOnly),
            _ => Err(CommandError::NotPermitted),
        };
        self.remembered(done)
    }

    fn remove_checkpoint(&self, name: &[u8], caller: &Caller) -> Result<(), CommandError> {
        let text = String::from_utf8_lossy(name).into_owned();
        let id = resolve(&self.workspace, &text)?;
        let row = self.repository().history().commit(&id)?;
        let command = if row.name.as_deref() == Some(&text) {
            Command::Name { reference: text, name: None }
        } else {
            Command::Delete { reference: text }
        };
        execute(&self.workspace, &command, &caller.author()).map(drop)
    }

    /// `mv checkpoints/OLD checkpoints/NEW` renames a checkpoint.
    pub fn rename(
        &self,
        parent: u64,
        name: &[u8],
        new_parent: u64,
        new_name: &[u8],
        caller: &Caller,
    ) -> Result<(), CommandError> {
        self.admit(caller)?;
        let checkpoints = Node::Directory(DirectoryKind::Checkpoints);
        let done = match (self.node(parent)?, self.node(new_parent)?) {
            (from, to) if from == checkpoints && to == checkpoints => {
                let reference = String::from_utf8_lossy(name).into_owned();
                match std::str::from_utf8(new_name) {
                    Ok(new_name) => {
                        let command = Command::Name { reference, name: Some(new_name.to_owned()) };
                        execute(&self.workspace, &command, &caller.author()).map(drop)
                    }
                    Err(_) => Err(CommandError::Invalid("a name is UTF-8".into())),
                }
            }
            (Node::Sealed(..), _) | (_, Node::Sealed(..)) => Err(CommandError::ReadOnly),
            _ => Err(CommandError::NotPermitted),
        };
        self.remembered(done)
    }
}
