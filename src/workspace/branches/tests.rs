use super::*;
use crate::object::{EntryKind, Name};
use crate::workspace::{NewNode, ROOT};

fn author() -> Author {
    Author { uid: 0, pid: 0, command: "test".into() }
}

fn store() -> (tempfile::TempDir, Arc<Branches>) {
    let temp = tempfile::tempdir().unwrap();
    let branches = Branches::new(Repository::create(&temp.path().join("store")).unwrap());
    (temp, branches)
}

fn create(workspace: &Workspace, name: &str) {
    let node = NewNode { kind: EntryKind::File, mode: 0o644, uid: 0, gid: 0, device: 0, target: Box::default() };
    workspace.create(ROOT, &Name::new(name.as_bytes()).unwrap(), node, 0).unwrap();
}

/// The deletion that is done again went by the name that the branch had.
#[test]
fn undoing_the_undo_of_a_deletion_never_deletes_another_branch_of_that_name() {
    let (_temp, branches) = store();
    let main = branches.open("main").unwrap();
    branches.fork(&main, None, "b", &author()).unwrap();
    branches.fork(&main, None, "other", &author()).unwrap();
    branches.delete("b", &main, &author()).unwrap();
    branches.undo(&main, &author()).unwrap();
    branches.delete("b", &branches.open("other").unwrap(), &author()).unwrap();
    let new = branches.fork(&main, None, "b", &author()).unwrap();
    assert!(branches.undo(&main, &author()).is_err());
    assert_eq!(branches.repository().branch("b").unwrap().id, new.id);
}

/// A deletion is an operation of the branch it was asked for on, but what it says of before is about the deleted one.
#[test]
fn an_undo_that_a_deletion_overtakes_moves_nothing() {
    let (_temp, branches) = store();
    let main = branches.open("main").unwrap();
    branches.fork(&main, None, "b", &author()).unwrap();
    create(&main, "on main");
    branches.delete("b", &main, &author()).unwrap();
    assert!(matches!(main.undo(&author()), Err(WorkspaceError::Busy(_)))); // As `Branches::undo` calls it, having looked before.
    assert!(main.lookup(ROOT, &Name::new(b"on main").unwrap()).unwrap().is_some());
}

#[test]
fn who_found_a_branch_just_before_its_deletion_cannot_open_it() {
    let (_temp, branches) = store();
    let main = branches.open("main").unwrap();
    let row = branches.fork(&main, None, "b", &author()).unwrap();
    branches.delete("b", &main, &author()).unwrap();
    assert!(branches.open_row(row).is_err());
    assert_eq!(branches.opened().len(), 1);
}

/// Whoever had found the checkpoint a moment before was told that an object was missing from the store, as if it were damaged, and a
/// checkpoint of what was there before had been taken for nothing.
#[test]
fn a_checkpoint_that_gc_took_a_moment_ago_is_not_found_and_no_damage() {
    let (_temp, branches) = store();
    let main = branches.open("main").unwrap();
    create(&main, "first");
    let gone = main.checkpoint(&CheckpointRequest::new("first", author())).unwrap().id;
    create(&main, "second");
    let newest = main.checkpoint(&CheckpointRequest::new("second", author())).unwrap().id;
    create(&main, "third");
    branches.repository().delete_checkpoint(&gone, &author()).unwrap();
    branches.collect(&GcRules { grace_secs: Some(0), ..GcRules::default() }, &author()).unwrap();
    let not_found = |err| matches!(err, Some(WorkspaceError::Repository(err)) if err.to_string().contains(&gone.to_hex()));
    assert!(not_found(main.restore(&gone, None, false, &author()).err()));
    assert!(not_found(branches.fork(&main, Some(&gone), "b", &author()).err()));
    assert!(not_found(branches.restore(&[(main.clone(), gone)], &author()).err()));
    assert_eq!((main.newest(), branches.repository().trouble()), (Some(newest), None));
}

/// It stood on the deleted checkpoint again, which gc then took.
#[test]
fn a_branch_comes_back_on_a_checkpoint_that_is_not_deleted() {
    let (_temp, branches) = store();
    let main = branches.open("main").unwrap();
    create(&main, "on main");
    let start = branches.fork(&main, None, "b", &author()).unwrap().head;
    create(&branches.open("b").unwrap(), "on b");
    branches.delete("b", &main, &author()).unwrap();
    let before_deleting = branches.repository().history().checkpoints().unwrap().remove(0).id;
    branches.repository().delete_checkpoint(&before_deleting, &author()).unwrap();
    branches.undo(&main, &author()).unwrap();
    assert_eq!(branches.repository().branch("b").unwrap().head, start);
    assert!(branches.repository().history().broken_references().is_empty());
    let back = branches.open("b").unwrap();
    assert!(back.lookup(ROOT, &Name::new(b"on b").unwrap()).unwrap().is_some());
    let again = back.checkpoint(&CheckpointRequest::new("again", author())).unwrap();
    assert!(again.created, "what it holds is in no checkpoint");
}

/// After a power cut on a file system that writes directories later than what is synced, as btrfs does: the journal's directory is
/// that of two checkpoints ago. The branch went back there.
#[test]
fn a_checkpoint_stays_when_the_names_of_newer_segments_never_reached_the_disk() {
    let (temp, branches) = store();
    let store = temp.path().join("store");
    let main = branches.open("main").unwrap();
    create(&main, "first");
    let journal = store.join("journal").join(main.branch_id().to_string());
    let on_disk: Vec<_> = std::fs::read_dir(&journal).unwrap().map(|entry| entry.unwrap().path()).collect();
    let on_disk: Vec<_> = on_disk.into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect();
    main.checkpoint(&CheckpointRequest::new("one", author())).unwrap();
    create(&main, "second");
    let newest = main.checkpoint(&CheckpointRequest::new("two", author())).unwrap().id;
    drop((main, branches));
    std::fs::remove_dir_all(&journal).unwrap();
    std::fs::create_dir(&journal).unwrap();
    on_disk.iter().for_each(|(bytes, path)| std::fs::write(path, bytes).unwrap());
    let main = Branches::new(Repository::open(&store).unwrap()).open("main").unwrap();
    assert_eq!(main.newest(), Some(newest));
    assert!(main.lookup(ROOT, &Name::new(b"second").unwrap()).unwrap().is_some());
}

/// A file that was synced and then removed came back empty after a power cut: the next mount had removed its bytes while the record of
/// the removal, which the daemon that was killed had written, was not durable.
#[test]
fn bytes_go_only_when_the_record_that_let_go_of_them_is_durable() {
    let (temp, branches) = store();
    let store = temp.path().join("store");
    let main = branches.open("main").unwrap();
    create(&main, "large");
    let name = Name::new(b"large").unwrap();
    let ino = main.lookup(ROOT, &name).unwrap().unwrap().ino;
    main.write_all(ino, 0, &[1; 1 << 20], false).unwrap();
    main.sync_file(ino).unwrap();
    main.unlink(ROOT, &name).unwrap();
    drop((main, branches)); // As when it is killed: nothing is written any more.
    let main = Branches::new(Repository::open(&store).unwrap()).open("main").unwrap();
    assert!(main.lookup(ROOT, &name).unwrap().is_none());
    let staged = || std::fs::read_dir(store.join("staging/1")).unwrap().count();
    assert_eq!(staged(), 1);
    main.sync().unwrap();
    assert_eq!(staged(), 0);
}

/// A branch that was deleted and brought back is opened anew. Whoever still had the old one moved the new one back.
#[test]
fn who_still_has_a_deleted_branch_open_cannot_move_the_one_that_came_back() {
    let (_temp, branches) = store();
    let main = branches.open("main").unwrap();
    create(&main, "on main");
    branches.fork(&main, None, "b", &author()).unwrap();
    let old = branches.open("b").unwrap();
    let start = old.newest().unwrap();
    create(&old, "on b");
    branches.delete("b", &main, &author()).unwrap();
    branches.undo(&main, &author()).unwrap();
    let back = branches.open("b").unwrap();
    create(&back, "later");
    let newest = back.checkpoint(&CheckpointRequest::new("later", author())).unwrap().id;
    let mut empty = CheckpointRequest::new("empty", author());
    empty.allow_empty = true;
    assert!(matches!(old.checkpoint(&empty), Err(WorkspaceError::NotFound(_))));
    assert!(matches!(old.restore(&start, None, false, &author()), Err(WorkspaceError::NotFound(_))));
    assert!(matches!(old.undo(&author()), Err(WorkspaceError::NotFound(_))));
    assert_eq!(branches.repository().branch("b").unwrap().head, Some(newest));
}

/// The store took over a staging file, and the process died before the transaction of that checkpoint; another's transaction had
/// named pieces of it. What is written to the file then must not go where they lie.
#[test]
fn a_file_that_was_given_away_keeps_its_bytes_when_the_checkpoint_never_came() {
    let (temp, branches) = store();
    let store = temp.path().join("store");
    let main = branches.open("main").unwrap();
    create(&main, "large");
    let ino = main.lookup(ROOT, &Name::new(b"large").unwrap()).unwrap().unwrap().ino;
    let mut state = 1_u64;
    let noise = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let bytes: Vec<u8> = (0..9 << 20).map(noise).collect();
    main.write_all(ino, 0, &bytes, false).unwrap();
    drop(main.seal().unwrap());
    let named = main.repository().sync_pending().unwrap();
    main.repository().history().place_objects(&named).unwrap();
    drop((main, branches));

    let main = Branches::new(Repository::open(&store).unwrap()).open("main").unwrap();
    let ino = main.lookup(ROOT, &Name::new(b"large").unwrap()).unwrap().unwrap().ino;
    main.write_all(ino, 1000, b"written later", false).unwrap();
    for (id, ..) in &named {
        main.repository().read_object(id).unwrap();
    }
    main.checkpoint(&CheckpointRequest::new("later", author())).unwrap();
    assert_eq!(main.read(ino, 990, 30).unwrap(), [&bytes[990..1000], b"written later", &bytes[1013..1020]].concat());
    let objects = std::fs::read_dir(store.join("objects")).unwrap();
    assert_eq!(objects.count(), 1, "it was given away once");
    let found = main.repository().verify(&crate::repository::Check { read_data: true, progress: &|_, _, _| {} });
    assert!(found.findings.is_empty(), "{:?}", found.findings);
}
