//! Order: sorting, small sorted lists, and the one tree of the core.
//!
//! One sort and one tree for every type: the component has to be small, and each type that is sorted or kept in a tree of
//! its own adds kilobytes to it. The tree's keys are bytes, so whoever keeps something in it says the order as bytes;
//! what the bytes mean is not known here. In the tree they stand as words: keys begin alike for long, and the component
//! compares bytes one by one.

use std::cmp::Ordering;
use std::collections::btree_map::{self, BTreeMap, Entry};
use std::ops::Bound;

/// Sorts, keeping the order of equals.
pub(crate) fn sort<T>(items: Vec<T>, compare: impl Fn(&T, &T) -> Ordering) -> Vec<T> {
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
        self.places
            .get(key)
            .and_then(|place| self.values[place].as_ref())
    }

    pub(crate) fn get_mut(&mut self, key: &Key) -> Option<&mut V> {
        self.places
            .get(key)
            .and_then(|place| self.values[place].as_mut())
    }

    /// Puts a value under a key; answers with the one that it takes the place of.
    pub(crate) fn insert(&mut self, key: &Key, value: V) -> Option<V> {
        self.place(key).replace(value)
    }

    /// The value under a key, which is made where it is missing.
    pub(crate) fn get_or_insert(&mut self, key: &Key, make: impl FnOnce() -> V) -> &mut V {
        self.place(key).get_or_insert_with(make)
    }

    /// Where the value of a key stands or is to stand.
    fn place(&mut self, key: &Key) -> &mut Option<V> {
        let place = self.places.insert(key, self.values.len());
        if place == self.values.len() {
            self.values.push(None);
        }
        &mut self.values[place]
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
        // Most keys are new: one way down the tree, with a key that stays.
        match self.tree.entry(key.words().into()) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => *new.insert(self.free.pop().unwrap_or(end)),
        }
    }

    #[inline(never)]
    fn remove(&mut self, key: &Key) -> Option<usize> {
        let place = self.tree.remove(key.words())?;
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
    bytes: usize,
}

impl Key {
    #[inline(never)]
    pub(crate) fn of(parts: &[Part<'_>]) -> Self {
        let lengths = parts.iter().map(|part| match part {
            Part::Byte(_) => 1,
            Part::Number(_) => 8,
            Part::Text(text) => text.len() + 1,
            Part::Whole(bytes) => bytes.len(),
        });
        let count = lengths.sum::<usize>().div_ceil(8) + 1;
        let mut key = Self {
            few: [0; WORDS],
            many: if count > WORDS {
                vec![0; count]
            } else {
                Vec::new()
            },
            bytes: 0,
        };
        for part in parts {
            match part {
                Part::Byte(byte) => key.push(u64::from(*byte) << 56, 1),
                Part::Number(number) => key.push(*number, 8),
                Part::Text(text) => {
                    key.extend(text.as_bytes());
                    key.bytes += 1;
                }
                Part::Whole(bytes) => key.extend(bytes),
            }
        }
        let last = key.count() - 1;
        key.all()[last] = key.bytes as u64;
        key
    }

    fn extend(&mut self, bytes: &[u8]) {
        let (whole, rest) = bytes.as_chunks::<8>();
        for bytes in whole {
            self.push(u64::from_be_bytes(*bytes), 8);
        }
        let last = rest
            .iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte));
        if !rest.is_empty() {
            self.push(last << (64 - 8 * rest.len()), rest.len());
        }
    }

    /// Puts the first bytes of a word, of which the others are zero, behind what is there.
    fn push(&mut self, word: u64, bytes: usize) {
        let (at, used) = (self.bytes / 8, self.bytes % 8);
        self.bytes += bytes;
        let all = self.all();
        all[at] |= word >> (8 * used);
        if used + bytes > 8 {
            all[at + 1] = word << (64 - 8 * used);
        }
    }

    fn count(&self) -> usize {
        self.bytes.div_ceil(8) + 1
    }

    fn all(&mut self) -> &mut [u64] {
        if self.many.is_empty() {
            &mut self.few
        } else {
            &mut self.many
        }
    }

    pub(crate) fn words(&self) -> &[u64] {
        if self.many.is_empty() {
            &self.few[..self.count()]
        } else {
            &self.many
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
