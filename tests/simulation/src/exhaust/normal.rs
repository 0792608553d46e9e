//! The normal form of a state: two states with the same one do the same from then on, but for the numbers of records.
//!
//! What goes in is everything: the core's snapshot, all that the model knows, and what the world around them knows. Only
//! numbers of records are written as names, in the order in which they come about in the text, and the end of the ledger is
//! left out. That is sound since core and model use such a number in two ways alone: for being the same as another one,
//! which a name keeps; and for being less than another one in the few places of `Group`, whose order is written as well.
//! A number of a record is known by its size: see [`FROM`]. Nothing about time is left out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hasher};

/// Records of what is explored have numbers from here on, and nothing else in a state is of that size.
pub const FROM: u64 = 2_000;
/// The first number that is no record's any more.
pub const UNTIL: u64 = 3_000;

/// Numbers of records that are compared with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    /// Tokens and claim numbers: who waits before whom, and which grant is named first.
    Claim,
    /// What made a step ready, while it waits for a slot.
    Ready,
    /// Which of two stops began first.
    Stop,
    /// Members that this file does not know: all in their order.
    Other,
}

/// Writes normal forms.
#[derive(Default)]
pub struct Normal {
    out: String,
    names: HashMap<u64, usize>,
    groups: BTreeMap<Group, BTreeSet<u64>>,
}

/// A member of the core's snapshot that holds the number of a record: whether and with what it is compared.
fn group(parent: &str, member: &str, step_state: &str) -> Option<Group> {
    let stops = ["cancel", "trip", "expired", "preempted"];
    match member {
        "token" | "claimNumber" => Some(Group::Claim),
        // What is out or over waits for no slot; a retry is made ready by another record.
        "readySeq" => match step_state {
            "dispatched" | "acknowledged" | "completed" | "failed" | "timed_out" | "cancelled"
            | "skipped" => None,
            _ => Some(Group::Ready),
        },
        "seq" => stops.contains(&parent).then_some(Group::Stop),
        // Causes, receipts and ids. Lists of them are written in their own order.
        "createdSeq" | "dispatchedSeq" | "lastSeq" | "lastEndSeq" | "ended" | "asked"
        | "requestedSeq" | "terminalSeq" | "contest" | "escalation" | "reports" | "undelivered"
        | "forOthers" => None,
        _ => Some(Group::Other),
    }
}

impl Normal {
    /// The key of a state. `digests` are hashes over numbers of records, in the order in which they became known.
    #[must_use]
    pub fn key(snapshot: &str, rest: &[&str], digests: &[&str]) -> u128 {
        let mut normal = Self::default();
        normal.snapshot(snapshot, digests);
        let groups = std::mem::take(&mut normal.groups);
        for (group, numbers) in groups {
            normal.out.push_str(&format!("\n{group:?}"));
            for number in numbers {
                normal.number(number);
            }
        }
        for text in rest {
            normal.out.push('\n');
            normal.text(text, digests);
        }
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            hasher.write_u8(salt);
            hasher.write(normal.out.as_bytes());
            u128::from(hasher.finish())
        };
        half(1) << 64 | half(2)
    }

    fn number(&mut self, number: u64) {
        let next = self.names.len();
        let name = *self.names.entry(number).or_insert(next);
        self.out.push('~');
        self.out.push_str(&name.to_string());
        self.out.push('~');
    }

    /// Text in which ids of a letter and a number, keys and numbers may stand.
    fn text(&mut self, text: &str, digests: &[&str]) {
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let run = rest.iter().take_while(|c| c.is_ascii_alphanumeric());
            let len = run.count();
            if len == 0 {
                let plain = rest.iter().take_while(|c| !c.is_ascii_alphanumeric());
                let len = plain.count();
                self.out.push_str(&text[at..at + len]);
                at += len;
                continue;
            }
            let word = &text[at..at + len];
            at += len;
            if len == 64
                && let Some(place) = digests.iter().position(|digest| *digest == word)
            {
                self.out.push_str(&format!("#{place}#"));
                continue;
            }
            let digits = word.trim_start_matches(|c: char| c.is_ascii_alphabetic());
            match record(digits) {
                Some(number) if word.len() - digits.len() < 2 => {
                    self.out.push_str(&word[..word.len() - digits.len()]);
                    self.number(number);
                }
                _ => self.out.push_str(word),
            }
        }
    }

    /// The pieces of a snapshot, as the core writes them: JSON without spaces.
    fn snapshot(&mut self, text: &str, digests: &[&str]) {
        let bytes = text.as_bytes();
        let (mut at, mut member, mut parents) = (0, "", Vec::new());
        let mut step_state = "";
        while at < bytes.len() {
            match bytes[at] {
                b'"' => {
                    let end = string_end(bytes, at);
                    let inner = &text[at + 1..end - 1];
                    let is_name = bytes.get(end) == Some(&b':');
                    if is_name {
                        member = inner;
                    } else if member == "state" && parents.last() == Some(&"steps") {
                        step_state = inner;
                    }
                    if is_name || parents.last() != Some(&"head") {
                        self.out.push('"');
                        self.text(inner, digests);
                        self.out.push('"');
                    }
                    at = end;
                }
                b'0'..=b'9' => {
                    let len = bytes[at..].iter().take_while(|c| c.is_ascii_digit());
                    let end = at + len.count();
                    let word = &text[at..end];
                    let parent = parents.last().copied().unwrap_or_default();
                    match record(word) {
                        // The end of the ledger: the next number is a new one in any case.
                        _ if parent == "head" => {}
                        Some(number) => {
                            if let Some(group) = group(parent, member, step_state) {
                                self.groups.entry(group).or_default().insert(number);
                            }
                            self.number(number);
                        }
                        None => self.out.push_str(word),
                    }
                    at = end;
                }
                other => {
                    match other {
                        b'{' => parents.push(member),
                        b'}' => member = parents.pop().unwrap_or_default(),
                        _ => {}
                    }
                    let plain = bytes[at + 1..]
                        .iter()
                        .take_while(|c| !matches!(c, b'"' | b'{' | b'}' | b'0'..=b'9'));
                    let end = at + 1 + plain.count();
                    self.out.push_str(&text[at..end]);
                    at = end;
                }
            }
        }
    }
}

/// The number of a record in these digits, if it is one.
fn record(digits: &str) -> Option<u64> {
    let number = (digits.len() == 4).then(|| digits.parse().ok()).flatten();
    number.filter(|number| (FROM..UNTIL).contains(number))
}

/// Whether a text holds what would be taken for the number of a record.
#[must_use]
pub fn has_record(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| record(word.trim_start_matches(|c: char| c.is_ascii_alphabetic())).is_some())
}

/// Behind the closing quote of the string that begins here.
fn string_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(snapshot: &str, rest: &str) -> String {
        let mut normal = Normal::default();
        normal.snapshot(snapshot, &[]);
        for (group, numbers) in std::mem::take(&mut normal.groups) {
            normal.out.push_str(&format!(" {group:?}"));
            for number in numbers {
                normal.number(number);
            }
        }
        normal.text(rest, &[]);
        normal.out
    }

    #[test]
    fn causes_in_another_order_are_the_same_state() {
        let one = r#"{"head":{"seq":2004,"hash":"a"},"x":[{"lastSeq":2003},{"lastSeq":2004}]}"#;
        let other = r#"{"head":{"seq":2009,"hash":"b"},"x":[{"lastSeq":2009},{"lastSeq":2007}]}"#;
        assert_eq!(form(one, "e2003"), form(other, "e2009"));
        assert_ne!(form(one, "e2003"), form(other, "e2007"));
    }

    #[test]
    fn what_is_compared_keeps_its_order() {
        let one = r#"[{"token":2003},{"claimNumber":2004}]"#;
        let other = r#"[{"token":2004},{"claimNumber":2003}]"#;
        assert_ne!(form(one, ""), form(other, ""));
        let later = r#"[{"token":2104},{"claimNumber":2203}]"#;
        assert_eq!(form(one, ""), form(later, ""));
        let stop =
            |cancel, trip| format!(r#"{{"cancel":{{"seq":{cancel}}},"trip":{{"seq":{trip}}}}}"#);
        assert_ne!(form(&stop(2001, 2002), ""), form(&stop(2002, 2001), ""));
        let unknown = |a, b| format!(r#"{{"newSeq":{a},"otherSeq":{b}}}"#);
        assert_ne!(
            form(&unknown(2001, 2002), ""),
            form(&unknown(2002, 2001), "")
        );
    }

    #[test]
    fn a_step_that_waits_keeps_its_place_and_one_that_is_out_does_not() {
        let steps = |state: &str, a, b| {
            format!(
                r#"{{"steps":[{{"state":"{state}","readySeq":{a}}},{{"state":"{state}","readySeq":{b}}}]}}"#
            )
        };
        let differ =
            |state| form(&steps(state, 2001, 2002), "") != form(&steps(state, 2002, 2001), "");
        assert!(differ("ready") && differ("waiting_claim") && !differ("dispatched"));
    }

    #[test]
    fn numbers_that_are_no_records_stay() {
        assert_eq!(
            form(r#"{"a":1999,"b":3000,"c":20010,"d":"x\"2001"}"#, ""),
            r#"{"a":1999,"b":3000,"c":20010,"d":"x\"~0~"}"#
        );
        assert!(has_record(r#""e2500""#) && has_record("[2000]") && !has_record("3000 1999 25000"));
    }
}
