//! New inputs from old ones: edits of JSON documents and of lines, so that a changed plan is a plan most of the time.
//!
//! One time in eight, and for what is no text, libFuzzer's own mutators do it; they also change the strings and lines inside.
//! The same seed makes the same edit. Does not know what an input is for, but for the hash chain of ledgers.

use crate::json::{self, Node};
use qm2_core::digest::{ZERO, sha256_hex};

/// Whether an input is a chain of hashes that is made right again after an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reseal {
    /// It is not.
    No,
    /// Ledger lines: numbers, `prev` and `hash`; one time in eight only a part of them.
    Ledger,
}

/// Numbers at which something ends.
const NUMBERS: [&str; 16] = [
    "0",
    "1",
    "2",
    "3",
    "7",
    "63",
    "1000",
    "60000",
    "65536",
    "4294967295",
    "4294967296",
    "9007199254740991",
    "9007199254740992",
    "18446744073709551615",
    "-1",
    "0.5",
];

/// Changes `data[..size]` and gives its new size; see `fuzz_mutator`.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32, reseal: Reseal) -> usize {
    let mut random = Random(seed.into());
    let text = match std::str::from_utf8(&data[..size]) {
        Ok(text) if !random.one_in(8) => text,
        _ => return libfuzzer_sys::fuzzer_mutate(data, size, max_size),
    };
    let mut document = json::read(text);
    for _ in 0..=random.below(3) {
        edit(&mut random, &mut document);
    }
    if reseal == Reseal::Ledger {
        seal(&mut random, &mut document);
    }
    put(&document, &mut data[..max_size])
}

/// Puts two inputs together into `out` and gives the size; see `fuzz_crossover`.
pub fn cross(data1: &[u8], data2: &[u8], out: &mut [u8], seed: u32, reseal: Reseal) -> usize {
    let mut random = Random(seed.into());
    let (one, two) = (
        String::from_utf8_lossy(data1),
        String::from_utf8_lossy(data2),
    );
    let (mut one, two) = (json::read(&one), json::read(&two));
    if two.is_empty() || one.is_empty() {
        one.extend(two);
    } else if one.len() + two.len() > 2 && random.one_in(2) {
        // Some lines of the other one, somewhere.
        let from = random.below(two.len());
        let count = 1 + random.below(two.len() - from);
        let at = random.below(one.len() + 1);
        one.splice(at..at, two[from..from + count].iter().cloned());
    } else {
        // A value of the other one, in the place of one of the same name where there is any.
        let mut others: Vec<(&str, &Node)> = Vec::new();
        for node in &two {
            node.visit("", &mut |name, node| others.push((name, node)));
        }
        let (name, other) = others[random.below(others.len())];
        let (name, other) = (name.to_owned(), other.clone());
        let mut places = Vec::new();
        let mut number = 0;
        for node in &one {
            node.visit("", &mut |at, _| {
                if at == name {
                    places.push(number);
                }
                number += 1;
            });
        }
        if places.is_empty() {
            add_member(&mut random, &mut one, name, other);
        } else {
            let place = places[random.below(places.len())];
            if let Some((_, node)) = nth(&mut one, place) {
                *node = other;
            }
        }
    }
    if reseal == Reseal::Ledger {
        seal(&mut random, &mut one);
    }
    put(&one, out)
}

fn put(document: &[Node], out: &mut [u8]) -> usize {
    let text = json::write(document);
    let size = text.floor_char_boundary(out.len());
    out[..size].copy_from_slice(&text.as_bytes()[..size]);
    size
}

fn edit(random: &mut Random, document: &mut Vec<Node>) {
    if document.is_empty() {
        document.push(Node::Object(Vec::new()));
    }
    if document.len() > 1 && random.one_in(4) {
        edit_list(random, document);
        return;
    }
    // What the document has: material for its own changes.
    let (mut texts, mut numbers, mut members) = (Vec::new(), Vec::new(), Vec::new());
    let mut count = 0;
    for node in document.iter() {
        node.visit("", &mut |name, node| {
            count += 1;
            match node {
                Node::Text(text) => texts.push(text.clone()),
                Node::Number(number) => numbers.push(number.clone()),
                _ => {}
            }
            if !name.is_empty() {
                members.push((name.to_owned(), node.clone()));
            }
        });
    }
    let place = random.below(count);
    let Some((name, node)) = nth(document, place) else {
        return;
    };
    // The same member of another object is a likely value.
    if random.one_in(4) {
        let alike: Vec<&Node> = members
            .iter()
            .filter(|(other, _)| *other == name)
            .map(|(_, node)| node)
            .collect();
        if !alike.is_empty() {
            *node = alike[random.below(alike.len())].clone();
            return;
        }
    }
    match node {
        Node::Text(text) => match random.below(4) {
            0 | 1 if !texts.is_empty() => *text = texts.swap_remove(random.below(texts.len())),
            2 => *text = raw(text),
            _ => text.truncate(text.floor_char_boundary(random.below(text.len() + 1))),
        },
        Node::Raw(text) => *text = raw(text),
        Node::Number(number) => {
            let near = number.parse::<u64>().ok();
            *number = match (random.below(4), near) {
                (0, Some(near)) => near.wrapping_add(1).to_string(),
                (1, Some(near)) => near.wrapping_sub(1).to_string(),
                (2, _) if !numbers.is_empty() => numbers.swap_remove(random.below(numbers.len())),
                _ => NUMBERS[random.below(NUMBERS.len())].to_owned(),
            };
        }
        Node::Bool(yes) => *yes = !*yes,
        Node::Null => *node = Node::Object(Vec::new()),
        Node::List(list) => edit_list(random, list),
        Node::Object(object) => edit_object(random, object, &members),
    }
    if random.one_in(24) {
        let of_another_kind = [
            Node::Null,
            Node::Bool(true),
            Node::Text(String::new()),
            Node::Number("1".into()),
            Node::List(Vec::new()),
            Node::Object(Vec::new()),
        ];
        if let Some((_, node)) = nth(document, random.below(count)) {
            *node = of_another_kind[random.below(6)].clone();
        }
    }
}

fn edit_list(random: &mut Random, list: &mut Vec<Node>) {
    if list.is_empty() {
        list.push(Node::Object(Vec::new()));
        return;
    }
    let (a, b) = (random.below(list.len()), random.below(list.len()));
    match random.below(5) {
        0 => drop(list.remove(a)),
        1 => list.insert(b, list[a].clone()),
        2 => list.swap(a, b),
        3 => list.push(list[a].clone()),
        _ => list.truncate(a + 1),
    }
}

fn edit_object(random: &mut Random, object: &mut Vec<(String, Node)>, members: &[(String, Node)]) {
    let at = random.below(object.len() + 1);
    match random.below(4) {
        0 if at < object.len() => drop(object.remove(at)),
        1 if at < object.len() => {
            let other = random.below(object.len());
            object.swap(at, other);
        }
        2 if at < object.len() && !members.is_empty() => {
            object[at]
                .0
                .clone_from(&members[random.below(members.len())].0);
        }
        _ if !members.is_empty() => {
            let (name, node) = members[random.below(members.len())].clone();
            match object.iter_mut().find(|(other, _)| *other == name) {
                Some((_, there)) => *there = node,
                None => object.insert(at, (name, node)),
            }
        }
        _ => {}
    }
}

/// Gives a member to an object somewhere in the document.
fn add_member(random: &mut Random, document: &mut [Node], name: String, value: Node) {
    let (mut number, mut objects) = (0, Vec::new());
    for node in document.iter() {
        node.visit("", &mut |_, node| {
            if matches!(node, Node::Object(_)) {
                objects.push(number);
            }
            number += 1;
        });
    }
    if objects.is_empty() {
        return;
    }
    let place = objects[random.below(objects.len())];
    if let Some((_, Node::Object(members))) = nth(document, place) {
        let at = random.below(members.len() + 1);
        members.insert(at, (name, value));
    }
}

fn nth(document: &mut [Node], mut n: usize) -> Option<(String, &mut Node)> {
    document
        .iter_mut()
        .find_map(|node| node.nth_mut("", &mut n))
}

/// A text as libFuzzer changes it, with what it has seen compared.
fn raw(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let size = bytes.len();
    let max_size = size + 16;
    bytes.resize(max_size, 0);
    let size = libfuzzer_sys::fuzzer_mutate(&mut bytes, size, max_size);
    String::from_utf8_lossy(&bytes[..size]).into_owned()
}

/// Gives ledger lines their numbers, `prev` and `hash`.
fn seal(random: &mut Random, document: &mut [Node]) {
    let (renumber, link) = (!random.one_in(8), !random.one_in(8));
    let mut prev = ZERO.to_owned();
    for (index, node) in document.iter_mut().enumerate() {
        let Node::Object(members) = node else {
            continue;
        };
        for (name, value) in members.iter_mut() {
            match name.as_str() {
                "seq" if renumber => *value = Node::Number((index + 1).to_string()),
                "prev" if link => *value = Node::Text(prev.clone()),
                _ => {}
            }
        }
        members.retain(|(name, _)| name != "hash");
        let mut body = String::new();
        node.write(&mut body);
        prev = sha256_hex(&[body.as_bytes()]);
        if let Node::Object(members) = node {
            members.push(("hash".to_owned(), Node::Text(prev.clone())));
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below the bound; 0 where that is 0.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or_default()
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }
}
