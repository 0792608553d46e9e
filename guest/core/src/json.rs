//! A text from outside, taken apart as JSON.
//!
//! serde_json says what is JSON and what is wrong with a text that is none. Its own values are not used: they copy every
//! text, and keep the members of each object in a tree. These borrow from the text, and keep them in a list. What members
//! mean is not known here; see `read.rs`.

use crate::codec::same;
use crate::order;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// A value.
pub(crate) enum Json<'a> {
    Null,
    Bool(bool),
    /// A whole number that is not negative.
    Whole(u64),
    /// A whole number below zero.
    Negative(i64),
    /// Any other number.
    Fraction,
    Text(Cow<'a, str>),
    List(Box<[Json<'a>]>),
    Object(Box<[Member<'a>]>),
}

/// A member of an object: its name, and what it is.
pub(crate) type Member<'a> = (Cow<'a, str>, Json<'a>);

/// Takes a text apart.
///
/// # Errors
/// Where it is not JSON.
pub(crate) fn parse(text: &str) -> Result<Json<'_>, serde_json::Error> {
    let mut input = serde_json::Deserializer::from_str(text);
    let mut parser = Parser {
        values: Vec::new(),
        members: Vec::new(),
    };
    let value = parser.deserialize(&mut input)?;
    input.end()?;
    Ok(value)
}

/// The place of a member, looked for from one on.
pub(crate) fn place_of(members: &[Member<'_>], from: usize, name: &str) -> Option<usize> {
    let is = |member: &Member<'_>| same(member.0.as_bytes(), name.as_bytes());
    // Mostly members are asked for in the order in which they stand.
    if members.get(from).is_some_and(is) {
        return Some(from);
    }
    members.iter().position(is)
}

/// The text of a member, where the value is an object that has one.
pub(crate) fn text_of<'a>(value: &'a Json<'_>, name: &str) -> Option<&'a str> {
    let Json::Object(members) = value else {
        return None;
    };
    match &members[place_of(members, 0, name)?].1 {
        Json::Text(text) => Some(text),
        _ => None,
    }
}

/// Entries and members of what is not at its end yet, the innermost last: so each list is made once, and at its length.
struct Parser<'a> {
    values: Vec<Json<'a>>,
    members: Vec<Member<'a>>,
}

impl<'a> DeserializeSeed<'a> for &mut Parser<'a> {
    type Value = Json<'a>;

    fn deserialize<D: serde::Deserializer<'a>>(self, input: D) -> Result<Json<'a>, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for &mut Parser<'a> {
    type Value = Json<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json<'a>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'a>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'a>, E> {
        Ok(Json::Whole(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'a>, E> {
        Ok(Json::Negative(value))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json<'a>, E> {
        Ok(Json::Fraction)
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Json<'a>, E> {
        Ok(Json::Text(text.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'a>, E> {
        Ok(Json::Text(text.to_owned().into()))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<Json<'a>, A::Error> {
        let from = self.values.len();
        while let Some(value) = list.next_element_seed(&mut *self)? {
            self.values.push(value);
        }
        Ok(Json::List(self.values.drain(from..).collect()))
    }

    fn visit_map<A: MapAccess<'a>>(self, mut object: A) -> Result<Json<'a>, A::Error> {
        let from = self.members.len();
        let mut seen = Seen::default();
        let mut again = false;
        while let Some(Json::Text(name)) = object.next_key_seed(&mut *self)? {
            again = again || seen.again(&self.members[from..], &name);
            let value = object.next_value_seed(&mut *self)?;
            self.members.push((name, value));
        }
        let members = self.members.drain(from..);
        if again {
            return Ok(Json::Object(last_of_each(members.collect())));
        }
        Ok(Json::Object(members.collect()))
    }
}

/// The names of an object so far, by a mark for each; names that are the same have the same mark.
#[derive(Default)]
struct Seen(u64);

impl Seen {
    /// Up to so many members it is looked whether a name comes again.
    const FEW: usize = 64;

    /// Whether a name may have been among those of the members before; surely not where the answer is no.
    fn again(&mut self, before: &[Member<'_>], name: &str) -> bool {
        let bytes = name.as_bytes();
        let byte = |byte: Option<&u8>| usize::from(*byte.unwrap_or(&0));
        let mark = 1 << ((bytes.len() + 5 * byte(bytes.first()) + 11 * byte(bytes.last())) % 64);
        let marked = self.0 & mark != 0;
        self.0 |= mark;
        marked && (before.len() > Self::FEW || place_of(before, 0, name).is_some())
    }
}

/// Members without those that come again later.
fn last_of_each<'a>(members: Vec<Member<'a>>) -> Box<[Member<'a>]> {
    let mut sorted = order::sort(members, |a, b| a.0.cmp(&b.0));
    // Of equals the last one stays.
    sorted.dedup_by(|later, earlier| {
        let again = later.0 == earlier.0;
        if again {
            std::mem::swap(later, earlier);
        }
        again
    });
    sorted.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// The same value as serde_json has it, as far as this one is kept.
    fn is(ours: &Json<'_>, theirs: &Value) -> bool {
        match (ours, theirs) {
            (Json::Null, Value::Null) => true,
            (Json::Bool(a), Value::Bool(b)) => a == b,
            (Json::Whole(a), Value::Number(b)) => b.as_u64() == Some(*a),
            (Json::Negative(a), Value::Number(b)) => *a < 0 && b.as_i64() == Some(*a),
            (Json::Fraction, Value::Number(b)) => b.as_u64().is_none() && b.as_i64().is_none(),
            (Json::Text(a), Value::String(b)) => a == b,
            (Json::List(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is(a, b))
            }
            (Json::Object(a), Value::Object(b)) => {
                let member = |(name, value): &Member<'_>| is(value, &b[&**name]);
                a.len() == b.len() && a.iter().all(member)
            }
            _ => false,
        }
    }

    #[test]
    fn values_and_errors_are_those_of_serde_json() {
        let mut many: Vec<String> = (0..200).map(|n| format!(r#""m{}":{n}"#, n % 150)).collect();
        many.push(r#""m7":"last""#.into());
        let many = format!("{{{}}}", many.join(","));
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let (deep, too_deep) = (deep(120), deep(200));
        let texts = [
            "null",
            " true ",
            "[false,[],{}]",
            "0",
            "18446744073709551615",
            "18446744073709551616",
            "-0",
            "-1",
            "-9223372036854775808",
            "-9223372036854775809",
            "1.0",
            "1e3",
            "1e999",
            r#""a\u00e9\n\ud83d\ude00é""#,
            r#"{"a":1,"b":[{"a":2},3],"c":{"a":{}}}"#,
            r#"{"a":1,"b":2,"a":{"x":1,"x":2,"x":[]},"\u0061":4}"#,
            r#"{"":1,"":2}"#,
            r#"{"ab":1,"ba":2,"a":3,"b":4}"#,
            r#"{"$serde_json::private::Number":"1"}"#,
            &many,
            &deep,
            &too_deep,
            "",
            "[1,]",
            "[1 2]",
            r#"{"a"}"#,
            r#"{"a":1,}"#,
            "{1:2}",
            "{\"a\":1} x",
            "\"\u{7}\"",
            r#""\ud800""#,
            "\"a",
            "01",
            "nul",
            "{\"a\":\n[1,\n\"b\",\nx]}",
        ];
        for text in texts {
            match (parse(text), serde_json::from_str::<Value>(text)) {
                (Ok(ours), Ok(theirs)) => assert!(is(&ours, &theirs), "{text}"),
                (Err(ours), Err(theirs)) => {
                    assert_eq!(ours.to_string(), theirs.to_string(), "{text}");
                    let place = |error: &serde_json::Error| (error.line(), error.column());
                    assert_eq!(place(&ours), place(&theirs), "{text}");
                }
                (ours, theirs) => panic!("{text}: {} {}", ours.is_ok(), theirs.is_ok()),
            }
        }
    }

    #[test]
    fn a_member_is_found_wherever_the_search_begins() {
        let Ok(Json::Object(members)) = parse(r#"{"a":1,"bb":2,"c":3}"#) else {
            panic!("an object")
        };
        for from in 0..5 {
            for (place, name) in ["a", "bb", "c"].into_iter().enumerate() {
                assert_eq!(place_of(&members, from, name), Some(place));
            }
            assert_eq!(place_of(&members, from, "b"), None);
        }
    }
}
