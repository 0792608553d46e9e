//! Sorting, and small sorted lists.
//!
//! One sort for every type: the component has to be small, and each type that is sorted or kept in a tree of its own adds
//! kilobytes to it. Large or long-lived collections are trees all the same; these are for short ones.

use std::cmp::Ordering;

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

fn sort_places(places: &mut [usize], compare: &dyn Fn(usize, usize) -> Ordering) {
    places.sort_by(|a, b| compare(*a, *b));
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
