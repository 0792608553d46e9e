//! Order: sorting, small sorted lists, and the one tree of the core.
//!
//! One sort and one tree for every type: the component has to be small, and each type that is sorted or kept in a tree of
//! its own adds kilobytes to it. The tree's keys are bytes, so whoever keeps something in it says the order as bytes;
//! what the bytes mean is not known here. In the tree they stand as words: keys begin alike for long, and the component
//! compares bytes one by one.

use crate::codec::few;
use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::btree_map::{self, BTreeMap, Entry};
use std::ops::Bound;

/// The order of short texts such as ids, which is that of their bytes. Word by word: in the component a comparison of bytes whose
/// number is not known before is a loop over them.
#[inline(never)]
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (words_a, rest_a) = a.as_bytes().as_chunks::<8>();
    let (words_b, rest_b) = b.as_bytes().as_chunks::<8>();
    for (a, b) in words_a.iter().zip(words_b) {
        if a != b {
            return u64::from_be_bytes(*a).cmp(&u64::from_be_bytes(*b));
        }
    }
    // One of them has no more whole words, so at most seven bytes are left to be compared.
    match words_a.len().cmp(&words_b.len()) {
        Ordering::Equal => rest_a.iter().cmp(rest_b),
        Ordering::Less => rest_a.iter().cmp(words_b[words_a.len()..].as_flattened()),
        Ordering::Greater => words_a[words_b.len()..].as_flattened().iter().cmp(rest_b),
    }
}

/// Whether two texts are the same; names are often the same text in memory.
pub(crate) fn same(a: &str, b: &str) -> bool {
    std::ptr::eq(a, b) || crate::codec::same(a.as_bytes(), b.as_bytes())
}

/// Where something was found last. It is the first place to look: what one input leads to is about one step, and most inputs
/// of a call are about one coordination. Is no part of what a value says, and may be wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Last(Cell<usize>);

impl Last {
    pub(crate) fn get(&self) -> usize {
        self.0.get()
    }

    pub(crate) fn set(&self, place: usize) {
        self.0.set(place);
    }
}

impl PartialEq for Last {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Last {}

/// Sorts, keeping the order of equals.
pub(crate) fn sort<T>(items: Vec<T>, compare: impl Fn(&T, &T) -> Ordering) -> Vec<T> {
    if items.is_sorted_by(|a, b| compare(a, b).is_le()) {
        return items;
    }
    let mut places: Vec<usize> = (0..items.len()).collect();
    sort_places(&mut places, &|a, b| compare(&items[a], &items[b]));
    let mut items: Vec<Option<T>> = items.into_iter().map(Some).collect();
    places
        .into_iter()
        .filter_map(|place| items[place].take())
        .collect()
}

/// Merges runs that double in length; the sort of the standard library is faster and takes ten times the code.
fn sort_places(places: &mut Vec<usize>, compare: &dyn Fn(usize, usize) -> Ordering) {
    let mut run = 1;
    while run < places.len() {
        let mut merged = Vec::with_capacity(places.len());
        for pair in places.chunks(2 * run) {
            let (mut left, mut right) = pair.split_at(run.min(pair.len()));
            // Of equals the left one goes first.
            while let (Some(a), Some(b)) = (left.first(), right.first()) {
                let side = if compare(*a, *b).is_gt() {
                    &mut right
                } else {
                    &mut left
                };
                merged.push(side[0]);
                *side = &side[1..];
            }
            merged.extend_from_slice(left);
            merged.extend_from_slice(right);
        }
        *places = merged;
        run *= 2;
    }
}

/// Puts a value where it belongs in a sorted list without equals; false if it is there already.
pub(crate) fn insert<T: Ord>(list: &mut Vec<T>, value: T) -> bool {
    // Mostly it is a new one, behind all others.
    if list.last().is_none_or(|last| *last < value) {
        list.push(value);
        return true;
    }
    match list.binary_search(&value) {
        Ok(_) => false,
        Err(place) => {
            list.insert(place, value);
            true
        }
    }
}

/// Takes a value out of a sorted list.
pub(crate) fn remove<T: Ord>(list: &mut Vec<T>, value: &T) {
    if let Ok(place) = list.binary_search(value) {
        list.remove(place);
    }
}

/// Values in the order of their keys. The keys stand in a tree that is the same for every type of value, the values beside
/// it.
#[derive(Clone, Debug)]
pub(crate) struct Ordered<V> {
    places: Places,
    values: Vec<Option<V>>,
}

impl<V> Default for Ordered<V> {
    fn default() -> Self {
        Self {
            places: Places::default(),
            values: Vec::new(),
        }
    }
}

impl<V> Ordered<V> {
    pub(crate) fn len(&self) -> usize {
        self.places.tree.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.places.get(key).is_some()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&V> {
        self.at(self.find(key)?)
    }

    /// Where the value of a key stands, until it is removed.
    pub(crate) fn find(&self, key: &Key) -> Option<usize> {
        self.places.get(key)
    }

    /// The value at a place.
    pub(crate) fn at(&self, place: usize) -> Option<&V> {
        self.values.get(place)?.as_ref()
    }

    pub(crate) fn at_mut(&mut self, place: usize) -> Option<&mut V> {
        self.values.get_mut(place)?.as_mut()
    }

    /// Puts a value under a key; answers with the one that it takes the place of.
    pub(crate) fn insert(&mut self, key: &Key, value: V) -> Option<V> {
        let place = self.place(key);
        self.values[place].replace(value)
    }

    /// The value at a place, which is made where it is missing.
    pub(crate) fn at_or_insert(&mut self, place: usize, make: impl FnOnce() -> V) -> &mut V {
        self.values[place].get_or_insert_with(make)
    }

    /// Where the value of a key stands or is to stand; one is put there next.
    pub(crate) fn place(&mut self, key: &Key) -> usize {
        let place = self.places.insert(key, self.values.len());
        if place == self.values.len() {
            self.values.push(None);
        }
        place
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<V> {
        let place = self.places.remove(key)?;
        self.values[place].take()
    }

    pub(crate) fn first(&self) -> Option<&V> {
        self.values[self.places.first()?].as_ref()
    }

    /// All values.
    pub(crate) fn iter(&self) -> Walk<'_, V> {
        self.from(&Key::of(&[]))
    }

    /// Those from a key on, itself included.
    pub(crate) fn from(&self, key: &Key) -> Walk<'_, V> {
        Walk {
            keys: self.places.from(key),
            values: &self.values,
        }
    }

    /// Those past a key.
    pub(crate) fn after(&self, key: &Key) -> Walk<'_, V> {
        Walk {
            keys: self.places.after(key),
            values: &self.values,
        }
    }
}

/// Values in order.
pub(crate) struct Walk<'a, V> {
    keys: btree_map::Range<'a, Box<[u64]>, usize>,
    values: &'a [Option<V>],
}

impl<'a, V> Iterator for Walk<'a, V> {
    type Item = &'a V;

    fn next(&mut self) -> Option<&'a V> {
        let place = next_place(&mut self.keys)?;
        self.values[place].as_ref()
    }
}

/// Where the values stand; nothing here knows their type.
#[derive(Clone, Debug, Default)]
struct Places {
    tree: BTreeMap<Box<[u64]>, usize>,
    /// Places without a value.
    free: Vec<usize>,
    /// Memory of a key that was removed, for the next one of its length: much of what is put in is soon taken out.
    spare: Option<Box<[u64]>>,
}

// One copy of each in the component, however many types of values there are.
impl Places {
    #[inline(never)]
    fn get(&self, key: &Key) -> Option<usize> {
        self.tree.get(key.words()).copied()
    }

    /// The place of a key; a new one is a free one, or `end`.
    #[inline(never)]
    fn insert(&mut self, key: &Key, end: usize) -> usize {
        let words = key.words();
        let kept = match self.spare.take_if(|spare| spare.len() == words.len()) {
            Some(mut spare) => {
                for (to, from) in spare.iter_mut().zip(words) {
                    *to = *from;
                }
                spare
            }
            None => words.into(),
        };
        // Most keys are new: one way down the tree, with a key that stays.
        match self.tree.entry(kept) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => *new.insert(self.free.pop().unwrap_or(end)),
        }
    }

    #[inline(never)]
    fn remove(&mut self, key: &Key) -> Option<usize> {
        let (kept, place) = self.tree.remove_entry(key.words())?;
        self.spare = Some(kept);
        self.free.push(place);
        Some(place)
    }

    #[inline(never)]
    fn first(&self) -> Option<usize> {
        self.tree.first_key_value().map(|(_, place)| *place)
    }

    #[inline(never)]
    fn from(&self, key: &Key) -> btree_map::Range<'_, Box<[u64]>, usize> {
        self.tree
            .range::<[u64], _>((Bound::Included(key.words()), Bound::Unbounded))
    }

    #[inline(never)]
    fn after(&self, key: &Key) -> btree_map::Range<'_, Box<[u64]>, usize> {
        self.tree
            .range::<[u64], _>((Bound::Excluded(key.words()), Bound::Unbounded))
    }
}

#[inline(never)]
fn next_place(keys: &mut btree_map::Range<'_, Box<[u64]>, usize>) -> Option<usize> {
    keys.next().map(|(_, place)| *place)
}

/// A part of a key.
pub(crate) enum Part<'a> {
    /// In the order of numbers.
    Byte(u8),
    /// In the order of numbers.
    Number(u64),
    /// In the order of bytes. It holds no zero byte, which ends it here.
    Text(&'a str),
    /// What is a key of its own, and so needs no end.
    Whole(&'a [u8]),
}

/// Words of keys as long as most are.
const WORDS: usize = 16;

/// A key, in the order of its parts: its bytes as words, the first one highest, with zeros after the last, and then how many
/// there are. That is the order of all keys of which none is another one with zeros after it. Those that are kept are such:
/// texts hold no zero, and in keys of one kind the numbers stand in the same places. What is looked for may hold zeros, and
/// finds nothing then.
#[derive(Debug)]
pub(crate) struct Key {
    few: [u64; WORDS],
    /// All of them, where they are more.
    many: Vec<u64>,
    count: usize,
}

impl Key {
    // Filled where it is to stand: it is long.
    #[inline]
    pub(crate) fn of(parts: &[Part<'_>]) -> Self {
        let mut key = Self {
            few: [0; WORDS],
            many: Vec::new(),
            count: 0,
        };
        key.fill(parts);
        key
    }

    #[inline(never)]
    fn fill(&mut self, parts: &[Part<'_>]) {
        let mut end = End { word: 0, bytes: 0 };
        for part in parts {
            match part {
                Part::Byte(byte) => end.push(self, u64::from(*byte) << 56, 1),
                Part::Number(number) => end.push(self, *number, 8),
                Part::Text(text) => {
                    end.extend(self, text.as_bytes());
                    end.push(self, 0, 1);
                }
                Part::Whole(bytes) => end.extend(self, bytes),
            }
        }
        if !end.bytes.is_multiple_of(8) {
            self.put(end.word);
        }
        self.put(end.bytes);
    }

    fn put(&mut self, word: u64) {
        if let Some(place) = self.few.get_mut(self.count) {
            *place = word;
        } else {
            self.put_behind(word);
        }
        self.count += 1;
    }

    #[cold]
    #[inline(never)]
    fn put_behind(&mut self, word: u64) {
        if self.many.is_empty() {
            self.many = self.few.to_vec();
        }
        self.many.push(word);
    }

    pub(crate) fn words(&self) -> &[u64] {
        self.few.get(..self.count).unwrap_or(&self.many)
    }
}

/// The end of a key that is being made.
struct End {
    /// The bytes that do not fill a word yet, with zeros behind them.
    word: u64,
    /// How many there are in all.
    bytes: u64,
}

impl End {
    fn extend(&mut self, key: &mut Key, bytes: &[u8]) {
        let (whole, rest) = bytes.as_chunks::<8>();
        for bytes in whole {
            self.push(key, u64::from_be_bytes(*bytes), 8);
        }
        if !rest.is_empty() {
            // Of the last eight bytes those that were not put yet, or as many as there are.
            let last = match bytes.last_chunk() {
                Some(last) => u64::from_be_bytes(*last) << (64 - 8 * rest.len()),
                None => few(rest).swap_bytes(),
            };
            self.push(key, last, rest.len() as u64);
        }
    }

    /// Puts the first bytes of a word, of which the others are zero, behind what is there.
    #[inline]
    fn push(&mut self, key: &mut Key, word: u64, bytes: u64) {
        let used = self.bytes % 8;
        self.bytes += bytes;
        self.word |= word >> (8 * used);
        if used + bytes >= 8 {
            key.put(self.word);
            self.word = word.unbounded_shl(64 - 8 * used as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_in_the_order_of_their_bytes() {
        let mut texts = Vec::new();
        for length in 0..20 {
            let text = "aaaaaaaaaaaaaaaaaaaa"[..length].to_owned();
            for place in 0..length {
                for other in ["\u{1}", "Z", "\u{7f}"] {
                    let mut text = text.clone();
                    text.replace_range(place..=place, other);
                    texts.push(text);
                }
            }
            texts.push(text);
        }
        for a in &texts {
            for b in &texts {
                assert_eq!(compare(a, b), a.cmp(b), "{a:?} {b:?}");
                assert_eq!(same(a, b), a == b);
            }
            assert!(same(a, a));
        }
    }

    #[test]
    fn sorting_keeps_the_order_of_equals() {
        for len in 0..70_u64 {
            let items: Vec<(u64, u64)> = (0..len).map(|n| (n * 37 % 11, n)).collect();
            let mut expected = items.clone();
            expected.sort_by_key(|item| item.0);
            assert_eq!(sort(items, |a, b| a.0.cmp(&b.0)), expected);
        }
    }

    fn key(bytes: &[u8]) -> Key {
        Key::of(&[Part::Whole(bytes)])
    }

    #[test]
    fn places_are_used_again_and_the_order_is_that_of_the_keys() {
        let mut ordered = Ordered::default();
        for (name, value) in [(b"b", 1), (b"a", 2), (b"c", 3)] {
            assert_eq!(ordered.insert(&key(name), value), None);
        }
        assert_eq!(ordered.remove(&key(b"a")), Some(2));
        assert_eq!(ordered.remove(&key(b"a")), None);
        assert_eq!(ordered.insert(&key(b"d"), 4), None);
        assert_eq!(ordered.insert(&key(b"b"), 5), Some(1));
        let all: Vec<i32> = ordered.iter().copied().collect();
        assert_eq!(all, [5, 3, 4]);
        let from: Vec<i32> = ordered.from(&key(b"bb")).copied().collect();
        assert_eq!(from, [3, 4]);
        assert_eq!(
            (ordered.first(), ordered.get(&key(b"c"))),
            (Some(&5), Some(&3))
        );
        assert_eq!((ordered.len(), ordered.values.len()), (3, 3));
        assert!(ordered.contains(&key(b"c")) && !ordered.contains(&key(b"a")));
    }

    #[test]
    fn keys_of_any_length_are_kept_apart_and_in_order() {
        let mut ordered = Ordered::default();
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for length in [1, 2, 7, 8, 9, 15, 16, 17, 119, 120, 121, 128, 129, 400] {
            for last in [1, 0x7f, 0xff] {
                let mut bytes = vec![b'a'; length];
                bytes[length - 1] = last;
                keys.push(bytes);
            }
        }
        for (value, bytes) in keys.iter().enumerate() {
            assert_eq!(ordered.insert(&key(bytes), value), None);
        }
        for (value, bytes) in keys.iter().enumerate() {
            assert_eq!(ordered.get(&key(bytes)), Some(&value));
            let longer = key(&[bytes, &[0][..]].concat());
            assert!(!ordered.contains(&longer) && ordered.remove(&longer).is_none());
        }
        let mut sorted = keys.clone();
        sorted.sort();
        let walked: Vec<&Vec<u8>> = ordered.iter().map(|value| &keys[*value]).collect();
        assert_eq!(walked, sorted.iter().collect::<Vec<_>>());
        let past: Vec<usize> = ordered.after(&key(&sorted[3])).copied().collect();
        assert_eq!(keys[past[0]], sorted[4]);
    }

    #[test]
    fn a_key_is_the_bytes_of_its_parts_wherever_they_stand() {
        for before in 0..200 {
            for length in 0..20 {
                let (first, text) = (
                    "x".repeat(before),
                    "abcdefghijklmnopqrst"[..length].to_owned(),
                );
                let parts = [
                    Part::Text(&first),
                    Part::Byte(7),
                    Part::Text(&text),
                    Part::Number(0x0102_0304_0506_0708),
                ];
                let number = [1, 2, 3, 4, 5, 6, 7, 8];
                let bytes = [first.as_bytes(), &[0, 7], text.as_bytes(), &[0], &number].concat();
                let mut words: Vec<u64> = bytes
                    .chunks(8)
                    .map(|chunk| {
                        let mut word = [0; 8];
                        word[..chunk.len()].copy_from_slice(chunk);
                        u64::from_be_bytes(word)
                    })
                    .collect();
                words.push(bytes.len() as u64);
                assert_eq!(Key::of(&parts).words(), words);
            }
        }
    }

    #[test]
    fn keys_are_in_the_order_of_their_parts() {
        let parts = ["", "a", "a.b", "ab", "b", "z", "ü"];
        let numbers = [0, 1, 255, 256, u64::MAX];
        let mut last: Option<Key> = None;
        for text in parts {
            for number in numbers {
                for byte in [0, 1, 255] {
                    let key = Key::of(&[Part::Text(text), Part::Number(number), Part::Byte(byte)]);
                    let after = last.is_none_or(|last| last.words() < key.words());
                    assert!(after, "{text} {number} {byte}");
                    last = Some(key);
                }
            }
        }
    }
}
