//! JSON that keeps the order of its members and the text of its numbers, and documents of one such value a line.
//!
//! What is not JSON stays as the text that it is, so that every input is a document. Does not test anything.

use qm2_core::codec::canonical;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// A JSON value, or a text that is none.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// `null`.
    Null,
    /// A truth value.
    Bool(bool),
    /// A number as it is written.
    Number(String),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Members in their order; a name may come twice.
    Object(Vec<(String, Node)>),
    /// A line that is no JSON.
    Raw(String),
}

impl Node {
    /// Reads one value.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Its text, without spaces and with the escapes that the ledger has.
    pub fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(yes) => out.push_str(if *yes { "true" } else { "false" }),
            Self::Number(text) | Self::Raw(text) => out.push_str(text),
            Self::Text(text) => out.push_str(&canonical(text)),
            Self::List(list) => {
                out.push('[');
                for (index, node) in list.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    node.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (index, (name, node)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    out.push_str(&canonical(name));
                    out.push(':');
                    node.write(out);
                }
                out.push('}');
            }
        }
    }

    /// Calls back for this value and every one within it, with the name of the member it is, from the outside in.
    pub fn visit<'a>(&'a self, name: &'a str, see: &mut dyn FnMut(&'a str, &'a Self)) {
        see(name, self);
        match self {
            Self::List(list) => list.iter().for_each(|node| node.visit(name, see)),
            Self::Object(members) => members
                .iter()
                .for_each(|(name, node)| node.visit(name, see)),
            _ => {}
        }
    }

    /// The n-th value in the order of [`Node::visit`], with the name of the member it is; counts down while it looks.
    pub fn nth_mut(&mut self, name: &str, n: &mut usize) -> Option<(String, &mut Self)> {
        if *n == 0 {
            return Some((name.to_owned(), self));
        }
        *n -= 1;
        match self {
            Self::List(list) => list.iter_mut().find_map(|node| node.nth_mut(name, n)),
            Self::Object(members) => members
                .iter_mut()
                .find_map(|(name, node)| node.nth_mut(name, n)),
            _ => None,
        }
    }
}

/// Reads a document: one value, or one a line.
#[must_use]
pub fn read(text: &str) -> Vec<Node> {
    if let Some(node) = Node::parse(text) {
        return vec![node];
    }
    text.lines()
        .map(|line| Node::parse(line).unwrap_or_else(|| Node::Raw(line.to_owned())))
        .collect()
}

/// Writes a document, one value a line.
#[must_use]
pub fn write(document: &[Node]) -> String {
    let mut out = String::new();
    for (index, node) in document.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        node.write(&mut out);
    }
    out
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }

            fn visit_bool<E>(self, yes: bool) -> Result<Node, E> {
                Ok(Node::Bool(yes))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
                Ok(Node::Number(number.to_string()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
                Ok(Node::Number(number.to_string()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
                Ok(Node::Number(format!("{number:?}")))
            }

            fn visit_str<E>(self, text: &str) -> Result<Node, E> {
                Ok(Node::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(node) = seq.next_element()? {
                    list.push(node);
                }
                Ok(Node::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Node::Object(members))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_again_in_its_order() {
        for text in [
            r#"{"b":1,"a":[null,true,-3,2.5,"\u007f\n"],"b":{}}"#,
            "{\"a\":1}\n[agents]\n\n[2]",
            "",
        ] {
            assert_eq!(write(&read(text)), text);
        }
    }

    #[test]
    fn every_value_can_be_reached_by_its_number() {
        let mut node = Node::parse(r#"{"a":[1,{"b":2}],"c":3}"#).unwrap();
        let mut seen = Vec::new();
        node.visit("", &mut |name, node| {
            seen.push((name.to_owned(), node.clone()));
        });
        assert_eq!(seen.len(), 6);
        for (number, (name, found)) in seen.into_iter().enumerate() {
            let (at, there) = node.nth_mut("", &mut { number }).unwrap();
            assert_eq!((at, &*there), (name, &found));
        }
        assert!(node.nth_mut("", &mut { 6 }).is_none());
    }
}
