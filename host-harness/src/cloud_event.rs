//! Ledger records in the form of `CloudEvents` 1.0 (JSON format), for brokers and dashboards that know it.
//!
//! Only another form: the record itself is what was hashed. Numbers of records are text, because integers of `CloudEvents`
//! have 32 bits; padded, so that they sort.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

/// What is read of a record.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    seq: u64,
    at_ms: u64,
    #[serde(rename = "type")]
    type_name: &'a str,
    coordination_id: Option<&'a str>,
    step_id: Option<&'a str>,
    attempt: Option<u32>,
    cause: Option<u64>,
    #[serde(default, borrow)]
    trace: Trace<'a>,
    #[serde(borrow)]
    data: &'a RawValue,
    hash: &'a str,
}

#[derive(Default, Deserialize)]
struct Trace<'a> {
    #[serde(borrow)]
    traceparent: Option<Cow<'a, str>>,
    #[serde(borrow)]
    tracestate: Option<Cow<'a, str>>,
}

/// Whom a record is about, where it says so.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named<'a> {
    #[serde(borrow)]
    target_session: Option<Cow<'a, str>>,
    #[serde(borrow)]
    source_session: Option<Cow<'a, str>>,
    #[serde(borrow)]
    session: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: String,
    source: String,
    #[serde(rename = "type")]
    type_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Cow<'a, str>>,
    time: String,
    datacontenttype: &'static str,
    dataschema: String,
    sequence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stepid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracestate: Option<Cow<'a, str>>,
    hash: &'a str,
    data: &'a RawValue,
}

/// A ledger line as an event: `id` is `coordination/SEQ`, `source` the coordination (`/qm2/runs/ID`, or `/qm2` where a record is
/// of the whole domain), `subject` the session that the record names, `data` the record's own.
///
/// # Errors
/// It is no ledger line, and where that shows.
pub fn cloud_event(line: &str) -> Result<String, serde_json::Error> {
    let record: Line = serde_json::from_str(line)?;
    let named: Named = serde_json::from_str(record.data.get())?;
    let sequence = |seq: u64| format!("{seq:020}");
    let event = CloudEvent {
        specversion: "1.0",
        id: format!("coordination/{}", record.seq),
        // Ids have no character that means something in a URI.
        source: match record.coordination_id {
            Some(id) => format!("/qm2/runs/{id}"),
            None => "/qm2".into(),
        },
        type_name: format!("dev.qm2.{}.v1", record.type_name),
        subject: (named.target_session)
            .or(named.source_session)
            .or(named.session),
        time: time(record.at_ms),
        datacontenttype: "application/json",
        dataschema: format!(
            "urn:qm2:coordination:{}:{}",
            wit_version(),
            record.type_name
        ),
        sequence: sequence(record.seq),
        cause: record.cause.map(sequence),
        runid: record.coordination_id,
        stepid: record.step_id,
        attempt: record.attempt,
        traceparent: record.trace.traceparent,
        tracestate: record.trace.tracestate,
        hash: record.hash,
        data: record.data,
    };
    serde_json::to_string(&event)
}

/// The version of the contract that records follow.
fn wit_version() -> &'static str {
    let package = include_str!("../../wit/world.wit").split("package qm2:coordination@");
    let version = package.last().and_then(|rest| rest.split(';').next());
    version.unwrap_or_default()
}

/// Milliseconds since the Unix epoch as UTC (RFC 3339); times after the year 9999 as its end.
#[must_use]
pub fn time(at_ms: u64) -> String {
    const LAST_MS: u64 = 253_402_300_799_999;
    let at = UNIX_EPOCH + Duration::from_millis(at_ms.min(LAST_MS));
    humantime::format_rfc3339_millis(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_also_around_leap_days_and_at_the_end() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(time(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(time(1_709_251_200_000), "2024-03-01T00:00:00.000Z");
        assert_eq!(time(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn what_is_no_record_is_said() {
        let error = cloud_event("{}").unwrap_err().to_string();
        assert!(error.contains("missing field"), "{error}");
        assert_eq!(wit_version().split('.').count(), 3);
    }
}
