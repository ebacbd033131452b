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
use super::folders::{make, make_passable, replace};
use super::leave_out::{self, BadPattern, LeaveOut};
use crate::domain::{BundleDigest, Timestamp};
use crate::error::Finding;

/// Most files in a bundle.
pub const MAX_FILES: usize = 10_000;
/// Most bytes in a bundle.
pub const MAX_BYTES: u64 = 64 << 20;

const READABLE_FOLDER: u32 = 0o755;
const READABLE_FILE: u32 = 0o644;
/// What the names of folders begin with that are being made, or taken away.
const UNFINISHED: &str = "unfinished-";
/// What the names of copies begin with that were changed: out of use, and left for a while to whoever is at work in them.
pub(super) const CHANGED: &str = "changed-";
/// After how long what is unfinished or changed is removed. Longer than any attempt.
const LEFT_FOR: Duration = Duration::from_secs(24 * 3600);

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

impl BundleError {
    /// In words that name no place of this machine, for whoever asks from elsewhere.
    #[must_use]
    pub fn told(&self) -> String {
        match self {
            Self::Missing(_) => "the workspace folder does not exist".to_owned(),
            Self::TooLarge { .. } | Self::Pattern(_) => self.to_string(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "the disk of this instance is full".to_owned()
            }
            Self::Io { source, .. } => format!("a file can't be read or copied: {source}"),
        }
    }
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

/// What lies in a folder.
#[derive(Default)]
struct Walked {
    /// Regular files, by path.
    files: Vec<Found>,
    /// Folders, as they were found.
    folders: Vec<String>,
    /// What is neither: links, devices, pipes, and what has a name that is no UTF-8.
    others: Vec<String>,
}

/// Everything in a folder that the rule does not leave out; without one, everything.
fn walk(root: &Path, rule: Option<&LeaveOut>) -> Result<Walked, BundleError> {
    if !root.is_dir() {
        return Err(BundleError::Missing(root.to_owned()));
    }
    let mut walked = Walked::default();
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
            let path = entry.path();
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                let shown = name.to_string_lossy();
                walked.others.push(below(&prefix, &shown));
                continue;
            };
            let meta = match std::fs::symlink_metadata(&path) {
                Ok(meta) => meta,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failing(&path)(error)),
            };
            let relative = below(&prefix, name);
            if rule.is_some_and(|rule| rule.covers(&relative, meta.is_dir())) {
                continue;
            }
            if meta.is_dir() {
                walked.folders.push(relative.clone());
                folders.push((path, relative));
            } else if meta.is_file() {
                bytes += meta.len();
                let (size, inode) = (meta.len(), meta.ino());
                walked.files.push(Found {
                    relative,
                    path,
                    size,
                    changed: (meta.ctime(), meta.ctime_nsec()),
                    inode,
                });
            } else {
                walked.others.push(relative);
            }
            if walked.files.len() > MAX_FILES {
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
    walked.files.sort_by(|a, b| a.relative.cmp(&b.relative));
    walked.others.sort();
    Ok(walked)
}

fn below(prefix: &str, name: &str) -> String {
    if prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}/{name}")
    }
}

/// Looks whether anything changed, without reading a file but `.weftignore`.
///
/// # Errors
/// [`BundleError`].
pub fn fingerprint(workspace: &Path) -> Result<Fingerprint, BundleError> {
    let mut hasher = DefaultHasher::new();
    let patterns = patterns(workspace)?;
    patterns.hash(&mut hasher);
    for file in walk(workspace, Some(&LeaveOut::new(&patterns)?))?.files {
        (file.relative, file.size, file.changed, file.inode).hash(&mut hasher);
    }
    Ok(Fingerprint(hasher.finish()))
}

/// What in a workspace is neither a file nor a folder, and not left out by its name: a copy leaves it out, and whoever publishes is
/// told.
///
/// # Errors
/// [`BundleError`].
pub fn no_files(workspace: &Path) -> Result<Vec<Finding>, BundleError> {
    let walked = walk(workspace, Some(&LeaveOut::new(&patterns(workspace)?)?))?;
    let told = walked.others.iter().map(|path| {
        let is_link = std::fs::symlink_metadata(workspace.join(path)).is_ok_and(|meta| meta.is_symlink());
        let (code, message) = if is_link {
            ("link", "links are not allowed in a bundle")
        } else {
            ("no_file", "it is no file, or its name is no UTF-8")
        };
        Finding::new(path, code, message).hint(NO_LINKS)
    });
    Ok(told.collect())
}

/// What to do about what is neither a file nor a folder.
pub(super) const NO_LINKS: &str = "put the file itself there, or name it in `.weftignore`: what a link leads to would be another thing on each instance";

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
        Self::below(workspace, Some(&LeaveOut::new(&patterns(workspace)?)?))
    }

    fn below(folder: &Path, rule: Option<&LeaveOut>) -> Result<Self, BundleError> {
        let mut contents = Vec::new();
        for file in walk(folder, rule)?.files {
            match std::fs::read(&file.path) {
                Ok(bytes) => contents.push((file.relative, Bytes::from(bytes))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failing(&file.path)(error)),
            }
        }
        Ok(Self(contents))
    }

    /// Those of a bundle's folder, where nothing is left out any more.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn of_bundle(bundle: &BundleRef) -> Result<Self, BundleError> {
        Self::below(&bundle.dir, None)
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
        let mut digest = Digesting::default();
        for (path, content) in self.iter() {
            digest.file(path, content);
        }
        digest.finish()
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

/// The digest of files that are given one by one, in the order of their paths.
struct Digesting(aws_lc_rs::digest::Context);

impl Default for Digesting {
    fn default() -> Self {
        Self(aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256))
    }
}

impl Digesting {
    fn file(&mut self, path: &str, content: &[u8]) {
        for part in [path.as_bytes(), content] {
            self.0.update(&(part.len() as u64).to_be_bytes());
            self.0.update(part);
        }
    }

    fn finish(self) -> BundleDigest {
        let hex: String = self
            .0
            .finish()
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("sha256:{hex}").parse().expect("a SHA-256 is a digest")
    }
}

/// Whether a copy is what its digest says. Everything in it counts, whatever it is called, and nothing may be in it but files and
/// the folders above them. Reads all of it.
#[must_use]
pub fn is_whole(copy: &BundleRef) -> bool {
    let look = || {
        std::fs::symlink_metadata(&copy.dir).ok()?.is_dir().then_some(())?;
        let walked = walk(&copy.dir, None).ok()?;
        let mut folders = BTreeSet::new();
        let mut digest = Digesting::default();
        for file in &walked.files {
            let above = file.relative.match_indices('/');
            folders.extend(above.map(|(end, _)| &file.relative[..end]));
            digest.file(&file.relative, &std::fs::read(&file.path).ok()?);
        }
        let is_all = walked.others.is_empty() && walked.folders.len() == folders.len();
        (is_all && digest.finish().to_string() == copy.digest).then_some(())
    };
    look().is_some()
}

/// Copies a workspace below `bundles`, where it stays under its digest until [`prune`]. A copy that is there already is used
/// where it is whole, and counts as new; one that was changed is replaced. Every user may read it, whatever modes its files have in the workspace: it is other users that run it.
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
    if is_whole(&bundle) {
        mark(&dir);
        return Ok(bundle);
    }
    // Made elsewhere and moved into place, so that a folder under a digest is always whole.
    let unfinished = bundles.join(format!("{UNFINISHED}{}-{}", std::process::id(), digest.hex()));
    make_passable(bundles).map_err(failing(bundles))?;
    sweep(bundles);
    drop(std::fs::remove_dir_all(&unfinished));
    let made = files.lay_out(&unfinished).and_then(|()| settle(&unfinished, &bundle));
    if made.is_err() {
        // A full disk is not to be kept full by what nobody can use.
        drop(std::fs::remove_dir_all(&unfinished));
    }
    made.map(|()| bundle)
}

/// Moves what was laid out to where its copy belongs. One that is there and whole stays, for another process was faster; one
/// that was changed is put aside.
pub(super) fn settle(unfinished: &Path, copy: &BundleRef) -> Result<(), BundleError> {
    let dir = &copy.dir;
    match std::fs::rename(unfinished, dir) {
        Ok(()) => Ok(()),
        Err(_) if is_whole(copy) => std::fs::remove_dir_all(unfinished).map_err(failing(unfinished)),
        Err(_) if std::fs::symlink_metadata(dir).is_ok() => {
            let name = dir.file_name().unwrap_or_default().to_string_lossy();
            let aside = dir.with_file_name(format!("{CHANGED}{}-{name}", std::process::id()));
            drop(std::fs::remove_dir_all(&aside));
            // It is left alone from now on, and not from when it was made.
            mark(dir);
            tracing::warn!(
                bundle.digest = copy.digest,
                "the copy of this code on this machine was changed; it is made anew"
            );
            replace(unfinished, dir, &aside).map_err(failing(dir))
        }
        Err(error) => Err(failing(dir)(error)),
    }
}

/// Removes what processes that have died left half done, and what was put aside long ago.
fn sweep(bundles: &Path) {
    let Ok(entries) = std::fs::read_dir(bundles) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_old = entry
            .metadata()
            .and_then(|meta| meta.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|since| since > LEFT_FOR));
        if is_old && (name.starts_with(UNFINISHED) || name.starts_with(CHANGED)) {
            drop(std::fs::remove_dir_all(entry.path()));
        }
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
    let bundle = BundleRef {
        digest: format!("sha256:{hex}"),
        dir: bundles.join(&hex),
        environment: None,
    };
    if !is_whole(&bundle) {
        make_passable(bundles).map_err(fail(bundles))?;
        let unfinished = bundles.join(format!("{UNFINISHED}{}-{hex}", std::process::id()));
        drop(std::fs::remove_dir_all(&unfinished));
        make(&unfinished, READABLE_FOLDER).map_err(fail(&unfinished))?;
        settle(&unfinished, &bundle)?;
    }
    Ok(bundle)
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
        let gone = bundles.join(format!("{UNFINISHED}{}-gone-{hex}", std::process::id()));
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
    fn a_copy_is_whole_when_it_is_all_of_what_its_digest_says_and_no_more() {
        let home = tempfile::tempdir().unwrap();
        let (workspace, bundles) = (home.path().join("w"), home.path().join("b"));
        std::fs::create_dir_all(workspace.join("nodes")).unwrap();
        std::fs::write(workspace.join("a.py"), "x = 1\n").unwrap();
        std::fs::write(workspace.join("nodes/b.py"), "x = 2\n").unwrap();
        let changes: [fn(&Path); 8] = [
            |dir| std::fs::write(dir.join("a.py"), "x = 3\n").unwrap(),
            |dir| std::fs::write(dir.join(".hidden.py"), "x = 3\n").unwrap(),
            |dir| std::fs::write(dir.join(".weftignore"), "*\n").unwrap(),
            |dir| std::fs::create_dir(dir.join("json")).unwrap(),
            |dir| std::fs::rename(dir.join("nodes/b.py"), dir.join("nodes/c.py")).unwrap(),
            |dir| std::os::unix::fs::symlink("a.py", dir.join("c.py")).unwrap(),
            |dir| std::fs::remove_file(dir.join("a.py")).unwrap(),
            |dir| {
                let elsewhere = dir.with_file_name("elsewhere");
                std::fs::rename(dir, &elsewhere).unwrap();
                std::os::unix::fs::symlink(&elsewhere, dir).unwrap();
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let copy = snapshot(&workspace, &bundles).unwrap();
            assert!(is_whole(&copy), "{number}");
            change(&copy.dir);
            assert!(!is_whole(&copy), "{number}");
            assert_eq!(snapshot(&workspace, &bundles).unwrap(), copy);
            assert!(is_whole(&copy), "{number}");
        }
        let nothing_in_it = nothing(&bundles).unwrap();
        std::fs::write(nothing_in_it.dir.join("json.py"), "evil = True\n").unwrap();
        assert!(is_whole(&nothing(&bundles).unwrap()));
        // What was put aside goes after a while.
        let hex = crate::domain::sha256_hex(b"");
        let aside = bundles.join(format!("{CHANGED}{}-{hex}", std::process::id()));
        assert!(aside.join("json.py").exists());
        let long_ago = std::time::UNIX_EPOCH + LEFT_FOR;
        std::fs::File::open(&aside).unwrap().set_modified(long_ago).unwrap();
        std::fs::write(workspace.join("a.py"), "x = 4\n").unwrap();
        snapshot(&workspace, &bundles).unwrap();
        assert!(!aside.exists());
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
