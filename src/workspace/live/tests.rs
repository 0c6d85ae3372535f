use crate::object::{Author, EntryKind, Name};
use crate::repository::Repository;
use crate::workspace::{Branches, CheckpointRequest, NewNode, ROOT};

/// A restore gave the file another number because its older version was in use; then the kernel ran short of memory.
#[test]
fn a_file_has_the_number_it_had_when_the_kernel_forgot_it_meanwhile() {
    let author = Author { uid: 0, pid: 0, command: "test".into() };
    let temp = tempfile::tempdir().unwrap();
    let branches = Branches::new(Repository::create(&temp.path().join("store")).unwrap());
    let workspace = branches.open("main").unwrap();
    let name = Name::new(b"file").unwrap();
    let node = NewNode { kind: EntryKind::File, mode: 0o644, uid: 0, gid: 0, device: 0, target: Box::default() };
    let held = workspace.create(ROOT, &name, node, 0).unwrap().ino;
    workspace.write(held, 0, b"first", false).unwrap();
    let first = workspace.checkpoint(&CheckpointRequest::new("first", author.clone())).unwrap().id;
    workspace.write(held, 0, b"second", false).unwrap();
    workspace.restore(&first, None, false, &author).unwrap();
    let number = || workspace.lookup(ROOT, &name).unwrap().unwrap().ino;
    let restored = number();
    assert_ne!(restored, held, "whoever has the older version open keeps it");
    workspace.forget(restored, 1);
    assert_eq!(number(), restored);
    workspace.forget(held, 1);
    workspace.forget(restored, 1);
    assert_eq!(number(), restored, "the older version is gone, and the file is the same");
    workspace.unlink(ROOT, &name).unwrap();
    workspace.forget(restored, 1);
    assert_eq!(workspace.live().tree.aliases.len(), 0, "what is no more needs no number");
}
