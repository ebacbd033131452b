//! What the zygote is started with, and where workers may write: nothing of the handler's environment, and a folder of
//! their own each.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};

use super::folders::make_passable;
use super::python::Python;
use super::remove::remove_tree;

/// The folder's name that paths in descriptions and tracebacks start with.
pub const ROOT_NAME: &str = "workspace";

const BOOTSTRAP: &str = "import sys; sys.path.insert(0, sys.argv[1]); from weft_runtime.__main__ import main; main()";

/// The names of the layers that every worker has of an engine that says nothing of it, in the order in which it enters them.
#[must_use]
pub fn posture() -> Vec<&'static str> {
    let mut layers = vec![
        "own_process",
        "empty_environment",
        "closed_descriptors",
        "rlimits",
        "process_group",
    ];
    if cfg!(target_os = "linux") {
        layers.extend(["subreaper", "non_dumpable", "no_new_privs"]);
        if super::meter::available().is_ok() {
            layers.push("memory_meter");
        }
    }
    layers
}

/// Keeps other processes of the same user from reading this one's memory and environment, workers first of all.
pub fn harden_self() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "the handler stays readable for other processes of its user");
    }
}

/// The command that becomes the zygote: no variable, the root folder, a process group of its own (so that Ctrl+C in a
/// terminal reaches the handler alone). Nothing here makes the standard library fork instead of `posix_spawn`, whose cost
/// does not grow with the handler's memory.
pub fn zygote_command(python: &Python, engine_dir: &Path, control: Stdio) -> Command {
    use std::os::unix::process::CommandExt;
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that starts the process in which user code runs"
    )]
    let mut command = Command::new(&python.path);
    command
        .args(["-I", "-S", "-B", "-c", BOOTSTRAP])
        .arg(engine_dir)
        .arg("zygote")
        .env_clear()
        .current_dir("/")
        .process_group(0)
        .stdin(control)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// A folder of this handler alone below the scratch folder, locked while it lives; each worker makes `w<id>` in it.
#[derive(Debug)]
pub struct Scratch {
    dir: PathBuf,
    _lock: File,
}

static POOLS: AtomicU64 = AtomicU64::new(0);

impl Scratch {
    /// Makes the folder `<pid>-<n>` below `root`, and removes the folders of handlers that have died. Where workers are other
    /// users they get through it to their own.
    ///
    /// # Errors
    /// When `root` can't be written.
    pub fn create(root: &Path) -> io::Result<Self> {
        make_passable(root)?;
        let root = root.canonicalize()?;
        remove_leftovers(&root);
        loop {
            let number = POOLS.fetch_add(1, Ordering::Relaxed);
            let dir = root.join(format!("{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) if rustix::process::geteuid().is_root() => {
                    fs::set_permissions(&dir, Permissions::from_mode(0o711))?;
                }
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            let Ok(lock) = File::open(&dir) else { continue };
            // Another handler that starts at this moment may have taken the folder for a leftover.
            let mine = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
                && matches!((lock.metadata(), fs::metadata(&dir)), (Ok(a), Ok(b)) if a.ino() == b.ino());
            if mine {
                return Ok(Self { dir, _lock: lock });
            }
        }
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of one worker; it is the worker that makes it.
    #[must_use]
    pub fn of_worker(&self, id: u64) -> PathBuf {
        self.dir.join(format!("w{id}"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.dir) {
            tracing::debug!(path = %self.dir.display(), %error, "scratch files stay until the next start");
        }
    }
}

fn remove_leftovers(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name
            .to_str()
            .and_then(|name| name.split_once('-'))
            .is_some_and(|(pid, number)| pid.parse::<u32>().is_ok() && number.parse::<u64>().is_ok());
        if !ours || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        let Ok(folder) = File::open(&path) else { continue };
        if flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok()
            && let Err(error) = remove_tree(&path)
        {
            tracing::warn!(path = %path.display(), %error, "scratch files of a dead handler can't be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_the_dead_are_removed_and_those_of_the_living_are_not() {
        let root = std::env::temp_dir().join(format!("weft-scratch-{}", std::process::id()));
        let living = Scratch::create(&root).unwrap();
        fs::create_dir_all(root.join("999999-0/w1/deep")).unwrap();
        fs::create_dir_all(root.join("unrelated")).unwrap();
        let other = Scratch::create(&root).unwrap();
        assert!(living.of_worker(1).parent().unwrap().is_dir());
        let is_root = rustix::process::geteuid().is_root();
        let mode = fs::metadata(living.dir()).unwrap().mode() & 0o777;
        assert_eq!(mode, if is_root { 0o711 } else { 0o700 });
        assert!(!root.join("999999-0").exists());
        assert!(root.join("unrelated").is_dir());
        drop((living, other));
        assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
        fs::remove_dir_all(&root).unwrap();
    }
}
