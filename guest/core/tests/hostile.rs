//! Ledgers and snapshots that no core has written: refused with a reason, or a state like any other.
//!
//! Most of these were found by the fuzz targets in `tests/fuzz`, which look for more of them; here each stands by itself.

use qm2_core::call::{Answer, Call};
use qm2_core::config::Config;
use qm2_core::event::Record;
use qm2_core::machine::Machine;
use qm2_core::message::Caller;
use qm2_core::receipt::CallError;
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
        Err(CallError::Bound(says)) => assert!(says.contains(part), "{says}"),
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
    let says = "is not in its place";
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
