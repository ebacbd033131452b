//! One `weft dev` on a data folder. The kernel lets go of the lock when the process ends, however it ends, so what a dead one
//! leaves behind is in nobody's way.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::Failure;
use crate::runner::folders::make_passable;

/// Held as long as it lives.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// Takes the lock of a data folder.
pub(super) fn take(data: &Path) -> Result<Lock, Failure> {
    let fail = |error: std::io::Error| {
        Failure::new(format!("the data folder `{}` can't be used: {error}", data.display()))
            .hint("name another with `--data`")
    };
    make_passable(data).map_err(fail)?;
    let path = data.join("dev.lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(fail)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        // Only for the message.
        drop(file.read_to_string(&mut holder));
        return Err(Failure::new(format!(
            "another `weft dev` uses the data folder `{}` (process {})",
            data.display(),
            holder.trim()
        ))
        .hint("stop it, or name another folder with `--data`"));
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(fail)?;
    Ok(Lock { _file: file })
}
