//! From how a worker ended to how its attempt ended: exit codes and signals in words, and which limit fired.

use super::limits::{bytes_in_words, duration_in_words};
use super::protocol::{Exit, Violation};
use crate::domain::{Limits, Outcome, StepError};

const SIGKILL: i32 = 9;
const SIGXCPU: i32 = 24;
const SIGXFSZ: i32 = 25;

/// A worker that ended without a last frame.
#[must_use]
pub fn of_exit(exit: &Exit, limits: &Limits) -> Outcome {
    let error = match (exit.code, exit.signal) {
        (_, Some(SIGXCPU)) => StepError::new(
            "cpu_limit",
            format!(
                "the attempt used up its {} s of processor time (`cpu_seconds` of its limits); do less work in one step, or \
                 have the limit raised",
                limits.cpu_seconds
            ),
        ),
        (_, Some(SIGXFSZ)) => StepError::new(
            "crashed",
            format!(
                "the process was killed by SIGXFSZ: it wrote a file of more than {} (`disk_bytes` of its limits)",
                bytes_in_words(limits.disk_bytes)
            ),
        ),
        (_, Some(SIGKILL)) if near_memory_limit(exit, limits) => StepError::new(
            "memory_limit",
            format!(
                "the process was killed by SIGKILL while it used {} of memory; the limit is {} (`memory_bytes` of its \
                 limits)",
                bytes_in_words(exit.max_rss_kib.unwrap_or(0) << 10),
                bytes_in_words(limits.memory_bytes)
            ),
        ),
        (_, Some(signal)) => StepError::new(
            "crashed",
            format!(
                "the process was killed by {} before it returned",
                signal_in_words(signal)
            ),
        ),
        (Some(70), None) => StepError::new(
            "isolation_failed",
            "the worker could not set up its isolation, so the step was not started; the handler's log has the reason",
        ),
        (Some(72), None) => StepError::new(
            "protocol_violation",
            "the worker could not make sense of what it was sent",
        ),
        (Some(code), None) => StepError::new(
            "crashed",
            format!(
                "the process exited with code {code} before it returned; `os._exit` does that, and some C libraries"
            ),
        ),
        (None, None) => StepError::new("crashed", "the process ended before it returned"),
    };
    Outcome::Failed { error }
}

/// Everything within a tenth of the limit, or above it, counts: the peak is sampled by the kernel.
fn near_memory_limit(exit: &Exit, limits: &Limits) -> bool {
    exit.max_rss_kib
        .is_some_and(|kib| kib.saturating_mul(1024) >= limits.memory_bytes / 10 * 9)
}

/// The wall deadline has passed.
#[must_use]
pub fn of_time_limit(limits: &Limits) -> Outcome {
    Outcome::TimedOut {
        error: StepError::new(
            "time_limit",
            format!(
                "the attempt took longer than its time limit of {}; raise `timeout_seconds` in `@workflow` if it needs more",
                duration_in_words(limits.wall())
            ),
        ),
    }
}

/// Importing the module has not ended in time.
#[must_use]
pub fn of_import_limit(module: &str, limit: std::time::Duration) -> Outcome {
    Outcome::TimedOut {
        error: StepError::new(
            "time_limit",
            format!(
                "importing `{module}` took longer than {}; move work out of the module's top level",
                duration_in_words(limit)
            ),
        ),
    }
}

/// The worker said what it must not say.
#[must_use]
pub fn of_violation(violation: &Violation) -> Outcome {
    Outcome::Failed {
        error: StepError::new(
            "protocol_violation",
            format!("the process was killed because it disturbed its connection to the engine: {violation}"),
        ),
    }
}

/// The process that workers are forked from ended, and with it the attempt.
#[must_use]
pub fn of_lost_zygote(reason: &str) -> Outcome {
    Outcome::Failed {
        error: StepError::new(
            "crashed",
            format!("the attempt was lost with the process that all workers come from: {reason}"),
        ),
    }
}

/// The result is over its limit.
#[must_use]
pub fn of_large_result(bytes: usize, limits: &Limits) -> Outcome {
    Outcome::Failed {
        error: StepError::new(
            "ResultTooLarge",
            format!(
                "the result is {bytes} bytes of JSON; the limit is {} (`result_bytes`): return less, or a reference to it",
                bytes_in_words(limits.result_bytes)
            ),
        ),
    }
}

/// Adds to errors that say nothing of a limit which one was met: `MemoryError`, and EFBIG of a file that became too large.
#[must_use]
pub fn with_limit_named(mut error: StepError, limits: &Limits) -> StepError {
    if error.kind == "MemoryError" {
        let said = if error.message.is_empty() {
            "out of memory".to_owned()
        } else {
            error.message
        };
        error.message = format!(
            "{said}; the limit is {} (`memory_bytes`)",
            bytes_in_words(limits.memory_bytes)
        );
    }
    if error.kind == "OSError" && error.message.starts_with("[Errno 27]") {
        let limit = bytes_in_words(limits.disk_bytes);
        error.message = format!("{}; the limit is {limit} (`disk_bytes`)", error.message);
    }
    error
}

/// `SIGSEGV`, or `signal 63` for one without a name.
#[must_use]
pub fn signal_in_words(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        SIGKILL => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        SIGXCPU => "SIGXCPU",
        SIGXFSZ => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: Option<i32>, signal: Option<i32>, rss_mib: u64) -> StepError {
        let exit = Exit {
            code,
            signal,
            max_rss_kib: Some(rss_mib << 10),
            cpu_ms: None,
        };
        match of_exit(&exit, &Limits::default()) {
            Outcome::Failed { error } => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn exits_in_words() {
        assert_eq!(of(Some(3), None, 20).kind, "crashed");
        assert!(of(Some(3), None, 20).message.contains("code 3"));
        assert_eq!(of(Some(70), None, 20).kind, "isolation_failed");
        assert_eq!(of(Some(72), None, 20).kind, "protocol_violation");
        assert!(of(None, Some(11), 20).message.contains("SIGSEGV"));
        assert_eq!(of(None, Some(9), 20).kind, "crashed");
        assert_eq!(of(None, Some(9), 500).kind, "memory_limit");
        assert!(of(None, Some(9), 500).message.contains("512 MiB"));
        assert_eq!(of(None, Some(24), 20).kind, "cpu_limit");
        assert!(of(None, Some(63), 20).message.contains("signal 63"));
    }

    #[test]
    fn errors_of_a_limit_name_it() {
        let error = with_limit_named(StepError::new("MemoryError", ""), &Limits::default());
        assert_eq!(error.message, "out of memory; the limit is 512 MiB (`memory_bytes`)");
        let error = with_limit_named(
            StepError::new("OSError", "[Errno 27] File too large"),
            &Limits::default(),
        );
        assert_eq!(
            error.message,
            "[Errno 27] File too large; the limit is 64 MiB (`disk_bytes`)"
        );
        let other = with_limit_named(StepError::new("ValueError", "x"), &Limits::default());
        assert_eq!(other.message, "x");
    }
}
