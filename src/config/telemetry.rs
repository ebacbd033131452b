//! What is logged, and how it looks.

use serde::{Deserialize, Serialize};

use super::env_var as var;
use super::mode::Mode;
use super::read::Reader;

/// How to log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Telemetry {
    /// A level, or levels by module as `info,weft::http=debug`.
    pub filter: String,
    /// How a record looks.
    pub format: LogFormat,
    /// Whether colours are welcome on a terminal.
    pub color: bool,
    /// Whether commands show every cause and every traceback.
    pub debug: bool,
    /// Whether output and log lines of steps are kept.
    pub save_logs: bool,
    /// Of which attempts what they were given and answered is kept.
    pub record: Recorded,
}

/// How a record looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Of which attempts what they were given and answered is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recorded {
    /// Of all.
    All,
    /// Of those that didn't succeed.
    Failed,
    /// Of none.
    Off,
}

impl Telemetry {
    pub(super) fn read(reader: &mut Reader<'_>, mode: &Mode) -> Self {
        let no_color = reader.text("telemetry.color", &var::NO_COLOR).is_some();
        let text = mode.development && reader.environment.is_terminal();
        Self {
            filter: filter(reader),
            format: reader
                .choice("telemetry.format", &var::WEFT_LOG_FORMAT)
                .unwrap_or(if text { LogFormat::Text } else { LogFormat::Json }),
            color: !no_color,
            debug: reader.switch("telemetry.debug", &var::WEFT_ENABLE_DEBUG_MODE),
            save_logs: reader.switch("telemetry.saveLogs", &var::WEFT_SAVE_EXECUTION_LOGS),
            record: reader
                .choice("telemetry.record", &var::WEFT_RECORD_ATTEMPTS)
                .unwrap_or(Recorded::All),
        }
    }
}

/// A word that is no level would be taken for a module and silence everything else, so it is refused here.
fn filter(reader: &mut Reader<'_>) -> String {
    let variable = &var::WEFT_LOG;
    // Before the filter, whose origin is what counts in the end.
    let is_detailed = reader.switch("telemetry.filter", &var::WEFT_ENABLE_DETAILED_LOGGING);
    if is_detailed && !reader.is_set(variable) {
        return "debug".to_owned();
    }
    reader.origins.remove("telemetry.filter");
    let filter = reader
        .text_or_default("telemetry.filter", variable)
        .to_ascii_lowercase();
    for directive in filter.split(',').map(str::trim) {
        let (module, level) = directive.rsplit_once('=').unwrap_or(("weft", directive));
        let level_is_known = ["off", "error", "warn", "info", "debug", "trace"].contains(&level);
        let module_is_one =
            !module.is_empty() && module.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:-".contains(&b));
        if !level_is_known || !module_is_one {
            let message = format!(
                "`{}` holds `{directive}`, which is neither a level nor a module's level",
                variable.name
            );
            let hint = "give a level, or levels by module as `info,weft::http=debug`".to_owned();
            reader.refuse(variable, "unknown_value", message, Some(hint));
        }
    }
    filter
}
