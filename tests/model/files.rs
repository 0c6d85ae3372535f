//! The steps that change files of one branch, done on both sides.

use crate::real::View;
use crate::steps::Step;
use crate::tree::{Model, is_below, join};
use mementofs::object::EntryKind;
use mementofs::workspace::{AttributeChange, RangeChange, RangeOptions, RenameMode, XattrMode};

/// One branch on both sides.
pub struct Sides<'a> {
    pub model: &'a mut Model,
    pub view: View,
}

impl Sides<'_> {
    /// Does a step; nothing when there is nothing to do it to.
    pub fn apply(&mut self, step: &Step) -> Option<()> {
        match *step {
            Step::Create(at, name) => self.add(at, name, false),
            Step::MakeDirectory(at, name) => self.add(at, name, true),
            Step::Write(at, offset, len, byte) => self.write(at, offset, len, byte),
            Step::Truncate(at, size) => {
                let path = self.model.regular(at)?;
                self.model.bytes(&path).resize(size as usize, 0);
                let change = AttributeChange { size_bytes: Some(u64::from(size)), ..AttributeChange::default() };
                self.view.set_attributes(self.view.ino(&path), change).unwrap();
                Some(())
            }
            Step::Punch(at, offset, len) => self.punch(at, offset, len),
            Step::Rename(at, to, name) => self.rename(at, to, name),
            Step::Link(at, to, name) => {
                let path = self.model.regular(at)?;
                let target = self.free_place(to, name)?;
                let (parent, name) = self.view.place(&target);
                self.view.link(self.view.ino(&path), parent, &name).unwrap();
                let file = self.model.paths[&path];
                self.model.paths.insert(target, file);
                Some(())
            }
            Step::Remove(at) => self.remove(at),
            Step::SetXattr(at, value) => {
                let path = self.model.any(at)?;
                self.model.file(&path).xattr = Some(value);
                self.view.set_xattr(self.view.ino(&path), b"user.x", &[value], XattrMode::Set).unwrap();
                Some(())
            }
            Step::Seal => {
                self.view.seal_now().unwrap();
                Some(())
            }
            _ => unreachable!("{step:?} is none of a branch"),
        }
    }

    fn place(&self, to: usize, name: u8) -> Vec<u8> {
        let directories = self.model.directories();
        join(&directories[to % directories.len()], name)
    }

    fn free_place(&self, to: usize, name: u8) -> Option<Vec<u8>> {
        Some(self.place(to, name)).filter(|path| !self.model.paths.contains_key(path))
    }

    fn add(&mut self, at: usize, name: u8, directory: bool) -> Option<()> {
        let path = self.free_place(at, name)?;
        self.view.make(&path, if directory { EntryKind::Directory } else { EntryKind::File });
        self.model.add(path, directory);
        Some(())
    }

    fn write(&mut self, at: usize, offset: u32, len: u32, byte: u8) -> Option<()> {
        let path = self.model.regular(at).filter(|_| len > 0)?;
        let data: Vec<u8> = (0..len).map(|index| byte.wrapping_add((index / 7) as u8)).collect();
        let (start, end) = (offset as usize, offset as usize + data.len());
        let bytes = self.model.bytes(&path);
        bytes.resize(bytes.len().max(end), 0);
        bytes[start..end].copy_from_slice(&data);
        self.view.write(self.view.ino(&path), u64::from(offset), &data, false).unwrap();
        Some(())
    }

    fn punch(&mut self, at: usize, offset: u32, len: u32) -> Option<()> {
        let path = self.model.regular(at).filter(|_| len > 0)?;
        let bytes = self.model.bytes(&path);
        let start = (offset as usize).min(bytes.len());
        let end = (offset as usize + len as usize).min(bytes.len());
        bytes[start..end].fill(0);
        let options = RangeOptions { keep_size: true, strip_privileges: false };
        let ino = self.view.ino(&path);
        self.view.change_range(ino, u64::from(offset), u64::from(len), RangeChange::Punch, options).unwrap();
        Some(())
    }

    fn remove(&mut self, at: usize) -> Option<()> {
        let path = self.model.any(at)?;
        let (parent, name) = self.view.place(&path);
        if self.model.file(&path).directory {
            if !self.model.is_empty_directory(&path) {
                return None;
            }
            self.view.remove_directory(parent, &name).unwrap();
        } else {
            self.view.unlink(parent, &name).unwrap();
        }
        self.model.paths.remove(&path);
        Some(())
    }

    fn rename(&mut self, at: usize, to: usize, name: u8) -> Option<()> {
        let path = self.model.any(at)?;
        let target = self.place(to, name);
        if target == path || is_below(&target, &path) {
            return None;
        }
        let directory = self.model.file(&path).directory;
        if let Some(there) = self.model.paths.get(&target) {
            let other = &self.model.files[there];
            let same = *there == self.model.paths[&path];
            if same || other.directory != directory || (directory && !self.model.is_empty_directory(&target)) {
                return None;
            }
        }
        let ((parent, name), (new_parent, new_name)) = (self.view.place(&path), self.view.place(&target));
        self.view.rename(parent, &name, new_parent, &new_name, RenameMode::Replace, None).unwrap();
        let moved: Vec<_> = self.model.paths.keys().filter(|other| **other == path || is_below(other, &path)).cloned().collect();
        for old in moved {
            let file = self.model.paths.remove(&old).unwrap();
            self.model.paths.insert([&target, &old[path.len()..]].concat(), file);
        }
        Some(())
    }
}
