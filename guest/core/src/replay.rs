//! The next line of a ledger, for a state that follows it: its form, its place behind the last one, whether the tables allow
//! it, and then what it does.
//!
//! Does not test its hash; see `ledger.rs`. Neither what is allowed nor what records do is said here.

use crate::apply::apply;
use crate::codec::same;
use crate::event::{Name, ReadError, Record};
use crate::legal::{self, Found};
use crate::receipt::{LedgerFault, LedgerFaultKind};
use crate::state::State;

/// Reads a line (R-65), tests it (R-64), and applies it. A line that is not taken changes nothing.
pub(crate) fn follow(state: &mut State, line: &str) -> Result<(), LedgerFault> {
    let seq = state.next_seq();
    let fault = |kind, message| LedgerFault { seq, kind, message };
    let known = &*state;
    let mut found = Found::default();
    // Names that the state has already are shared with it.
    let names = &mut |id: Option<&str>, step_id: Option<&str>| {
        found = Found::of(known, id, step_id);
        let id = id.map(|id| match found.coordination {
            Some(coordination) => coordination.id.clone(),
            None => Name::from(id),
        });
        let step_id = step_id.map(|step_id| match found.step {
            Some(step) => step.id.clone(),
            None => Name::from(step_id),
        });
        (id, step_id)
    };
    let mut linked = match Record::parse_by(line, known.config(), names) {
        Ok(linked) => linked,
        Err(ReadError::Malformed(says)) => {
            let says = format!("is not a record: {says}");
            return Err(fault(LedgerFaultKind::BrokenChain, says));
        }
        Err(ReadError::Unsupported(says)) => return Err(fault(LedgerFaultKind::Unsupported, says)),
    };
    let record = &mut linked.record;
    let follows = same(linked.prev.as_bytes(), known.head.hash.as_bytes());
    if record.seq != seq || !follows {
        let says = format!(
            "is record {} where {seq} is due, or does not follow the one before",
            record.seq
        );
        return Err(fault(LedgerFaultKind::BrokenChain, says));
    }
    let legal = legal::check(known, record, &found, linked.sound);
    legal.map_err(|(kind, says)| fault(kind, says))?;
    let mut hash = std::mem::take(&mut state.head.hash);
    hash.clear();
    hash.push_str(&linked.hash);
    apply(state, record, hash);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::machine::Machine;
    use crate::message::Caller;
    use crate::staged::Staged;

    /// A domain with a plan: its ledger, and the state before the plan.
    fn created() -> (State, Vec<String>) {
        let (mut machine, mut host) = (Machine::new(), Staged::default());
        let mut config = Config::new("d");
        config.phase1.enabled = true;
        machine.configure(&mut host, &config.to_json()).unwrap();
        let caller = Caller {
            session: "user:o".into(),
            role: None,
        };
        let plan = r#"{"coordinationId":"c","objective":"{\"a\"}","ownerSession":"user:o","steps":[
            {"stepId":"s","targetSession":"a:s","timeoutMs":9,"claims":[{"resource":"file:a"}]}]}"#;
        let answer = machine.submit_plan(&mut host, &caller, 1, plan);
        answer.unwrap().unwrap();
        let lines = host.take().lines;
        let mut state = State::default();
        follow(&mut state, &lines[0]).unwrap();
        (state, lines)
    }

    /// The record and whether its plan is known to be sound, or what is wrong with it.
    fn parse(line: &str, config: &Config) -> Result<(Record, bool), String> {
        let names = &mut |id: Option<&str>, step_id: Option<&str>| {
            (id.map(Name::from), step_id.map(Name::from))
        };
        let linked = Record::parse_by(line, Some(config), names);
        let linked = linked.map_err(|error| error.to_string())?;
        Ok((linked.record, linked.sound))
    }

    #[test]
    fn a_plan_is_read_by_its_rules_to_the_same_record() {
        let (state, lines) = created();
        let config = state.config().unwrap();
        assert!(lines[1].contains("coordination.created"), "{}", lines[1]);
        for line in &lines {
            let (record, sound) = parse(line, config).unwrap();
            assert_eq!(Ok(&record), Record::parse(line).as_ref());
            assert_eq!(
                sound,
                matches!(record.event, crate::event::Event::Created(_))
            );
        }
    }

    #[test]
    fn a_plan_that_its_rules_refuse_is_read_and_refused_as_ever() {
        let (mut state, lines) = created();
        let mut config = state.config().unwrap().clone();
        config.limits.plan_bytes = 1;
        let known = Record::parse(&lines[1]).unwrap();
        assert_eq!(parse(&lines[1], &config), Ok((known, false)));
        let digest = |line: &str| {
            let (at, name) = (line.find("planDigest").unwrap(), "planDigest\":\"".len());
            let other = if line.as_bytes()[at + name] == b'0' {
                "1"
            } else {
                "0"
            };
            [&line[..at + name], other, &line[at + name + 1..]].concat()
        };
        let refused = [
            digest(&lines[1]),
            lines[1].replace("\"risk\":\"high\"", "\"risk\":\"low\""),
            lines[1].replace("\"timeoutMs\":9", "\"timeoutMs\":0"),
        ];
        for line in refused {
            let fault = follow(&mut state, &line).unwrap_err();
            assert_eq!(fault.kind, LedgerFaultKind::Nondeterminism, "{line}");
            assert!(
                fault.message.contains("no call can have brought in"),
                "{fault:?}"
            );
        }
        let malformed = [
            lines[1].replace("\"timeoutMs\":9", "\"timeoutMs\": 9"),
            lines[1].replace("\"claims\":[", "\"claims\":[ "),
            lines[1].replace("\"objective\"", "\"objectives\""),
            lines[1].replace("\"caller\"", "\"called\""),
        ];
        for line in malformed {
            assert_ne!(line, lines[1]);
            let expected = Record::parse(&line).unwrap_err().to_string();
            let fault = follow(&mut state, &line).unwrap_err();
            assert_eq!(fault.kind, LedgerFaultKind::BrokenChain);
            assert_eq!(fault.message, format!("is not a record: {expected}"));
        }
        follow(&mut state, &lines[1]).unwrap();
        assert!(state.live.contains("c"));
    }
}
