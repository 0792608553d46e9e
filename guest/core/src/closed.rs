//! Closed coordinations, of which a domain keeps every one for the life of its ledger.
//!
//! They stand one behind another in pages of bytes, in the order of their ids: about as many bytes as what is kept of each.
//! A tree of values would take three times that. Knows nothing of the rules.

use crate::codec::{Absent, Input, Read, name, object, read_req, read_set};
use crate::compact::Digest;
use crate::event::{Name, TerminalState};
use crate::table::Table;

/// What is kept of a closed coordination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) owner: Name,
    pub(crate) plan_digest: Digest,
    pub(crate) created_seq: u64,
    pub(crate) terminal: TerminalState,
    pub(crate) terminal_seq: u64,
    /// Reports that were given up, by the number of the reported record, with the deliveries made.
    pub(crate) undelivered: Vec<(u64, u32)>,
    /// Those of them that are for others than the owner.
    pub(crate) for_others: Vec<(u64, Name)>,
}

impl Closed {
    /// Who is told of a record.
    pub(crate) fn told_by(&self, seq: u64) -> &str {
        let other = self.for_others.iter().find(|(of, _)| *of == seq);
        other.map_or(&self.owner, |(_, session)| session)
    }
}

object!(write Closed {
    "owner": req owner,
    "planDigest": req plan_digest,
    "createdSeq": req created_seq,
    "terminal": req terminal,
    "terminalSeq": req terminal_seq,
    "undelivered": req undelivered,
    "forOthers": set for_others,
});

/// Bytes of a page, unless a single entry has more.
const PAGE_BYTES: usize = 2_048;
/// What a page grows by.
const GROWTH_BYTES: usize = 256;

/// Reports that were given up, of the few that have some.
#[derive(Clone, Debug)]
struct GivenUp {
    undelivered: Vec<(u64, u32)>,
    for_others: Vec<(u64, Name)>,
}

/// All closed coordinations of a domain.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClosedTable {
    /// None is empty.
    pages: Vec<Vec<u8>>,
    len: usize,
    given_up: Table<GivenUp>,
}

impl ClosedTable {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        let (page, at) = self.place(id);
        self.is_at(page, at, id)
    }

    pub(crate) fn get(&self, id: &str) -> Option<Closed> {
        let (page, at) = self.place(id);
        self.is_at(page, at, id)
            .then(|| self.entry(&self.pages[page][at..]).1)
    }

    /// Takes one in; its id is not among them.
    pub(crate) fn insert(&mut self, id: Name, closed: Closed) {
        let (page, at) = self.place(&id);
        let entry = entry_of(&id, &closed);
        self.len += 1;
        if !closed.undelivered.is_empty() || !closed.for_others.is_empty() {
            let given_up = GivenUp {
                undelivered: closed.undelivered,
                for_others: closed.for_others,
            };
            self.given_up.insert(id, given_up);
        }
        self.insert_entry(page, at, entry);
    }

    /// Takes in what a snapshot has, behind what is here; false where that is not its place.
    pub(crate) fn append(&mut self, incoming: Incoming) -> bool {
        if !incoming.is_ordered {
            return false;
        }
        let bytes = &incoming.bytes[..];
        if let (Some(last), false) = (self.pages.last(), bytes.is_empty()) {
            let is_before = |entry| id_of(entry) < id_of(bytes);
            if !entries(last).all(is_before) {
                return false;
            }
        }
        let (mut from, mut at) = (0, 0);
        let mut room = self
            .pages
            .last()
            .map_or(0, |page| PAGE_BYTES.saturating_sub(page.len()));
        for entry in entries(bytes) {
            if at + entry.len() - from > room {
                self.append_bytes(&bytes[from..at]);
                (from, room) = (at, PAGE_BYTES);
                self.pages.push(Vec::new());
            }
            at += entry.len();
        }
        self.append_bytes(&bytes[from..at]);
        self.len += incoming.len;
        for (id, given_up) in incoming.given_up {
            self.given_up.insert(id, given_up);
        }
        true
    }

    /// To the last page.
    fn append_bytes(&mut self, bytes: &[u8]) {
        if let Some(page) = self.pages.last_mut() {
            page.reserve_exact(bytes.len());
            page.extend_from_slice(bytes);
        }
    }

    /// A report that was given up is acknowledged after all; false where the coordination is not among these.
    pub(crate) fn acknowledge(&mut self, id: &str, seq: u64) -> bool {
        if let Some(given_up) = self.given_up.get_mut(id) {
            given_up.undelivered.retain(|(of, _)| *of != seq);
        }
        self.contains(id)
    }

    /// All of them, in the order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Name, Closed)> {
        self.after(None)
    }

    /// Those past an id.
    pub(crate) fn after(&self, id: Option<&str>) -> Walk<'_> {
        let (page, mut at) = id.map_or((0, 0), |id| self.place(id));
        if let Some(id) = id
            && self.is_at(page, at, id)
        {
            at += entry_len(&self.pages[page][at..]);
        }
        Walk {
            table: self,
            page,
            at,
        }
    }

    /// The page of an id, and where it stands in it or would.
    fn place(&self, id: &str) -> (usize, usize) {
        let begins = |page: &Vec<u8>| id_of(page) <= id.as_bytes();
        let page = self.pages.partition_point(begins).saturating_sub(1);
        let mut at = 0;
        if let Some(page) = self.pages.get(page) {
            while at < page.len() && id_of(&page[at..]) < id.as_bytes() {
                at += entry_len(&page[at..]);
            }
        }
        (page, at)
    }

    fn is_at(&self, page: usize, at: usize, id: &str) -> bool {
        let page = self.pages.get(page);
        page.is_some_and(|page| at < page.len() && id_of(&page[at..]) == id.as_bytes())
    }

    fn insert_entry(&mut self, page: usize, at: usize, entry: Vec<u8>) {
        let Some(known) = self.pages.get_mut(page) else {
            self.pages.push(entry);
            return;
        };
        if known.len() + entry.len() <= PAGE_BYTES {
            if known.capacity() - known.len() < entry.len() {
                known.reserve_exact(entry.len().max(GROWTH_BYTES));
            }
            let end = known.len();
            known.extend_from_slice(&entry);
            known.copy_within(at..end, at + entry.len());
            known[at..at + entry.len()].copy_from_slice(&entry);
            return;
        }
        // Ids often come in their order, and pages that are left behind are full then.
        if at == known.len() {
            self.pages.insert(page + 1, entry);
            return;
        }
        let mut middle = 0;
        while middle < known.len() / 2 {
            let next = middle + entry_len(&known[middle..]);
            if next == known.len() && middle > 0 {
                break;
            }
            middle = next;
        }
        if middle == known.len() {
            // One entry, and a long one.
            self.pages.insert(page, entry);
            return;
        }
        let rest = known.split_off(middle);
        known.shrink_to_fit();
        self.pages.insert(page + 1, rest);
        match at.checked_sub(middle) {
            Some(at) if at > 0 => self.insert_entry(page + 1, at, entry),
            _ => self.insert_entry(page, at, entry),
        }
    }

    fn entry(&self, bytes: &[u8]) -> (Name, Closed) {
        let mut bytes = Bytes(bytes);
        bytes.number();
        let id = bytes.text();
        let owner = bytes.text();
        let plan_digest = match bytes.number() {
            0 => Digest::Hash(std::array::from_fn(|_| bytes.byte())),
            _ => Digest::Text((*bytes.text()).to_owned()),
        };
        let created_seq = bytes.number();
        let words = TerminalState::WORDS;
        let terminal = words.get(usize::from(bytes.byte()));
        let terminal = terminal.and_then(|word| TerminalState::from_name(word));
        let given_up = self.given_up.get(&id);
        let closed = Closed {
            owner,
            plan_digest,
            created_seq,
            terminal: terminal.expect("it was written here"),
            terminal_seq: bytes.number(),
            undelivered: given_up.map_or(Vec::new(), |it| it.undelivered.clone()),
            for_others: given_up.map_or(Vec::new(), |it| it.for_others.clone()),
        };
        (id, closed)
    }
}

/// What a piece of a snapshot has of them, as they stand in pages: no value is made of any, because there may be a million.
pub(crate) struct Incoming {
    bytes: Vec<u8>,
    len: usize,
    given_up: Vec<(Name, GivenUp)>,
    /// Whether each id comes after the one before it. An empty one is none, and a cursor could not name it.
    is_ordered: bool,
}

impl Default for Incoming {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            len: 0,
            given_up: Vec::new(),
            is_ordered: true,
        }
    }
}

impl Incoming {
    /// The reports that were given up, and whose they are.
    pub(crate) fn reports(&self) -> impl Iterator<Item = (u64, &Name)> {
        self.given_up.iter().flat_map(|(id, given_up)| {
            let seqs = given_up.undelivered.iter();
            seqs.map(move |(seq, _)| (*seq, id))
        })
    }
}

impl Absent for Incoming {
    fn is_absent(&self) -> bool {
        self.len == 0
    }
}

impl Read for Incoming {
    /// Member by member as [`Closed`] is written.
    fn read(input: &mut Input<'_>) -> Self {
        let mut incoming = Self::default();
        let (mut rest, mut last) = (Vec::with_capacity(GROWTH_BYTES), 0);
        input.list(&mut |input| {
            input.byte(b'[', "a pair");
            let id = input.string();
            input.byte(b',', "a pair");
            input.open();
            input.required(name!("owner"));
            let owner = input.string();
            let plan_digest: Digest = read_req(input, name!("planDigest"));
            let created_seq: u64 = read_req(input, name!("createdSeq"));
            input.required(name!("terminal"));
            let terminal = input.word(TerminalState::WORDS);
            let terminal_seq: u64 = read_req(input, name!("terminalSeq"));
            let undelivered: Vec<(u64, u32)> = read_req(input, name!("undelivered"));
            let for_others: Vec<(u64, Name)> = read_set(input, name!("forOthers"));
            input.close();
            input.byte(b']', "a pair");
            let numbers = (created_seq, terminal, terminal_seq);
            rest.clear();
            put_rest(&mut rest, &id, &owner, &plan_digest, numbers);
            let before: &[u8] = match incoming.len {
                0 => b"",
                _ => id_of(&incoming.bytes[last..]),
            };
            incoming.is_ordered &= before < id.as_bytes();
            last = incoming.bytes.len();
            put(&mut incoming.bytes, rest.len() as u64);
            incoming.bytes.extend_from_slice(&rest);
            incoming.len += 1;
            if !undelivered.is_empty() || !for_others.is_empty() {
                let given_up = GivenUp {
                    undelivered,
                    for_others,
                };
                incoming.given_up.push((id.as_ref().into(), given_up));
            }
        });
        incoming
    }
}

/// Closed coordinations in order.
pub(crate) struct Walk<'a> {
    table: &'a ClosedTable,
    page: usize,
    at: usize,
}

impl Walk<'_> {
    pub(crate) fn is_at_end(&self) -> bool {
        let pages = &self.table.pages;
        let at_end = |page: &Vec<u8>| self.at >= page.len() && self.page + 1 == pages.len();
        pages.get(self.page).is_none_or(at_end)
    }
}

impl Iterator for Walk<'_> {
    type Item = (Name, Closed);

    #[inline(never)]
    fn next(&mut self) -> Option<(Name, Closed)> {
        if self.is_at_end() {
            return None;
        }
        if self.at >= self.table.pages[self.page].len() {
            (self.page, self.at) = (self.page + 1, 0);
        }
        let bytes = &self.table.pages[self.page][self.at..];
        self.at += entry_len(bytes);
        Some(self.table.entry(bytes))
    }
}

/// An entry: how long the rest is, the id, and what is kept.
fn entry_of(id: &str, closed: &Closed) -> Vec<u8> {
    let mut rest = Vec::with_capacity(128);
    let word = closed.terminal.name();
    let place = TerminalState::WORDS.iter().position(|known| *known == word);
    let terminal = place.unwrap_or(usize::MAX);
    let numbers = (closed.created_seq, terminal, closed.terminal_seq);
    put_rest(&mut rest, id, &closed.owner, &closed.plan_digest, numbers);
    let mut entry = Vec::with_capacity(GROWTH_BYTES);
    put(&mut entry, rest.len() as u64);
    entry.extend_from_slice(&rest);
    entry
}

/// An entry without its length. Of the numbers the second is the place of the end among its words.
fn put_rest(
    rest: &mut Vec<u8>,
    id: &str,
    owner: &str,
    plan_digest: &Digest,
    (created_seq, terminal, terminal_seq): (u64, usize, u64),
) {
    put_text(rest, id);
    put_text(rest, owner);
    match plan_digest {
        Digest::Hash(hash) => {
            rest.push(0);
            rest.extend_from_slice(hash);
        }
        Digest::Text(text) => {
            rest.push(1);
            put_text(rest, text);
        }
    }
    put(rest, created_seq);
    rest.push(terminal.try_into().unwrap_or(u8::MAX));
    put(rest, terminal_seq);
}

/// The entries that stand one behind another.
fn entries(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let len = (!bytes.is_empty()).then(|| entry_len(bytes))?;
        let (entry, rest) = bytes.split_at(len);
        bytes = rest;
        Some(entry)
    })
}

fn entry_len(entry: &[u8]) -> usize {
    let mut bytes = Bytes(entry);
    let rest = bytes.len();
    entry.len() - bytes.0.len() + rest
}

fn id_of(entry: &[u8]) -> &[u8] {
    let mut bytes = Bytes(entry);
    bytes.number();
    let len = bytes.len();
    &bytes.0[..len]
}

/// Seven bits a byte, the lowest first; all but the last have the highest bit set.
fn put(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// What is left of an entry.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    #[inline(always)]
    fn byte(&mut self) -> u8 {
        let byte = self.0[0];
        self.0 = &self.0[1..];
        byte
    }

    /// Most are lengths, and a single byte.
    #[inline(always)]
    fn number(&mut self) -> u64 {
        match self.byte() {
            short @ ..0x80 => short.into(),
            first => self.long_number(first),
        }
    }

    #[inline(never)]
    fn long_number(&mut self, first: u8) -> u64 {
        let (mut number, mut shift) = (u64::from(first & 0x7f), 7);
        loop {
            let byte = self.byte();
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return number;
            }
            shift += 7;
        }
    }

    fn len(&mut self) -> usize {
        self.number() as usize
    }

    fn text(&mut self) -> Name {
        let len = self.len();
        let (text, rest) = self.0.split_at(len);
        self.0 = rest;
        // Without `expect`, which would bring in how an error is shown.
        let Ok(text) = std::str::from_utf8(text) else {
            panic!("it was text when it was written")
        };
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{canonical, parse};
    use crate::digest::sha256_hex;
    use std::collections::BTreeMap;

    fn closed(number: u64, id: &str) -> Closed {
        let undelivered = match number % 10 {
            3 => vec![(number, 5), (number + 1, 6)],
            _ => Vec::new(),
        };
        let words = TerminalState::WORDS;
        let word = words[number as usize % words.len()];
        Closed {
            owner: format!("user:{}", "o".repeat(number as usize % 200)).into(),
            plan_digest: match number % 7 {
                0 => Digest::of(&"no digest ".repeat(number as usize % 400)),
                _ => Digest::of(&sha256_hex(&[id.as_bytes()])),
            },
            created_seq: number * number,
            terminal: TerminalState::from_name(word).unwrap(),
            terminal_seq: (1 << 53) - 1 - number,
            for_others: undelivered
                .iter()
                .map(|(seq, _)| (*seq, "agent:other".into()))
                .collect(),
            undelivered,
        }
    }

    /// Puts them in and compares with a map.
    fn check(ids: &[String]) -> ClosedTable {
        let (mut table, mut map) = (ClosedTable::default(), BTreeMap::new());
        for (number, id) in (0..).zip(ids) {
            assert!(!table.contains(id) && table.get(id).is_none());
            let one = closed(number, id);
            table.insert(id.as_str().into(), one.clone());
            map.insert(id.as_str(), one);
        }
        assert_eq!(table.len(), map.len());
        assert!(
            table
                .iter()
                .map(|(id, one)| (id.to_string(), one))
                .eq(map.iter().map(|(id, one)| ((*id).to_owned(), one.clone())))
        );
        for (id, one) in &map {
            assert_eq!(table.get(id).as_ref(), Some(one));
            let past =
                map.range::<str, _>((std::ops::Bound::Excluded(*id), std::ops::Bound::Unbounded));
            let past: Vec<&str> = past.map(|(id, _)| *id).take(3).collect();
            let after: Vec<Name> = table.after(Some(id)).map(|(id, _)| id).take(3).collect();
            assert!(after.iter().map(|id| &**id).eq(past));
            let between = format!("{id}-");
            assert!(!table.contains(&between) && table.get(&between).is_none());
            assert_eq!(
                table.after(Some(&between)).map(|(id, _)| id).next(),
                table.after(Some(id)).map(|(id, _)| id).next()
            );
        }
        table
    }

    #[test]
    fn closed_ones_are_found_in_whatever_order_they_came() {
        let ids = |order: &dyn Fn(u64) -> u64| -> Vec<String> {
            (0..997).map(|n| format!("c{:04}", order(n))).collect()
        };
        check(&[]);
        check(&ids(&|n| n));
        check(&ids(&|n| 996 - n));
        check(&ids(&|n| n * 331 % 997));
        // Ids that are the beginnings of others.
        check(
            &(1..128)
                .map(|n| "x".repeat(n * 37 % 127 + 1))
                .collect::<Vec<_>>(),
        );
    }

    #[test]
    fn a_report_that_was_given_up_can_still_be_acknowledged() {
        let ids: Vec<String> = (0..20).map(|n| format!("c{n:02}")).collect();
        let mut table = check(&ids);
        assert!(table.acknowledge("c13", 13) && table.acknowledge("c12", 12));
        assert!(!table.acknowledge("c99", 13));
        let one = table.get("c13").unwrap();
        assert_eq!(one.undelivered, [(14, 6)]);
        assert_eq!(
            (one.told_by(13), one.told_by(12)),
            ("agent:other", &*one.owner)
        );
    }

    /// What a snapshot has of them.
    fn incoming(entries: &[(Name, Closed)]) -> Incoming {
        parse(&canonical(&entries.to_vec())).unwrap()
    }

    #[test]
    fn what_a_snapshot_has_of_them_is_taken_in_piece_by_piece() {
        let ids: Vec<String> = (0..997).map(|n| format!("c{n:04}")).collect();
        let table = check(&ids);
        let all: Vec<(Name, Closed)> = table.iter().collect();
        for piece in [1, 7, 500, 997] {
            let mut restored = ClosedTable::default();
            assert!(restored.append(Incoming::default()));
            for entries in all.chunks(piece) {
                let incoming = incoming(entries);
                let reports = entries.iter().flat_map(|(id, one)| {
                    let seqs = one.undelivered.iter();
                    seqs.map(move |(seq, _)| (*seq, id))
                });
                assert!(incoming.reports().eq(reports));
                assert!(restored.append(incoming));
            }
            assert_eq!(restored.len(), all.len());
            assert!(restored.iter().eq(all.iter().cloned()));
            assert!(restored.pages.iter().all(|page| !page.is_empty()));
            // It goes on as any other.
            restored.insert("c0500-".into(), closed(3, "c0500-"));
            assert_eq!(restored.get("c0500-"), Some(closed(3, "c0500-")));
            assert!(restored.acknowledge("c0013", 13));
        }
    }

    #[test]
    fn what_a_snapshot_has_of_them_has_each_once_and_in_its_place() {
        let pair = |id: &str| (Name::from(id), closed(1, id));
        let mut table = ClosedTable::default();
        assert!(table.append(incoming(&[pair("b"), pair("d")])));
        for ids in [&["d"][..], &["c"], &["a"], &["e", "e"], &["f", "e"], &[""]] {
            let pairs: Vec<_> = ids.iter().map(|id| pair(id)).collect();
            assert!(!table.append(incoming(&pairs)), "{ids:?}");
        }
        assert!(table.append(incoming(&[pair("e"), pair("ee")])));
        assert_eq!(table.len(), 4);
        let whole = canonical(&vec![pair("b")]);
        for (from, to) in [
            ("\"partial\"", "\"partly\""),
            ("\"createdSeq\":1", "\"createdSeq\":01"),
            ("\"owner\"", "\"own\""),
            ("]]", "]"),
        ] {
            assert!(whole.contains(from), "{from} in {whole}");
            assert!(
                parse::<Incoming>(&whole.replace(from, to)).is_err(),
                "{from}"
            );
        }
    }

    #[test]
    fn pages_hold_little_but_their_entries_in_whatever_order_they_came() {
        let percent = |order: &dyn Fn(u64) -> u64| {
            let mut table = ClosedTable::default();
            let mut entries = 0;
            for number in 0..9_973 {
                let id = format!("closed-{:07}", order(number));
                let one = Closed {
                    owner: "user:dana".into(),
                    undelivered: Vec::new(),
                    for_others: Vec::new(),
                    plan_digest: Digest::of(&sha256_hex(&[id.as_bytes()])),
                    ..closed(1 << 11, &id)
                };
                entries += entry_of(&id, &one).len();
                table.insert(id.into(), one);
            }
            let held: usize = table.pages.iter().map(Vec::capacity).sum();
            (held + table.pages.len() * size_of::<Vec<u8>>()) * 100 / entries
        };
        let (rising, mixed) = (percent(&|n| n), percent(&|n| n * 3_331 % 9_973));
        assert!(rising < 120 && mixed < 120, "{rising} {mixed}");
    }
}
