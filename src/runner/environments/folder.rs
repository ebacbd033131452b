//! An environment on disk: `<data>/envs/<digest>/` with `lib/`, `manifest.json`, `build.log`.
//!
//! It is whole when it has a manifest, which is written last. Whoever builds or removes holds the lock `<digest>.lock`, and
//! so does the resolver that it has started: nobody begins anew while the orphan of a killed handler still writes.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;

/// A package of an environment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// The version that was chosen.
    pub version: String,
}

/// What is in an environment, and how it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Its name.
    pub digest: String,
    /// What was asked for.
    pub requirements: Vec<String>,
    /// What came of it.
    pub packages: Vec<Package>,
    /// Version of the interpreter that it was made for.
    pub python: String,
    /// `uv 0.9.0` or `pip 24.0`.
    pub resolver: String,
    /// When it was ready.
    pub built_at: Timestamp,
    /// How long that took.
    pub build_ms: u64,
    /// Size of everything in it.
    pub bytes: u64,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// One sentence.
    pub message: String,
    /// The resolver's last lines.
    pub last_lines: Vec<String>,
    /// When.
    pub at: Timestamp,
    /// How long it took.
    pub build_ms: u64,
}

/// The folder of one environment, made or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    root: PathBuf,
    digest: String,
}

/// The exclusive right to write to a folder. The kernel takes it back when everybody who has it open has ended.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// The same right, for a child.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn share(&self) -> io::Result<File> {
        self.0.try_clone()
    }
}

impl Folder {
    /// Of this digest, below `root`.
    #[must_use]
    pub fn new(root: &Path, digest: &str) -> Self {
        Self {
            root: root.to_owned(),
            digest: digest.to_owned(),
        }
    }

    /// All that there are below `root`.
    #[must_use]
    pub fn all(root: &Path) -> Vec<Self> {
        let entries = fs::read_dir(root).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| is_digest(name))
            .map(|name| Self::new(root, &name))
            .collect()
    }

    /// Its name.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The folder itself.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.root.join(&self.digest)
    }

    /// What goes on `sys.path`.
    #[must_use]
    pub fn lib(&self) -> PathBuf {
        self.dir().join("lib")
    }

    /// Where it is made before it gets its place.
    #[must_use]
    pub fn unfinished(&self) -> PathBuf {
        self.dir().join("unfinished")
    }

    /// Everything that the resolver has said.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir().join("build.log")
    }

    /// What is in it, when it is whole.
    #[must_use]
    pub fn manifest(&self) -> Option<Manifest> {
        let manifest: Manifest = self.read("manifest.json")?;
        (manifest.digest == self.digest && self.lib().is_dir()).then_some(manifest)
    }

    /// Why the last try has failed, when it has.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.read("failed.json")
    }

    /// When the build began that is going on; none when nobody builds.
    #[must_use]
    pub fn building_since(&self) -> Option<Timestamp> {
        let free = match self.open_lock(false) {
            Ok(file) => flock(&file, FlockOperation::NonBlockingLockShared).is_ok(),
            Err(_) => true,
        };
        if free { None } else { self.read("started.json") }
    }

    /// When it was used last, as far as is known.
    #[must_use]
    pub fn used(&self) -> Option<Timestamp> {
        self.read("used.json")
    }

    /// Notes that it is used.
    pub fn touch(&self, now: Timestamp) {
        if let Err(error) = self.write("used.json", &now) {
            tracing::debug!(environment = self.digest, %error, "its use can't be noted");
        }
    }

    /// Takes the lock. None while somebody else has it.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn lock(&self) -> io::Result<Option<Lock>> {
        // Steps that have a user of their own go through it to the packages; the rest is not their business.
        fs::DirBuilder::new().recursive(true).mode(0o711).create(self.dir())?;
        let file = self.open_lock(true)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Beside the folder, and never removed: a lock on a removed file would keep nobody out.
    fn open_lock(&self, create: bool) -> io::Result<File> {
        let path = self.root.join(format!("{}.lock", self.digest));
        OpenOptions::new()
            .read(true)
            .write(create)
            .create(create)
            .truncate(false)
            .open(path)
    }

    /// Begins: what an earlier try has left goes.
    ///
    /// # Errors
    /// When it can't be removed or written.
    pub fn begin(&self, _lock: &Lock, now: Timestamp) -> io::Result<File> {
        for name in ["manifest.json", "failed.json"] {
            remove_file(&self.dir().join(name))?;
        }
        remove_tree(&self.unfinished())?;
        remove_tree(&self.lib())?;
        fs::create_dir_all(self.unfinished())?;
        self.write("started.json", &now)?;
        File::create(self.log())
    }

    /// Puts what was made in its place, for good: from here on it is whole, also after a power cut.
    ///
    /// # Errors
    /// When it can't be moved or written.
    pub fn finish(&self, _lock: &Lock, made: &Path, manifest: &Manifest) -> io::Result<()> {
        let dir = File::open(self.dir())?;
        sync_everything(&dir)?;
        fs::rename(made, self.lib())?;
        fs::set_permissions(self.lib(), Permissions::from_mode(0o555))?;
        dir.sync_all()?;
        self.touch(manifest.built_at);
        self.write("manifest.json", manifest)?;
        dir.sync_all()?;
        remove_tree(&self.unfinished())
    }

    /// Notes why there is none.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn fail(&self, _lock: &Lock, failure: &Failure) -> io::Result<()> {
        self.write("failed.json", failure)?;
        remove_tree(&self.unfinished())
    }

    /// Removes it.
    ///
    /// # Errors
    /// When something in it can't be removed.
    pub fn remove(&self, _lock: &Lock) -> io::Result<()> {
        // First what makes it whole: half an environment is none.
        remove_file(&self.dir().join("manifest.json"))?;
        remove_tree(&self.dir())
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&fs::read(self.dir().join(name)).ok()?).ok()
    }

    fn write(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        let path = self.dir().join(name);
        let beside = self.dir().join(format!("{name}.{}", std::process::id()));
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec_pretty(value)?)?;
        file.sync_all()?;
        fs::rename(beside, path)
    }
}

/// Whether this is the name of an environment.
#[must_use]
pub fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Takes the right to write from every file of a tree, and adds up their sizes. The top stays writable, so that it can be
/// moved.
///
/// # Errors
/// When a file's mode can't be set.
pub fn seal(top: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                folders.push(entry.path());
            } else if meta.is_file() {
                bytes += meta.len();
                let executable = meta.permissions().mode() & 0o111 != 0;
                let mode = if executable { 0o555 } else { 0o444 };
                fs::set_permissions(entry.path(), Permissions::from_mode(mode))?;
            } else {
                // Wheels have neither links nor devices.
                fs::remove_file(entry.path())?;
            }
        }
        if folder != top {
            fs::set_permissions(&folder, Permissions::from_mode(0o555))?;
        }
    }
    Ok(bytes)
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a tree that was sealed; nothing there is well.
fn remove_tree(top: &Path) -> io::Result<()> {
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        match fs::symlink_metadata(&folder) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return fs::remove_file(&folder),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        }
        fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    match fs::remove_dir_all(top) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// One call for thousands of files, where the kernel has it.
fn sync_everything(dir: &File) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(dir)?;
    #[cfg(not(target_os = "linux"))]
    {
        let _ = dir;
        rustix::fs::sync();
    }
    Ok(())
}
