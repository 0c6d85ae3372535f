//! What writing into the control directory does.

use super::command::Command;
use super::directory::{ControlDirectory, Found};
use super::error::CommandError;
use super::execute::{Caller, MountWish, execute, resolve};
use super::node::{DirectoryKind, FileKind, Node};
use super::parse::{parse_checkpoint, parse_gc, parse_request, parse_restore, parse_spaced_reference};
use crate::object::Name;
use crate::workspace::{AttributeChange, Attributes, Stale, Workspace};
use serde_json::json;
use std::sync::Arc;

/// What a command leaves to be done before its caller goes on.
#[derive(Debug, Default)]
pub struct Effects {
    /// What the kernel must forget of each branch, by number.
    pub stale: Vec<(i64, Vec<Stale>)>,
    /// A mount that is to be made.
    pub mount: Option<FurtherMount>,
}

/// A mount that somebody asked for.
#[derive(Debug)]
pub struct FurtherMount {
    /// What is to be mounted where.
    pub wish: MountWish,
    /// The request, for [`ControlDirectory::deny`].
    pub request: String,
}

impl ControlDirectory {
    /// Runs what is written into a command file or a request.
    pub fn write(&self, number: u64, _offset: u64, data: &[u8], caller: &Caller) -> Result<Effects, CommandError> {
        self.admit(caller)?;
        let node = self.node(number)?;
        if matches!(node, Node::Sealed(..)) {
            return Err(CommandError::ReadOnly);
        }
        if data.is_empty() {
            return Ok(Effects::default());
        }
        let done = self.remembered(self.run(&node, data, caller));
        // What was written must not be taken for the content of the file.
        let mut state = self.state();
        state.texts.remove(&node);
        state.shown.remove(&number);
        drop(state);
        done
    }

    fn run(&self, node: &Node, data: &[u8], caller: &Caller) -> Result<Effects, CommandError> {
        let command = match node {
            Node::File(FileKind::Checkpoint) => parse_checkpoint(data),
            Node::File(FileKind::Restore) => parse_restore(data).map(|command| self.as_meant(command, data)),
            Node::File(FileKind::Undo) if data.len() < 4096 => Ok(Command::Undo),
            Node::File(FileKind::Undo) => Err(CommandError::TooLong),
            Node::File(FileKind::Gc) => parse_gc(data),
            Node::Request(name) => return self.run_request(name, data, caller),
            _ => Err(CommandError::NotPermitted),
        }?;
        let reply = execute(&self.branches, &self.workspace, &command, &caller.author())?;
        let line = format!("{}\n", reply.json);
        match command {
            Command::Restore { .. } => self.state().said.last_restore = line,
            Command::Gc(_) => self.state().said.last_gc = line,
            _ => {}
        }
        Ok(Effects { stale: reply.stale, mount: None })
    }

    /// Takes `REF PATH` for a reference with spaces in it when the first word names no checkpoint and all of it does.
    fn as_meant(&self, command: Command, written: &[u8]) -> Command {
        let names = |reference: &str| resolve(&self.workspace, reference).is_ok();
        match (&command, parse_spaced_reference(written)) {
            (Command::Restore { reference, .. }, Some(spaced)) if !names(reference) && names(spaced) => {
                Command::Restore { reference: spaced.to_owned(), path: None, dry_run: false, expect: None }
            }
            _ => command,
        }
    }

    fn run_request(&self, name: &str, data: &[u8], caller: &Caller) -> Result<Effects, CommandError> {
        let done = parse_request(data).and_then(|command| execute(&self.branches, &self.workspace, &command, &caller.author()));
        match done {
            Ok(mut reply) => {
                reply.json["ok"] = true.into();
                self.state().said.requests.answer(name, format!("{}\n", reply.json));
                let mount = reply.mount.map(|wish| FurtherMount { wish, request: name.to_owned() });
                Ok(Effects { stale: reply.stale, mount })
            }
            Err(err) => Err(self.deny(name, err)),
        }
    }

    /// Answers a request with its failure; returns the failure.
    pub fn deny(&self, request: &str, err: CommandError) -> CommandError {
        let reply = json!({ "ok": false, "error": err.to_string() });
        let mut state = self.state();
        state.said.requests.answer(request, format!("{reply}\n"));
        state.said.last_error = format!("{err}\n");
        err
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
        self.state().said.requests.open(name);
        self.found(Node::Request(name.to_owned()), caller)
    }

    /// Removes a request; other files cannot be removed.
    pub fn unlink(&self, parent: u64, name: &[u8], caller: &Caller) -> Result<(), CommandError> {
        self.admit(caller)?;
        match self.node(parent)? {
            Node::Directory(DirectoryKind::Requests) => {
                let name = String::from_utf8_lossy(name);
                let removed = self.state().said.requests.remove(&name);
                removed.then_some(()).ok_or_else(|| CommandError::NotFound(name.into_owned()))
            }
            Node::Sealed(..) => Err(CommandError::ReadOnly),
            _ => Err(CommandError::NotPermitted),
        }
    }

    /// `mkdir checkpoints/NAME` takes a checkpoint of that name, `mkdir branches/NAME` forks.
    pub fn make_directory(&self, parent: u64, name: &[u8], caller: &Caller) -> Result<Found, CommandError> {
        self.admit(caller)?;
        let made = match self.node(parent)? {
            Node::Directory(DirectoryKind::Checkpoints) => {
                self.named_checkpoint(parent, name, caller).and_then(|node| self.found(node, caller)).map(Found::Node)
            }
            Node::Directory(DirectoryKind::Branches) => self.forked(name, caller).map(Found::Branch),
            Node::Sealed(..) => Err(CommandError::ReadOnly),
            _ => Err(CommandError::NotPermitted),
        };
        self.remembered(made)
    }

    fn forked(&self, name: &[u8], caller: &Caller) -> Result<Arc<Workspace>, CommandError> {
        let name = utf8(name)?.to_owned();
        let command = Command::Fork { name: name.clone(), at: None };
        execute(&self.branches, &self.workspace, &command, &caller.author())?;
        Ok(self.branches.open(&name)?)
    }

    fn named_checkpoint(&self, parent: u64, name: &[u8], caller: &Caller) -> Result<Node, CommandError> {
        let name = utf8(name)?;
        let command = Command::Checkpoint {
            message: String::new(),
            name: Some(name.to_owned()),
            links: Vec::new(),
            metadata: "{}".to_owned(),
            allow_empty: false,
            expect: None,
        };
        execute(&self.branches, &self.workspace, &command, &caller.author())?;
        self.checkpoint_node(parent, name)
    }

    /// `rmdir checkpoints/NAME` removes a name, `rmdir checkpoints/ID` deletes a checkpoint, `rmdir branches/NAME` a branch.
    pub fn remove_directory(&self, parent: u64, name: &[u8], caller: &Caller) -> Result<(), CommandError> {
        self.admit(caller)?;
        let done = match self.node(parent)? {
            Node::Directory(DirectoryKind::Checkpoints) => self.remove_checkpoint(name, caller),
            Node::Directory(DirectoryKind::Branches) => self.remove_branch(name, caller),
            Node::Sealed(..) => Err(CommandError::ReadOnly),
            _ => Err(CommandError::NotPermitted),
        };
        self.remembered(done)
    }

    fn remove_checkpoint(&self, name: &[u8], caller: &Caller) -> Result<(), CommandError> {
        let text = String::from_utf8_lossy(name).into_owned();
        let id = resolve(&self.workspace, &text)?;
        let command = if self.repository().history().named(&text)? == Some(id) {
            Command::Name { reference: text, name: None }
        } else {
            Command::Delete { reference: text }
        };
        execute(&self.branches, &self.workspace, &command, &caller.author()).map(drop)
    }

    fn remove_branch(&self, name: &[u8], caller: &Caller) -> Result<(), CommandError> {
        let command = Command::DeleteBranch { branch: utf8(name)?.to_owned() };
        execute(&self.branches, &self.workspace, &command, &caller.author()).map(drop)
    }

    /// `mv checkpoints/OLD checkpoints/NEW` renames a checkpoint, `mv branches/OLD branches/NEW` a branch.
    pub fn rename(
        &self,
        parent: u64,
        name: &[u8],
        new_parent: u64,
        new_name: &[u8],
        caller: &Caller,
    ) -> Result<(), CommandError> {
        self.admit(caller)?;
        let (from, to) = (self.node(parent)?, self.node(new_parent)?);
        let done = match (&from, &to) {
            (Node::Directory(DirectoryKind::Checkpoints), to) if from == *to => {
                let reference = String::from_utf8_lossy(name).into_owned();
                utf8(new_name).map(|name| Command::Name { reference, name: Some(name.to_owned()) })
            }
            (Node::Directory(DirectoryKind::Branches), to) if from == *to => utf8(name)
                .and_then(|branch| Ok(Command::RenameBranch { branch: branch.to_owned(), name: utf8(new_name)?.to_owned() })),
            (Node::Sealed(..), _) | (_, Node::Sealed(..)) => Err(CommandError::ReadOnly),
            _ => Err(CommandError::NotPermitted),
        };
        let run = |command| execute(&self.branches, &self.workspace, &command, &caller.author()).map(drop);
        self.remembered(done.and_then(run))?;
        if let (Ok(old), Ok(new)) = (Name::new(name), Name::new(new_name)) {
            self.state().sealed.moved(&(parent, old), (new_parent, new));
        }
        Ok(())
    }
}

fn utf8(name: &[u8]) -> Result<&str, CommandError> {
    std::str::from_utf8(name).map_err(|_| CommandError::Invalid("a name is UTF-8".into()))
}
