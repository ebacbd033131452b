//! The file with the keys that seal secrets, where the operator keeps them in one: readable by its owner only, one key in a
//! line, the one that seals first.

use std::io::{self, Write as _};
use std::path::Path;

use crate::clock::Entropy;
use crate::domain::Secret;
use crate::secrets::keyring::Keyring;

/// What stands in the file. With `make`, one that is missing is made with a new key.
///
/// # Errors
/// When it can't be read or made.
pub fn read(path: &Path, make: bool, entropy: &Entropy) -> io::Result<Secret> {
    loop {
        match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && make => {
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder)?;
                }
                let key = Keyring::encode(&entropy.bytes());
                let [number] = entropy.bytes::<1>();
                let beside = path.with_extension(format!("{}-{number}", std::process::id()));
                write(&beside, &key)?;
                // Whole or not at all, and the first of several processes wins.
                let linked = std::fs::hard_link(&beside, path);
                std::fs::remove_file(&beside)?;
                match linked {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    other => return other.map(|()| key),
                }
            }
            other => return other.map(Secret::value),
        }
    }
}

/// The keys in the file, if it has any.
#[must_use]
pub fn keys(path: &Path) -> Option<Keyring> {
    let text = Secret::value(std::fs::read_to_string(path).ok()?);
    Keyring::parse(&text).ok()
}

/// Puts a new key before those that stand in the file. They stay, and open what they have sealed.
///
/// # Errors
/// When it can't be read or written.
pub fn add(path: &Path, entropy: &Entropy) -> io::Result<()> {
    let before = Secret::value(std::fs::read_to_string(path)?);
    let key = Keyring::encode(&entropy.bytes());
    let beside = path.with_extension("new");
    // Left by one who was interrupted.
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write(
        &beside,
        &Secret::value(format!("{}\n{}", key.expose(), before.expose().trim())),
    )?;
    std::fs::rename(&beside, path)
}

/// A new file that nobody else may read.
fn write(path: &Path, text: &Secret) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    file.write_all(text.expose().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}
