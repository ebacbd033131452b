//! How much one attempt may use, and the smallest of several such answers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The resource envelope of one attempt, its whole process tree included. Defaults are those of a workspace's trusted code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Wall time from the arguments to the report, in milliseconds.
    pub wall_ms: u64,
    /// Processor seconds.
    pub cpu_seconds: u64,
    /// Resident memory in bytes; the address space may be 2 GiB larger.
    pub memory_bytes: u64,
    /// Open files of one process.
    pub open_files: u64,
    /// Processes at the same time, its own included.
    pub processes: u64,
    /// Threads at the same time, of all its processes together.
    pub threads: u64,
    /// Bytes in its folder, shared memory included; no file can be larger.
    pub disk_bytes: u64,
    /// Files and folders in its folder.
    pub disk_files: u64,
    /// Bytes of stdout and of stderr that are kept; what is above is counted and dropped.
    pub output_bytes: u64,
    /// Bytes of the result's JSON.
    pub result_bytes: u64,
    /// Log lines that are kept.
    pub log_lines: u64,
    /// Largest frame between worker and handler, in bytes.
    pub frame_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall_ms: 300_000,
            cpu_seconds: 300,
            memory_bytes: 512 << 20,
            open_files: 256,
            processes: 32,
            threads: 128,
            disk_bytes: 64 << 20,
            disk_files: 8_192,
            output_bytes: 1 << 20,
            result_bytes: 1 << 20,
            log_lines: 10_000,
            frame_bytes: (1 << 20) + (64 << 10),
        }
    }
}

impl Limits {
    /// The wall time as a duration.
    #[must_use]
    pub const fn wall(&self) -> Duration {
        Duration::from_millis(self.wall_ms)
    }

    /// For each limit the smaller of both.
    #[must_use]
    pub fn min(&self, other: &Self) -> Self {
        Self {
            wall_ms: self.wall_ms.min(other.wall_ms),
            cpu_seconds: self.cpu_seconds.min(other.cpu_seconds),
            memory_bytes: self.memory_bytes.min(other.memory_bytes),
            open_files: self.open_files.min(other.open_files),
            processes: self.processes.min(other.processes),
            threads: self.threads.min(other.threads),
            disk_bytes: self.disk_bytes.min(other.disk_bytes),
            disk_files: self.disk_files.min(other.disk_files),
            output_bytes: self.output_bytes.min(other.output_bytes),
            result_bytes: self.result_bytes.min(other.result_bytes),
            log_lines: self.log_lines.min(other.log_lines),
            frame_bytes: self.frame_bytes.min(other.frame_bytes),
        }
    }

    /// For each limit the larger of both.
    #[must_use]
    pub fn max(&self, other: &Self) -> Self {
        Self {
            wall_ms: self.wall_ms.max(other.wall_ms),
            cpu_seconds: self.cpu_seconds.max(other.cpu_seconds),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
            open_files: self.open_files.max(other.open_files),
            processes: self.processes.max(other.processes),
            threads: self.threads.max(other.threads),
            disk_bytes: self.disk_bytes.max(other.disk_bytes),
            disk_files: self.disk_files.max(other.disk_files),
            output_bytes: self.output_bytes.max(other.output_bytes),
            result_bytes: self.result_bytes.max(other.result_bytes),
            log_lines: self.log_lines.max(other.log_lines),
            frame_bytes: self.frame_bytes.max(other.frame_bytes),
        }
    }
}

/// What a decorator declares of an attempt's limits. What it leaves out is as the installation has it; nothing can be above that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeclaredLimits {
    /// Processor seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<u64>,
    /// Resident memory in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// Open files of one process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Processes at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Threads at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u64>,
    /// What its folder holds, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_mib: Option<u64>,
    /// Files and folders in its folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_files: Option<u64>,
}

impl DeclaredLimits {
    /// These, at most those, and those where nothing is declared.
    #[must_use]
    pub fn within(&self, ceilings: &Limits) -> Limits {
        let bytes = |mib: Option<u64>| mib.map(|mib| mib.saturating_mul(1 << 20));
        let lower = |declared: Option<u64>, ceiling: u64| declared.map_or(ceiling, |declared| declared.min(ceiling));
        Limits {
            cpu_seconds: lower(self.cpu_seconds, ceilings.cpu_seconds),
            memory_bytes: lower(bytes(self.memory_mib), ceilings.memory_bytes),
            open_files: lower(self.open_files, ceilings.open_files),
            processes: lower(self.processes, ceilings.processes),
            threads: lower(self.threads, ceilings.threads),
            disk_bytes: lower(bytes(self.disk_mib), ceilings.disk_bytes),
            disk_files: lower(self.disk_files, ceilings.disk_files),
            ..ceilings.clone()
        }
    }

    /// Those that are above what the installation allows: name, declared, allowed.
    #[must_use]
    pub fn above(&self, ceilings: &Limits) -> Vec<(&'static str, u64, u64)> {
        [
            ("cpu_seconds", self.cpu_seconds, ceilings.cpu_seconds),
            ("memory_mib", self.memory_mib, ceilings.memory_bytes >> 20),
            ("open_files", self.open_files, ceilings.open_files),
            ("processes", self.processes, ceilings.processes),
            ("threads", self.threads, ceilings.threads),
            ("disk_mib", self.disk_mib, ceilings.disk_bytes >> 20),
            ("disk_files", self.disk_files, ceilings.disk_files),
        ]
        .into_iter()
        .filter_map(|(name, declared, allowed)| Some((name, declared?, allowed)))
        .filter(|(_, declared, allowed)| declared > allowed)
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_limits_lower_and_never_raise() {
        let declared = DeclaredLimits {
            memory_mib: Some(256),
            processes: Some(1_000),
            ..DeclaredLimits::default()
        };
        let ceilings = Limits::default();
        let limits = declared.within(&ceilings);
        assert_eq!(limits.memory_bytes, 256 << 20);
        assert_eq!(limits.processes, ceilings.processes);
        assert_eq!(limits.threads, ceilings.threads);
        assert_eq!(declared.above(&ceilings), [("processes", 1_000, 32)]);
        assert_eq!(DeclaredLimits::default().within(&ceilings), ceilings);
    }
}
