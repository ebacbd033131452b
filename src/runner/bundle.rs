//! A workspace folder → an immutable bundle: a copy named by the digest of what is in it.
//!
//! A run is pinned to a digest, so what it executes does not change while the folder is edited. Symbolic links, hidden files,
//! caches and what `.weftignore` names are left out; links could point outside the workspace.

use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::fs::Permissions;
use std::hash::{Hash, Hasher};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use super::BundleRef;
use super::folders::{make, make_passable};
use super::leave_out::{self, BadPattern, LeaveOut};
use crate::domain::{BundleDigest, Timestamp};

/// Most files in a bundle.
pub const MAX_FILES: usize = 10_000;
/// Most bytes in a bundle.
pub const MAX_BYTES: u64 = 64 << 20;

const READABLE_FOLDER: u32 = 0o755;
const READABLE_FILE: u32 = 0o644;

/// Why a folder can't be a bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// There is no such folder.
    #[error("the workspace folder `{0}` does not exist")]
    Missing(PathBuf),
    /// Too much in it.
    #[error("the workspace has more than {limit} {unit}")]
    TooLarge {
        /// How much there may be.
        limit: u64,
        /// `files` or `bytes`.
        unit: &'static str,
    },
    /// What says which files are left out can't be read.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    /// A file can't be read or the copy can't be written.
    #[error("`{path}` can't be read or copied: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Changes whenever a file of the workspace was added, removed, or written: paths, sizes, inodes and times of change, which
/// unlike those of modification nobody can set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u64);

struct Found {
    relative: String,
    path: PathBuf,
    size: u64,
    changed: (i64, i64),
    inode: u64,
}

fn failing(path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::Io { path, source }
}

/// What a workspace says is left out.
fn patterns(root: &Path) -> Result<String, BundleError> {
    let path = root.join(leave_out::FILE);
    match std::fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_file() && meta.len() <= leave_out::MAX_BYTES => {
            std::fs::read_to_string(&path).map_err(failing(&path))
        }
        Ok(_) => Err(failing(&path)(io::Error::other("it is no file, or too large"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(failing(&path)(error)),
    }
}

fn walk(root: &Path, rule: &LeaveOut) -> Result<Vec<Found>, BundleError> {
    if !root.is_dir() {
        return Err(BundleError::Missing(root.to_owned()));
    }
    let mut found = Vec::new();
    let mut folders = vec![(root.to_owned(), String::new())];
    let mut bytes = 0;
    while let Some((folder, prefix)) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            // Removed since it was listed: the next look sees the rest.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !prefix.is_empty() => continue,
            Err(error) => return Err(failing(&folder)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(failing(&folder))?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            let path = entry.path();
            let meta = match std::fs::symlink_metadata(&path) {
                Ok(meta) => meta,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failing(&path)(error)),
            };
            let relative = if prefix.is_empty() {
                name
            } else {
                format!("{prefix}/{name}")
            };
            if rule.covers(&relative, meta.is_dir()) {
                continue;
            }
            if meta.is_dir() {
                folders.push((path, relative));
            } else if meta.is_file() {
                bytes += meta.len();
                let (size, inode) = (meta.len(), meta.ino());
                found.push(Found {
                    relative,
                    path,
                    size,
                    changed: (meta.ctime(), meta.ctime_nsec()),
                    inode,
                });
            }
            if found.len() > MAX_FILES {
                return Err(BundleError::TooLarge {
                    limit: MAX_FILES as u64,
                    unit: "files",
                });
            }
            if bytes > MAX_BYTES {
                return Err(BundleError::TooLarge {
                    limit: MAX_BYTES,
                    unit: "bytes",
                });
            }
        }
    }
    found.sort_by(|a, b| a.relative.cmp(&b.relative));
    Ok(found)
}

/// Looks whether anything changed, without reading a file but `.weftignore`.
///
/// # Errors
/// [`BundleError`].
pub fn fingerprint(workspace: &Path) -> Result<Fingerprint, BundleError> {
    let mut hasher = DefaultHasher::new();
    let patterns = patterns(workspace)?;
    patterns.hash(&mut hasher);
    for file in walk(workspace, &LeaveOut::new(&patterns)?)? {
        (file.relative, file.size, file.changed, file.inode).hash(&mut hasher);
    }
    Ok(Fingerprint(hasher.finish()))
}

/// The files of a bundle: paths with `/` between their parts, and contents. Sorted by path, no path twice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Files(Vec<(String, Bytes)>);

impl Files {
    /// Of these; the last of a path counts.
    #[must_use]
    pub fn new(files: impl IntoIterator<Item = (String, Bytes)>) -> Self {
        let sorted: std::collections::BTreeMap<_, _> = files.into_iter().collect();
        Self(sorted.into_iter().collect())
    }

    /// Those of a workspace that are part of its bundle.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn of_workspace(workspace: &Path) -> Result<Self, BundleError> {
        Self::below(workspace, &LeaveOut::new(&patterns(workspace)?)?)
    }

    fn below(folder: &Path, rule: &LeaveOut) -> Result<Self, BundleError> {
        let mut contents = Vec::new();
        for file in walk(folder, rule)? {
            match std::fs::read(&file.path) {
                Ok(bytes) => contents.push((file.relative, Bytes::from(bytes))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failing(&file.path)(error)),
            }
        }
        Ok(Self(contents))
    }

    /// Those of a bundle's folder.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn of_bundle(bundle: &BundleRef) -> Result<Self, BundleError> {
        Self::of_workspace(&bundle.dir)
    }

    /// Path and content of each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.0.iter().map(|(path, content)| (path.as_str(), content))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes are in them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|(_, content)| content.len() as u64).sum()
    }

    /// The digest of all names and contents.
    ///
    /// # Panics
    /// Never: a SHA-256 in hexadecimal digits is a digest.
    #[must_use]
    pub fn digest(&self) -> BundleDigest {
        let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for (path, content) in self.iter() {
            for part in [path.as_bytes(), content] {
                digest.update(&(part.len() as u64).to_be_bytes());
                digest.update(part);
            }
        }
        let hex: String = digest
            .finish()
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("sha256:{hex}").parse().expect("a SHA-256 is a digest")
    }

    /// Lays them out in a folder that is not there. Every user may read it: it is other users that run what is in it.
    ///
    /// # Errors
    /// [`BundleError::Io`]; something may have been written then.
    pub(super) fn lay_out(&self, folder: &Path) -> Result<(), BundleError> {
        make(folder, READABLE_FOLDER).map_err(failing(folder))?;
        let mut made = BTreeSet::new();
        for (relative, content) in self.iter() {
            for (end, _) in relative.match_indices('/') {
                let inner = &relative[..end];
                if made.insert(inner.to_owned()) {
                    let inner = folder.join(inner);
                    make(&inner, READABLE_FOLDER).map_err(failing(&inner))?;
                }
            }
            let path = folder.join(relative);
            std::fs::write(&path, content)
                .and_then(|()| std::fs::set_permissions(&path, Permissions::from_mode(READABLE_FILE)))
                .map_err(failing(&path))?;
        }
        Ok(())
    }
}

/// Copies a workspace below `bundles`, where it stays under its digest until [`prune`]. A copy that is there already is used,
/// and counts as new. Every user may read it, whatever modes its files have in the workspace: it is other users that run it.
///
/// # Errors
/// [`BundleError`].
pub fn snapshot(workspace: &Path, bundles: &Path) -> Result<BundleRef, BundleError> {
    let files = Files::of_workspace(workspace)?;
    let digest = files.digest();
    let dir = bundles.join(digest.hex());
    let bundle = BundleRef {
        digest: digest.to_string(),
        dir: dir.clone(),
        environment: None,
    };
    if dir.is_dir() {
        mark(&dir);
        return Ok(bundle);
    }
    // Made elsewhere and moved into place, so that a folder under a digest is always whole.
    let unfinished = bundles.join(format!("unfinished-{}-{}", std::process::id(), digest.hex()));
    make_passable(bundles).map_err(failing(bundles))?;
    files.lay_out(&unfinished)?;
    match std::fs::rename(&unfinished, &dir) {
        Ok(()) => Ok(bundle),
        Err(_) if dir.is_dir() => {
            // Another process was faster; ours is superfluous.
            std::fs::remove_dir_all(&unfinished).map_err(failing(&unfinished))?;
            Ok(bundle)
        }
        Err(error) => Err(failing(&dir)(error)),
    }
}

/// The bundle that has nothing in it: for code that is given to its worker.
///
/// # Errors
/// [`BundleError`].
pub fn nothing(bundles: &Path) -> Result<BundleRef, BundleError> {
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| BundleError::Io { path, source }
    };
    let hex = crate::domain::sha256_hex(b"");
    let dir = bundles.join(&hex);
    if !dir.is_dir() {
        make_passable(bundles).map_err(fail(bundles))?;
        make(&dir, READABLE_FOLDER).map_err(fail(&dir))?;
    }
    Ok(BundleRef {
        digest: format!("sha256:{hex}"),
        dir,
        environment: None,
    })
}

/// Makes a copy the newest, by the clock of the file system. One that can't be marked may be removed earlier than others, and
/// is copied again then.
fn mark(folder: &Path) {
    let now = rustix::fs::Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_NOW,
    };
    let times = rustix::fs::Timestamps {
        last_access: now,
        last_modification: now,
    };
    if let Err(error) = rustix::fs::utimensat(rustix::fs::CWD, folder, &times, rustix::fs::AtFlags::empty()) {
        tracing::debug!(error = %error, "a copy of the workspace can't be marked as used");
    }
}

/// How many copies of workspaces lie below `bundles`.
#[must_use]
pub fn count(bundles: &Path) -> usize {
    copies(bundles).len()
}

/// Removes the oldest copies of workspaces beyond the newest `most`; but none whose digest is among `needed`, and none that
/// was made or asked for within `spared`, for another process may be about to begin a run of it. How many were removed.
///
/// # Errors
/// When one can't be removed.
pub fn prune(
    bundles: &Path,
    needed: &BTreeSet<String>,
    most: usize,
    spared: Duration,
    now: Timestamp,
) -> io::Result<usize> {
    let mut copies = copies(bundles);
    copies.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
    let mut removed = 0;
    for (used, hex) in copies.into_iter().skip(most) {
        if needed.contains(&format!("sha256:{hex}")) || now.since(used) < spared {
            continue;
        }
        // Out of sight first, so that nobody finds half of it.
        let gone = bundles.join(format!("unfinished-{}-gone-{hex}", std::process::id()));
        std::fs::rename(bundles.join(&hex), &gone)?;
        std::fs::remove_dir_all(&gone)?;
        removed += 1;
    }
    Ok(removed)
}

/// The copies with the time of their last use. The bundle that has nothing in it is none.
fn copies(bundles: &Path) -> Vec<(Timestamp, String)> {
    let Ok(entries) = std::fs::read_dir(bundles) else {
        return Vec::new();
    };
    let nothing = crate::domain::sha256_hex(b"");
    let copy = |entry: std::fs::DirEntry| {
        let hex = entry.file_name().to_str()?.to_owned();
        let is_copy = hex != nothing && format!("sha256:{hex}").parse::<BundleDigest>().is_ok();
        let used = entry.metadata().ok()?.modified().ok()?;
        let since = used.duration_since(std::time::UNIX_EPOCH).ok()?;
        is_copy.then(|| {
            (
                Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
                hex,
            )
        })
    };
    entries.flatten().filter_map(copy).collect()
}

/// The copy of a digest, when this machine has it.
#[must_use]
pub fn find(bundles: &Path, digest: &str) -> Option<BundleRef> {
    let named = digest.parse::<BundleDigest>().ok()?;
    let dir = bundles.join(named.hex());
    dir.is_dir().then(|| BundleRef {
        digest: digest.to_owned(),
        dir,
        environment: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_of_names_and_contents_only() {
        let home = tempfile::tempdir().unwrap();
        let (workspace, bundles) = (home.path().join("w"), home.path().join("b"));
        std::fs::create_dir_all(workspace.join("workflows/__pycache__")).unwrap();
        std::fs::write(workspace.join("workflows/a.py"), "x = 1\n").unwrap();
        std::fs::write(workspace.join("workflows/__pycache__/a.pyc"), "junk").unwrap();
        std::fs::set_permissions(workspace.join("workflows/a.py"), Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", workspace.join("workflows/link.py")).unwrap();
        let before = fingerprint(&workspace).unwrap();
        let first = snapshot(&workspace, &bundles).unwrap();
        assert_eq!(snapshot(&workspace, &bundles).unwrap(), first);
        assert!(!first.dir.join("workflows/link.py").exists());
        assert!(!first.dir.join("workflows/__pycache__").exists());
        for (name, mode) in [("", 0o755), ("workflows", 0o755), ("workflows/a.py", 0o644)] {
            let meta = std::fs::metadata(first.dir.join(name)).unwrap();
            assert_eq!(meta.permissions().mode() & 0o777, mode, "{name}");
        }
        std::fs::write(workspace.join("workflows/a.py"), "x = 22\n").unwrap();
        assert_ne!(fingerprint(&workspace).unwrap(), before);
        let second = snapshot(&workspace, &bundles).unwrap();
        assert_ne!(second.digest, first.digest);
        assert_eq!(find(&bundles, &first.digest), Some(first));
    }

    #[test]
    fn of_old_copies_those_stay_that_are_new_needed_or_asked_for_lately() {
        let home = tempfile::tempdir().unwrap();
        let (workspace, bundles) = (home.path().join("w"), home.path().join("b"));
        std::fs::create_dir_all(&workspace).unwrap();
        nothing(&bundles).unwrap();
        let at = |seconds: i64| Timestamp::from_millis(1_800_000_000_000 + seconds * 1000);
        let made: Vec<_> = (0..6)
            .map(|number| {
                std::fs::write(workspace.join("a.py"), format!("x = {number}\n")).unwrap();
                let one = snapshot(&workspace, &bundles).unwrap();
                let time = std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + number);
                std::fs::File::open(&one.dir).unwrap().set_modified(time).unwrap();
                one
            })
            .collect();
        let spared = Duration::from_secs(600);
        let needed = BTreeSet::from([made[0].digest.clone()]);
        assert_eq!(
            prune(&bundles, &needed, 2, spared, at(600)).unwrap(),
            0,
            "all were asked for lately"
        );
        assert_eq!(prune(&bundles, &needed, 2, spared, at(602)).unwrap(), 2);
        let left = || -> Vec<_> { made.iter().map(|one| one.dir.is_dir()).collect() };
        assert_eq!(left(), [true, false, false, true, true, true]);
        assert_eq!(prune(&bundles, &needed, 2, spared, at(9000)).unwrap(), 1);
        assert_eq!(left(), [true, false, false, false, true, true]);
        assert_eq!(count(&bundles), 3);
        assert!(nothing(&bundles).unwrap().dir.is_dir());
        // Whoever asks for an old one makes it a new one.
        std::fs::write(workspace.join("a.py"), "x = 4\n").unwrap();
        assert_eq!(snapshot(&workspace, &bundles).unwrap(), made[4]);
        let used = std::fs::metadata(&made[4].dir).unwrap().modified().unwrap();
        assert_ne!(used, std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_004));
    }

    #[test]
    fn every_user_may_read_a_bundle_whatever_the_workspace_says() {
        let home = tempfile::tempdir().unwrap();
        let (workspace, bundles) = (home.path().join("w"), home.path().join("d/b"));
        let set = |path: &str, mode| {
            std::fs::set_permissions(workspace.join(path), Permissions::from_mode(mode)).unwrap();
        };
        std::fs::create_dir_all(workspace.join("nodes/deep")).unwrap();
        for (path, mode) in [("a.py", 0o600), ("nodes/b.py", 0o400), ("nodes/deep/c.py", 0o777)] {
            std::fs::write(workspace.join(path), "x = 1\n").unwrap();
            set(path, mode);
        }
        set("nodes/deep", 0o700);
        set("nodes", 0o700);
        let dir = snapshot(&workspace, &bundles).unwrap().dir;
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
        for folder in ["", "nodes", "nodes/deep"] {
            assert_eq!(mode(&dir.join(folder)), READABLE_FOLDER, "{folder}");
        }
        for file in ["a.py", "nodes/b.py", "nodes/deep/c.py"] {
            assert_eq!(mode(&dir.join(file)), READABLE_FILE, "{file}");
        }
        let is_root = rustix::process::geteuid().is_root();
        for above in [bundles.as_path(), bundles.parent().unwrap()] {
            assert_eq!(mode(above), if is_root { 0o711 } else { 0o700 });
        }
    }
}
