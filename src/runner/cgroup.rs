//! One control group for the zygote and all below it: a bound on what all steps together take from the machine, behind the
//! limits of each. The zygote is put into it once, when it starts, because to move a process into a group takes milliseconds.
//!
//! With version 2 the group is made below the handler's own, or below the one that systemd has delegated. With version 1
//! nothing tells whether a group is the handler's to change, so there it is made only when that was asked for.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

/// Where the file systems are.
pub const ROOT: &str = "/sys/fs/cgroup";

/// When a group is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Where it is certain that the handler may.
    #[default]
    Delegated,
    /// Also where it is only possible.
    Possible,
    /// Never.
    Never,
}

/// Bounds of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Memory, page cache included.
    pub memory_bytes: u64,
    /// Threads of all processes.
    pub tasks: u64,
}

impl Bounds {
    /// For this many attempts at once, each within its limits, and what runs them; at most four fifths of the machine.
    #[must_use]
    pub fn of(slots: usize, memory_bytes: u64, threads: u64) -> Self {
        let slots = slots as u64;
        let wanted = slots.saturating_mul(memory_bytes).saturating_add(512 << 20);
        Self {
            memory_bytes: machine_memory().map_or(wanted, |machine| wanted.min(machine / 5 * 4)),
            tasks: slots.saturating_mul(threads).saturating_add(512),
        }
    }
}

fn machine_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()?;
    Some(kib << 10)
}

/// A group that was made, a folder for each hierarchy. Dropping it removes it, once it is empty.
#[derive(Debug)]
pub struct Group {
    folders: Vec<PathBuf>,
    bounds: Bounds,
}

static GROUPS: AtomicU64 = AtomicU64::new(0);

impl Group {
    /// Makes one. `own` is what `/proc/self/cgroup` says.
    ///
    /// # Errors
    /// Why there is none, for people; nothing is left behind then.
    pub fn create(root: &Path, own: &str, when: When, bounds: Bounds) -> Result<Self, String> {
        let name = format!("weft-{}-{}", std::process::id(), GROUPS.fetch_add(1, Ordering::Relaxed));
        let place = |controller: &str| {
            own.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (controllers, path) = rest.split_once(':')?;
                (controllers == controller).then(|| path.trim_start_matches('/').to_owned())
            })
        };
        if when == When::Never {
            return Err("it is turned off".to_owned());
        }
        let second = place("").and_then(|path| delegated(root, &path));
        let mut group = Self {
            folders: Vec::new(),
            bounds,
        };
        if let Some(parent) = second {
            group.make(&parent, &name)?;
            group.set("memory.max", bounds.memory_bytes)?;
            group.set("pids.max", bounds.tasks)?;
            // Beyond those two it is only better with them.
            let _ = group.set("memory.swap.max", 0);
            let _ = group.set("cpu.weight", 50);
            return Ok(group);
        }
        if when != When::Possible {
            return Err("no group with the controllers `memory` and `pids` is delegated to this process".to_owned());
        }
        for controller in ["memory", "pids"] {
            let path = place(controller).ok_or_else(|| format!("the controller `{controller}` is missing"))?;
            group.make(&root.join(controller).join(path), &name)?;
        }
        group.set("memory.limit_in_bytes", bounds.memory_bytes)?;
        group.set("pids.max", bounds.tasks)?;
        if let Some(path) = place("cpu")
            && group.make(&root.join("cpu").join(path), &name).is_ok()
        {
            let _ = group.set("cpu.shares", 512);
        }
        Ok(group)
    }

    fn make(&mut self, parent: &Path, name: &str) -> Result<(), String> {
        remove_leftovers(parent);
        let folder = parent.join(name);
        fs::create_dir(&folder).map_err(|error| format!("`{}` can't be made: {error}", folder.display()))?;
        self.folders.push(folder);
        Ok(())
    }

    /// Writes a bound and reads it back.
    fn set(&self, file: &str, value: u64) -> Result<(), String> {
        let Some(path) = self.file(file) else {
            return Err(format!("there is no `{file}`"));
        };
        fs::write(&path, value.to_string()).map_err(|error| format!("`{}`: {error}", path.display()))?;
        // Memory is counted in pages.
        let read = number(&path);
        if read.is_some_and(|read| read.abs_diff(value) < 64 << 10) {
            Ok(())
        } else {
            Err(format!("`{}` is {read:?} after {value} was written", path.display()))
        }
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        self.folders
            .iter()
            .map(|folder| folder.join(name))
            .find(|path| path.exists())
    }

    /// Puts a process into it, with all that it will fork.
    ///
    /// # Errors
    /// When that is refused.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        for folder in &self.folders {
            fs::write(folder.join("cgroup.procs"), pid.to_string())?;
        }
        Ok(())
    }

    /// Whether a process is in it, as the kernel says.
    #[must_use]
    pub fn holds(&self, pid: u32) -> bool {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        self.folders.iter().all(|folder| {
            let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            text.lines().any(|line| line.rsplit('/').next() == Some(name))
        })
    }

    /// How many processes the kernel has killed because the memory was used up.
    #[must_use]
    pub fn memory_kills(&self) -> u64 {
        ["memory.events", "memory.oom_control"]
            .iter()
            .filter_map(|name| fs::read_to_string(self.file(name)?).ok())
            .flat_map(|text| {
                text.lines()
                    .filter_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())
                    .collect::<Vec<_>>()
            })
            .sum()
    }

    /// What it was made with.
    #[must_use]
    pub const fn bounds(&self) -> Bounds {
        self.bounds
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The last process may be on its way out.
        let end = Instant::now() + Duration::from_millis(500);
        for folder in &self.folders {
            while let Err(error) = fs::remove_dir(folder) {
                if error.kind() == io::ErrorKind::NotFound {
                    break;
                }
                if Instant::now() > end {
                    tracing::debug!(path = %folder.display(), %error, "a control group stays until the next start");
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// The folder of version 2 below which groups with both controllers can be made.
fn delegated(root: &Path, path: &str) -> Option<PathBuf> {
    let root = if root.join("cgroup.controllers").exists() {
        root.to_owned()
    } else {
        root.join("unified")
    };
    let own = root.join(path);
    // systemd puts the service into a group of its own below the delegated one, and marks that.
    let above = own
        .parent()
        .filter(|above| above.starts_with(&root) && is_marked(above))
        .map(Path::to_owned);
    [Some(own), above].into_iter().flatten().find(|folder| {
        let has_both = |file: &str| {
            let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
            ["memory", "pids"]
                .iter()
                .all(|name| text.split_ascii_whitespace().any(|word| word == *name))
        };
        let subtree = folder.join("cgroup.subtree_control");
        has_both("cgroup.controllers")
            && (has_both("cgroup.subtree_control")
                || (fs::write(&subtree, "+memory +pids").is_ok() && has_both("cgroup.subtree_control")))
    })
}

fn is_marked(folder: &Path) -> bool {
    let mut value = [0; 4];
    ["trusted.delegate", "user.delegate"]
        .iter()
        .any(|name| rustix::fs::getxattr(folder, *name, &mut value).is_ok_and(|length| value[..length] == *b"1"))
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Removes groups of handlers that have died. One that is not empty can't be removed.
fn remove_leftovers(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let dead = name
            .to_str()
            .and_then(|name| name.strip_prefix("weft-")?.split_once('-')?.0.parse::<u32>().ok())
            .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        if dead {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        memory_bytes: 1 << 30,
        tasks: 100,
    };

    /// A folder in the place of the kernel's: files that exist there appear in a new group too late for `create`, so only
    /// what is refused, and which folder is chosen, is seen here.
    fn second(controllers: &str, subtree: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("unit/handler");
        fs::create_dir_all(&own).unwrap();
        for folder in [root.path(), &own] {
            fs::write(folder.join("cgroup.controllers"), controllers).unwrap();
            fs::write(folder.join("cgroup.subtree_control"), subtree).unwrap();
        }
        root
    }

    #[test]
    fn a_group_is_made_only_where_it_is_the_handlers_to_make() {
        let root = second("cpu memory pids", "memory pids");
        assert_eq!(
            delegated(root.path(), "unit/handler"),
            Some(root.path().join("unit/handler"))
        );
        for (controllers, subtree) in [("cpu", ""), ("cpu memory", "memory"), ("", "")] {
            let root = second(controllers, subtree);
            assert_eq!(delegated(root.path(), "unit/handler"), None);
        }
        let own = "4:memory:/a\n8:pids:/b\n0::/nowhere\n";
        for when in [When::Delegated, When::Never] {
            assert!(Group::create(root.path(), own, when, BOUNDS).is_err());
        }
        // Nothing is left of a group that could not be finished.
        fs::create_dir_all(root.path().join("memory/a")).unwrap();
        fs::create_dir_all(root.path().join("pids/b")).unwrap();
        assert!(Group::create(root.path(), own, When::Possible, BOUNDS).is_err());
        assert_eq!(fs::read_dir(root.path().join("memory/a")).unwrap().count(), 0);
    }

    /// Where this process may make groups of the kernel's at the top of a hierarchy of version 1; skipped elsewhere.
    #[test]
    fn the_kernel_holds_processes_in_a_group() {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let top = Path::new(ROOT).join("pids");
        let mut group = Group {
            folders: Vec::new(),
            bounds: BOUNDS,
        };
        if !own.lines().any(|line| line.ends_with(":pids:/")) || group.make(&top, "weft-test-of-groups").is_err() {
            return;
        }
        group.set("pids.max", 2).unwrap();
        let folder = group.folders[0].clone();
        #[expect(clippy::disallowed_methods, reason = "a process to be held")]
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "read wait; for n in 1 2 3 4; do (sleep 1) & done; wait"])
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        assert!(!group.holds(child.id()));
        group.add(child.id()).unwrap();
        assert!(group.holds(child.id()));
        drop(child.stdin.take());
        let output = child.wait_with_output().unwrap();
        assert!(
            String::from_utf8_lossy(&output.stderr).to_lowercase().contains("fork"),
            "{output:?}"
        );
        drop(group);
        assert!(!folder.exists());
    }
}
