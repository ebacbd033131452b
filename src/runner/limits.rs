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

/// A limit that can fire, for the sentence that tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Wall time.
    Wall,
    /// Processor time.
    Cpu,
    /// Resident memory.
    Memory,
    /// Descriptors of one process.
    OpenFiles,
    /// Processes.
    Processes,
    /// Threads.
    Threads,
    /// Bytes of the folder, and of a file in it.
    DiskBytes,
    /// Files and folders in the folder.
    DiskFiles,
    /// The result.
    Result,
}

impl Limit {
    /// The limit itself, as `512 MiB` or `32 processes`.
    #[must_use]
    pub fn value(self, limits: &Limits) -> String {
        match self {
            Self::Wall => duration_in_words(limits.wall()),
            Self::Cpu => format!("{} s of processor time", limits.cpu_seconds),
            Self::Memory => format!("{} of memory", bytes_in_words(limits.memory_bytes)),
            Self::OpenFiles => format!("{} open files of one process", limits.open_files),
            Self::Processes => format!("{} processes at the same time", limits.processes),
            Self::Threads => format!("{} threads at the same time", limits.threads),
            Self::DiskBytes => format!("{} on disk", bytes_in_words(limits.disk_bytes)),
            Self::DiskFiles => format!("{} files and folders", limits.disk_files),
            Self::Result => format!("{} of JSON", bytes_in_words(limits.result_bytes)),
        }
    }

    /// What of the decorator declares it, if anything does, and the setting that is its ceiling.
    #[must_use]
    pub const fn declared_as(self) -> (Option<&'static str>, &'static str) {
        match self {
            Self::Wall => (Some("timeout_seconds"), "WEFT_STEP_TIMEOUT_SECONDS"),
            Self::Cpu => (Some("cpu_seconds"), "WEFT_STEP_CPU_SECONDS"),
            Self::Memory => (Some("memory_mib"), "WEFT_STEP_MEMORY_MIB"),
            Self::OpenFiles => (Some("open_files"), "WEFT_STEP_OPEN_FILES"),
            Self::Processes => (Some("processes"), "WEFT_STEP_PROCESSES"),
            Self::Threads => (Some("threads"), "WEFT_STEP_THREADS"),
            Self::DiskBytes => (Some("disk_mib"), "WEFT_STEP_DISK_BYTES"),
            Self::DiskFiles => (Some("disk_files"), "WEFT_STEP_DISK_FILES"),
            Self::Result => (None, "WEFT_MAX_RESULT_BYTES"),
        }
    }

    /// What to change so that it is larger.
    #[must_use]
    pub fn where_to_raise(self) -> String {
        match (self, self.declared_as()) {
            (Self::Wall, (Some(argument), setting)) => {
                format!(
                    "raise the step's `{argument}` (`timeoutSeconds` of a node), up to the installation's `{setting}`"
                )
            }
            (_, (Some(argument), setting)) => format!(
                "raise `{argument}` where the decorator's `limits` set it, and otherwise the installation's `{setting}`"
            ),
            (_, (None, setting)) => format!("the installation's `{setting}` raises it"),
        }
    }

    /// `the limit is 512 MiB of memory: raise …`, to be said after what happened.
    #[must_use]
    pub fn in_words(self, limits: &Limits) -> String {
        format!("the limit is {}: {}", self.value(limits), self.where_to_raise())
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
        assert_eq!(
            Limit::Memory.in_words(&Limits::default()),
            "the limit is 512 MiB of memory: raise `memory_mib` where the decorator's `limits` set it, and otherwise \
             the installation's `WEFT_STEP_MEMORY_MIB`"
        );
    }

    #[test]
    fn every_limit_names_a_setting_that_exists() {
        for limit in [
            Limit::Wall,
            Limit::Cpu,
            Limit::Memory,
            Limit::OpenFiles,
            Limit::Processes,
            Limit::Threads,
            Limit::DiskBytes,
            Limit::DiskFiles,
            Limit::Result,
        ] {
            let (_, setting) = limit.declared_as();
            assert!(crate::config::env_var::find(setting).is_some(), "{setting}");
        }
    }
}
