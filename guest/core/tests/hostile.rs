//! Ledgers and snapshots that no core has written: refused with a reason, or a state like any other.
//!
//! Most of these were found by the fuzz targets in `tests/fuzz`, which look for more of them; here each stands by itself.

use qm2_core::call::{Answer, Call};
use qm2_core::config::Config;
use qm2_core::digest::{ZERO, sha256_hex};
use qm2_core::event::Record;
use qm2_core::machine::Machine;
use qm2_core::message::Caller;
use qm2_core::receipt::{CallError, LedgerFaultKind};
use qm2_core::staged::Staged;

/// The ledger of a domain with these plans of one step each, and its machine.
fn domain(ids: &[&str]) -> (Machine, Vec<String>) {
    let (mut machine, mut staged) = (Machine::new(), Staged::default());
    let mut config = Config::new("d");
    config.phase1.enabled = true;
    machine.configure(&mut staged, &config.to_json()).unwrap();
    let owner = Caller {
        session: "user:owner".into(),
        role: None,
    };
    for id in ids {
        let plan = format!(
            r#"{{"coordinationId":"{id}","objective":"o","ownerSession":"user:owner",
                "steps":[{{"stepId":"a","targetSession":"agent:a","timeoutMs":60000}}]}}"#
        );
        let taken = machine.submit_plan(&mut staged, &owner, 1, &plan).unwrap();
        taken.unwrap();
    }
    (machine, staged.lines)
}

fn chunk_of(machine: &Machine) -> String {
    let piece = machine.snapshot(None, 1 << 20).unwrap();
    assert_eq!(piece.next, None);
    piece.chunk
}

/// A change of a line.
type Change = dyn Fn(&str) -> String;

/// Changes one line and makes all hashes right again, as somebody could who wants to deceive.
fn forge(lines: &[String], seq: usize, change: &Change) -> Vec<String> {
    let mut lines = lines.to_vec();
    let changed = change(&lines[seq - 1]);
    assert_ne!(changed, lines[seq - 1]);
    lines[seq - 1] = changed;
    let mut prev = ZERO.to_owned();
    for line in &mut lines {
        let at = line.rfind(",\"prev\":").unwrap();
        let body = format!("{},\"prev\":\"{prev}\"", &line[..at]);
        prev = sha256_hex(&[body.as_bytes(), b"}"]);
        *line = format!("{body},\"hash\":\"{prev}\"}}");
    }
    lines
}

/// Gives the digest of a value, a member of the line, the value that the line has now.
fn redigest(line: &str, value: &str, digest: &str) -> String {
    let at = line.find(&format!("\"{value}\":{{")).unwrap() + value.len() + 3;
    let end = line.find(&format!(",\"{digest}\":\"")).unwrap();
    let right = sha256_hex(&[&line.as_bytes()[at..end]]);
    let place = end + digest.len() + 5;
    format!("{}{right}{}", &line[..place], &line[place + 64..])
}

/// Takes these pieces in.
fn restore(chunks: &[&str]) -> Result<Machine, CallError> {
    let mut machine = Machine::new();
    for (index, chunk) in chunks.iter().enumerate() {
        machine.restore(chunk, index + 1 == chunks.len())?;
    }
    Ok(machine)
}

fn assert_refused(chunks: &[&str], part: &str) {
    match restore(chunks) {
        Err(CallError::Bound(blame)) => assert!(blame.message.contains(part), "{blame:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_line_that_writes_out_a_default_is_not_canonical() {
    let (_, lines) = domain(&["c"]);
    let line = &lines[1];
    assert!(Record::parse(line).is_ok());
    let traced = line.replace(r#","data":"#, r#","trace":{},"data":"#);
    assert_ne!(*line, traced);
    assert!(Record::parse(&traced).is_err());
    let planned = line.replace(r#""reports":"#, r#""trace":{},"reports":"#);
    assert_ne!(*line, planned);
    assert!(Record::parse(&planned).is_err());
}

#[test]
fn a_forged_plan_or_configuration_is_not_followed() {
    let (_, lines) = domain(&["c"]);
    let plan = |from: &'static str, to: &'static str| {
        move |line: &str| redigest(&line.replace(from, to), "plan", "planDigest")
    };
    let config = |from: &'static str, to: &'static str| {
        move |line: &str| redigest(&line.replace(from, to), "config", "configDigest")
    };
    let step = r#"{"stepId":"a","#;
    let twice = move |line: &str| {
        let from = line.find(step).unwrap();
        let end = line.find("],\"conflictPolicy\"").unwrap();
        let line = format!("{},{}{}", &line[..end], &line[from..end], &line[end..]);
        redigest(&line, "plan", "planDigest")
    };
    let on_itself = plan(
        r#""dependsOn":[]"#,
        r#""dependsOn":[{"stepId":"a","on":"success"}]"#,
    );
    let forgeries: [(usize, &Change); 7] = [
        (
            1,
            &config(r#""sessionInFlight":1"#, r#""sessionInFlight":0"#),
        ),
        (1, &config(r#""batch":1024"#, r#""batch":1025"#)),
        (1, &|line| {
            line.replacen(r#""domain":"d""#, r#""domain":"e""#, 1)
        }),
        (2, &twice),
        (2, &on_itself),
        (2, &plan(r#""timeoutMs":60000"#, r#""timeoutMs":0"#)),
        (2, &|line| {
            line.replace(r#""objective":"o""#, r#""objective":"p""#)
        }),
    ];
    for (seq, change) in forgeries {
        let forged = forge(&lines, seq, change);
        match Machine::new().replay(&forged, false) {
            Err(CallError::ReadOnly(fault)) => {
                assert_eq!(fault.kind, LedgerFaultKind::Nondeterminism, "{fault:?}");
                assert_eq!(fault.seq, seq as u64);
            }
            other => panic!("{other:?}"),
        }
    }
    // Hashes that were made anew and nothing changed: what is found above is the forgery.
    let same = forge(&lines, 2, &|line| {
        line.replace(r#""prev":""#, r#""prev":"x"#)
    });
    assert_eq!(same, lines);
    assert!(Machine::new().replay(&same, false).is_ok());
}

#[test]
fn a_forged_step_that_an_agent_adds_is_not_followed() {
    let (mut machine, mut lines) = domain(&["c"]);
    let mut staged = Staged::default();
    let agent = Caller {
        session: "agent:a".into(),
        role: None,
    };
    let execute = r#"{"coordinationId":"c","stepId":"n","attempt":1,"parentStepId":"a","sourceSession":"agent:a",
        "targetSession":"agent:n","intent":"execute","payload":"p"}"#;
    let execute = serde_json::from_str(execute).unwrap();
    let answers = machine.submit(&mut staged, &agent, 2, &[execute]).unwrap();
    assert!(answers[0].is_ok(), "{answers:?}");
    lines.append(&mut staged.lines);
    let added = lines
        .iter()
        .position(|line| line.contains("\"step.added\""));
    let seq = added.unwrap() + 1;
    for (from, to) in [
        (r#""timeoutMs":60000"#, r#""timeoutMs":60001"#),
        (r#""priority":"normal""#, r#""priority":"high""#),
        (r#""required":false"#, r#""required":true"#),
        (
            r#""targetSession":"agent:n""#,
            r#""targetSession":"agent n""#,
        ),
        (
            r#""dependsOn":[]"#,
            r#""dependsOn":[{"stepId":"a","on":"success"}]"#,
        ),
    ] {
        let forged = forge(&lines, seq, &move |line| line.replace(from, to));
        match Machine::new().replay(&forged, false) {
            Err(CallError::ReadOnly(fault)) => {
                assert_eq!(fault.kind, LedgerFaultKind::Nondeterminism, "{fault:?}");
                assert_eq!(fault.seq, seq as u64);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_snapshot_has_each_coordination_once_and_in_its_place() {
    let (machine, _) = domain(&["b", "c"]);
    let whole = chunk_of(&machine);
    let (head, live) = whole.split_once(",\"live\":").unwrap();
    let head = format!("{head}}}");
    let live = live.strip_suffix("]}").unwrap().strip_prefix('[').unwrap();
    let (b, c) = live.split_once(",{\"id\":\"c\"").unwrap();
    let c = format!("{{\"id\":\"c\"{c}");
    let piece = |entries: &[&str]| format!("{{\"v\":1,\"live\":[{}]}}", entries.join(","));
    let closed = |id: &str| {
        format!(
            "{{\"v\":1,\"closed\":[[\"{id}\",{{\"owner\":\"u\",\"planDigest\":\"x\",\"createdSeq\":2,\
             \"terminal\":\"failed\",\"terminalSeq\":3,\"undelivered\":[]}}]]}}"
        )
    };
    let restored = restore(&[&head, &piece(&[b, &c]), &closed("a")]).unwrap();
    assert_ne!(restored.state_digest(), machine.state_digest());
    let restored = restore(&[&head, &piece(&[b]), &piece(&[&c])]).unwrap();
    assert_eq!(restored.state_digest(), machine.state_digest());
    let says = "not in its place";
    assert_refused(&[&head, &piece(&[&c, b])], says);
    assert_refused(&[&head, &piece(&[b]), &piece(&[b])], says);
    assert_refused(&[&head, &closed("a"), &piece(&[b])], says);
    assert_refused(&[&head, &piece(&[b]), &closed("b")], says);
    assert_refused(&[&head, &closed("a"), &closed("a")], says);
    // A cursor could not name it, and the pieces would never end.
    assert_refused(&[&head, &closed("")], says);
}

#[test]
fn a_restored_domain_goes_on() {
    let (machine, _) = domain(&["b"]);
    let mut machine = restore(&[&chunk_of(&machine)]).unwrap();
    let answer = machine.call(&mut Staged::default(), &Call::Advance { now_ms: 2 });
    assert_eq!(answer, Ok(Answer::Advance(false)));
}
