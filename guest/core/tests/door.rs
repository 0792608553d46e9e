//! What the JSON door refuses, and how it says so: the member by its path, whichever of many it is.
//!
//! That it reads and writes every form rightly is shown by the vectors, which all go through it.

use qm2_core::call::{Answer, Call};
use qm2_core::door;
use qm2_core::receipt::{CallError, Head};
use serde_json::{Value, json};

/// The call that a request is read as, or the error that it is answered with.
fn read(function: Option<&str>, request: &str) -> Result<Call, Value> {
    let mut read = None;
    let mut make = |call: &Call| {
        read = Some(call.clone());
        Ok(Answer::Head(Head::default()))
    };
    let text = match function {
        Some(function) => door::answer(function, request, &mut make),
        None => door::answer_named(request, &mut make),
    };
    read.ok_or_else(|| {
        let answer: Value = serde_json::from_str(&text).expect("an answer is JSON");
        let members: Vec<&String> = answer
            .as_object()
            .into_iter()
            .flat_map(|it| it.keys())
            .collect();
        assert_eq!(members, ["error"], "{text}");
        let error = answer["error"].clone();
        let members: Vec<&String> = error
            .as_object()
            .into_iter()
            .flat_map(|it| it.keys())
            .collect();
        assert_eq!(members, ["code", "field", "message"], "{text}");
        assert_eq!(error["code"], "invalid-request", "{text}");
        error
    })
}

/// The member that is to blame, and why.
fn blamed(request: &Value) -> (String, String) {
    let error = read(None, &request.to_string()).expect_err("it is refused");
    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    (text("field"), text("message"))
}

fn submit(envelope: Value) -> Value {
    json!({"call": "submit", "caller": {"session": "a"}, "nowMs": 1, "envelopes": [envelope]})
}

fn envelope() -> Value {
    json!({"coordinationId": "c", "sourceSession": "a", "targetSession": "b", "intent": "ack"})
}

#[test]
fn the_member_that_is_wrong_is_named_by_its_path() {
    let with = |name: &str, value: Value| {
        let mut envelope = envelope();
        envelope[name] = value;
        submit(envelope)
    };
    let without = |name: &str| {
        let mut request = json!({"call": "check", "nowMs": 1, "resource": "file:a", "session": "a", "token": 1, "mode": "read"});
        request.as_object_mut().map(|members| members.remove(name));
        request
    };
    let rows = [
        (
            with("attempt", json!("1")),
            "envelopes[0].attempt",
            "is text; a whole number",
        ),
        (
            with("attempt", json!(1.5)),
            "envelopes[0].attempt",
            "is a number; a whole number",
        ),
        (
            with("attempt", json!(-1)),
            "envelopes[0].attempt",
            "is a number; a whole number",
        ),
        (
            with("attempt", json!(u64::from(u32::MAX) + 1)),
            "envelopes[0].attempt",
            "is 4294967296; whole numbers 0..4294967295",
        ),
        (
            with("attempt", Value::Null),
            "envelopes[0].attempt",
            "is null; leave an absent member out",
        ),
        (
            with("intent", json!("wish")),
            "envelopes[0].intent",
            "is wish; one of execute, report",
        ),
        (
            with("colour", json!("red")),
            "envelopes[0].colour",
            "is unknown; known here are",
        ),
        (
            with("trace", json!([])),
            "envelopes[0].trace",
            "is a list; an object",
        ),
        (
            with("trace", json!({"runId": 1})),
            "envelopes[0].trace.runId",
            "is a number; text",
        ),
        (
            with("extensions", json!({})),
            "envelopes[0].extensions",
            "is an object; a list",
        ),
        (
            with("extensions", json!([{"name": "n"}])),
            "envelopes[0].extensions[0].text",
            "is missing",
        ),
        (
            with("extensions", json!([null])),
            "envelopes[0].extensions[0]",
            "is null; an object",
        ),
        (
            with("outcome", json!("failed")),
            "envelopes[0].outcome",
            "is text; \"completed\", or an object",
        ),
        (
            with("outcome", json!({"completed": {}})),
            "envelopes[0].outcome",
            "is an object; \"completed\"",
        ),
        (
            with("outcome", json!({"lost": {}})),
            "envelopes[0].outcome",
            "has not one member of completed",
        ),
        (
            with("outcome", json!({})),
            "envelopes[0].outcome",
            "has not one member of completed",
        ),
        (
            with("outcome", json!({"progress": {}})),
            "envelopes[0].outcome.progress.number",
            "is missing",
        ),
        (
            with(
                "outcome",
                json!({"failed": {"class": "odd", "code": "c", "message": ""}}),
            ),
            "envelopes[0].outcome.failed.class",
            "is odd",
        ),
        (
            with("outcome", json!(7)),
            "envelopes[0].outcome",
            "is a number; text",
        ),
        (without("token"), "token", "is missing"),
        (without("call"), "call", "is missing"),
        (json!({"call": "dream"}), "call", "is dream, no function"),
        (json!({"call": ""}), "call", "is , no function"),
        (
            json!({"call": "replay", "lines": "x", "checked": 1}),
            "lines",
            "is text; a list",
        ),
        (
            json!({"call": "replay", "lines": [1], "checked": true}),
            "lines[0]",
            "is a number; text",
        ),
        (
            json!({"call": "restore", "chunk": "", "last": "yes"}),
            "last",
            "is text; true or false",
        ),
        (
            json!({"call": "verdict", "nowMs": 1, "hookId": "h1", "handler": "x", "verdict": {"deny": 1}}),
            "verdict.deny",
            "is a number; text",
        ),
        (
            json!({"call": "verdict", "nowMs": 1, "hookId": "h1", "handler": "x", "verdict": {"review": ""}}),
            "verdict",
            "is an object; \"no_opinion\"",
        ),
        (json!({"call": "head", "": "c"}), "\"\"", "is unknown"),
        (json!({"call": "head", "id": "c"}), "id", "is unknown"),
        (json!(["head"]), "$", "is a list; an object"),
    ];
    for (request, field, says) in rows {
        let (blamed, message) = blamed(&request);
        assert_eq!(blamed, field, "{request}: {message}");
        assert!(
            message.starts_with(&format!("{field} {says}")),
            "{request}: {message}"
        );
    }
}

#[test]
fn what_is_no_json_is_told_where() {
    for (request, says) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("{\"call\":\n", "at line 2 column 0"),
        ("{} {}", "trailing characters at line 1 column 4"),
        ("{\"call\":\"head\\ud800\"}", "at line 1 column"),
    ] {
        let error = read(None, request).expect_err(request);
        assert_eq!(error["field"], "$", "{error}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(
            message.starts_with("$ is not JSON: ") && message.contains(says),
            "{message}"
        );
    }
    let deep = "[".repeat(100_000);
    assert!(read(None, &deep).is_err());
    let answer = door::answer_bytes(b"{\"call\":\"head\xff\"}", &mut |_| Err(CallError::Rebuild));
    let wanted = r#"{"error":{"code":"invalid-request","message":"$ is not UTF-8","field":"$"}}"#;
    assert_eq!(answer, wanted);
}

/// Both ways to name the function, and members in any order with any white space.
#[test]
fn a_request_may_name_its_function() {
    let now_ms = 5;
    for (function, request) in [
        (Some("advance"), r#"{"nowMs":5}"#),
        (
            Some("advance"),
            " { \"nowMs\" : 5 , \"call\" : \"\\u0061dvance\" } ",
        ),
        (None, r#"{"nowMs":5,"call":"advance"}"#),
    ] {
        assert_eq!(
            read(function, request),
            Ok(Call::Advance { now_ms }),
            "{request}"
        );
    }
    let error = read(Some("advance"), r#"{"nowMs":5,"call":"head"}"#).expect_err("another one");
    assert_eq!(error["field"], "call");
}

/// However many members are wrong, the answer stays short, and the first is the one to blame.
#[test]
fn of_many_problems_the_first_sixteen_are_named() {
    for (count, named) in [(16, 16), (17, 16), (10_000, 16)] {
        let envelopes: Vec<u32> = vec![0; count];
        let request = json!({"call": "submit", "caller": {"session": "a"}, "nowMs": 1, "envelopes": envelopes});
        let (field, message) = blamed(&request);
        assert_eq!(field, "envelopes[0]");
        assert_eq!(message.matches("envelopes[").count(), named, "{message}");
    }
}

/// Numbers past the contract's bound are for the core to refuse, so that both doors say the same.
#[test]
fn bounds_are_not_the_doors_to_test() {
    let call = read(
        None,
        &json!({"call": "advance", "nowMs": u64::MAX}).to_string(),
    );
    assert_eq!(call, Ok(Call::Advance { now_ms: u64::MAX }));
}

#[test]
fn a_refusal_of_the_call_carries_what_its_json_has() {
    let all = [
        (
            CallError::Disabled,
            json!({"code": "disabled", "field": ""}),
        ),
        (
            CallError::bound("keys", "too many"),
            json!({"code": "bound", "field": "keys"}),
        ),
    ];
    for (error, wanted) in all {
        let text = door::answer("head", "{}", &mut |_| Err(error.clone()));
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        for name in ["code", "field"] {
            assert_eq!(answer["error"][name], wanted[name], "{text}");
        }
        assert_eq!(answer["error"]["message"], error.message(), "{text}");
    }
}
