//! The file systems that are compared, all on one image: ext4 with a journal in memory, so that no disk is measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where client and daemon run when they are to share a processor.
pub const PINNED_CPU: &str = "0";
const IMAGE_BYTES: u64 = 8 << 30;

/// The image that everything lies on; it goes with this value.
pub struct Ground {
    dir: tempfile::TempDir,
}

/// A file system that is ready.
pub struct Subject {
    /// What the table calls it.
    pub name: String,
    /// Where to work.
    pub top: PathBuf,
    /// Its daemon, when it has one.
    daemon: Option<Child>,
}

fn quiet(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|err| format!("{}: {err}", command.get_program().display()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")),
    }
}

impl Ground {
    /// Makes the image and mounts it.
    pub fn prepare() -> Self {
        let dir = tempfile::Builder::new().prefix("mementofs-bench-").tempdir().expect("a temporary directory");
        let ground = Self { dir };
        let (memory, disk) = (ground.path("memory"), ground.path("disk"));
        fs::create_dir(&memory).and_then(|()| fs::create_dir(&disk)).expect("directories");
        let made = succeed(quiet("mount").args(["-t", "tmpfs", "-o", "size=90%", "bench"]).arg(&memory)).and_then(|()| {
            let image = memory.join("image");
            fs::File::create(&image).and_then(|file| file.set_len(IMAGE_BYTES)).map_err(|err| err.to_string())?;
            succeed(quiet("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
            succeed(quiet("mount").args(["-o", "loop"]).arg(&image).arg(&disk))
        });
        made.unwrap_or_else(|why| panic!("the image cannot be made (root is needed): {why}"));
        ground
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns where the assets lie: in memory, and not on the image.
    pub fn assets(&self) -> PathBuf {
        self.path("memory/assets")
    }

    /// Mounts the file systems by name; returns those that cannot be had with the reason.
    pub fn mount(&self, names: &[String]) -> (Vec<Subject>, Vec<(String, String)>) {
        let (mut subjects, mut missing) = (Vec::new(), Vec::new());
        for name in names {
            match self.mount_one(name) {
                Ok(subject) => subjects.push(subject),
                Err(why) => missing.push((name.clone(), why)),
            }
        }
        (subjects, missing)
    }

    fn mount_one(&self, name: &str) -> Result<Subject, String> {
        let base = self.path("disk").join(name);
        let top = self.path(&format!("top-{name}"));
        let made = |path: &Path| fs::create_dir_all(path).map_err(|err| err.to_string());
        let layers = ["lower", "upper", "work"].map(|layer| base.join(layer));
        made(&top)?;
        layers.iter().try_for_each(|layer| made(layer))?;
        let [lower, upper, work] = layers.map(|layer| layer.display().to_string());
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        let mut daemon = None;
        match name {
            "native" => return Ok(Subject { name: name.to_owned(), top: base, daemon: None }),
            "overlayfs" => succeed(quiet("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&top))?,
            "fuse-overlayfs" => {
                daemon = Some(self.start(quiet("fuse-overlayfs").args(["-f", "-o", &options]).arg(&top), &top)?);
            }
            "bindfs" => daemon = Some(self.start(quiet("bindfs").arg("-f").arg(&lower).arg(&top), &top)?),
            "branchfs" => {
                let mut command = quiet(&peer("branchfs"));
                command.args(["mount", "--base", &lower, "--storage", &upper]).arg(&top);
                daemon = Some(self.start(&mut command, &top)?);
            }
            "agentvfs" => {
                let mut command = quiet(&peer("avfs"));
                succeed(quiet(&peer("avfs")).current_dir(&base).args(["vault", "create", "bench"]).env("HOME", &base))?;
                command.current_dir(&base).env("HOME", &base).args(["mount", "bench", "--foreground"]).arg(&top);
                daemon = Some(self.start(&mut command, &top)?);
            }
            _ => {
                let mode = name.strip_prefix("mementofs-").ok_or("it is not known")?;
                let mut command = quiet(env!("CARGO_BIN_EXE_mementofs"));
                command.args(["mount", "-f", "--io", mode]).arg(base.join("store")).arg(&top);
                daemon = Some(self.start(&mut command, &top)?);
            }
        }
        Ok(Subject { name: name.to_owned(), top, daemon })
    }

    /// Starts a daemon and waits until its mount is there.
    fn start(&self, command: &mut Command, top: &Path) -> Result<Child, String> {
        const PATIENCE: Duration = Duration::from_secs(10);
        let mut child = command.spawn().map_err(|err| format!("{}: {err}", command.get_program().display()))?;
        let begun = Instant::now();
        while !is_mount(top) {
            if let Ok(Some(status)) = child.try_wait()
                && !(status.success() && begun.elapsed() < PATIENCE)
            {
                let mut message = String::new();
                let _ = child.stderr.take().map(|mut errors| std::io::Read::read_to_string(&mut errors, &mut message));
                return Err(format!("{status}: {}", message.trim().replace('\n', "; ")));
            }
            if begun.elapsed() > PATIENCE {
                let _ = child.kill();
                return Err("it did not mount".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(child)
    }
}

/// Peers that cargo installed lie in a folder of the benchmark.
fn peer(program: &str) -> String {
    match std::env::var_os("MEMENTOFS_BENCH_PEERS") {
        Some(folder) => Path::new(&folder).join("bin").join(program).display().to_string(),
        None => program.to_owned(),
    }
}

fn is_mount(top: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let path = top.display().to_string();
    table.lines().any(|line| line.split(' ').nth(4) == Some(&path))
}

impl Subject {
    /// Puts the daemon on the processor of the client, or lets it run anywhere.
    pub fn pin(&self, pinned: bool) {
        if let Some(daemon) = &self.daemon {
            let last = std::thread::available_parallelism().map_or(0, |count| count.get() - 1);
            let all = format!("0-{last}");
            let processors = if pinned { PINNED_CPU } else { &all };
            let _ = succeed(quiet("taskset").args(["-acp", processors, &daemon.id().to_string()]));
        }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if is_mount(&self.top) {
            let _ = succeed(quiet("umount").arg(&self.top)).or_else(|_| succeed(quiet("umount").arg("-l").arg(&self.top)));
        }
        if let Some(daemon) = &mut self.daemon {
            let begun = Instant::now();
            while matches!(daemon.try_wait(), Ok(None)) && begun.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for name in ["disk", "memory"] {
            let path = self.path(name);
            let _ = succeed(quiet("umount").arg(&path)).or_else(|_| succeed(quiet("umount").arg("-l").arg(&path)));
        }
    }
}
