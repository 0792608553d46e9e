//! The beginning of a ledger line, read without parsing the rest: its number, type and coordination.
//!
//! Reads only what is written exactly as the format says; whoever must accept anything else parses the line. Tests nothing
//! that follows.

/// What a line begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LineHead<'a> {
    /// Number of the record.
    pub(crate) seq: u64,
    /// Its type.
    pub(crate) kind: &'a str,
    /// Whose it is.
    pub(crate) coordination_id: Option<&'a str>,
}

impl<'a> LineHead<'a> {
    /// None where the line does not begin in the order of the format, or a text of it has an escape.
    pub(crate) fn of(line: &'a str) -> Option<Self> {
        let (seq, rest) = number(line.strip_prefix("{\"v\":1,\"seq\":")?)?;
        let (_, rest) = number(rest.strip_prefix(",\"atMs\":")?)?;
        let (kind, rest) = text(rest.strip_prefix(",\"type\":\"")?)?;
        let coordination_id = match rest.strip_prefix(",\"coordinationId\":\"") {
            Some(rest) => Some(text(rest)?.0),
            None => None,
        };
        Some(Self {
            seq,
            kind,
            coordination_id,
        })
    }
}

fn number(from: &str) -> Option<(u64, &str)> {
    let end = from.bytes().position(|byte| !byte.is_ascii_digit())?;
    Some((from[..end].parse().ok()?, &from[end..]))
}

/// Up to its closing quote.
fn text(from: &str) -> Option<(&str, &str)> {
    let end = from.bytes().position(|byte| matches!(byte, b'"' | b'\\'))?;
    let rest = from[end..].strip_prefix('"')?;
    Some((&from[..end], rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginning_is_read_as_the_format_has_it_and_not_guessed_otherwise() {
        let line = r#"{"v":1,"seq":12,"atMs":3,"type":"step.completed","coordinationId":"c","stepId":"s","data":{"coordinationId":"x"}}"#;
        let head = LineHead::of(line).expect("it is in order");
        assert_eq!((head.seq, head.kind), (12, "step.completed"));
        assert_eq!(head.coordination_id, Some("c"));
        let of_domain =
            r#"{"v":1,"seq":1,"atMs":3,"type":"ledger.genesis","data":{"coordinationId":"x"}}"#;
        let head = LineHead::of(of_domain).expect("it is in order");
        assert_eq!(head.coordination_id, None);
        for odd in [
            "",
            "{}",
            r#"{"v":1,"seq":-1,"atMs":3,"type":"t"}"#,
            r#"{"v":1,"seq":99999999999999999999,"atMs":3,"type":"t"}"#,
            r#"{"v":1,"seq":1,"atMs":3,"type":"t"#,
            r#"{"v":1,"seq":1,"atMs":3,"type":"t","coordinationId":"a\u0062"}"#,
            r#"{"seq":1,"v":1,"atMs":3,"type":"t"}"#,
        ] {
            assert_eq!(LineHead::of(odd), None, "{odd}");
        }
    }
}
