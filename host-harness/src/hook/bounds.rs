//! What a handler of a hook may look like: its name, its time limit, its command.
//!
//! Knows no handlers; `hook` makes them.

use qm2_core::limit;
use qm2_core::message::HookKind;
use std::time::Duration;

/// Longest time limit of a handler.
pub const TIME_LIMIT_MAX: Duration = Duration::from_secs(600);
/// Bytes of the name of a handler.
pub(crate) const NAME_BYTES_MAX: usize = limit::SESSION_BYTES_MAX;

/// Whether a kind wants an answer.
pub(crate) fn is_asked(kind: HookKind) -> bool {
    matches!(kind, HookKind::BeforeDispatch | HookKind::BeforeArbitrate)
}

/// Whether there is a program to run.
pub(crate) fn check_command(command: &[String]) -> Result<(), String> {
    if command.first().is_none_or(String::is_empty) {
        return Err("its command is empty; name at least a program".into());
    }
    Ok(())
}

/// Whether a handler can have this name and this time limit.
pub(crate) fn check_handler(name: &str, time_limit: Option<Duration>) -> Result<(), String> {
    let bytes = name.len();
    if bytes == 0 || bytes > NAME_BYTES_MAX {
        return Err(format!(
            "its name has {bytes} bytes; 1..{NAME_BYTES_MAX} are allowed"
        ));
    }
    if name.chars().any(char::is_control) {
        return Err("its name has a control character".into());
    }
    if let Some(time_limit) = time_limit
        && (time_limit < Duration::from_millis(1) || time_limit > TIME_LIMIT_MAX)
    {
        return Err(format!(
            "its time limit is {} ms; 1 to {} are allowed",
            time_limit.as_millis(),
            TIME_LIMIT_MAX.as_millis()
        ));
    }
    Ok(())
}
