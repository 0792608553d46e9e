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

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.places.get(key).is_some()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&V> {
        self.places
            .get(key)
            .and_then(|place| self.values[place].as_ref())
    }

    pub(crate) fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        self.places
            .get(key)
            .and_then(|place| self.values[place].as_mut())
    }

    /// Puts a value under a key; answers with the one that it takes the place of.
    pub(crate) fn insert(&mut self, key: &[u8], value: V) -> Option<V> {
        self.place(key).replace(value)
    }

    /// The value under a key, which is made where it is missing.
    pub(crate) fn get_or_insert(&mut self, key: &[u8], make: impl FnOnce() -> V) -> &mut V {
        self.place(key).get_or_insert_with(make)
    }

    /// Where the value of a key stands or is to stand.
    fn place(&mut self, key: &[u8]) -> &mut Option<V> {
        let place = self.places.insert(key, self.values.len());
        if place == self.values.len() {
            self.values.push(None);
        }
        &mut self.values[place]
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<V> {
        let place = self.places.remove(key)?;
        self.values[place].take()
    }

    pub(crate) fn first(&self) -> Option<&V> {
        self.values[self.places.first()?].as_ref()
    }

    /// All values.
    pub(crate) fn iter(&self) -> Walk<'_, V> {
        self.from(&[])
    }

    /// Those from a key on, itself included.
    pub(crate) fn from(&self, key: &[u8]) -> Walk<'_, V> {
        Walk {
            keys: self.places.from(key),
            values: &self.values,
        }
    }

    /// Those past a key.
    pub(crate) fn after(&self, key: &[u8]) -> Walk<'_, V> {
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
    fn get(&self, key: &[u8]) -> Option<usize> {
        let mut words = Words::default();
        self.tree.get(words.of(key)).copied()
    }

    /// The place of a key; a new one is a free one, or `end`.
    #[inline(never)]
    fn insert(&mut self, key: &[u8], end: usize) -> usize {
        let mut words = Words::default();
        // Most keys are new: one way down the tree, with a key that stays.
        match self.tree.entry(words.of(key).into()) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => *new.insert(self.free.pop().unwrap_or(end)),
        }
    }

    #[inline(never)]
    fn remove(&mut self, key: &[u8]) -> Option<usize> {
        let mut words = Words::default();
        let place = self.tree.remove(words.of(key))?;
        self.free.push(place);
        Some(place)
    }

    #[inline(never)]
    fn first(&self) -> Option<usize> {
        self.tree.first_key_value().map(|(_, place)| *place)
    }

    #[inline(never)]
    fn from(&self, key: &[u8]) -> btree_map::Range<'_, Box<[u64]>, usize> {
        let mut words = Words::default();
        self.tree
            .range::<[u64], _>((Bound::Included(words.of(key)), Bound::Unbounded))
    }

    #[inline(never)]
    fn after(&self, key: &[u8]) -> btree_map::Range<'_, Box<[u64]>, usize> {
        let mut words = Words::default();
        self.tree
            .range::<[u64], _>((Bound::Excluded(words.of(key)), Bound::Unbounded))
    }
}

/// Words of keys as long as most are.
const WORDS: usize = 24;

/// A key as words: its bytes, the first one highest, with zeros after the last, and how many there are. That keeps the order
/// of all keys of which none is another one with zeros after it. Those that are kept are such: texts hold no zero, and in
/// keys of one kind the numbers stand in the same places. What is looked for may hold zeros, and finds nothing then.
#[derive(Default)]
struct Words {
    few: [u64; WORDS],
    many: Vec<u64>,
}

impl Words {
    fn of(&mut self, key: &[u8]) -> &[u64] {
        let count = key.len().div_ceil(8) + 1;
        let words = if count > WORDS {
            self.many.resize(count, 0);
            &mut self.many[..]
        } else {
            &mut self.few[..count]
        };
        let (whole, rest) = key.as_chunks::<8>();
        for (word, bytes) in words.iter_mut().zip(whole) {
            *word = u64::from_be_bytes(*bytes);
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            words[count - 2] = u64::from_be_bytes(last);
        }
        words[count - 1] = key.len() as u64;
        words
    }
}

#[inline(never)]
fn next_place(keys: &mut btree_map::Range<'_, Box<[u64]>, usize>) -> Option<usize> {
    keys.next().map(|(_, place)| *place)
}

/// A key of texts and numbers, in the order of its parts. Texts hold no zero byte, which ends them here.
#[derive(Debug)]
pub(crate) struct Key(Vec<u8>);

impl Default for Key {
    /// With room for most keys, so that they are not moved while their parts are written.
    fn default() -> Self {
        Self(Vec::with_capacity(128))
    }
}

impl Key {
    #[inline(never)]
    pub(crate) fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    #[inline(never)]
    pub(crate) fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    #[inline(never)]
    pub(crate) fn text(mut self, text: &str) -> Self {
        self.0.extend_from_slice(text.as_bytes());
        self.byte(0)
    }
}

impl std::ops::Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
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

    #[test]
    fn places_are_used_again_and_the_order_is_that_of_the_keys() {
        let mut ordered = Ordered::default();
        for (key, value) in [(b"b", 1), (b"a", 2), (b"c", 3)] {
            assert_eq!(ordered.insert(key, value), None);
        }
        assert_eq!(ordered.remove(b"a"), Some(2));
        assert_eq!(ordered.remove(b"a"), None);
        assert_eq!(ordered.insert(b"d", 4), None);
        assert_eq!(ordered.insert(b"b", 5), Some(1));
        let all: Vec<i32> = ordered.iter().copied().collect();
        assert_eq!(all, [5, 3, 4]);
        let from: Vec<i32> = ordered.from(b"bb").copied().collect();
        assert_eq!(from, [3, 4]);
        assert_eq!((ordered.first(), ordered.get(b"c")), (Some(&5), Some(&3)));
        assert_eq!((ordered.len(), ordered.values.len()), (3, 3));
        assert!(ordered.contains(b"c") && !ordered.contains(b"a"));
    }

    #[test]
    fn keys_of_any_length_are_kept_apart_and_in_order() {
        let mut ordered = Ordered::default();
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for length in [1, 2, 7, 8, 9, 15, 16, 17, 183, 184, 185, 192, 193, 400] {
            for last in [1, 0x7f, 0xff] {
                let mut key = vec![b'a'; length];
                key[length - 1] = last;
                keys.push(key);
            }
        }
        for (value, key) in keys.iter().enumerate() {
            assert_eq!(ordered.insert(key, value), None);
        }
        for (value, key) in keys.iter().enumerate() {
            assert_eq!(ordered.get(key), Some(&value));
            let longer = [key, &[0][..]].concat();
            assert!(!ordered.contains(&longer) && ordered.remove(&longer).is_none());
        }
        let mut sorted = keys.clone();
        sorted.sort();
        let walked: Vec<&Vec<u8>> = ordered.iter().map(|value| &keys[*value]).collect();
        assert_eq!(walked, sorted.iter().collect::<Vec<_>>());
        let past: Vec<usize> = ordered.after(&sorted[3]).copied().collect();
        assert_eq!(keys[past[0]], sorted[4]);
    }

    #[test]
    fn keys_are_in_the_order_of_their_parts() {
        let parts = ["", "a", "a.b", "ab", "b", "z", "ü"];
        let numbers = [0, 1, 255, 256, u64::MAX];
        let mut last: Option<Key> = None;
        for text in parts {
            for number in numbers {
                for byte in [0, 1, 255] {
                    let key = Key::default().text(text).number(number).byte(byte);
                    assert!(last.is_none_or(|last| *last < *key), "{text} {number}");
                    last = Some(key);
                }
            }
        }
    }
}
