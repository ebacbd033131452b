//! Folders on the way to what steps use. Where the handler is root, steps are other users: they have to get through, and need
//! not look around. Modes are set whatever the process' mask is.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// Makes a folder, and those above it that are not there. As root they let other users through and show them nothing, and a
/// folder that was there already does so from now on; as another user new ones are their owner's alone.
///
/// # Errors
/// When it can't be made.
pub fn make_passable(path: &Path) -> io::Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    let mode = if is_root { 0o711 } else { 0o700 };
    let mut missing: Vec<&Path> = path
        .ancestors()
        .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
        .collect();
    while let Some(folder) = missing.pop() {
        make(folder, mode)?;
    }
    let metadata = fs::metadata(path)?;
    if is_root && metadata.uid() == 0 && metadata.mode() & 0o011 != 0o011 {
        fs::set_permissions(path, Permissions::from_mode(metadata.mode() & 0o7777 | 0o011))?;
    }
    Ok(())
}

/// Makes one folder with this mode; one that is there keeps its own.
///
/// # Errors
/// When it can't be made.
pub(super) fn make(folder: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(folder) {
        Ok(()) => fs::set_permissions(folder, Permissions::from_mode(mode)),
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Puts a new folder in the place of another, which is aside afterwards. Where the file system can, in one step, so that there is
/// no moment in which nothing is there.
///
/// # Errors
/// When one of them can't be moved.
pub(super) fn replace(new: &Path, place: &Path, aside: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    if renameat_with(CWD, new, CWD, place, RenameFlags::EXCHANGE).is_ok() {
        return fs::rename(new, aside);
    }
    fs::rename(place, aside)?;
    fs::rename(new, place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn others_get_through_where_the_handler_is_root() {
        let home = tempfile::tempdir().unwrap();
        let expected = if rustix::process::geteuid().is_root() {
            0o711
        } else {
            0o700
        };
        make_passable(&home.path().join("data/deep")).unwrap();
        for made in ["data", "data/deep"] {
            assert_eq!(mode(&home.path().join(made)), expected, "{made}");
        }
        let open = home.path().join("open");
        make(&open, 0o755).unwrap();
        make_passable(&open).unwrap();
        assert_eq!(mode(&open), 0o755, "nothing is taken from a folder that was there");
        let closed = home.path().join("closed");
        make(&closed, 0o700).unwrap();
        make_passable(&closed).unwrap();
        assert_eq!(mode(&closed), expected);
    }
}
