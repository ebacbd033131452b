//! What a process and everything below it use, read from `/proc`.
//!
//! Whatever vanishes while it is looked at counts as not there, and nothing here waits for a process: `stat`, `status` and
//! `children` take no lock that a process can hold for long. [`shared_memory`] does, so it belongs on a thread of its own.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use rustix::fs::{CWD, Dir, Mode, OFlags, openat};

/// A process, as one look at `/proc/<pid>/stat` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its parent.
    pub parent: u32,
    /// Whether it has ended and nobody has asked how.
    pub zombie: bool,
    /// User and system time in ticks.
    pub ticks: u64,
    /// The same of its children that have ended and were waited for.
    pub waited_ticks: u64,
    /// How many threads.
    pub threads: u64,
    /// When it was started, in ticks since the boot; with the pid this names it for good.
    pub started: u64,
    /// Resident memory in pages, files included.
    pub resident_pages: u64,
}

/// Ticks in a second, as the kernel counts them for user space: 100 on every architecture that Rust's Linux runs on.
pub const TICKS_PER_SECOND: u64 = 100;

/// Ended processes keep nothing but their number, so there may be more of them than of living ones.
const ZOMBIES: u64 = 16;

/// A tree of processes, summed up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// Those found, the root first.
    pub pids: Vec<u32>,
    /// Who has forked the root.
    pub parent: u32,
    /// When the root was started.
    pub started: u64,
    /// Living ones.
    pub processes: u64,
    /// Ended ones that nobody has waited for.
    pub zombies: u64,
    /// Threads of the living ones.
    pub threads: u64,
    /// Resident memory in bytes: pages in several processes are counted several times, so it is never too little.
    pub resident: u64,
    /// Own ticks of each process, by pid and start.
    pub ticks: HashMap<(u32, u64), u64>,
    /// Ticks of ended processes that a living one has waited for.
    pub waited_ticks: u64,
    /// Whether the walk ended at its bound; there is more.
    pub cut: bool,
}

/// Reads files below `/proc` into one buffer.
#[derive(Debug)]
pub struct Reader {
    path: String,
    buffer: Vec<u8>,
    page_bytes: u64,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            path: String::with_capacity(64),
            buffer: Vec::with_capacity(4096),
            page_bytes: rustix::param::page_size() as u64,
        }
    }
}

impl Reader {
    /// A process, unless it is gone or may not be seen.
    pub fn process(&mut self, pid: u32) -> Option<Process> {
        self.read(format_args!("/proc/{pid}/stat"))?;
        parse_stat(&self.buffer)
    }

    /// A process and all below it; none when it is gone. `started` makes sure that it is still the same one. Stops above
    /// `bound` living processes, and above several times as many ended ones.
    pub fn tree(&mut self, root: u32, started: Option<u64>, bound: u64) -> Option<Tree> {
        let first = self.process(root)?;
        if started.is_some_and(|started| started != first.started) {
            return None;
        }
        let mut tree = Tree {
            parent: first.parent,
            started: first.started,
            ..Tree::default()
        };
        // Whoever is adopted in the middle of the walk might be met twice.
        let mut seen = HashSet::from([root]);
        let mut waiting = Vec::new();
        self.add(&mut tree, root, &first, &mut waiting);
        while let Some(pid) = waiting.pop() {
            if seen.insert(pid)
                && let Some(process) = self.process(pid)
            {
                self.add(&mut tree, pid, &process, &mut waiting);
            }
            if tree.processes > bound || tree.zombies > bound.saturating_mul(ZOMBIES) {
                tree.cut = true;
                break;
            }
        }
        Some(tree)
    }

    fn add(&mut self, tree: &mut Tree, pid: u32, process: &Process, children: &mut Vec<u32>) {
        tree.pids.push(pid);
        if process.zombie {
            tree.zombies += 1;
        } else {
            tree.processes += 1;
            tree.threads += process.threads;
        }
        tree.resident += process.resident_pages * self.page_bytes;
        tree.ticks.insert((pid, process.started), process.ticks);
        tree.waited_ticks += process.waited_ticks;
        if process.threads <= 1 {
            self.children(pid, pid, children);
        } else {
            // A child belongs to the thread that has forked it.
            for thread in self.threads(pid) {
                self.children(pid, thread, children);
            }
        }
    }

    fn children(&mut self, pid: u32, thread: u32, into: &mut Vec<u32>) {
        if self.read(format_args!("/proc/{pid}/task/{thread}/children")).is_some() {
            into.extend(
                self.buffer
                    .split(|byte| *byte == b' ')
                    .filter_map(|word| std::str::from_utf8(word).ok()?.trim().parse::<u32>().ok()),
            );
        }
    }

    fn threads(&mut self, pid: u32) -> Vec<u32> {
        self.path.clear();
        let _ = write!(self.path, "/proc/{pid}/task");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(folder) = openat(CWD, self.path.as_str(), flags, Mode::empty()) else {
            return Vec::new();
        };
        let Ok(entries) = Dir::new(folder) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok())
            .collect()
    }

    /// Bytes of memory that can't be taken back: anonymous, shared and swapped out. What several processes share is counted
    /// for each of them, so it is never too little. None when the process is gone.
    pub fn own_memory(&mut self, pid: u32) -> Option<u64> {
        self.read(format_args!("/proc/{pid}/status"))?;
        Some(sum_of_kib(&self.buffer, &["RssAnon:", "RssShmem:", "VmSwap:"]))
    }

    /// The same, with shared pages divided among those who share them. None where it may not be read. Waits for the
    /// process's memory map, which the process may be changing.
    pub fn shared_memory(&mut self, pid: u32) -> Option<u64> {
        self.read(format_args!("/proc/{pid}/smaps_rollup"))?;
        Some(sum_of_kib(&self.buffer, &["Pss_Anon:", "Pss_Shmem:", "SwapPss:"]))
    }

    fn read(&mut self, path: std::fmt::Arguments<'_>) -> Option<()> {
        self.path.clear();
        self.path.write_fmt(path).ok()?;
        let file = openat(CWD, self.path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        self.buffer.clear();
        loop {
            let start = self.buffer.len();
            self.buffer.resize(start + 4096, 0);
            let length = rustix::io::read(&file, &mut self.buffer[start..]).unwrap_or(0);
            self.buffer.truncate(start + length);
            if length == 0 {
                return (!self.buffer.is_empty()).then_some(());
            }
        }
    }
}

/// The name in parentheses may hold anything, parentheses and spaces included, so fields are counted from the last one.
fn parse_stat(stat: &[u8]) -> Option<Process> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(&stat[end + 1..]).ok()?;
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    // `proc(5)` counts from 1, and the state is field 3.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Process {
        parent: u32::try_from(number(4)?).ok()?,
        zombie: matches!(*fields.first()?, "Z" | "X"),
        ticks: number(14)? + number(15)?,
        // Signed in the kernel's description, never negative.
        waited_ticks: number(16)? + number(17)?,
        threads: number(20)?,
        started: number(22)?,
        resident_pages: number(24)?,
    })
}

fn sum_of_kib(text: &[u8], names: &[&str]) -> u64 {
    String::from_utf8_lossy(text)
        .lines()
        .filter(|line| names.iter().any(|name| line.starts_with(name)))
        .filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
        .sum::<u64>()
        << 10
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_not_forge_the_fields() {
        let stat = b"7 (a) Z 1 (b) ) S 3 7 7 0 -1 4194560 9 0 0 0 11 22 33 44 20 0 5 0 12345 1000 77 184467";
        assert_eq!(
            parse_stat(stat),
            Some(Process {
                parent: 3,
                zombie: false,
                ticks: 33,
                waited_ticks: 77,
                threads: 5,
                started: 12_345,
                resident_pages: 77,
            })
        );
        assert_eq!(parse_stat(b"7 (short) S 1"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn this_process_is_read() {
        let mut reader = Reader::default();
        let this = std::process::id();
        let process = reader.process(this).unwrap();
        let tree = reader.tree(this, Some(process.started), 1_000).unwrap();
        assert_eq!(tree.pids[0], this);
        assert!(tree.processes >= 1 && tree.threads >= process.threads.min(2) && tree.resident > 1 << 20);
        assert!(reader.own_memory(this).unwrap() > 100 << 10);
        assert!(reader.tree(this, Some(process.started + 1), 1_000).is_none());
        assert!(reader.process(u32::MAX / 2).is_none());
    }
}
