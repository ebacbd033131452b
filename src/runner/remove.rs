//! Removes a folder that foreign code filled, however deep it is.
//!
//! A walk that recurses, or that holds a descriptor for each level, can be made to overflow the stack or to use up the
//! descriptors of the process that cleans up. Here a folder's subfolders are moved up beside it before it is removed, so the
//! tree gets flat and two descriptors are enough. Symbolic links are removed, never followed.

use std::io;
use std::path::Path;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, chmodat, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Removes a folder with everything in it.
///
/// # Errors
/// When it is not there, or something in it can't be removed.
pub(super) fn remove_tree(top: &Path) -> io::Result<()> {
    let folder = open(CWD, top)?;
    let mut moved = 0u64;
    loop {
        let mut left = false;
        for name in names(&folder)? {
            if unlinked(folder.as_fd(), &name)? {
                continue;
            }
            left = true;
            let inner = open(folder.as_fd(), name.as_c_str())?;
            for child in names(&inner)? {
                if !unlinked(inner.as_fd(), &child)? {
                    // A name that foreign code has chosen as well is overtaken by the next number.
                    loop {
                        moved += 1;
                        match renameat(&inner, &child, &folder, format!(".removed-{moved}")) {
                            Ok(()) => break,
                            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                            Err(error) => return Err(error.into()),
                        }
                    }
                }
            }
        }
        if !left {
            break;
        }
    }
    std::fs::remove_dir(top)
}

/// Opens a folder; one that its owner has closed to itself is opened up first.
fn open(at: impl AsFd, name: impl rustix::path::Arg + Copy) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(&at, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            chmodat(&at, name, Mode::RWXU, AtFlags::empty())?;
            Ok(openat(&at, name, flags, Mode::empty())?)
        }
        opened => Ok(opened?),
    }
}

fn names(folder: &OwnedFd) -> io::Result<Vec<std::ffi::CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes a file, or a folder that is empty; whether it is gone.
fn unlinked(at: impl AsFd, name: &std::ffi::CString) -> io::Result<bool> {
    match unlinkat(&at, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    match unlinkat(&at, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_of_any_depth_goes_and_links_are_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let (top, outside) = (home.path().join("top"), home.path().join("outside"));
        std::fs::create_dir_all(top.join("a/b")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "x").unwrap();
        std::fs::write(top.join("a/b/file"), "x").unwrap();
        std::fs::write(top.join(".removed-1"), "in the way").unwrap();
        std::os::unix::fs::symlink(&outside, top.join("a/link")).unwrap();
        // Deeper than any path may be long.
        let mut at = open(CWD, top.as_path()).unwrap();
        for _ in 0..6_000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = open(at.as_fd(), c"d").unwrap();
        }
        drop(at);
        remove_tree(&top).unwrap();
        assert!(!top.exists());
        assert!(outside.join("kept").exists());
    }
}
