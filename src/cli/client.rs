//! Finds the workspace a command is about and runs JSON commands on it: through the control directory of a mount, or,
//! when the store is not mounted, in this process.

use super::error::CliError;
use crate::control::{CONTROL_NAME_ATTRIBUTE, Caller, execute, parse_request};
use crate::object::Name;
use crate::repository::Repository;
use crate::sys;
use crate::workspace::{Branches, Workspace};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The usual name of the control directory.
const CONTROL_NAME: &str = ".memento";

/// A workspace that commands can be sent to.
pub enum Client {
    /// A mount.
    Mounted {
        /// Its top.
        top: PathBuf,
        /// Its control directory.
        control: PathBuf,
    },
    /// A branch of a store opened by this process.
    Direct {
        /// The branches of the store.
        branches: Arc<Branches>,
        /// The branch.
        workspace: Arc<Workspace>,
    },
}

/// Where the user says the workspace is.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// A path inside a mount.
    pub at: Option<PathBuf>,
    /// A store.
    pub store: Option<PathBuf>,
    /// A branch; by default the one that is mounted there, or the main one.
    pub branch: Option<String>,
}

impl Client {
    /// Finds the workspace: the store named, or the mount around a path, by default the working directory.
    pub fn find(place: &Place) -> Result<Self, CliError> {
        let branch = place.branch.as_deref();
        match &place.store {
            Some(store) => Self::of_store(store, branch),
            None => Self::around(place)?.on_branch(branch),
        }
    }

    fn around(place: &Place) -> Result<Self, CliError> {
        let start = match &place.at {
            Some(path) => path.clone(),
            None => std::env::current_dir().map_err(|err| CliError::new(format!("cannot tell the working directory: {err}")))?,
        };
        let start = start.canonicalize().map_err(|err| CliError::at("cannot use the path", &start, err))?;
        for top in start.ancestors() {
            if let Some(client) = Self::at_mount(top) {
                return Ok(client);
            }
            if is_of_another(top) {
                return Err(CliError::new(format!("permission denied: the workspace at {} is another user's", top.display())));
            }
        }
        Err(CliError::new(format!(
            "{} is not inside a mounted workspace; go into one, or say --at PATH or --store STORE",
            start.display()
        )))
    }

    /// Uses the view of a branch that the mount has.
    fn on_branch(self, branch: Option<&str>) -> Result<Self, CliError> {
        let (Self::Mounted { control, .. }, Some(branch)) = (&self, branch) else { return Ok(self) };
        let top = control.join("branches").join(branch);
        let found = if is_one_part(branch) { Self::at_mount(&top) } else { None };
        found.ok_or_else(|| CliError::new(format!("there is no branch {branch}")))
    }

    /// Uses the mount whose top is `top`, if it is one.
    pub fn at_mount(top: &Path) -> Option<Self> {
        let control = top.join(control_name(top));
        control.join("requests").is_dir().then(|| Self::Mounted { top: top.to_owned(), control })
    }

    /// Finds the workspace; a store that is named and does not exist is made.
    pub fn open_or_make(place: &Place) -> Result<Self, CliError> {
        if let Some(store) = &place.store
            && !store.exists()
        {
            drop(super::serve::open_store(store)?);
        }
        Self::find(place)
    }

    fn of_store(store: &Path, branch: Option<&str>) -> Result<Self, CliError> {
        let store = store.canonicalize().map_err(|err| CliError::at("cannot open the store", store, err))?;
        if let Some(client) = sys::mount_points_of(&store).iter().find_map(|top| Self::at_mount(top)) {
            return client.on_branch(branch);
        }
        let repository =
            Repository::open(&store).map_err(|err| CliError::new(format!("cannot open the store {}: {err}", store.display())))?;
        let branches = Branches::new(repository);
        let workspace = branch.map_or_else(|| branches.open_first(), |name| branches.open(name));
        let workspace = workspace.map_err(|err| CliError::new(err.to_string()))?;
        Ok(Self::Direct { branches, workspace })
    }

    /// Runs a command, `{"do":…}`, and returns its reply.
    pub fn run(&self, request: &Value) -> Result<Value, CliError> {
        match self {
            Self::Mounted { control, .. } => run_mounted(control, request),
            Self::Direct { branches, workspace } => {
                let caller = Caller { uid: sys::effective_uid(), gid: sys::effective_gid(), pid: std::process::id() };
                let command = parse_request(request.to_string().as_bytes()).map_err(|err| CliError::new(err.to_string()))?;
                let reply = execute(branches, workspace, &command, &caller.author());
                let mut reply = reply.map_err(|err| CliError::new(err.to_string()))?.json;
                reply["ok"] = true.into(); // As a mount says it.
                Ok(reply)
            }
        }
    }

    /// Returns the top of the mount.
    pub fn top(&self) -> Option<&Path> {
        match self {
            Self::Mounted { top, .. } => Some(top),
            Self::Direct { .. } => None,
        }
    }

    /// Returns the control directory of the mount.
    pub fn control(&self) -> Option<&Path> {
        match self {
            Self::Mounted { control, .. } => Some(control),
            Self::Direct { .. } => None,
        }
    }

    /// Turns a path as the user typed it into one relative to the top of the workspace.
    pub fn relative(&self, path: &Path) -> Result<PathBuf, CliError> {
        let Self::Mounted { top, .. } = self else { return Ok(path.to_owned()) };
        let absolute = std::path::absolute(path).map_err(|err| CliError::at("cannot use the path", path, err))?;
        // The directory may have been deleted: that is what a restore is for.
        let known = absolute.ancestors().find_map(|part| Some((part.canonicalize().ok()?, absolute.strip_prefix(part).ok()?)));
        let resolved = known
            .map_or_else(|| absolute.clone(), |(known, rest)| if rest.as_os_str().is_empty() { known } else { known.join(rest) });
        match resolved.strip_prefix(top) {
            Ok(relative) => Ok(relative.to_owned()),
            Err(_) if path.is_relative() => Ok(path.to_owned()),
            Err(_) => Err(CliError::new(format!("{} is not below {}", path.display(), top.display()))),
        }
    }
}

/// Returns what the control directory is called where `top` is the top of a mount, which says so itself.
fn control_name(top: &Path) -> OsString {
    let named = xattr::get(top, CONTROL_NAME_ATTRIBUTE).ok().flatten().map(OsString::from_vec);
    named.filter(|name| is_one_part(name)).unwrap_or_else(|| CONTROL_NAME.into())
}

/// Says whether `name` leads to something in a directory, and nowhere else.
fn is_one_part(name: impl AsRef<OsStr>) -> bool {
    Name::new(name.as_ref().as_bytes()).is_ok()
}

/// Says whether `top` is a workspace whose control directory does not answer this user.
fn is_of_another(top: &Path) -> bool {
    let asked = std::fs::metadata(top.join(control_name(top)).join("requests"));
    asked.is_err_and(|err| err.kind() == std::io::ErrorKind::PermissionDenied) && sys::is_mounted(top).unwrap_or(false)
}

/// Runs a command through a file of our own in `requests/`.
fn run_mounted(control: &Path, request: &Value) -> Result<Value, CliError> {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
    let file = control.join("requests").join(format!("cli-{}-{nanos}", std::process::id()));
    let created = fs::File::options().write(true).create_new(true).open(&file);
    let opened = created.map_err(|err| CliError::at("cannot use the control directory", control, err))?;
    let sent = std::io::Write::write_all(&mut &opened, request.to_string().as_bytes());
    drop(opened);
    let reply = fs::read(&file).map_err(|err| CliError::at("cannot read the reply", &file, err));
    let _ = fs::remove_file(&file);
    let reply: Value = serde_json::from_slice(&reply?).unwrap_or_default();
    if let Some(message) = reply["error"].as_str() {
        return Err(CliError::new(message));
    }
    sent.map_err(|err| CliError::new(format!("the command failed: {err}")))?;
    Ok(reply)
}
