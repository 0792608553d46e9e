//! Smaller forms of what is kept for long: digests as bytes, and members that most values never have.
//!
//! A domain may hold 2 000 000 live steps. Changes nothing of what is said outside.

use crate::codec::{Input, Read, Write};
use crate::digest;
use std::fmt;
use std::ops::Deref;

/// A SHA-256 in half the memory of its text. What stands in the place of one and is none stays as it is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Digest {
    Hash([u8; 32]),
    Text(String),
}

impl Digest {
    pub(crate) fn of(text: &str) -> Self {
        match digest::bytes(text) {
            Some(hash) => Self::Hash(hash),
            None => Self::Text(text.to_owned()),
        }
    }

    pub(crate) fn text(&self) -> String {
        match self {
            Self::Hash(hash) => digest::hex(hash),
            Self::Text(text) => text.clone(),
        }
    }
}

impl PartialEq<String> for Digest {
    fn eq(&self, other: &String) -> bool {
        *self == Self::of(other)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text(), f)
    }
}

impl Write for Digest {
    fn write(&self, out: &mut Vec<u8>) {
        self.text().write(out);
    }
}

impl Read for Digest {
    fn read(input: &mut Input<'_>) -> Self {
        Self::of(&input.string())
    }
}

/// What members have that were never set.
pub(crate) trait Unset: Default + 'static {
    const UNSET: &'static Self;

    /// Whether they have that. A comparison would bring in those of all members.
    fn is_unset(&self) -> bool;
}

/// Members that most values never have: they take a pointer until one of them is set.
#[derive(Clone)]
pub(crate) struct Seldom<T>(Option<Box<T>>);

impl<T: Unset> Seldom<T> {
    /// Nothing, where that is what the members say.
    pub(crate) fn new(members: T) -> Self {
        let is_set = !members.is_unset();
        Self(is_set.then(|| Box::new(members)))
    }

    /// To set one of them.
    pub(crate) fn edit(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }

    /// To take back what was set, if anything was.
    pub(crate) fn set(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }
}

impl<T> Default for Seldom<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Unset> Deref for Seldom<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::UNSET)
    }
}

impl<T: Unset + PartialEq> PartialEq for Seldom<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Unset + Eq> Eq for Seldom<T> {}

impl<T: Unset + fmt::Debug> fmt::Debug for Seldom<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Puts a value at the end of a list that seldom gets one, and so has room for no more.
pub(crate) fn push<T>(list: &mut Vec<T>, value: T) {
    list.reserve_exact(1);
    list.push(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{canonical, parse};

    #[test]
    fn a_digest_has_the_text_that_it_was_made_of() {
        let hash = digest::sha256_hex(&[b"a"]);
        let odd = [
            hash.to_uppercase(),
            hash[1..].to_owned(),
            format!("{hash}0"),
            hash.replace('c', "g"),
            String::new(),
        ];
        assert!(matches!(Digest::of(&hash), Digest::Hash(_)));
        for text in odd.into_iter().chain([hash]) {
            let digest = Digest::of(&text);
            assert_eq!(digest.text(), text);
            assert_eq!(digest, text);
            assert_eq!(parse::<Digest>(&canonical(&digest)), Ok(digest));
        }
    }

    impl Unset for u32 {
        const UNSET: &'static Self = &0;

        fn is_unset(&self) -> bool {
            *self == 0
        }
    }

    #[test]
    fn what_was_never_set_takes_no_room() {
        let mut members = Seldom::<u32>::new(0);
        assert!(members.set().is_none() && *members == 0);
        *members.edit() = 7;
        assert_eq!((*members, members.set()), (7, Some(&mut 7)));
        *members.edit() = 0;
        assert_eq!(members, Seldom::new(0));
    }
}
