//! Published bundles on this machine: unpacked copies that can be fetched again, within a bound.
//!
//! Each is a folder named by its digest, and a file beside it with its size whose time of change is that of its last use, so
//! that several processes may share the folder. What was used lately is not removed: an attempt may run in it.

use std::fs::{self, File, FileTimes};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::BundleRef;
use super::bundle::{self, BundleError, Files};
use super::folders::make_passable;
use crate::domain::{BundleDigest, Timestamp};

/// What a file takes on the disk beside its bytes, at most: its last block, and its name.
const FILE_OVERHEAD: u64 = 4096;
/// After how long a folder counts as left behind that somebody began to unpack into.
const UNFINISHED_FOR: Duration = Duration::from_secs(600);

/// Why a bundle can't be kept here.
#[derive(Debug, thiserror::Error)]
pub enum FetchedError {
    /// It has no room beside those that are in use.
    #[error(
        "the {needed} bytes of the bundle have no room beside the {used} bytes of bundles in use; there is room for {most}"
    )]
    Full {
        /// What it needs.
        needed: u64,
        /// What those in use take.
        used: u64,
        /// The bound.
        most: u64,
    },
    /// The disk.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl FetchedError {
    /// In words that name no place of this machine.
    #[must_use]
    pub fn told(&self) -> String {
        match self {
            Self::Full { .. } => self.to_string(),
            Self::Bundle(error) => error.told(),
        }
    }
}

/// Copies of published bundles.
#[derive(Debug, Clone)]
pub struct Fetched {
    dir: PathBuf,
    most: u64,
    spared: Duration,
}

struct Copy {
    hex: String,
    bytes: u64,
    used: Timestamp,
}

impl Fetched {
    /// In a folder that need not be there, with so many bytes at most. What was used within `spared` is not removed.
    #[must_use]
    pub const fn new(dir: PathBuf, most: u64, spared: Duration) -> Self {
        Self { dir, most, spared }
    }

    /// The copy of a digest, when this machine has it; from now on it counts as used at `now`. What is in it was not looked at:
    /// [`bundle::is_whole`].
    #[must_use]
    pub fn find(&self, digest: &str, now: Timestamp) -> Option<BundleRef> {
        let named = digest.parse::<BundleDigest>().ok()?;
        let dir = self.dir.join(named.hex());
        if !dir.is_dir() {
            return None;
        }
        // What can't be marked may be removed earlier than others, and is fetched again then.
        drop(self.mark(named.hex(), now));
        Some(BundleRef {
            digest: digest.to_owned(),
            dir,
            environment: None,
        })
    }

    /// Unpacks a bundle, for which others are removed that were not used for long. A copy of it that was changed is replaced.
    ///
    /// # Errors
    /// [`FetchedError`]; nothing of it stays then.
    pub fn keep(&self, digest: &BundleDigest, files: &Files, now: Timestamp) -> Result<BundleRef, FetchedError> {
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| BundleError::Io { path, source }
        };
        let there = self.find(&digest.to_string(), now);
        if let Some(there) = there.filter(bundle::is_whole) {
            return Ok(there);
        }
        make_passable(&self.dir).map_err(fail(&self.dir))?;
        let needed = files.bytes() + files.len() as u64 * FILE_OVERHEAD;
        self.make_room(needed, digest.hex(), now)?;
        let copy = BundleRef {
            digest: digest.to_string(),
            dir: self.dir.join(digest.hex()),
            environment: None,
        };
        let mut made = self.lay_out(&copy, files, needed);
        // A disk may be full long before the bound is reached; what nobody uses makes room.
        if made.as_ref().is_err_and(is_full_disk) && self.remove_unused(digest.hex(), now) {
            made = self.lay_out(&copy, files, needed);
        }
        made?;
        drop(self.mark(digest.hex(), now));
        Ok(copy)
    }

    /// Makes a copy elsewhere, and moves it into its place.
    fn lay_out(&self, copy: &BundleRef, files: &Files, needed: u64) -> Result<(), BundleError> {
        let hex = copy.dir.file_name().unwrap_or_default().to_string_lossy();
        let unfinished = self.dir.join(format!("unfinished-{}-{hex}", std::process::id()));
        drop(fs::remove_dir_all(&unfinished));
        let size = self.size_file(&hex);
        let made = files
            .lay_out(&unfinished)
            .and_then(|()| {
                fs::write(&size, needed.to_string()).map_err(|source| BundleError::Io {
                    path: size.clone(),
                    source,
                })
            })
            .and_then(|()| bundle::settle(&unfinished, copy));
        if made.is_err() {
            // A full disk is not to be kept full by what nobody can use.
            drop(fs::remove_dir_all(&unfinished));
            if !copy.dir.is_dir() {
                drop(fs::remove_file(size));
            }
        }
        made
    }

    /// Removes every copy that nobody can be at work in; whether there was one.
    fn remove_unused(&self, needed: &str, now: Timestamp) -> bool {
        let copies = self.copies();
        let unused = copies
            .iter()
            .filter(|copy| copy.hex != needed && now.since(copy.used) >= self.spared);
        unused.filter(|copy| self.remove(&copy.hex).is_ok()).count() > 0
    }

    /// What all copies take, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.copies().iter().map(|copy| copy.bytes).sum()
    }

    fn make_room(&self, needed: u64, replaced: &str, now: Timestamp) -> Result<(), FetchedError> {
        self.sweep(now);
        let mut copies = self.copies();
        copies.retain(|copy| copy.hex != replaced);
        copies.sort_by_key(|copy| copy.used);
        let mut used: u64 = copies.iter().map(|copy| copy.bytes).sum();
        for copy in copies {
            if used + needed <= self.most {
                break;
            }
            if now.since(copy.used) >= self.spared && self.remove(&copy.hex).is_ok() {
                used -= copy.bytes;
            }
        }
        if used + needed > self.most {
            return Err(FetchedError::Full {
                needed,
                used,
                most: self.most,
            });
        }
        Ok(())
    }

    /// Out of sight first, so that nobody finds half of it.
    fn remove(&self, hex: &str) -> io::Result<()> {
        let gone = self.dir.join(format!("unfinished-{}-gone-{hex}", std::process::id()));
        fs::rename(self.dir.join(hex), &gone)?;
        drop(fs::remove_file(self.size_file(hex)));
        fs::remove_dir_all(gone)
    }

    /// Removes what processes that have died left half done, and what was put aside and nobody can be at work in any more.
    fn sweep(&self, now: Timestamp) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let patience = if name.starts_with("unfinished-") {
                UNFINISHED_FOR
            } else if name.starts_with(bundle::CHANGED) {
                self.spared
            } else {
                continue;
            };
            let is_old = entry.metadata().is_ok_and(|meta| now.since(changed(&meta)) >= patience);
            if is_old {
                drop(fs::remove_dir_all(entry.path()));
            }
        }
    }

    fn copies(&self) -> Vec<Copy> {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return Vec::new();
        };
        let copy = |entry: fs::DirEntry| {
            let hex = entry.file_name().to_str()?.to_owned();
            let named = format!("sha256:{hex}").parse::<BundleDigest>().is_ok();
            let size = self.size_file(&hex);
            named.then(|| Copy {
                // Without a size it counts as the largest that there may be.
                bytes: fs::read_to_string(&size)
                    .ok()
                    .and_then(|text| text.trim().parse().ok())
                    .unwrap_or(bundle::MAX_BYTES),
                used: fs::metadata(&size).map_or(Timestamp::from_millis(0), |meta| changed(&meta)),
                hex,
            })
        };
        entries.flatten().filter_map(copy).collect()
    }

    fn size_file(&self, hex: &str) -> PathBuf {
        self.dir.join(format!("{hex}.size"))
    }

    fn mark(&self, hex: &str, now: Timestamp) -> io::Result<()> {
        let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(now.millis()).unwrap_or_default());
        let file = File::options().write(true).open(self.size_file(hex))?;
        file.set_times(FileTimes::new().set_modified(at))
    }
}

fn is_full_disk(error: &BundleError) -> bool {
    matches!(error, BundleError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
}

fn changed(meta: &fs::Metadata) -> Timestamp {
    let since = meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let millis = since.map_or(0, |since| since.as_millis());
    Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const SPARED: Duration = Duration::from_secs(600);

    fn bundle(text: &str) -> Files {
        Files::new([("workflows/a.py".to_owned(), Bytes::from(text.to_owned()))])
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
    }

    #[test]
    fn the_least_recently_used_goes_first_and_what_is_in_use_stays() {
        let home = tempfile::tempdir().unwrap();
        let room_for_two = 2 * (FILE_OVERHEAD + 10);
        let fetched = Fetched::new(home.path().join("d/fetched"), room_for_two, SPARED);
        let [a, b, c] = ["x = 1", "x = 2", "x = 3"].map(bundle);
        let name = |files: &Files| files.digest().to_string();
        fetched.keep(&a.digest(), &a, at(0)).unwrap();
        let kept = fetched.keep(&b.digest(), &b, at(1)).unwrap();
        assert_eq!(fs::read_to_string(kept.dir.join("workflows/a.py")).unwrap(), "x = 2");
        assert_eq!(fetched.find(&name(&a), at(700)).unwrap().digest, name(&a));
        fetched.keep(&c.digest(), &c, at(700)).unwrap();
        assert!(fetched.find(&name(&b), at(700)).is_none(), "the oldest is gone");
        assert!(fetched.bytes() <= room_for_two);
        let full = fetched.keep(&b.digest(), &b, at(800)).unwrap_err();
        assert!(matches!(full, FetchedError::Full { .. }), "{full}");
        assert!(fetched.find(&name(&a), at(800)).is_some());
        assert!(fetched.keep(&b.digest(), &b, at(1500)).is_ok());
    }

    #[test]
    fn what_can_not_be_written_leaves_nothing_behind() {
        let home = tempfile::tempdir().unwrap();
        let fetched = Fetched::new(home.path().join("fetched"), 1 << 20, SPARED);
        // A name that no file system takes stands for a disk that is full.
        let long = "a".repeat(300);
        let files = Files::new([
            ("workflows/a.py".to_owned(), Bytes::from_static(b"x")),
            (format!("workflows/{long}"), Bytes::from_static(b"x")),
        ]);
        assert!(fetched.keep(&files.digest(), &files, at(0)).is_err());
        assert!(fetched.find(&files.digest().to_string(), at(0)).is_none());
        assert_eq!(fs::read_dir(home.path().join("fetched")).unwrap().count(), 0);
        assert_eq!(fetched.bytes(), 0);
        let good = bundle("x = 1");
        assert!(fetched.keep(&good.digest(), &good, at(0)).is_ok());
    }

    #[test]
    fn a_copy_that_was_changed_is_replaced_and_left_to_whoever_is_at_work_in_it() {
        let home = tempfile::tempdir().unwrap();
        // There is room for one: what is replaced does not count.
        let fetched = Fetched::new(home.path().to_owned(), FILE_OVERHEAD + 10, SPARED);
        let one = bundle("x = 1");
        let kept = fetched.keep(&one.digest(), &one, at(0)).unwrap();
        fs::write(kept.dir.join("workflows/a.py"), "x = 2").unwrap();
        assert_eq!(fetched.keep(&one.digest(), &one, at(1)).unwrap(), kept);
        assert!(bundle::is_whole(&kept));
        let aside = home
            .path()
            .join(format!("changed-{}-{}", std::process::id(), one.digest().hex()));
        assert_eq!(fs::read_to_string(aside.join("workflows/a.py")).unwrap(), "x = 2");
        // On a full disk whatever nobody can be at work in goes.
        assert!(!fetched.remove_unused("", at(1)));
        assert!(!fetched.remove_unused(one.digest().hex(), at(4_000_000_000)));
        fetched.make_room(0, "", at(4_000_000_000)).unwrap();
        assert!(!aside.exists());
        assert!(fetched.remove_unused("", at(4_000_000_000)));
        assert!(!kept.dir.exists());
    }

    #[test]
    fn what_a_dead_process_left_is_swept_away() {
        let home = tempfile::tempdir().unwrap();
        let fetched = Fetched::new(home.path().to_owned(), 1 << 20, SPARED);
        let left = home.path().join("unfinished-1-abc");
        fs::create_dir(&left).unwrap();
        let one = bundle("x = 1");
        fetched
            .keep(&one.digest(), &one, changed(&fs::metadata(&left).unwrap()))
            .unwrap();
        assert!(left.exists(), "somebody may be at it");
        let two = bundle("x = 2");
        fetched.keep(&two.digest(), &two, at(4_000_000_000)).unwrap();
        assert!(!left.exists());
    }
}
