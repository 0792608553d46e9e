//! Values by name, in the order of their names.
//!
//! One tree of names for every type of value, with the values beside it: each type that is kept in a tree of its own adds
//! kilobytes to the component. Otherwise a map like any other.

use crate::event::Name;
use std::collections::BTreeMap;
use std::ops::Bound;

/// A map from names to values.
#[derive(Debug)]
pub(crate) struct Table<V> {
    places: BTreeMap<Name, usize>,
    values: Vec<Option<V>>,
    /// Places without a value.
    free: Vec<usize>,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self {
            places: BTreeMap::new(),
            values: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<V> Table<V> {
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&V> {
        self.places
            .get(name)
            .and_then(|place| self.values[*place].as_ref())
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut V> {
        self.places
            .get(name)
            .and_then(|place| self.values[*place].as_mut())
    }

    /// Puts a value under a name, in the place of an older one.
    pub(crate) fn insert(&mut self, name: Name, value: V) {
        let place = match self.places.get(&name) {
            Some(place) => *place,
            None => {
                let place = self.free.pop().unwrap_or(self.values.len());
                self.places.insert(name, place);
                place
            }
        };
        if place == self.values.len() {
            self.values.push(None);
        }
        self.values[place] = Some(value);
    }

    /// Takes a value and its name out.
    pub(crate) fn remove(&mut self, name: &str) -> Option<(Name, V)> {
        let (name, place) = self.places.remove_entry(name)?;
        self.free.push(place);
        self.values[place].take().map(|value| (name, value))
    }

    /// All values, in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Name, &V)> {
        self.after(None)
    }

    /// Those past a name.
    pub(crate) fn after(&self, name: Option<&str>) -> impl Iterator<Item = (&Name, &V)> {
        let from = name.map_or(Bound::Unbounded, |name| Bound::Excluded(Name::from(name)));
        let places = self.places.range((from, Bound::Unbounded));
        places.filter_map(|(name, place)| self.values[*place].as_ref().map(|value| (name, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again_and_the_order_is_that_of_the_names() {
        let mut table = Table::default();
        for (name, value) in [("b", 1), ("a", 2), ("c", 3)] {
            table.insert(name.into(), value);
        }
        assert_eq!(table.remove("a"), Some(("a".into(), 2)));
        table.insert("d".into(), 4);
        table.insert("b".into(), 5);
        let all: Vec<(&str, i32)> = table
            .iter()
            .map(|(name, value)| (&**name, *value))
            .collect();
        assert_eq!(all, [("b", 5), ("c", 3), ("d", 4)]);
        assert_eq!(table.after(Some("b")).count(), 2);
        assert_eq!((table.len(), table.values.len()), (3, 3));
        assert!(table.contains("c") && !table.contains("a") && table.get("a").is_none());
    }
}
