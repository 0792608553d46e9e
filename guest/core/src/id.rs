//! Ids, session names and idempotency keys: their forms, and the sentences that refuse others.
//!
//! Does not know which ids exist; that is the state's.

use crate::codec::Part::{Number, Text};
use crate::codec::concat;
use crate::limit;

/// The form of an id: 1..128 bytes of `[A-Za-z0-9._-]`.
///
/// # Errors
/// A sentence that names the offence and the bound.
pub fn check_id(text: &str) -> Result<(), String> {
    check_bytes(text, 1, limit::ID_BYTES_MAX)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.bytes().all(|byte| allowed(byte.into())) {
        return Ok(());
    }
    match text.chars().find(|c| !allowed(*c)) {
        None => Ok(()),
        Some(c) => Err(format!(
            "has '{}'; only A-Z, a-z, 0-9, '.', '_' and '-' are allowed",
            shown(c)
        )),
    }
}

/// The form of a session name: 1..256 bytes without spaces or control characters.
///
/// # Errors
/// A sentence that names the offence and the bound.
pub fn check_session(text: &str) -> Result<(), String> {
    check_bytes(text, 1, limit::SESSION_BYTES_MAX)?;
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    match text.chars().find(|c| c.is_whitespace() || c.is_control()) {
        None => Ok(()),
        Some(c) => Err(format!(
            "has '{}'; spaces and control characters are not allowed",
            shown(c)
        )),
    }
}

/// A character for a sentence, on one line. Not `{:?}`, whose tables of what can be printed are kilobytes of the component.
fn shown(c: char) -> String {
    let plain = c == ' ' || !(c.is_control() || c.is_whitespace() || matches!(c, '\'' | '\\'));
    if plain {
        c.to_string()
    } else {
        c.escape_default().to_string()
    }
}

/// A length in bytes.
///
/// # Errors
/// A sentence that names the length and the bound.
pub fn check_bytes(text: &str, min: usize, max: usize) -> Result<(), String> {
    if (min..=max).contains(&text.len()) {
        return Ok(());
    }
    Err(format!(
        "has {} bytes; {min}..{max} are allowed",
        text.len()
    ))
}

/// The form of a SHA-256 digest: 64 lower-case hexadecimal digits.
///
/// # Errors
/// A sentence that names the form.
pub fn check_digest(text: &str) -> Result<(), String> {
    if text.len() == 64
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    {
        return Ok(());
    }
    Err("is not a SHA-256 digest; 64 lower-case hexadecimal digits are expected".into())
}

/// Idempotency key of an attempt. Ids never hold ':', so it splits back without loss.
#[must_use]
pub fn attempt_key(coordination_id: &str, step_id: &str, attempt: u32) -> String {
    prefixed_attempt_key("", coordination_id, step_id, attempt)
}

/// Idempotency key of an attempt behind a prefix.
pub(crate) fn prefixed_attempt_key(
    prefix: &str,
    coordination_id: &str,
    step_id: &str,
    attempt: u32,
) -> String {
    concat(&[
        Text(prefix),
        Text(coordination_id),
        Text(":"),
        Text(step_id),
        Text(":"),
        Number(attempt.into()),
    ])
}

/// The parts of an attempt's idempotency key.
#[must_use]
pub fn split_attempt_key(key: &str) -> Option<(&str, &str, u32)> {
    let mut parts = key.split(':');
    let (coordination_id, step_id, attempt) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || attempt.starts_with(['0', '+']) {
        return None;
    }
    Some((coordination_id, step_id, attempt.parse().ok()?))
}

/// The record that the id of a contest (`c`), hook request (`h`) or question (`e`) names.
#[must_use]
pub fn split_number(id: &str, letter: char) -> Option<u64> {
    let digits = id.strip_prefix(letter)?;
    if digits.starts_with(['0', '+']) {
        return None;
    }
    digits.parse().ok()
}

/// Key of a report to an owner, from the number of the reported record.
#[must_use]
pub fn report_key(seq: u64) -> String {
    format!("report:{seq}")
}

/// The record that a report's key names.
#[must_use]
pub fn split_report_key(key: &str) -> Option<u64> {
    split_number(key.strip_prefix("report")?, ':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_sessions_at_the_bound_and_one_past_it() {
        assert!(check_id(&"a".repeat(128)).is_ok());
        assert!(check_id(&"a".repeat(129)).unwrap_err().contains("1..128"));
        assert!(check_id("").is_err());
        assert!(check_id("a:b").unwrap_err().contains("':'"));
        assert!(check_session(&"ü".repeat(128)).is_ok());
        assert!(check_session(&format!("{}x", "ü".repeat(128))).is_err());
        assert!(check_session("a b").is_err());
        assert!(check_session("a\u{7f}").is_err());
    }

    #[test]
    fn keys_split_back_and_only_in_their_one_form() {
        assert_eq!(
            split_attempt_key(&attempt_key("c", "s.1", 12)),
            Some(("c", "s.1", 12))
        );
        for wrong in ["", "c:s", "c:s:0", "c:s:01", "c:s:+1", "c:s:1:2", "c:s:x"] {
            assert_eq!(split_attempt_key(wrong), None, "{wrong}");
        }
        assert_eq!(split_report_key(&report_key(7)), Some(7));
        assert_eq!(split_report_key("report:07"), None);
    }
}
