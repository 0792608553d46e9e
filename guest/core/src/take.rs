//! Reading values from outside JSON: members in any order, white space, every escape. For the JSON door.
//!
//! Tests forms only, so that a number or text outside its bound is refused by the same rule whichever way it came in. What
//! is canonical already, such as a ledger line, is read in `codec.rs`.

use crate::codec::{Write, place_of};
use crate::json::Json;
use crate::read::{Object, kind};

/// A value that can be taken from outside JSON.
pub(crate) trait Take: Sized {
    /// Takes what stands at a place. Where that is not of the form a problem is noted, and what is answered means nothing;
    /// one test at the end serves for all members.
    fn take(at: &At<'_, '_>) -> Self;
}

/// A value and the place where it stands.
pub(crate) struct At<'a, 'o> {
    object: &'o Object<'a>,
    /// Name of the member, with an index where it is an entry of a list.
    name: &'o str,
    /// Absent where that is noted already.
    value: Option<&'a Json<'a>>,
}

impl<'a, 'o> At<'a, 'o> {
    /// Notes that the value is of another form.
    #[inline(never)]
    pub(crate) fn wrong(&self, expected: &str) {
        if let Some(value) = self.value {
            let says = format!("is {}; {expected} is expected", kind(value));
            self.object.problem(self.name, "wrong-type", says);
        }
    }

    /// The value as text.
    #[inline(never)]
    pub(crate) fn text(&self) -> &'a str {
        if let Some(Json::Text(text)) = self.value {
            return text;
        }
        self.wrong("text");
        ""
    }

    /// The value as a whole number that is no larger.
    #[inline(never)]
    fn integer(&self, max: u64) -> u64 {
        match self.value {
            Some(Json::Whole(number)) if *number <= max => *number,
            Some(Json::Whole(number)) => {
                let says = format!("is {number}; whole numbers 0..{max} are allowed");
                self.object.problem(self.name, "out-of-bound", says);
                0
            }
            _ => {
                self.wrong("a whole number that is not negative");
                0
            }
        }
    }

    /// The value as one of a few words; its place among them.
    #[inline(never)]
    pub(crate) fn word(&self, words: &[&str]) -> usize {
        let word = self.text();
        let place = place_of(words, word);
        if place.is_none() && matches!(self.value, Some(Json::Text(_))) {
            self.object.unknown_word(self.name, word, words);
        }
        place.unwrap_or_default()
    }

    /// The value as an object; one without members where it is none.
    #[inline(never)]
    pub(crate) fn object(&self) -> Object<'o> {
        self.object.at(self.name, self.value)
    }

    /// The value as an enum case: a word, or an object of one member whose name is the word.
    #[inline(never)]
    pub(crate) fn case(&self, words: &[&str]) -> (usize, Option<Object<'o>>) {
        if !matches!(self.value, Some(Json::Object(_))) {
            return (self.word(words), None);
        }
        let object = self.object();
        let place = object.only_name().and_then(|name| place_of(words, name));
        if place.is_none() {
            let says = format!("has not one member of {}", words.join(", "));
            self.object.problem(self.name, "wrong-type", says);
        }
        (place.unwrap_or_default(), Some(object))
    }

    /// The value as a list.
    #[inline(never)]
    fn list(&self) -> &'a [Json<'a>] {
        if let Some(Json::List(list)) = self.value {
            return list;
        }
        self.wrong("a list");
        &[]
    }

    /// Writes the name of an entry.
    #[inline(never)]
    fn entry(&self, index: usize, name: &mut String) {
        let mut digits = Vec::new();
        index.write(&mut digits);
        name.clear();
        name.push_str(self.name);
        name.push('[');
        name.extend(digits.into_iter().map(char::from));
        name.push(']');
    }
}

impl Take for String {
    fn take(at: &At<'_, '_>) -> Self {
        at.text().to_owned()
    }
}

impl Take for u64 {
    fn take(at: &At<'_, '_>) -> Self {
        at.integer(Self::MAX)
    }
}

impl Take for u32 {
    fn take(at: &At<'_, '_>) -> Self {
        // No wider than the type.
        at.integer(Self::MAX.into()).try_into().unwrap_or_default()
    }
}

impl Take for bool {
    fn take(at: &At<'_, '_>) -> Self {
        if let Some(Json::Bool(value)) = at.value {
            return *value;
        }
        at.wrong("true or false");
        false
    }
}

impl<T: Take> Take for Vec<T> {
    fn take(at: &At<'_, '_>) -> Self {
        let values = at.list();
        let mut taken = Self::with_capacity(values.len());
        let mut name = String::new();
        for (index, value) in values.iter().enumerate() {
            at.entry(index, &mut name);
            taken.push(T::take(&At {
                object: at.object,
                name: &name,
                value: Some(value),
            }));
        }
        taken
    }
}

impl Object<'_> {
    /// Takes a member that must be there.
    #[inline(never)]
    pub(crate) fn take<T: Take>(&self, name: &'static str) -> T {
        self.require(name);
        let value = self.get(name);
        T::take(&At {
            object: self,
            name,
            value,
        })
    }

    /// Takes a member that may be left out.
    #[inline(never)]
    pub(crate) fn take_opt<T: Take>(&self, name: &'static str) -> Option<T> {
        let value = self.get(name)?;
        let at = At {
            object: self,
            name,
            value: Some(value),
        };
        Some(T::take(&at))
    }
}

/// Makes a struct one that can be taken: each member `req`uired, `opt`ional, or with its default (`def`, `set`) where it is
/// left out. One that is written as well says so to `object!`.
macro_rules! take {
    ($type:ident { $($name:literal: $mode:ident $field:ident,)* }) => {
        impl $crate::take::Take for $type {
            fn take(at: &$crate::take::At<'_, '_>) -> Self {
                let object = at.object();
                let taken = Self { $($field: $crate::take::take!(@$mode object, $name),)* };
                object.done();
                taken
            }
        }
    };
    (@req $object:ident, $name:literal) => { $object.take($name) };
    (@opt $object:ident, $name:literal) => { $object.take_opt($name) };
    (@def $object:ident, $name:literal) => { $object.take_opt($name).unwrap_or_default() };
    (@set $object:ident, $name:literal) => { $object.take_opt($name).unwrap_or_default() };
}

pub(crate) use take;
