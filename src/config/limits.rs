//! How much an attempt and a run may use where nothing smaller is declared.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::env_var as var;
use super::mode::Mode;
use super::read::Reader;
use crate::domain;

/// Ceilings of this installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Of one attempt.
    pub attempt: domain::Limits,
    /// Of one run, from its start to its end.
    pub run_seconds: u64,
    /// How long a driver begins attempts before it lets go of its run.
    #[serde(rename = "driverSeconds", serialize_with = "seconds")]
    pub driver: Duration,
    /// How long an attempt waits for a worker before other instances are asked to make it; never without it.
    #[serde(rename = "handOffSeconds", serialize_with = "seconds_or_none")]
    pub hand_off: Option<Duration>,
    /// Of one organization at once.
    pub concurrent_runs: u32,
    /// Days for which runs are kept after their end; 0 for ever.
    pub retention_days: u64,
    /// Hours for which blobs are kept that nothing refers to; 0 for ever.
    pub blob_grace_hours: u64,
    /// Bytes of one artifact.
    pub artifact_bytes: u64,
    /// Bytes of a run's artifacts together.
    pub run_artifact_bytes: u64,
    /// Bytes of an organization's artifacts together.
    pub organization_artifact_bytes: u64,
    /// Results of an organization that are kept for later runs; 0 for none.
    pub cache_entries: u64,
    /// Longest time for which one is taken.
    pub cache_seconds: u64,
}

impl Limits {
    /// How long a run may last.
    #[must_use]
    pub const fn run(&self) -> Duration {
        Duration::from_secs(self.run_seconds)
    }

    /// How long blobs are kept that nothing refers to; for ever without it.
    #[must_use]
    pub const fn blob_grace(&self) -> Option<Duration> {
        match self.blob_grace_hours {
            0 => None,
            hours => Some(Duration::from_secs(hours * 3_600)),
        }
    }

    /// How long runs are kept after their end; for ever without it.
    #[must_use]
    pub const fn retention(&self) -> Option<Duration> {
        match self.retention_days {
            0 => None,
            days => Some(Duration::from_secs(days * 86_400)),
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>, mode: &Mode) -> Self {
        let wall_seconds = reader.number_or_default("limits.attempt.wallMs", &var::WEFT_STEP_TIMEOUT_SECONDS);
        let result_bytes = reader.number_or_default("limits.attempt.resultBytes", &var::WEFT_MAX_RESULT_BYTES);
        let memory_mib = reader.number_or_default("limits.attempt.memoryBytes", &var::WEFT_STEP_MEMORY_MIB);
        let attempt = domain::Limits {
            wall_ms: wall_seconds * 1_000,
            cpu_seconds: reader
                .number("limits.attempt.cpuSeconds", &var::WEFT_STEP_CPU_SECONDS)
                .unwrap_or(wall_seconds),
            memory_bytes: memory_mib << 20,
            processes: reader.number_or_default("limits.attempt.processes", &var::WEFT_STEP_PROCESSES),
            threads: reader.number_or_default("limits.attempt.threads", &var::WEFT_STEP_THREADS),
            open_files: reader.number_or_default("limits.attempt.openFiles", &var::WEFT_STEP_OPEN_FILES),
            disk_bytes: reader.number_or_default("limits.attempt.diskBytes", &var::WEFT_STEP_DISK_BYTES),
            disk_files: reader.number_or_default("limits.attempt.diskFiles", &var::WEFT_STEP_DISK_FILES),
            output_bytes: reader.number_or_default("limits.attempt.outputBytes", &var::WEFT_MAX_OUTPUT_BYTES),
            result_bytes,
            log_lines: reader.number_or_default("limits.attempt.logLines", &var::WEFT_MAX_LOG_LINES),
            frame_bytes: result_bytes + (64 << 10),
        };
        Self {
            attempt,
            concurrent_runs: reader
                .number("limits.concurrentRuns", &var::WEFT_MAX_CONCURRENT_RUNS)
                .and_then(|number| u32::try_from(number).ok())
                .unwrap_or_else(|| mode.concurrent_runs()),
            driver: Duration::from_secs(reader.number_or_default("limits.driverSeconds", &var::WEFT_DRIVER_SECONDS)),
            hand_off: match reader.number_or_default("limits.handOffSeconds", &var::WEFT_HAND_OFF_SECONDS) {
                0 => None,
                seconds => Some(Duration::from_secs(seconds)),
            },
            run_seconds: reader
                .number("limits.runSeconds", &var::WEFT_RUN_TIMEOUT_SECONDS)
                .unwrap_or_else(|| mode.run_seconds()),
            cache_entries: reader.number_or_default("limits.cacheEntries", &var::WEFT_MAX_CACHE_ENTRIES),
            cache_seconds: reader.number_or_default("limits.cacheSeconds", &var::WEFT_CACHE_TTL_SECONDS),
            blob_grace_hours: reader.number_or_default("limits.blobGraceHours", &var::WEFT_BLOB_GRACE_HOURS),
            artifact_bytes: reader.number_or_default("limits.artifactBytes", &var::WEFT_MAX_ARTIFACT_BYTES),
            run_artifact_bytes: reader.number_or_default("limits.runArtifactBytes", &var::WEFT_MAX_RUN_ARTIFACT_BYTES),
            organization_artifact_bytes: reader.number_or_default(
                "limits.organizationArtifactBytes",
                &var::WEFT_MAX_ORGANIZATION_ARTIFACT_BYTES,
            ),
            retention_days: reader.number_or_default("limits.retentionDays", &var::WEFT_RETENTION_DAYS),
        }
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_secs())
}

#[expect(clippy::ref_option, reason = "serde hands the field over by reference")]
fn seconds_or_none<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.map_or(0, |duration| duration.as_secs()))
}
