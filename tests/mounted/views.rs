//! One branch in several mounts and views at once, with writers in each of them.

use crate::mount::{TestMount, program, send_signal, succeeded};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// Far more than any of this takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Returns the tops of one branch in a mount, in a second mount and in a view below `branches/`.
fn three_views(mount: &TestMount) -> [PathBuf; 3] {
    let second = mount.outside("second");
    fs::create_dir(&second).unwrap();
    succeeded("second mount", program().arg("mount").arg(mount.store()).arg(&second).output().unwrap());
    [mount.top(), second, mount.control("branches/main")]
}

/// Runs `work` for each number in a thread of its own. Those that wait for each other for ever are freed by the daemon's end.
fn at_once<T: Send + 'static>(mount: &TestMount, many: usize, work: impl Fn(usize) -> T + Clone + Send + 'static) -> Vec<T> {
    let (sender, done) = mpsc::channel();
    for at in 0..many {
        let (sender, work) = (sender.clone(), work.clone());
        std::thread::spawn(move || sender.send(work(at)));
    }
    drop(sender); // So that one that fails is not waited for.
    let wait = |_| {
        done.recv_timeout(PATIENCE).unwrap_or_else(|err| {
            send_signal(mount.pid(), "KILL");
            panic!("they wait for each other, or one failed: {err}");
        })
    };
    (0..many).map(wait).collect()
}

fn appending(path: &Path) -> File {
    File::options().append(true).create(true).open(path).unwrap()
}

#[test]
fn what_is_appended_through_several_views_comes_one_behind_the_other() {
    let mount = TestMount::new();
    let views = three_views(&mount);
    // One after the other: each view's kernel believes in an end of its own.
    let mut files: Vec<File> = views.iter().map(|view| appending(&view.join("log"))).collect();
    let lines: Vec<String> = (0..30).map(|at| format!("line {at}\n")).collect();
    for (at, line) in lines.iter().enumerate() {
        files[at % 3].write_all(line.as_bytes()).unwrap();
    }
    for view in &views {
        assert_eq!(fs::read_to_string(view.join("log")).unwrap(), lines.concat(), "{}", view.display());
    }
    // All at once, and they all make it.
    let tops = views.clone();
    at_once(&mount, 6, move |who| {
        let mut file = appending(&tops[who % 3].join("shared"));
        for at in 0..300 {
            file.write_all(format!("{who} {at}\n").as_bytes()).unwrap();
        }
    });
    for view in &views {
        let text = fs::read_to_string(view.join("shared")).unwrap();
        let lines: HashSet<&str> = text.lines().collect();
        assert_eq!((text.lines().count(), lines.len()), (1800, 1800), "{}", view.display());
    }
}

#[test]
fn writers_in_several_views_never_wait_for_each_other() {
    let mount = TestMount::new();
    let views = three_views(&mount);
    fs::write(mount.path("file"), vec![b'.'; 6 * 4096]).unwrap();
    fs::create_dir(mount.path("dir")).unwrap();
    let tops = views.clone();
    at_once(&mount, 9, move |who| {
        use std::os::unix::fs::FileExt;
        let top = &tops[who % 3];
        let file = File::options().read(true).write(true).open(top.join("file")).unwrap();
        for at in 0..150 {
            // Parts of a page that is in no cache, which the kernel locks until the write is answered.
            file.write_all_at(b"x", (who * 1000 + at) as u64).unwrap();
            // Names in one directory, which it locks too; others that each maker wants.
            let own = top.join(format!("dir/{who}-{at}"));
            fs::write(&own, b"own").unwrap();
            fs::rename(&own, top.join(format!("dir/{who}"))).unwrap();
            let _ = fs::create_dir(top.join(format!("dir/both{}", at % 4)));
            let _ = fs::remove_dir(top.join(format!("dir/both{}", (at + 2) % 4)));
            file.set_len((6 * 4096 - (at % 2)) as u64).unwrap();
        }
    });
    let names = |view: &PathBuf| {
        let mut names: Vec<_> = fs::read_dir(view.join("dir")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        (names, fs::read(view.join("file")).unwrap())
    };
    let truth = names(&views[0]);
    assert!((0..9).all(|who| truth.0.contains(&format!("{who}").into())), "{truth:?}");
    assert!(views.iter().all(|view| names(view) == truth));
}

#[test]
fn those_who_open_or_make_a_file_through_several_views_all_get_it() {
    let mount = TestMount::new();
    let views = three_views(&mount);
    let tops = views.clone();
    let made: usize = at_once(&mount, 6, move |who| {
        let place = &tops[who % 3];
        let mut made = 0;
        for at in 0..200 {
            appending(&place.join(format!("for-all-{at}"))).write_all(b"+").unwrap();
            match File::options().write(true).create_new(true).open(place.join(format!("once-{at}"))) {
                Ok(_) => made += 1,
                Err(err) => assert_eq!(err.raw_os_error(), Some(libc::EEXIST), "{err}"),
            }
        }
        made
    })
    .into_iter()
    .sum();
    assert_eq!(made, 200);
    for view in &views {
        assert!((0..200).all(|at| fs::read(view.join(format!("for-all-{at}"))).unwrap() == b"++++++"), "{}", view.display());
    }
}

#[test]
fn restores_beside_writers_in_several_views_leave_one_truth_in_all() {
    let mount = TestMount::new();
    let views = three_views(&mount);
    fs::create_dir(mount.path("dir")).unwrap();
    mount.checkpoint("begin");
    let tops = views.clone();
    at_once(&mount, 7, move |who| {
        let top = &tops[who % 3];
        for at in 0..60 {
            if who == 6 {
                let request =
                    if at % 2 == 0 { r#"{"do":"checkpoint","message":"beside"}"# } else { r#"{"do":"restore","ref":"@~1"}"# };
                let _ = fs::write(top.join(format!(".memento/requests/{at}")), request); // There is no @~1 when nothing changed.
                continue;
            }
            // What a restore takes away meanwhile is not there; nothing else goes wrong.
            let path = top.join(format!("dir/{}", (who * 7 + at) % 10));
            let moved = top.join(format!("dir/{}", at % 10));
            let results = [
                File::options().append(true).create(true).open(&path).and_then(|mut file| file.write_all(b"more")),
                fs::rename(&path, &moved),
                fs::read(&moved).map(drop),
                fs::remove_file(&path),
            ];
            for err in results.into_iter().filter_map(Result::err) {
                assert_eq!(err.raw_os_error(), Some(libc::ENOENT), "{err}");
            }
        }
    });
    let everything = |view: &PathBuf| {
        let mut found: Vec<_> = fs::read_dir(view.join("dir"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name(), entry.metadata().unwrap().len(), fs::read(entry.path()).unwrap()))
            .collect();
        found.sort();
        found
    };
    let truth = everything(&views[0]);
    assert!(views.iter().all(|view| everything(view) == truth));
    assert!(!mount.log().contains("fault of our own"), "{}", mount.log());
}
