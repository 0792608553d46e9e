//! Values by name or by number, in the order of those.
//!
//! Maps like any other, but on the one tree of [`crate::order`]: each type that is kept in a tree of its own adds kilobytes
//! to the component.

use crate::event::Name;
use crate::order::{Key, Last, Ordered, Part, same};

fn by_name(name: &str) -> Key {
    Key::of(&[Part::Whole(name.as_bytes())])
}

fn by_number(number: u64) -> Key {
    Key::of(&[Part::Number(number)])
}

/// A map from names to values.
#[derive(Clone, Debug)]
pub(crate) struct Table<V> {
    all: Ordered<(Name, V)>,
    last: Last,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self {
            all: Ordered::default(),
            last: Last::default(),
        }
    }
}

impl<V> Table<V> {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&V> {
        self.all.at(self.find(name)?).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut V> {
        self.all.at_mut(self.find(name)?).map(|(_, value)| value)
    }

    fn find(&self, name: &str) -> Option<usize> {
        let last = self.last.get();
        if self
            .all
            .at(last)
            .is_some_and(|(known, _)| same(known, name))
        {
            return Some(last);
        }
        let place = self.all.find(&by_name(name))?;
        self.last.set(place);
        Some(place)
    }

    /// The value under a name, which is made where it is missing.
    pub(crate) fn get_or_insert(&mut self, name: &Name, make: impl FnOnce() -> V) -> &mut V {
        let known = self.find(name);
        let place = known.unwrap_or_else(|| self.all.place(&by_name(name)));
        self.last.set(place);
        &mut self.all.at_or_insert(place, || (name.clone(), make())).1
    }

    /// Puts a value under a name, in the place of an older one.
    pub(crate) fn insert(&mut self, name: Name, value: V) {
        self.all.insert(&by_name(&name), (name, value));
    }

    /// Takes a value and its name out.
    pub(crate) fn remove(&mut self, name: &str) -> Option<(Name, V)> {
        self.all.remove(&by_name(name))
    }

    /// All values, in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Name, &V)> {
        self.after(None)
    }

    /// Those past a name.
    pub(crate) fn after(&self, name: Option<&str>) -> impl Iterator<Item = (&Name, &V)> {
        let walk = match name {
            Some(name) => self.all.after(&by_name(name)),
            None => self.all.iter(),
        };
        walk.map(|(name, value)| (name, value))
    }
}

/// A map from numbers to values.
#[derive(Clone, Debug)]
pub(crate) struct Numbered<V> {
    all: Ordered<(u64, V)>,
}

impl<V> Default for Numbered<V> {
    fn default() -> Self {
        Self {
            all: Ordered::default(),
        }
    }
}

impl<V> Numbered<V> {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn get(&self, number: &u64) -> Option<&V> {
        self.all.get(&by_number(*number)).map(|(_, value)| value)
    }

    /// Puts a value under a number; answers with the one that it takes the place of.
    pub(crate) fn insert(&mut self, number: u64, value: V) -> Option<V> {
        self.all
            .insert(&by_number(number), (number, value))
            .map(|(_, value)| value)
    }

    pub(crate) fn remove(&mut self, number: &u64) -> Option<V> {
        self.all.remove(&by_number(*number)).map(|(_, value)| value)
    }

    /// Those from a number on, itself included, in the order of the numbers.
    pub(crate) fn range_from(&self, number: u64) -> impl Iterator<Item = (u64, &V)> {
        self.all
            .from(&by_number(number))
            .map(|(number, value)| (*number, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_in_the_order_of_its_names() {
        let mut table = Table::default();
        for (name, value) in [("b", 1), ("a", 2), ("c", 3)] {
            table.insert(name.into(), value);
        }
        assert_eq!(table.remove("a"), Some(("a".into(), 2)));
        table.insert("d".into(), 4);
        table.insert("b".into(), 5);
        table.insert("b.".into(), 6);
        let all: Vec<(&str, i32)> = table
            .iter()
            .map(|(name, value)| (&**name, *value))
            .collect();
        assert_eq!(all, [("b", 5), ("b.", 6), ("c", 3), ("d", 4)]);
        let after: Vec<&str> = table.after(Some("b")).map(|(name, _)| &**name).collect();
        assert_eq!(after, ["b.", "c", "d"]);
        assert_eq!(table.after(Some("bb")).count(), 2);
        assert_eq!(table.after(Some("")).count(), 4);
        assert_eq!(table.len(), 4);
        assert!(table.contains("c") && !table.contains("a") && table.get("a").is_none());
    }

    #[test]
    fn numbers_are_in_order_and_the_last_value_stays() {
        let mut table = Numbered::default();
        for number in [256, 1, u64::MAX, 255] {
            assert_eq!(table.insert(number, number.to_string()), None);
        }
        assert_eq!(table.insert(1, "one".into()), Some("1".into()));
        assert_eq!(table.get(&1).map(String::as_str), Some("one"));
        assert_eq!(table.remove(&255), Some("255".into()));
        assert_eq!((table.remove(&255), table.get(&255)), (None, None));
        let from: Vec<u64> = table.range_from(2).map(|(number, _)| number).collect();
        assert_eq!(from, [256, u64::MAX]);
        assert_eq!(table.len(), 3);
    }
}
