//! How the end of a command that handles a hook is read as a verdict.
//!
//! Reads exit codes and text only; does not run anything.

use qm2_core::limit::TEXT_BYTES_MAX;
use qm2_core::message::HookVerdict;
use serde::Deserialize;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Longest output of a handler that is taken.
pub(crate) const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// What a command prints.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Printed {
    verdict: Word,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    NoOpinion,
    Deny,
    Review,
}

/// What the end of a command means.
pub(crate) fn verdict(
    is_asked: bool,
    status: ExitStatus,
    stdout: &[u8],
    too_large: bool,
    stderr: &[u8],
) -> Result<HookVerdict, String> {
    if !status.success() {
        let says = String::from_utf8_lossy(stderr);
        let says = says.lines().map(str::trim).rfind(|line| !line.is_empty());
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => format!("signal {}", signal.unwrap_or_default()),
        };
        return Err(match says {
            Some(says) => format!("{says} ({how})"),
            None => how,
        });
    }
    if !is_asked {
        return Ok(HookVerdict::NoOpinion);
    }
    if too_large {
        return Err(format!("printed more than {OUTPUT_BYTES_MAX} bytes"));
    }
    let text = String::from_utf8_lossy(stdout);
    if text.trim().is_empty() {
        return Ok(HookVerdict::NoOpinion);
    }
    match serde_json::from_str(&text) {
        Ok(Printed { verdict, reason }) => Ok(match verdict {
            Word::NoOpinion => HookVerdict::NoOpinion,
            Word::Deny => HookVerdict::Deny(reason),
            Word::Review => HookVerdict::Review,
        }),
        Err(e) => Err(format!(
            "printed something else than a verdict such as {{\"verdict\": \"no_opinion\"}}: {e}"
        )),
    }
}

/// Shortens a reason to what the ledger takes.
pub(crate) fn cut(reason: &mut String) {
    reason.truncate(reason.floor_char_boundary(TEXT_BYTES_MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_and_output_of_a_command_are_its_verdict() {
        let asked = |code: i32, stdout: &str, stderr: &str| {
            // The code is in the second byte of what the system says.
            let status = ExitStatus::from_raw(code << 8);
            verdict(true, status, stdout.as_bytes(), false, stderr.as_bytes())
        };
        assert_eq!(asked(0, " \n", "x"), Ok(HookVerdict::NoOpinion));
        assert_eq!(
            asked(0, "{\"verdict\":\"review\"}\n", ""),
            Ok(HookVerdict::Review)
        );
        let deny = r#"{"verdict": "deny", "reason": "not today"}"#;
        assert_eq!(
            asked(0, deny, ""),
            Ok(HookVerdict::Deny("not today".into()))
        );
        assert_eq!(asked(3, deny, "a\nb \n\n"), Err("b (exit code 3)".into()));
        assert_eq!(asked(9, "", ""), Err("exit code 9".into()));
        for wrong in [
            "yes",
            "{}",
            r#"{"verdict":"allow"}"#,
            r#"{"verdict":"deny","x":1}"#,
        ] {
            let says = asked(0, wrong, "").unwrap_err();
            assert!(says.contains("something else"), "{says}");
        }
    }
}
