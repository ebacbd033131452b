//! From how a worker ended to how its attempt ended: exit codes and signals in words, and which limit fired.

use super::limits::{Limit, bytes_in_words, duration_in_words};
use super::meter::Exceeded;
use super::protocol::{Exit, Violation};
use crate::domain::{Limits, Outcome, StepError};

const SIGKILL: i32 = 9;
const SIGXCPU: i32 = 24;
const SIGXFSZ: i32 = 25;

/// A worker that ended without a last frame.
#[must_use]
pub fn of_exit(exit: &Exit, limits: &Limits) -> Outcome {
    let error = match (exit.code, exit.signal) {
        (_, Some(SIGXCPU)) => over_cpu_limit(limits),
        // Who ignores the first signal gets the second one a little later.
        (_, Some(SIGKILL)) if exit.cpu_ms.is_some_and(|ms| ms / 1_000 >= limits.cpu_seconds) => over_cpu_limit(limits),
        (_, Some(SIGXFSZ)) => StepError::new(
            "disk_limit",
            format!(
                "the process was killed by SIGXFSZ, because it wrote more than one file may hold; {}",
                Limit::DiskBytes.in_words(limits)
            ),
        ),
        (_, Some(SIGKILL)) if near_memory_limit(exit, limits) => StepError::new(
            "memory_limit",
            format!(
                "the process was killed by SIGKILL while it used {} MiB of memory; {}",
                exit.max_rss_kib.unwrap_or(0) >> 10,
                Limit::Memory.in_words(limits)
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

fn over_cpu_limit(limits: &Limits) -> StepError {
    StepError::new(
        "cpu_limit",
        format!(
            "the attempt used up its processor time: do less work in one step; {}",
            Limit::Cpu.in_words(limits)
        ),
    )
}

/// Everything within a tenth of the limit, or above it, counts: the peak is sampled by the kernel.
fn near_memory_limit(exit: &Exit, limits: &Limits) -> bool {
    exit.max_rss_kib
        .is_some_and(|kib| kib.saturating_mul(1024) >= limits.memory_bytes / 10 * 9)
}

/// The meter has seen the attempt, with all that it started, above a limit.
#[must_use]
pub fn of_meter(exceeded: Exceeded, limits: &Limits) -> Outcome {
    let Exceeded { limit, used } = exceeded;
    let (kind, what) = match limit {
        Limit::Memory => (
            "memory_limit",
            format!("the attempt used {} MiB of memory with all that it started", used >> 20),
        ),
        Limit::Processes => ("process_limit", "the attempt started too many processes".to_owned()),
        Limit::Threads => (
            "thread_limit",
            format!("the attempt had {used} threads in all its processes"),
        ),
        Limit::DiskFiles => ("disk_limit", "the attempt made too many files and folders".to_owned()),
        Limit::Cpu => {
            return Outcome::Failed {
                error: over_cpu_limit(limits),
            };
        }
        _ => (
            "disk_limit",
            format!("the attempt wrote {} KiB to its folder", used >> 10),
        ),
    };
    let message = format!("{what}, and was killed; {}", limit.in_words(limits));
    Outcome::Failed {
        error: StepError::new(kind, message),
    }
}

/// The kernel has killed it because the memory of all steps together was used up.
#[must_use]
pub fn of_shared_memory(bytes: u64) -> Outcome {
    let message = format!(
        "the process was killed because the steps of this instance together used up the {} of memory that they may have; \
         run fewer of them at the same time (`WEFT_WORKER_SLOTS`), or let each use less (`WEFT_STEP_MEMORY_MIB`)",
        bytes_in_words(bytes)
    );
    Outcome::Failed {
        error: StepError::new("memory_limit", message),
    }
}

/// The wall deadline has passed.
#[must_use]
pub fn of_time_limit(limits: &Limits) -> Outcome {
    Outcome::TimedOut {
        error: StepError::new(
            "time_limit",
            format!(
                "the attempt took longer than its time limit of {}; {} if it needs more",
                duration_in_words(limits.wall()),
                Limit::Wall.where_to_raise()
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
                "the result is {bytes} bytes of JSON: return less, or a reference to it; {}",
                Limit::Result.in_words(limits)
            ),
        ),
    }
}

/// Adds the limit to errors of a step that met one and do not say so: what Python raises when memory, threads, processes,
/// descriptors or disk run out.
#[must_use]
pub fn with_limit_named(mut error: StepError, limits: &Limits) -> StepError {
    let met = limits_met(&error);
    if met.is_empty() {
        return error;
    }
    if error.message.is_empty() {
        error.message = "out of memory".to_owned();
    }
    for limit in met {
        error.message = format!("{}; {}", error.message, limit.in_words(limits));
    }
    error
}

/// More than one where the kernel has the same number for both.
fn limits_met(error: &StepError) -> &'static [Limit] {
    if error.kind == "MemoryError" {
        return &[Limit::Memory];
    }
    if error.kind == "RuntimeError" && error.message == "can't start new thread" {
        return &[Limit::Threads];
    }
    if !matches!(error.kind.as_str(), "OSError" | "BlockingIOError" | "Error") {
        return &[];
    }
    let number = error
        .message
        .strip_prefix("[Errno ")
        .and_then(|rest| rest.split_once(']'))
        .map(|(number, _)| number);
    match number {
        // ENOMEM
        Some("12") => &[Limit::Memory],
        // EMFILE
        Some("24") => &[Limit::OpenFiles],
        // EFBIG
        Some("27") => &[Limit::DiskBytes],
        // ENOSPC, EDQUOT
        Some("28" | "122") => &[Limit::DiskBytes, Limit::DiskFiles],
        // EAGAIN: of a socket it means something else.
        Some("11") if error.traceback.as_deref().is_some_and(|text| text.contains("fork")) => {
            &[Limit::Processes, Limit::Threads]
        }
        _ => &[],
    }
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
        let named = |kind: &str, message: &str, traceback: Option<&str>| {
            let mut error = StepError::new(kind, message);
            error.traceback = traceback.map(str::to_owned);
            with_limit_named(error, &Limits::default()).message
        };
        assert_eq!(
            named("MemoryError", "", None),
            "out of memory; the limit is 512 MiB of memory: raise `memory_mib` where the decorator's `limits` set it, and \
             otherwise the installation's `WEFT_STEP_MEMORY_MIB`"
        );
        for (kind, message, traceback, value, setting) in [
            (
                "OSError",
                "[Errno 12] Cannot allocate memory",
                None,
                "512 MiB",
                "WEFT_STEP_MEMORY_MIB",
            ),
            (
                "OSError",
                "[Errno 24] Too many open files: 'x'",
                None,
                "256 open files",
                "WEFT_STEP_OPEN_FILES",
            ),
            (
                "OSError",
                "[Errno 27] File too large",
                None,
                "64 MiB on disk",
                "WEFT_STEP_DISK_BYTES",
            ),
            (
                "OSError",
                "[Errno 28] No space left on device",
                None,
                "64 MiB on disk",
                "WEFT_STEP_DISK_BYTES",
            ),
            (
                "OSError",
                "[Errno 122] Disk quota exceeded",
                None,
                "8192 files",
                "WEFT_STEP_DISK_FILES",
            ),
            (
                "RuntimeError",
                "can't start new thread",
                None,
                "128 threads",
                "WEFT_STEP_THREADS",
            ),
            (
                "BlockingIOError",
                "[Errno 11] Resource temporarily unavailable",
                Some("    os.fork()\n"),
                "32 processes",
                "WEFT_STEP_PROCESSES",
            ),
        ] {
            let said = named(kind, message, traceback);
            assert!(
                said.starts_with(message) && said.contains(value) && said.contains(setting),
                "{said}"
            );
        }
        for (kind, message) in [
            ("ValueError", "x"),
            ("FileNotFoundError", "[Errno 2] No such file"),
            ("BlockingIOError", "[Errno 11] Resource temporarily unavailable"),
        ] {
            assert_eq!(named(kind, message, Some("    sock.recv(1)\n")), message);
        }
    }
}
