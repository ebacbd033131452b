//! How much foreign code has in its folder, where the folder has no quota of its own.
//!
//! The code may be at work in the folder meanwhile, and may not like to be counted. So: no link is followed, one descriptor is
//! open at a time however deep the tree is, and the count ends at its bounds.

use std::ffi::CString;
use std::io;
use std::path::Path;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, fstat, openat, stat, statat};
use rustix::io::Errno;

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the blocks that are taken.
    pub bytes: u64,
    /// Files and folders, links included.
    pub files: u64,
}

impl Usage {
    fn is_over(self, bound: Self) -> bool {
        self.bytes > bound.bytes || self.files > bound.files
    }
}

struct Level {
    /// Device and inode.
    identity: (u64, u64),
    folders: Vec<CString>,
}

/// Counts what is in a folder; goes on until it is above `bound` in one respect.
///
/// # Errors
/// When the folder itself is not there.
pub fn of_folder(top: &Path, bound: Usage) -> io::Result<Usage> {
    let mut usage = Usage::default();
    let mut at = open(CWD, top)?;
    let mut levels = vec![look_at(&at, &mut usage, bound)?];
    while let Some(level) = levels.last_mut() {
        if usage.is_over(bound) {
            break;
        }
        if let Some(name) = level.folders.pop() {
            if let Ok(inner) = open(at.as_fd(), name.as_c_str()) {
                levels.push(look_at(&inner, &mut usage, bound)?);
                at = inner;
            }
            continue;
        }
        levels.pop();
        if let Some(above) = levels.last() {
            at = openat(&at, c"..", FOLDER, Mode::empty())?;
            if identity(&at)? != above.identity {
                // It was moved away meanwhile; the next count will find it where it is.
                break;
            }
        }
    }
    Ok(usage)
}

/// Bytes of files on the folder's device that a process has open and that have no name any more, so that no walk finds them.
/// Nothing where its descriptors may not be seen. `seen` holds inodes that are counted already.
pub fn of_nameless_files(pid: u32, folder: &Path, seen: &mut Vec<u64>) -> u64 {
    let Ok(device) = stat(folder).map(|found| found.st_dev) else {
        return 0;
    };
    let Ok(descriptors) = openat(CWD, format!("/proc/{pid}/fd"), FOLDER, Mode::empty()) else {
        return 0;
    };
    let Ok(entries) = Dir::read_from(&descriptors) else {
        return 0;
    };
    let mut bytes = 0;
    for entry in entries.flatten() {
        let Ok(found) = statat(&descriptors, entry.file_name(), AtFlags::empty()) else {
            continue;
        };
        let nameless = found.st_nlink == 0 && FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
        if nameless && found.st_dev == device && !seen.contains(&found.st_ino) {
            seen.push(found.st_ino);
            bytes += block_bytes(&found);
        }
    }
    bytes
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens a folder; one that its owner has closed to itself is opened up first, as it will be when it is removed.
fn open(at: impl AsFd, name: impl rustix::path::Arg + Copy) -> io::Result<OwnedFd> {
    match openat(&at, name, FOLDER, Mode::empty()) {
        Err(Errno::ACCESS) => {
            chmodat(&at, name, Mode::RWXU, AtFlags::empty())?;
            Ok(openat(&at, name, FOLDER, Mode::empty())?)
        }
        opened => Ok(opened?),
    }
}

fn identity(folder: &OwnedFd) -> io::Result<(u64, u64)> {
    let found = fstat(folder)?;
    #[allow(clippy::useless_conversion, reason = "the type differs by platform")]
    Ok((u64::try_from(found.st_dev).unwrap_or(0), found.st_ino.into()))
}

fn look_at(folder: &OwnedFd, usage: &mut Usage, bound: Usage) -> io::Result<Level> {
    let mut folders = Vec::new();
    for entry in Dir::read_from(folder)? {
        let Ok(entry) = entry else { break };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(found) = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        usage.files += 1;
        usage.bytes += block_bytes(&found);
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            folders.push(name.to_owned());
        }
        if usage.is_over(bound) {
            break;
        }
    }
    Ok(Level {
        identity: identity(folder)?,
        folders,
    })
}

fn block_bytes(found: &rustix::fs::Stat) -> u64 {
    u64::try_from(found.st_blocks).unwrap_or(0).saturating_mul(512)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Usage = Usage {
        bytes: 1 << 40,
        files: 1 << 20,
    };

    #[test]
    fn everything_in_a_folder_is_counted_up_to_the_bound() {
        let home = tempfile::tempdir().unwrap();
        let (top, outside) = (home.path().join("top"), home.path().join("outside"));
        std::fs::create_dir_all(top.join("a/b")).unwrap();
        std::fs::create_dir_all(top.join("c")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("large"), vec![1; 4 << 20]).unwrap();
        std::fs::write(top.join("a/b/file"), vec![1; 1 << 20]).unwrap();
        std::fs::write(top.join("c/file"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink(&outside, top.join("a/link")).unwrap();
        let usage = of_folder(&top, WIDE).unwrap();
        assert_eq!(usage.files, 6);
        assert!((2 << 20..3 << 20).contains(&usage.bytes), "{usage:?}");
        let bounded = of_folder(&top, Usage { bytes: 1, ..WIDE }).unwrap();
        assert!(bounded.bytes > 1 && bounded.bytes <= usage.bytes);
        assert!(of_folder(&home.path().join("missing"), WIDE).is_err());
    }

    #[test]
    fn depth_costs_no_descriptors_and_hides_nothing() {
        let home = tempfile::tempdir().unwrap();
        let top = home.path().join("top");
        std::fs::create_dir(&top).unwrap();
        let mut at = open(CWD, top.as_path()).unwrap();
        for _ in 0..3_000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = open(at.as_fd(), c"d").unwrap();
        }
        drop(at);
        assert_eq!(of_folder(&top, WIDE).unwrap().files, 3_000);
        super::super::remove::remove_tree(&top).unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_without_a_name_is_found_with_the_process_that_has_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        std::fs::write(&path, vec![1; 1 << 20]).unwrap();
        let open = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut seen = Vec::new();
        assert_eq!(of_nameless_files(std::process::id(), home.path(), &mut seen) >> 20, 1);
        assert_eq!(of_nameless_files(std::process::id(), home.path(), &mut seen), 0);
        drop(open);
    }
}
