//! The history as its users see it.

use super::*;
use crate::object::{Author, Commit, CommitKind, Container, Encoding, ExternalLink, Location, ObjectId, ObjectKind, Timestamp};

struct Fixture {
    history: History,
    branch: BranchRow,
    path: std::path::PathBuf,
    _temp: tempfile::TempDir,
}

fn state(head: Option<ObjectId>, root: ObjectId) -> BranchState {
    BranchState { head, live_root: root, journal_seq: 1 }
}

fn fixture() -> Fixture {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store.db");
    let history = History::create(&path).unwrap();
    history.create_branch("main", &state(None, ObjectId::of(b"empty")), &[], Timestamp::now()).unwrap();
    let branch = history.branch("main").unwrap();
    Fixture { history, branch, path, _temp: temp }
}

fn location(at: u64) -> Location {
    Location { container: Container::Pack(1), offset: at, stored_bytes: 10, size_bytes: 20, encoding: Encoding::Zstd }
}

impl Fixture {
    fn commit(
        &self,
        number: u64,
        parent: Option<ObjectId>,
        name: Option<&str>,
        links: &[ExternalLink],
    ) -> Result<ObjectId, HistoryError> {
        let root = ObjectId::of(&number.to_le_bytes());
        let commit = Commit {
            parent,
            root,
            time: Timestamp { secs: number as i64, nanos: 0 },
            message: format!("number {number}"),
            metadata: "{}".into(),
            links: links.to_vec(),
            branch: "main".into(),
            author: Author::default(),
            kind: CommitKind::Manual,
        };
        let memento = Memento {
            path: b"file".to_vec(),
            change: "modified",
            from_path: None,
            object: Some(root),
            size_bytes: Some(1),
            mode: Some(0o100_644),
        };
        let objects: Vec<NewObject> = (0u8..3)
            .map(|at| {
                (
                    ObjectId::of(&[&number.to_le_bytes()[..], &[at]].concat()),
                    ObjectKind::Blob,
                    location(number * 100 + u64::from(at)),
                )
            })
            .collect();
        let id = commit.id();
        let new = NewCommit {
            merge: None,
            id,
            commit: &commit,
            name,
            mementos: &[memento],
            bytes_changed: 1,
            reused: &[],
            objects: &objects,
            branch_id: self.branch.id,
            state: state(Some(id), root),
            before_root: ObjectId::of(b"empty"),
        };
        self.history.record_commit(&new).map(|()| id)
    }

    fn counts(&self) -> Vec<i64> {
        let connection = Connection::open(&self.path).unwrap();
        let tables = ["file_commits", "file_mementos", "checkpoint_file_links", "operations", "outbox", "file_blobs"];
        let count = |table: &&str| connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        tables.iter().map(count).collect()
    }
}

fn link(id: &str) -> ExternalLink {
    ExternalLink { system: "langgraph".into(), external_id: id.into() }
}

#[test]
fn every_form_of_reference_finds_its_checkpoint() {
    let fixture = fixture();
    let first = fixture.commit(1, None, Some("start"), &[link("t/1")]).unwrap();
    let second = fixture.commit(2, Some(first), None, &[]).unwrap();
    let resolve = |reference: &str| fixture.history.resolve(reference, "main");
    assert_eq!(resolve("@").unwrap(), second);
    assert_eq!(resolve("@~1").unwrap(), first);
    assert_eq!(resolve("start").unwrap(), first);
    assert_eq!(resolve(&first.to_hex()[..8]).unwrap(), first);
    assert_eq!(resolve("branch/main").unwrap(), second);
    assert_eq!(resolve("langgraph:t/1").unwrap(), first);
    assert!(matches!(resolve("branch/none"), Err(HistoryError::NoBranch { .. })));
    for bad in ["@~2", "nothing", "ab", "langgraph:t/2", "@x", ""] {
        assert!(matches!(resolve(bad), Err(HistoryError::NotFound { .. })), "{bad}");
    }
}

#[test]
fn an_ambiguous_prefix_is_said_to_be_one() {
    let fixture = fixture();
    let mut parent = None;
    let mut seen = std::collections::HashMap::new();
    for number in 0..2000 {
        let id = fixture.commit(number, parent, None, &[]).unwrap();
        parent = Some(id);
        if seen.insert(id.to_hex()[..4].to_owned(), id).is_some() {
            let ambiguous = fixture.history.resolve(&id.to_hex()[..4], "main");
            assert!(matches!(ambiguous, Err(HistoryError::Ambiguous { .. })));
            return;
        }
    }
    panic!("no two ids with the same four digits among 2000");
}

#[test]
fn a_refused_commit_leaves_nothing_behind() {
    let fixture = fixture();
    let first = fixture.commit(1, None, Some("taken"), &[]).unwrap();
    let before = fixture.counts();
    assert!(matches!(fixture.commit(2, Some(first), Some("taken"), &[link("x")]), Err(HistoryError::NameTaken { .. })));
    assert!(matches!(fixture.commit(3, Some(first), Some("abcd"), &[]), Err(HistoryError::BadName { .. })));
    assert_eq!(fixture.counts(), before);
    assert_eq!(fixture.history.branch("main").unwrap().head, Some(first));
}

#[test]
fn each_fact_leaves_one_event_in_order() {
    let fixture = fixture();
    let first = fixture.commit(1, None, None, &[]).unwrap();
    let second = fixture.commit(2, Some(first), None, &[]).unwrap();
    let author = Author::default();
    fixture.history.attach(&second, Some("named"), &[link("a")], &author, Timestamp::now()).unwrap();
    fixture.history.attach(&second, Some("named"), &[link("a")], &author, Timestamp::now()).unwrap(); // Nothing new.
    fixture.history.delete_checkpoint(&first, &author).unwrap();
    let events = fixture.history.events_since(0, 100).unwrap();
    let types: Vec<_> = events.iter().map(|event| event.event_type.as_str()).collect();
    assert_eq!(types, ["checkpoint.created", "checkpoint.created", "checkpoint.attached", "checkpoint.deleted"]);
    assert!(fixture.history.resolve("@~1", "main").is_err());
    assert!(matches!(fixture.history.delete_checkpoint(&second, &author), Err(HistoryError::InUse { .. })));
}

/// A restore that reads a checkpoint, a deletion of it and gc may come in this order; the branch must not stand on what is gone.
#[test]
fn a_branch_never_moves_to_a_deleted_checkpoint_nor_takes_from_one() {
    let fixture = fixture();
    let first = fixture.commit(1, None, None, &[]).unwrap();
    let second = fixture.commit(2, Some(first), None, &[]).unwrap();
    let third = fixture.commit(3, Some(second), None, &[]).unwrap();
    let author = Author::default();
    let to = |head, source| {
        let moved = Move {
            operation: "restore",
            branch_id: fixture.branch.id,
            branch: "main",
            before: (Some(third), ObjectId::of(&3u64.to_le_bytes())),
            after: state(Some(head), ObjectId::of(&1u64.to_le_bytes())),
            source,
            author: &author,
            detail: &serde_json::json!({}),
        };
        fixture.history.record_moves(&[moved], &[])
    };
    fixture.history.delete_checkpoint(&second, &author).unwrap();
    assert!(matches!(to(second, None), Err(HistoryError::NotFound { .. })));
    assert!(matches!(to(third, Some(second)), Err(HistoryError::NotFound { .. })));
    to(first, Some(first)).unwrap();
    assert_eq!(fixture.history.last_movement(fixture.branch.id).unwrap().unwrap().head, Some(third));
    fixture.history.delete_checkpoint(&third, &author).unwrap();
    assert_eq!(fixture.history.last_movement(fixture.branch.id).unwrap().unwrap().head, Some(first));
}

#[test]
fn an_external_id_names_the_checkpoint_it_was_tied_to_last() {
    let fixture = fixture();
    let first = fixture.commit(1, None, None, &[link("a")]).unwrap();
    let second = fixture.commit(2, Some(first), None, &[link("a"), link("b/c")]).unwrap();
    assert_eq!(fixture.history.link("langgraph", "a").unwrap(), Some(second));
    assert_eq!(fixture.history.links_of(&first).unwrap(), []);
    assert_eq!(fixture.history.links_in("langgraph").unwrap().len(), 2);
}

#[test]
fn a_newer_database_is_refused_by_name() {
    let fixture = fixture();
    Connection::open(&fixture.path).unwrap().pragma_update(None, "user_version", 7).unwrap();
    assert!(matches!(History::open(&fixture.path), Err(HistoryError::Newer { found: 7, .. })));
}

#[test]
fn the_database_grows_by_little_for_each_checkpoint() {
    const COMMITS: u64 = 1000;
    const BYTES_EACH_MAX: u64 = 3000;
    let fixture = fixture();
    let mut parent = None;
    for number in 0..COMMITS {
        parent = Some(fixture.commit(number, parent, None, &[]).unwrap());
    }
    fixture.history.shrink().unwrap();
    let each = std::fs::metadata(&fixture.path).unwrap().len() / COMMITS;
    assert!(each < BYTES_EACH_MAX, "{each} bytes a commit");
}

#[test]
fn nothing_in_the_file_of_the_database_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let history = super::History::create(&dir.path().join("store.db")).unwrap();
    for connection in [&history.writer, &history.reader, &history.scanner] {
        let connection = connection.lock().unwrap();
        let value = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!((value("trusted_schema"), value("cell_size_check"), value("synchronous")), (0, 1, 2));
        let _ = connection.execute_batch("PRAGMA writable_schema = ON");
        assert!(connection.execute("UPDATE sqlite_schema SET sql = 'x'", []).is_err(), "defensive");
    }
}

/// Two who rename one name at once: the second found the name when it looked, and took away the one that the first had given.
#[test]
fn a_name_that_somebody_else_moved_meanwhile_is_not_found() {
    let fixture = fixture();
    let id = fixture.commit(1, None, Some("first"), &[]).unwrap();
    let rename = |from: &str, to| fixture.history.set_name(&id, Some(from), to, &Author::default());
    rename("first", Some("second")).unwrap();
    assert!(matches!(rename("first", Some("third")), Err(HistoryError::NotFound { .. })));
    assert!(matches!(rename("first", None), Err(HistoryError::NotFound { .. })));
    assert_eq!(fixture.history.names_of(&id).unwrap(), ["second"]);
    rename("second", None).unwrap();
    assert!(fixture.history.names_of(&id).unwrap().is_empty());
}

/// gc looks at the names first and deletes afterwards, one transaction for each: what was named in between went.
#[test]
fn a_rule_deletes_nothing_that_has_a_name_or_a_link_by_then_and_nothing_that_a_branch_stands_on() {
    let fixture = fixture();
    let (first, author) = (fixture.commit(1, None, None, &[]).unwrap(), Author::default());
    let second = fixture.commit(2, Some(first), None, &[]).unwrap();
    let newest = fixture.commit(3, Some(second), None, &[]).unwrap();
    fixture.history.set_name(&first, None, Some("kept"), &author).unwrap();
    let link = ExternalLink { system: "ci".into(), external_id: "7".into() };
    fixture.history.attach(&second, None, std::slice::from_ref(&link), &author, Timestamp::now()).unwrap();
    for id in [first, second, newest] {
        assert!(!fixture.history.delete_unless_kept(&id, &author).unwrap());
    }
    assert_eq!(fixture.history.resolve("kept", "main").unwrap(), first);
    fixture.history.set_name(&first, Some("kept"), None, &author).unwrap();
    assert!(fixture.history.delete_unless_kept(&first, &author).unwrap());
    assert!(!fixture.history.delete_unless_kept(&first, &author).unwrap());
}

/// The name would lead nowhere, and no other checkpoint could have it.
#[test]
fn a_checkpoint_that_was_deleted_meanwhile_takes_no_name_and_no_link() {
    let fixture = fixture();
    let (first, author) = (fixture.commit(1, None, None, &[]).unwrap(), Author::default());
    let second = fixture.commit(2, Some(first), None, &[]).unwrap();
    fixture.history.delete_checkpoint(&first, &author).unwrap();
    let link = ExternalLink { system: "ci".into(), external_id: "7".into() };
    assert!(fixture.history.set_name(&first, None, Some("late"), &author).is_err());
    assert!(fixture.history.attach(&first, Some("late"), &[], &author, Timestamp::now()).is_err());
    assert!(fixture.history.attach(&first, None, std::slice::from_ref(&link), &author, Timestamp::now()).is_err());
    fixture.history.set_name(&second, None, Some("late"), &author).unwrap();
}
