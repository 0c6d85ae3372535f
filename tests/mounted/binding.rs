//! What other programs rely on word for word, where it once was otherwise.

use crate::mount::{SetOnDrop, TestMount, program};
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The kernel puts what is written into the pages of a file before it asks whether it may.
#[test]
fn who_reads_a_control_file_never_finds_the_command_that_another_is_writing() {
    let mount = TestMount::new();
    mount.write("file", "0");
    mount.checkpoint("the first");
    let done = AtomicBool::new(false);
    let is_id = |text: &str| text.len() == 65 && text.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit());
    std::thread::scope(|scope| {
        let mut readers = Vec::new();
        for stays_open in [true, false] {
            let (mount, done) = (&mount, &done);
            readers.push(scope.spawn(move || {
                let kept = fs::File::open(mount.control("checkpoint")).unwrap();
                let mut odd = Vec::new();
                let mut seen = std::collections::HashSet::new();
                while !done.load(Ordering::SeqCst) {
                    let mut text = String::new();
                    if stays_open {
                        let mut bytes = [0; 4096];
                        let len = std::os::unix::fs::FileExt::read_at(&kept, &mut bytes, 0).unwrap();
                        text += &String::from_utf8_lossy(&bytes[..len]);
                    } else {
                        fs::File::open(mount.control("checkpoint")).unwrap().read_to_string(&mut text).unwrap();
                    }
                    if !is_id(&text) {
                        odd.push(text);
                    } else {
                        seen.insert(text);
                    }
                }
                (odd, seen.len())
            }));
        }
        let set = SetOnDrop(&done);
        for at in 0..60 {
            mount.write("file", at.to_string());
            mount.tell(
                "checkpoint",
                format!("number {at}: a message that is as long as an id is, or a little longer than that\n"),
            );
        }
        drop(set);
        for reader in readers {
            let (odd, seen) = reader.join().unwrap();
            assert!(odd.is_empty(), "{} readings were none of the file's: {:?}", odd.len(), odd[0]);
            assert!(seen > 1, "the readers saw new ids come");
        }
    });
    assert_eq!(mount.says("checkpoint").trim(), mount.newest());
    // A refused command leaves nothing behind either, for the process that wrote it.
    mount.refusal("restore", "no such checkpoint, and a long sentence about it");
    assert_eq!(mount.says("restore"), "{}\n");
}

#[test]
fn a_path_to_restore_is_taken_as_it_is_written() {
    let mount = TestMount::new();
    mount.write("note", "1");
    mount.write("note ", "1");
    mount.write(" note", "1");
    let first = mount.checkpoint("first");
    for name in ["note", "note ", " note"] {
        mount.write(name, "2");
    }
    mount.checkpoint("second");
    mount.tell("restore", format!("{first} note \n"));
    assert_eq!([mount.read("note"), mount.read("note "), mount.read(" note")], ["2", "1", "2"]);
    mount.tell("restore", format!("{first}  note\n"));
    assert_eq!([mount.read("note"), mount.read(" note")], ["2", "1"]);
    assert_eq!(mount.refusal("restore", format!("{first}   note\n")), libc::ENOENT);
}

#[test]
fn a_name_or_an_external_id_with_spaces_is_restored_by_a_line() {
    let mount = TestMount::new();
    mount.write("file", "1");
    fs::create_dir(mount.control("checkpoints/before the refactoring")).unwrap();
    mount.tell("checkpoint", r#"{"links":{"notes":"page 7, line 2"}}"#);
    for line in ["before the refactoring\n", "notes:page 7, line 2\n"] {
        mount.write("file", "2");
        mount.tell("restore", line);
        assert_eq!(mount.read("file"), "1", "{line}");
    }
    assert_eq!(mount.refusal("restore", "before the flood\n"), libc::ENOENT);
}

#[test]
fn an_external_id_that_no_file_can_be_named_by_has_a_link_too() {
    let mount = TestMount::new();
    mount.write("file", "1");
    mount.checkpoint(r#"{"links":{"sys":".."}}"#);
    mount.checkpoint(r#"{"links":{"sys":"."}}"#);
    assert_eq!(mount.shell("ls -A .memento/links/sys"), "%2E\n%2E%2E\n");
    for name in ["%2E", "%2E%2E"] {
        assert_eq!(fs::read_to_string(mount.control(format!("links/sys/{name}/file"))).unwrap(), "1");
    }
}

#[test]
fn of_many_restores_that_expect_the_same_one_is_done() {
    let mount = TestMount::new();
    for text in ["1", "2", "3"] {
        mount.write("file", text);
        mount.checkpoint(text);
    }
    for round in 0..5 {
        let expect = mount.newest();
        let asked = |at: usize| {
            let command = json!({ "do": "restore", "ref": "@~1", "expect": expect }).to_string();
            fs::write(mount.control(format!("requests/{round}-{at}")), command).map_err(|err| err.raw_os_error())
        };
        let asked = &asked;
        let done = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6).map(|at| scope.spawn(move || asked(at))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1, "{done:?}");
        assert!(done.iter().all(|done| done.is_ok() || *done == Err(Some(libc::ESTALE))), "{done:?}");
        assert_eq!(mount.read("file"), "2");
        mount.tell("undo", "x");
        assert_eq!((mount.read("file").as_str(), mount.newest()), ("3", expect.clone()));
    }
}

#[test]
fn a_further_mount_is_kept_apart_from_the_store_and_from_what_is_mounted() {
    let mount = TestMount::new();
    let asked = |path: &std::path::Path| mount.request(&json!({ "do": "mount", "path": path, "branch": "main" }));
    let sentence = |path: &std::path::Path| asked(path)["error"].as_str().unwrap_or_default().to_owned();
    let store = mount.store();
    for point in [store.clone(), store.join("objects"), store.parent().unwrap().to_owned()] {
        assert!(sentence(&point).contains("lie within one another"), "{}", sentence(&point));
    }
    let link = mount.outside("link");
    std::os::unix::fs::symlink(&store, &link).unwrap();
    assert!(sentence(&link).contains("lie within one another"), "{}", sentence(&link));
    assert!(sentence(&mount.top()).contains("is a mount point already"), "{}", sentence(&mount.top()));
    assert!(sentence(&mount.outside("absent")).contains("does not exist"), "{}", sentence(&mount.outside("absent")));
    let file = mount.outside("file");
    fs::write(&file, "x").unwrap();
    assert!(sentence(&file).contains("not a directory"), "{}", sentence(&file));
    mount.write("still", "served");
    assert_eq!(mount.read("still"), "served");
}

#[test]
fn a_directory_that_cannot_be_imported_is_named_with_the_errno_that_says_why() {
    let mount = TestMount::new();
    let file = mount.outside("file");
    fs::write(&file, "x").unwrap();
    let absent = mount.outside("absent");
    for (from, errno, why) in [
        (absent.to_str().unwrap(), libc::ENOENT, "does not exist"),
        (file.to_str().unwrap(), libc::EINVAL, "not a directory"),
        ("relative/path", libc::EINVAL, "not an absolute path"),
    ] {
        let request = json!({ "do": "import", "from": from }).to_string();
        let failed = fs::write(mount.control("requests/import"), request).unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(errno), "{from}");
        let sentence = mount.says("error");
        assert!(sentence.contains(from) && sentence.contains(why), "{sentence}");
    }
    let output = mount.cli(&["import", file.to_str().unwrap()]);
    assert!(said(&output).contains(file.to_str().unwrap()), "{}", said(&output));
}

#[test]
fn an_export_goes_to_standard_output_from_anywhere_and_never_into_the_store() {
    let mount = TestMount::new();
    mount.write("file", "content");
    mount.checkpoint("one");
    let tar = program().args(["export", "@", "-", "--tar"]).current_dir(mount.top()).output().unwrap();
    assert!(tar.status.success() && tar.stdout.len() > 512, "{}", said(&tar));
    let untold = program().args(["export", "@", "-"]).current_dir(mount.top()).output().unwrap();
    assert_eq!(untold.status.code(), Some(2), "{}", said(&untold));
    let link = mount.outside("link");
    std::os::unix::fs::symlink(mount.store(), &link).unwrap();
    for (place, what) in [(mount.store().join("out"), "store"), (link.join("out.tar"), "store"), (mount.path("out"), "workspace")]
    {
        let output = mount.cli(&["export", "@", place.to_str().unwrap()]);
        assert!(!output.status.success() && said(&output).contains(&format!("inside the {what}")), "{}", said(&output));
        assert!(!place.exists());
    }
}

#[test]
fn exit_codes_tell_wrong_arguments_and_what_cannot_be_checked_from_failures() {
    let mut mount = TestMount::new();
    mount.write("file", "1");
    for arguments in [&["checkpoint", "--link", "no-colon"][..], &["checkpoint", "--meta", "[]"], &["restore", "@", "a", "b"]] {
        assert_eq!(mount.cli(arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(mount.cli(&["restore", "nothing"]).status.code(), Some(1));
    let absent = mount.outside("absent");
    assert_eq!(program().arg("fsck").arg(&absent).output().unwrap().status.code(), Some(2));
    // What a mount says in JSON, a store that is not mounted says too.
    let mounted: Value = serde_json::from_str(&mount.cli_ok(&["stats", "--json"])).unwrap();
    let text = mount.cli_ok(&["stats"]);
    mount.terminate();
    let store = mount.store();
    let direct = program().args(["stats", "--json", "--store"]).arg(&store).output().unwrap();
    let direct: Value = serde_json::from_slice(&direct.stdout).unwrap();
    assert_eq!((&mounted["ok"], &direct["ok"]), (&json!(true), &json!(true)));
    assert!(text.contains("checkpoints") && !text.lines().any(|line| line.starts_with("ok ")), "{text}");
}

#[test]
fn commands_find_the_control_directory_by_whatever_name_it_has() {
    let mut mount = TestMount::unmounted();
    mount.mount(&["-o", "control=.history"]);
    mount.write("file", "1");
    mount.write(".memento/requests/mine", "this one is the user's");
    mount.cli_ok(&["checkpoint", "-m", "one"]);
    assert!(mount.cli_ok(&["log"]).contains("one"));
    mount.cli_ok(&["branch", "side"]);
    assert!(mount.cli_ok(&["log", "--branch", "side"]).contains("one"));
    let store = mount.store();
    assert!(mount.cli_ok(&["status", "--store", store.to_str().unwrap()]).is_empty());
    let other = mount.outside("other");
    fs::create_dir(&other).unwrap();
    mount.cli_ok(&["mount", store.to_str().unwrap(), other.to_str().unwrap(), "--branch", "side"]);
    assert_eq!(fs::read_to_string(other.join("file")).unwrap(), "1");
    assert!(mount.cli_ok(&["log", "--at", other.to_str().unwrap()]).contains("one"), "it has the usual name there");
    mount.cli_ok(&["umount", other.to_str().unwrap()]);
    assert!(mount.cli_ok(&["run", store.to_str().unwrap(), "--", "cat", "file"]).contains("nothing changed"));
    assert_eq!(xattr::list(mount.top()).unwrap().count(), 0, "the attribute that says the name is not listed");
    for nowhere in ["../..", "..", "side/..", ""] {
        assert!(!mount.cli(&["log", "--branch", nowhere]).status.success(), "{nowhere}");
    }
}

#[test]
fn no_checkpoint_takes_the_name_that_leads_to_the_newest() {
    let mount = TestMount::new();
    let made = fs::create_dir(mount.control("checkpoints/latest")).unwrap_err();
    assert_eq!((made.raw_os_error(), mount.says("log").as_str()), (Some(libc::EEXIST), ""));
    mount.write("file", "1");
    assert_eq!(mount.refusal("checkpoint", r#"{"name":"latest"}"#), libc::EEXIST);
    let id = mount.checkpoint(r#"{"name":"one"}"#);
    let renamed = fs::rename(mount.control("checkpoints/one"), mount.control("checkpoints/latest")).unwrap_err();
    assert!(matches!(renamed.raw_os_error(), Some(libc::EEXIST | libc::ENOTDIR)), "{renamed}");
    assert_eq!(sorted(&mount.shell("ls .memento/checkpoints")), sorted(&format!("{id}\nlatest\none\n")));
    mount.cli_ok(&["branch", "latest"]); // Branches stand elsewhere.
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn paths_that_are_not_utf_8_are_restored_and_imported_from_the_command_line() {
    use std::os::unix::ffi::OsStrExt;
    let mount = TestMount::new();
    let odd = std::ffi::OsStr::from_bytes;
    let names = [odd(b"a\xffb"), odd(b"\"quoted\""), odd(b"new\nline"), odd(b" spaces ")];
    for name in names {
        fs::write(mount.path(name), "1").unwrap();
    }
    let id = mount.checkpoint("odd names");
    let outside = mount.outside("").join(odd(b"host\xff"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("in it"), "x").unwrap();
    for name in names {
        fs::write(mount.path(name), "2").unwrap();
        let output = program().args(["restore", &id]).arg(name).current_dir(mount.top()).output().unwrap();
        assert!(output.status.success(), "{name:?}: {}", said(&output));
        assert_eq!(fs::read_to_string(mount.path(name)).unwrap(), "1", "{name:?}");
    }
    let into = odd(b"here\xfe");
    let output = program().arg("import").arg(&outside).arg("--into").arg(into).current_dir(mount.top()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(fs::read_to_string(mount.path(into).join("in it")).unwrap(), "x");
}
