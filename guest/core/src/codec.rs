//! Canonical JSON: one text for one value, written and read.
//!
//! Members stand in the order of their declaration, absent ones are left out, and of the characters only `"`, `\`, those
//! below 0x20 and 0x7f are escaped. Reading takes members in that order only, no white space, and each escape and number in
//! its one form. JSON from outside, in any order and with white space, is read in `read.rs`.
//!
//! serde is not used here: a codec for one known form is a third of the size of a general one, and the component has to
//! be small.

mod input;

pub use input::{Input, Malformed};

use crate::digest::sha256_hex;
use crate::limit::INTEGER_MAX;
use std::sync::Arc;

/// A value that has a canonical text.
pub trait Write {
    /// Appends the canonical text.
    fn write(&self, out: &mut Vec<u8>);
}

/// A value that can be read from its canonical text.
pub trait Read: Sized {
    /// Takes the value off the front of the input. Where that is not canonical the input is marked as failed, and what is
    /// answered means nothing; one test at the end serves for all members.
    fn read(input: &mut Input<'_>) -> Self;
}

/// Canonical JSON of a value.
#[must_use]
pub fn canonical<T: Write + ?Sized>(value: &T) -> String {
    let mut bytes = Vec::with_capacity(256);
    value.write(&mut bytes);
    text_of(bytes)
}

/// SHA-256 over the canonical JSON of a value.
#[must_use]
pub fn digest<T: Write + ?Sized>(value: &T) -> String {
    let mut bytes = Vec::with_capacity(512);
    value.write(&mut bytes);
    sha256_hex(&[&bytes])
}

/// Reads a whole canonical text.
///
/// # Errors
/// Where it stops being canonical.
pub fn parse<T: Read>(text: &str) -> Result<T, Malformed> {
    let mut input = Input::new(text);
    let value = T::read(&mut input);
    input.end().map(|()| value)
}

/// What a codec wrote, as text.
pub(crate) fn text_of(bytes: Vec<u8>) -> String {
    // Without `expect`, which would bring in how an error is shown.
    let Ok(text) = String::from_utf8(bytes) else {
        panic!("the codec writes UTF-8")
    };
    text
}

/// The place of a word in a list.
#[inline(never)]
pub(crate) fn place_of(words: &[&str], word: &str) -> Option<usize> {
    let word = word.as_bytes();
    words.iter().position(|known| same(known.as_bytes(), word))
}

/// Whether two texts are the same. Not by `==`, which is a call, and in the component goes byte by byte.
#[inline]
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && same_bytes(a, b)
}

#[inline(never)]
fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    // The last eight may be compared twice.
    match (a.last_chunk::<8>(), b.last_chunk::<8>()) {
        (Some(last_of_a), Some(last_of_b)) => {
            let mut words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
            last_of_a == last_of_b && words.all(|(a, b)| a == b)
        }
        _ => a.iter().zip(b).all(|(a, b)| a == b),
    }
}

/// Whether a text begins with another one.
#[inline]
fn starts_with(text: &[u8], start: &[u8]) -> bool {
    text.get(..start.len())
        .is_some_and(|text| same(text, start))
}

/// Takes a member that must be there.
pub(crate) fn read_req<T: Read>(input: &mut Input<'_>, name: &'static str) -> T {
    input.required(name);
    T::read(input)
}

/// Takes a member that may be there.
pub(crate) fn read_opt<T: Read>(input: &mut Input<'_>, name: &str) -> Option<T> {
    input.next(name).then(|| T::read(input))
}

/// Takes a member that is left out while it has its default; there with its default it would be a second text for one value.
pub(crate) fn read_set<T: Read + Default + Absent>(input: &mut Input<'_>, name: &str) -> T {
    let read = read_opt(input, name);
    set_or_default(input, read)
}

/// What a member that is left out while it has its default was read as.
pub(crate) fn set_or_default<T: Default + Absent>(input: &mut Input<'_>, read: Option<T>) -> T {
    if read.as_ref().is_some_and(Absent::is_absent) {
        input.fail("no member that has its default");
    }
    read.unwrap_or_default()
}

/// The name of a member as it stands in a text: in quotes, and with its colon.
macro_rules! name {
    ($name:literal) => {
        concat!("\"", $name, "\":")
    };
}

/// Begins a member of an object that was opened, named as [`name`] says.
#[inline(never)]
pub(crate) fn write_next(out: &mut Vec<u8>, name: &str) {
    // No value ends with a brace that opens.
    if !out.ends_with(b"{") {
        out.push(b',');
    }
    append(out, name.as_bytes());
}

/// Puts bytes behind what is there. Few of them go as words: to copy a length that is not known when the component is compiled
/// is a call out of it, which takes longer than that.
#[inline(never)]
pub(crate) fn append(out: &mut Vec<u8>, bytes: &[u8]) {
    let end = out.len() + bytes.len();
    let (words, rest) = bytes.as_chunks::<8>();
    // What follows the whole words, off the end of the last word that there is.
    let tail = |last: &[u8; 8]| {
        let word = u64::from_le_bytes(*last);
        word.unbounded_shr(64 - 8 * rest.len() as u32).to_le_bytes()
    };
    match (words, bytes.last_chunk()) {
        ([], _) => out.extend_from_slice(&few(rest).to_le_bytes()),
        ([first], Some(last)) => out.extend_from_slice([*first, tail(last)].as_flattened()),
        ([first, second], Some(last)) => {
            out.extend_from_slice([*first, *second, tail(last)].as_flattened());
        }
        _ => return out.extend_from_slice(bytes),
    }
    out.truncate(end);
}

/// Less than eight bytes as a word, the first one lowest.
pub(crate) fn few(bytes: &[u8]) -> u64 {
    let word = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
    match (bytes, bytes.first_chunk(), bytes.last_chunk()) {
        (_, Some(first), Some(last)) => {
            word(first) | word(last).unbounded_shl(8 * (bytes.len() as u32).wrapping_sub(4))
        }
        ([first, second, third], ..) => {
            u64::from_le_bytes([*first, *second, *third, 0, 0, 0, 0, 0])
        }
        ([first, second], ..) => u64::from(u16::from_le_bytes([*first, *second])),
        ([first, ..], ..) => u64::from(*first),
        _ => 0,
    }
}

/// Begins an object with a member whose name is not known before.
pub(crate) fn write_first(out: &mut Vec<u8>, name: &str) {
    out.push(b'{');
    name.write(out);
    out.push(b':');
}

/// Writes a member.
pub(crate) fn write_req<T: Write>(out: &mut Vec<u8>, name: &str, value: &T) {
    write_next(out, name);
    value.write(out);
}

/// Writes a member, if it is there.
pub(crate) fn write_opt<T: Write>(out: &mut Vec<u8>, name: &str, value: &Option<T>) {
    if let Some(value) = value {
        write_req(out, name, value);
    }
}

#[inline(never)]
pub(crate) fn write_byte(out: &mut Vec<u8>, byte: u8) {
    out.push(byte);
}

fn write_escape(byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x0c => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.push(DIGITS[usize::from(byte >> 4)]);
            out.push(DIGITS[usize::from(byte & 15)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Writes a text that needs no escape, as words of the core do not.
#[inline(never)]
pub(crate) fn write_word(out: &mut Vec<u8>, word: &str) {
    out.push(b'"');
    append(out, word.as_bytes());
    out.push(b'"');
}

/// How many bytes at the front need no escape.
#[inline(never)]
fn plain_len(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (place, word) in words.iter().enumerate() {
        let found = specials(u64::from_le_bytes(*word));
        if found != 0 {
            return place * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let special = |byte: &u8| matches!(*byte, b'"' | b'\\' | 0x7f) || *byte < 0x20;
    words.len() * 8 + rest.iter().position(special).unwrap_or(rest.len())
}

/// The highest bits of those of eight bytes that need an escape. Above the lowest of them there may be bits of others, too:
/// a byte borrows from the next one only where it is itself below what is subtracted.
fn specials(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word;
    let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (below(word, 0x20) | is(b'"') | is(b'\\') | is(0x7f)) & (ONES * 0x80)
}

impl Write for str {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'"');
        let mut bytes = self.as_bytes();
        loop {
            let (plain, rest) = bytes.split_at(plain_len(bytes));
            append(out, plain);
            let Some((special, rest)) = rest.split_first() else {
                break;
            };
            write_escape(*special, out);
            bytes = rest;
        }
        out.push(b'"');
    }
}

/// Texts and numbers one after another; what `format!` says at a tenth of the instructions.
pub(crate) fn concat(parts: &[Part<'_>]) -> String {
    // With room for a whole word behind it, and not for more: some are kept for long.
    let length = |part: &Part<'_>| match part {
        Part::Text(text) => text.len(),
        Part::Number(number) => 1 + number.checked_ilog10().unwrap_or(0) as usize,
    };
    let mut out = Vec::with_capacity(parts.iter().map(length).sum::<usize>() + 8);
    for part in parts {
        match part {
            Part::Text(text) => append(&mut out, text.as_bytes()),
            Part::Number(number) => number.write(&mut out),
        }
    }
    text_of(out)
}

/// A part of a text.
pub(crate) enum Part<'a> {
    /// As it stands.
    Text(&'a str),
    /// In decimal digits.
    Number(u64),
}

impl Write for u64 {
    fn write(&self, out: &mut Vec<u8>) {
        const EIGHT: u64 = 100_000_000;
        let (above, last) = (*self / EIGHT, *self % EIGHT);
        if above > 0 {
            above.write(out);
        }
        let digits = eight_digits(last);
        // Those of the number itself go without zeros before them, of which the last one stays.
        let zeros = if above > 0 {
            0
        } else {
            (digits | 1 << 56).trailing_zeros() / 8
        };
        let text = (digits | 0x3030_3030_3030_3030) >> (8 * zeros);
        out.extend_from_slice(&text.to_le_bytes());
        out.truncate(out.len() - zeros as usize);
    }
}

/// The eight digits of a number that has no more, each in a byte, the first one lowest. Lanes of a word are divided at once, by
/// multiplying and shifting.
fn eight_digits(number: u64) -> u64 {
    let fours = (number / 10_000) | ((number % 10_000) << 32);
    let hundreds = fours.wrapping_mul(10_486) >> 20 & 0x0000_007f_0000_007f;
    let twos = hundreds | fours.wrapping_sub(hundreds.wrapping_mul(100)) << 16;
    let tens = twos.wrapping_mul(103) >> 10 & 0x000f_000f_000f_000f;
    tens | twos.wrapping_sub(tens.wrapping_mul(10)) << 8
}

impl Read for u64 {
    fn read(input: &mut Input<'_>) -> Self {
        input.digits()
    }
}

macro_rules! narrower_integers {
    ($($type:ty)*) => { $(
        impl Write for $type {
            fn write(&self, out: &mut Vec<u8>) {
                (*self as u64).write(out);
            }
        }
        impl Read for $type {
            fn read(input: &mut Input<'_>) -> Self {
                // No wider than the type, so the conversion keeps the value.
                input.integer(INTEGER_MAX.min(Self::MAX as u64)) as Self
            }
        }
    )* };
}

narrower_integers!(u32 usize);

impl Write for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if *self { b"true" } else { b"false" });
    }
}

impl Read for bool {
    fn read(input: &mut Input<'_>) -> Self {
        input.flag()
    }
}

macro_rules! texts {
    ($($type:ty)*) => { $(
        impl Write for $type {
            fn write(&self, out: &mut Vec<u8>) {
                str::write(self, out);
            }
        }
        impl Read for $type {
            fn read(input: &mut Input<'_>) -> Self {
                input.string().into()
            }
        }
    )* };
}

texts!(String Arc<str>);

impl<T: Write + ?Sized> Write for &T {
    fn write(&self, out: &mut Vec<u8>) {
        (**self).write(out);
    }
}

/// A list, entry by entry.
pub(crate) fn write_list<T: Write>(entries: impl Iterator<Item = T>, out: &mut Vec<u8>) {
    let mut before = b'[';
    for entry in entries {
        out.push(before);
        before = b',';
        entry.write(out);
    }
    write_list_end(out, before);
}

#[inline(never)]
fn write_list_end(out: &mut Vec<u8>, before: u8) {
    if before == b'[' {
        out.push(b'[');
    }
    out.push(b']');
}

impl<T: Write> Write for [T] {
    fn write(&self, out: &mut Vec<u8>) {
        write_list(self.iter(), out);
    }
}

impl<T: Write> Write for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        self.as_slice().write(out);
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(input: &mut Input<'_>) -> Self {
        let mut entries = Self::new();
        input.list(&mut |input| entries.push(T::read(input)));
        entries
    }
}

impl<A: Write, B: Write> Write for (A, B) {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        self.0.write(out);
        out.push(b',');
        self.1.write(out);
        out.push(b']');
    }
}

impl<A: Read, B: Read> Read for (A, B) {
    fn read(input: &mut Input<'_>) -> Self {
        input.byte(b'[', "a pair");
        let first = A::read(input);
        input.byte(b',', "a pair");
        let second = B::read(input);
        input.byte(b']', "a pair");
        (first, second)
    }
}

/// A value that an absent member may stand for.
pub(crate) trait Absent {
    /// Whether it is that value.
    fn is_absent(&self) -> bool;
}

impl Absent for bool {
    fn is_absent(&self) -> bool {
        !*self
    }
}

impl Absent for u32 {
    fn is_absent(&self) -> bool {
        *self == 0
    }
}

// Without a comparison, which would bring in that of the entries.
impl<T> Absent for Vec<T> {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

/// Gives a struct its canonical form: its members in order, each `req`uired, `opt`ional (an `Option`, left out if none),
/// `set` (left out while it has its default) or `skip` (never written). With `write` before the name it can only be written, with `read` only be read.
/// With `taken` it can be taken from outside JSON as well, where a `set` member may be left out, and a `def` one, which the
/// canonical form always has.
macro_rules! object {
    (write $type:ident $(<$life:lifetime>)? { $($name:literal: $mode:ident $field:ident,)* }) => {
        impl $(<$life>)? $crate::codec::Write for $type $(<$life>)? {
            fn write(&self, out: &mut Vec<u8>) {
                $crate::codec::write_byte(out, b'{');
                $(crate::codec::object!(@write $mode self.$field, $name, out);)*
                $crate::codec::write_byte(out, b'}');
            }
        }
    };
    (taken write $type:ident { $($members:tt)* }) => {
        crate::codec::object!(write $type { $($members)* });
        crate::take::take!($type { $($members)* });
    };
    (taken $type:ident { $($members:tt)* }) => {
        crate::codec::object!($type { $($members)* });
        crate::take::take!($type { $($members)* });
    };
    ($type:ident { $($members:tt)* }) => {
        crate::codec::object!(write $type { $($members)* });
        crate::codec::object!(read $type { $($members)* });
    };
    (read $type:ident { $($name:literal: $mode:ident $field:ident,)* }) => {
        impl $crate::codec::Read for $type {
            fn read(input: &mut $crate::codec::Input<'_>) -> Self {
                input.open();
                let value = Self { $($field: crate::codec::object!(@read $mode $name, input),)* };
                input.close();
                value
            }
        }
    };
    (@write req $value:expr, $name:literal, $out:ident) => {
        $crate::codec::write_req($out, $crate::codec::name!($name), &$value);
    };
    (@write def $value:expr, $name:literal, $out:ident) => {
        $crate::codec::write_req($out, $crate::codec::name!($name), &$value);
    };
    (@write opt $value:expr, $name:literal, $out:ident) => {
        $crate::codec::write_opt($out, $crate::codec::name!($name), &$value);
    };
    (@write set $value:expr, $name:literal, $out:ident) => {
        if !$crate::codec::Absent::is_absent(&$value) {
            $crate::codec::write_req($out, $crate::codec::name!($name), &$value);
        }
    };
    (@write skip $value:expr, $name:literal, $out:ident) => {};
    (@read skip $name:literal, $input:ident) => { Default::default() };
    (@read req $name:literal, $input:ident) => { $crate::codec::read_req($input, $crate::codec::name!($name)) };
    (@read def $name:literal, $input:ident) => { $crate::codec::read_req($input, $crate::codec::name!($name)) };
    (@read opt $name:literal, $input:ident) => { $crate::codec::read_opt($input, $crate::codec::name!($name)) };
    (@read set $name:literal, $input:ident) => { $crate::codec::read_set($input, $crate::codec::name!($name)) };
}

/// Gives an enum without content its words.
macro_rules! words {
    ($type:ident { $($variant:ident = $word:literal,)* }) => {
        impl $type {
            /// All words, in the order of the variants.
            #[allow(dead_code)]
            pub const WORDS: &[&str] = &[$($word),*];

            const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word that JSON uses.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The variant of a word.
            #[allow(dead_code)]
            #[must_use]
            pub fn from_name(word: &str) -> Option<Self> {
                let place = $crate::codec::place_of(Self::WORDS, word)?;
                Self::ALL.get(place).copied()
            }
        }

        impl $crate::codec::Write for $type {
            fn write(&self, out: &mut Vec<u8>) {
                $crate::codec::write_word(out, self.name());
            }
        }

        impl $crate::codec::Read for $type {
            fn read(input: &mut $crate::codec::Input<'_>) -> Self {
                let place = input.word(Self::WORDS);
                Self::ALL.get(place).copied().unwrap_or(Self::ALL[0])
            }
        }

        impl $crate::take::Take for $type {
            fn take(at: &$crate::take::At<'_, '_>) -> Self {
                let place = at.word(Self::WORDS);
                Self::ALL.get(place).copied().unwrap_or(Self::ALL[0])
            }
        }
    };
}

pub(crate) use {name, object, words};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_the_ledger_says_and_read_back() {
        let text = "\"\\\u{8}\u{c}\n\r\t/\u{0}\u{1f}\u{7f}é\u{2028}😀";
        let json = canonical(text);
        assert_eq!(
            json,
            "\"\\\"\\\\\\b\\f\\n\\r\\t/\\u0000\\u001f\\u007fé\u{2028}😀\""
        );
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        assert_eq!(parse::<String>(&json).unwrap(), text);
    }

    #[test]
    fn what_needs_an_escape_is_found_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            let special = matches!(byte, b'"' | b'\\' | 0..0x20 | 0x7f);
            for length in 0..20 {
                for place in 0..length {
                    // Beside it what differs from it least.
                    for filler in [b' ', b'!', b'#', b'[', b']', 0x7e, 0x80, 0xff] {
                        let mut bytes = vec![filler; length];
                        bytes[place] = byte;
                        let expected = if special { place } else { length };
                        assert_eq!(plain_len(&bytes), expected, "{bytes:?}");
                    }
                }
            }
        }
        assert_eq!(plain_len(b"\0\x1f\"\\\x7f\0\0\0"), 0);
    }

    #[test]
    fn numbers_are_written_as_their_digits() {
        let powers = (0..20).map(|power| 10_u64.pow(power));
        let edges = powers.flat_map(|power| [power - 1, power, power + 1, power / 3]);
        let some = (0..200_000_u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for number in (0..20_000).chain(edges).chain(some).chain([u64::MAX]) {
            for number in [number, number >> 20, number >> 37, number >> 50] {
                assert_eq!(canonical(&number), number.to_string());
            }
        }
    }

    #[test]
    fn bytes_of_any_length_are_put_behind_others() {
        let bytes: Vec<u8> = (0..100).collect();
        for before in [0, 1, 9] {
            for length in 0..=bytes.len() {
                let mut out = vec![0xff; before];
                append(&mut out, &bytes[..length]);
                assert_eq!(out, [&vec![0xff; before], &bytes[..length]].concat());
            }
        }
    }

    #[derive(Debug, PartialEq)]
    struct Set {
        yes: bool,
        list: Vec<u32>,
    }

    object!(Set { "yes": set yes, "list": set list, });

    #[test]
    fn a_member_that_has_its_default_is_not_written_and_not_read() {
        let set = |yes, list: &[u32]| Set {
            yes,
            list: list.to_vec(),
        };
        for (value, text) in [
            (set(false, &[]), "{}"),
            (set(true, &[0]), r#"{"yes":true,"list":[0]}"#),
        ] {
            assert_eq!(canonical(&value), text);
            assert_eq!(parse::<Set>(text), Ok(value));
        }
        for wrong in [r#"{"yes":false}"#, r#"{"list":[]}"#] {
            assert!(parse::<Set>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_the_canonical_form_is_read() {
        for wrong in [
            "\"\\/\"",
            "\"\\u0041\"",
            "\"\\u001F\"",
            "\"\\u000a\"",
            "\"\\u00+1\"",
            "\"\\u0101\"",
            "\"\\u001\"",
            "\"\\u00\u{e9}\"",
            "\"\\a\"",
            "\"\\\u{e9}\"",
            "\"\u{7f}\"",
            "\"a\nb\"",
            "\"a",
            "\"\\u00",
        ] {
            assert!(parse::<String>(wrong).is_err(), "{wrong}");
        }
        for wrong in [
            "01",
            "-1",
            "1.0",
            "1e3",
            "9007199254740992",
            "",
            "18446744073709551616",
        ] {
            assert!(parse::<u64>(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse::<u64>("9007199254740991"), Ok(INTEGER_MAX));
        assert_eq!(parse::<Vec<u32>>("[1,2]"), Ok(vec![1, 2]));
        for wrong in ["[1, 2]", "[1,]", "[1", "[4294967296]", "[1] "] {
            assert!(parse::<Vec<u32>>(wrong).is_err(), "{wrong}");
        }
    }
}
