//! The JSON door: every call as text, its answer as text, and for hosts without WIT what is handed out as text.
//!
//! Holds no rule: it reads a [`Call`], makes it, and writes the [`Answer`], in the very form of the vectors. What it reads is
//! tested for its form; bounds are tested by who takes the call.

use crate::call::{Answer, Call};
use crate::codec::{self, Write, object};
use crate::envelope::Priority;
use crate::json;
use crate::message::{HookKind, Host, Message, Refused};
use crate::read::{Object, Problems, blame};
use crate::receipt::{Blame, CallError};

/// Most problems of a request that its refusal names.
const PROBLEMS_MAX: usize = 16;

/// Makes calls: [`crate::machine::Machine::call`] with a host.
pub type Make<'a> = dyn FnMut(&Call) -> Result<Answer, CallError> + 'a;

/// Makes the call that a request asks of a function, by its name in the WIT, and answers in JSON: `{"NAME": VALUE}`, or
/// `"NAME"` where there is no value, or `{"error": {"code", "message", "field"}}`.
pub fn answer(function: &str, request: &str, make: &mut Make<'_>) -> String {
    respond(Some(function), request, make)
}

/// As [`answer`], of the function that the request names as its `call`.
pub fn answer_named(request: &str, make: &mut Make<'_>) -> String {
    respond(None, request, make)
}

/// As [`answer_named`], of a request that may not even be text.
pub fn answer_bytes(request: &[u8], make: &mut Make<'_>) -> String {
    match std::str::from_utf8(request) {
        Ok(request) => answer_named(request, make),
        Err(_) => refuse(Blame::new("$", "$ is not UTF-8")),
    }
}

fn respond(function: Option<&str>, request: &str, make: &mut Make<'_>) -> String {
    let mut out = Vec::with_capacity(256);
    match read(function, request).map(|call| make(&call)) {
        Ok(Ok(answer)) => answer.write(&mut out),
        Ok(Err(error)) => write_error(&mut out, &error),
        Err(blame) => return refuse(blame),
    }
    codec::text_of(out)
}

/// The answer to a request that is not of the form.
fn refuse(blame: Blame) -> String {
    let mut out = Vec::new();
    write_error(&mut out, &Misread::from(blame));
    codec::text_of(out)
}

fn write_error(out: &mut Vec<u8>, error: &dyn Write) {
    out.extend_from_slice(b"{\"error\":");
    error.write(out);
    out.push(b'}');
}

/// The error of a request that is not of the form.
struct Misread {
    code: &'static str,
    message: String,
    field: String,
}

object!(write Misread { "code": req code, "message": req message, "field": req field, });

impl From<Blame> for Misread {
    fn from(blame: Blame) -> Self {
        Self {
            code: "invalid-request",
            message: blame.message,
            field: blame.field,
        }
    }
}

/// Reads a request.
fn read(function: Option<&str>, request: &str) -> Result<Call, Blame> {
    let value =
        json::parse(request).map_err(|error| Blame::new("$", format!("$ is not JSON: {error}")))?;
    let problems = Problems::default();
    let call = Object::new(&value, &problems).and_then(|object| read_call(function, object));
    let problems = problems.into_inner();
    match call {
        Some(call) if problems.is_empty() => Ok(call),
        _ => Err(blame(&problems[..problems.len().min(PROBLEMS_MAX)])),
    }
}

fn read_call(function: Option<&str>, object: Object<'_>) -> Option<Call> {
    if function.is_none() {
        object.require("call");
    }
    let named: Option<String> = object.take_opt("call");
    let function = function.or(named.as_deref())?;
    if named.as_deref().is_some_and(|named| named != function) {
        object.problem("call", "out-of-bound", format!("is not {function}"));
    }
    let call = arguments(function, &object);
    object.done();
    call
}

/// The arguments of a function, if there is such a one.
fn arguments(function: &str, object: &Object<'_>) -> Option<Call> {
    Some(match function {
        "configure" => Call::Configure {
            config: object.take("config"),
        },
        "submit-plan" => Call::SubmitPlan {
            caller: object.take("caller"),
            now_ms: object.take("nowMs"),
            plan: object.take("plan"),
        },
        "submit" => Call::Submit {
            caller: object.take("caller"),
            now_ms: object.take("nowMs"),
            envelopes: object.take("envelopes"),
        },
        "acknowledge" => Call::Acknowledge {
            caller: object.take("caller"),
            now_ms: object.take("nowMs"),
            keys: object.take("keys"),
        },
        "advance" => Call::Advance {
            now_ms: object.take("nowMs"),
        },
        "next-deadline" => Call::NextDeadline,
        "notice" => Call::Notice {
            now_ms: object.take("nowMs"),
            notices: object.take("notices"),
        },
        "verdict" => Call::Verdict {
            now_ms: object.take("nowMs"),
            hook_id: object.take("hookId"),
            handler: object.take("handler"),
            verdict: object.take("verdict"),
        },
        "answer" => Call::Answer {
            actor: object.take("actor"),
            now_ms: object.take("nowMs"),
            escalation_id: object.take("escalationId"),
            digest: object.take("digest"),
            verdict: object.take("verdict"),
            text: object.take_opt("text"),
        },
        "arbitrate" => Call::Arbitrate {
            contest: object.take("contest"),
            policy: object.take("policy"),
        },
        "claim" => Call::Claim {
            caller: object.take("caller"),
            now_ms: object.take("nowMs"),
            request: object.take("request"),
        },
        "renew" => Call::Renew {
            caller: object.take("caller"),
            now_ms: object.take("nowMs"),
            coordination_id: object.take("coordinationId"),
            step_id: object.take("stepId"),
            attempt: object.take("attempt"),
            tokens: object.take_opt("tokens").unwrap_or_default(),
        },
        "release" => Call::Release {
            caller: object.take("caller"),
            now_ms: object.take("nowMs"),
            coordination_id: object.take("coordinationId"),
            step_id: object.take("stepId"),
            attempt: object.take("attempt"),
            tokens: object.take("tokens"),
        },
        "check" => Call::Check {
            now_ms: object.take("nowMs"),
            resource: object.take("resource"),
            session: object.take("session"),
            token: object.take("token"),
            mode: object.take("mode"),
            regions: object.take_opt("regions").unwrap_or_default(),
            base_version: object.take_opt("baseVersion"),
        },
        "describe" => Call::Describe {
            id: object.take_opt("id").unwrap_or_default(),
        },
        "explain-wait" => Call::ExplainWait {
            id: object.take("id"),
            step_id: object.take("stepId"),
        },
        "head" => Call::Head,
        "replay" => Call::Replay {
            lines: object.take("lines"),
            checked: object.take("checked"),
        },
        "snapshot" => Call::Snapshot {
            cursor: object.take_opt("cursor"),
            max_bytes: object.take("maxBytes"),
        },
        "restore" => Call::Restore {
            chunk: object.take("chunk"),
            last: object.take("last"),
        },
        "reconcile" => Call::Reconcile,
        "state-digest" => Call::StateDigest,
        _ => {
            object.problem(
                "call",
                "out-of-bound",
                format!("is {function}, no function"),
            );
            return None;
        }
    })
}

impl Write for Answer {
    fn write(&self, out: &mut Vec<u8>) {
        let value: &dyn Write = match self {
            Self::Configure => return "configure".write(out),
            Self::Reconcile => return "reconcile".write(out),
            Self::SubmitPlan(result) => result,
            Self::Submit(results) | Self::Acknowledge(results) | Self::Notice(results) => results,
            Self::Verdict(result) | Self::Answer(result) | Self::Release(result) => result,
            Self::Advance(more) => more,
            Self::NextDeadline(at_ms) => at_ms,
            Self::Arbitrate(decision) => decision,
            Self::Claim(result) => result,
            Self::Renew(result) => result,
            Self::Check(verdict) => verdict,
            Self::Describe(text) | Self::ExplainWait(text) | Self::StateDigest(text) => text,
            Self::Head(head) | Self::Replay(head) | Self::Restore(head) => head,
            Self::Snapshot(chunk) => chunk,
        };
        codec::write_first(out, self.name());
        value.write(out);
        out.push(b'}');
    }
}

impl<T: Write, E: Write> Write for Result<T, E> {
    fn write(&self, out: &mut Vec<u8>) {
        let (name, value): (_, &dyn Write) = match self {
            Ok(value) => ("ok", value),
            Err(error) => ("error", error),
        };
        codec::write_first(out, name);
        value.write(out);
        out.push(b'}');
    }
}

impl<T: Write> Write for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.write(out),
            None => out.extend_from_slice(b"null"),
        }
    }
}

/// A host that takes texts: what is handed out as a call of an imported function, such as `{"call":"append","lines":[…]}`.
/// Answers whether it was taken.
pub struct TextHost<F: FnMut(&str) -> bool>(pub F);

impl<F: FnMut(&str) -> bool> TextHost<F> {
    fn tell(&mut self, call: &str, members: &[(&str, &dyn Write)]) -> Result<(), Refused> {
        let mut out = b"{\"call\":".to_vec();
        call.write(&mut out);
        for (name, value) in members {
            out.push(b',');
            name.write(&mut out);
            out.push(b':');
            value.write(&mut out);
        }
        out.push(b'}');
        if (self.0)(&codec::text_of(out)) {
            Ok(())
        } else {
            Err(Refused)
        }
    }
}

impl<F: FnMut(&str) -> bool> Host for TextHost<F> {
    fn append(&mut self, lines: Vec<String>) -> Result<(), Refused> {
        self.tell("append", &[("lines", &lines)])
    }

    fn enqueue(&mut self, messages: Vec<Message>) -> Result<(), Refused> {
        self.tell("enqueue", &[("messages", &messages)])
    }

    fn withdraw(&mut self, keys: Vec<String>) -> Result<(), Refused> {
        self.tell("withdraw", &[("keys", &keys)])
    }

    fn enqueue_in_lane(&mut self, message: Message) -> Result<(), Refused> {
        let priority: &Priority = &message.priority;
        self.tell(
            "enqueue-in-lane",
            &[
                ("lane", &message.lane),
                ("priority", priority),
                ("message", &message),
            ],
        )
    }

    fn cancel(&mut self, keys: Vec<String>) -> Result<(), Refused> {
        self.tell("cancel", &[("keys", &keys)])
    }

    fn ask(&mut self, hook_id: &str, kind: HookKind, subject: &str) -> Result<(), Refused> {
        let members: [(&str, &dyn Write); 3] =
            [("hookId", &hook_id), ("kind", &kind), ("subject", &subject)];
        self.tell("ask", &members)
    }

    fn notify(&mut self, kind: HookKind, subject: &str) -> Result<(), Refused> {
        self.tell("notify", &[("kind", &kind), ("subject", &subject)])
    }
}
