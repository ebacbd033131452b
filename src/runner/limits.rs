//! Which of an attempt's limits the worker enforces on itself, and how limits are said in words.

use std::time::Duration;

use serde::Serialize;

use crate::domain::Limits;

/// The limits that are set when a worker is forked. Workers forked with equal ones are interchangeable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct ForkLimits {
    /// Resident memory in bytes; `RLIMIT_AS` is 2 GiB above it.
    pub memory_bytes: u64,
    /// `RLIMIT_CPU`, in seconds.
    pub cpu_seconds: u64,
    /// `RLIMIT_NOFILE`.
    pub open_files: u64,
    /// Processes at the same time.
    pub processes: u64,
    /// Threads of all processes; `RLIMIT_NPROC`, where the user is the worker's own.
    pub threads: u64,
    /// Size of its folder in bytes; `RLIMIT_FSIZE`.
    pub disk_bytes: u64,
    /// Files and folders in its folder.
    pub disk_files: u64,
    /// Bytes of the result's JSON.
    pub result_bytes: u64,
    /// Bytes of a frame.
    pub frame_bytes: u64,
}

impl From<&Limits> for ForkLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            memory_bytes: limits.memory_bytes,
            cpu_seconds: limits.cpu_seconds,
            open_files: limits.open_files,
            processes: limits.processes,
            threads: limits.threads,
            disk_bytes: limits.disk_bytes,
            disk_files: limits.disk_files,
            result_bytes: limits.result_bytes,
            frame_bytes: limits.frame_bytes,
        }
    }
}

impl ForkLimits {
    /// Limits with these values, and the defaults for what is not set when a worker is forked.
    #[must_use]
    pub fn as_limits(&self) -> Limits {
        Limits {
            memory_bytes: self.memory_bytes,
            cpu_seconds: self.cpu_seconds,
            open_files: self.open_files,
            processes: self.processes,
            threads: self.threads,
            disk_bytes: self.disk_bytes,
            disk_files: self.disk_files,
            result_bytes: self.result_bytes,
            frame_bytes: self.frame_bytes,
            ..Limits::default()
        }
    }
}

/// `300 s`, `1.5 s` or `300 ms`.
#[must_use]
pub fn duration_in_words(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1_000 {
        format!("{millis} ms")
    } else if millis.is_multiple_of(1_000) {
        format!("{} s", millis / 1_000)
    } else {
        format!("{} s", duration.as_secs_f64())
    }
}

/// `512 MiB`, `64 KiB` or `100 bytes`: the largest unit that divides it.
#[must_use]
pub fn bytes_in_words(bytes: u64) -> String {
    for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{} {name}", bytes / unit);
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_read_well() {
        assert_eq!(duration_in_words(Duration::from_millis(300)), "300 ms");
        assert_eq!(duration_in_words(Duration::from_millis(1_500)), "1.5 s");
        assert_eq!(duration_in_words(Duration::from_secs(300)), "300 s");
        assert_eq!(bytes_in_words(512 << 20), "512 MiB");
        assert_eq!(bytes_in_words((1 << 20) + (64 << 10)), "1088 KiB");
        assert_eq!(bytes_in_words(100), "100 bytes");
    }
}
