//! A canonical text that is being read from its front, piece by piece.
//!
//! Knows texts, numbers, lists and the names of members; what they make up is said in `codec.rs`.

use super::{place_of, plain_len, same, starts_with, write_escape};
use crate::limit::INTEGER_MAX;
use std::borrow::Cow;

/// Where a text stops being canonical, and what was expected there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Offset in bytes.
    pub at: usize,
    /// What was expected.
    pub expected: &'static str,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "at byte {}: {} is expected", self.at, self.expected)
    }
}

impl std::error::Error for Malformed {}

/// A text that is being read from its front. Once it failed, nothing more is taken off it.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    text: &'a str,
    /// What is left of it.
    rest: &'a [u8],
    /// An object was opened, and nothing was taken off it yet.
    opened: bool,
    failed: Option<Malformed>,
}

impl<'a> Input<'a> {
    /// The whole text.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            rest: text.as_bytes(),
            opened: false,
            failed: None,
        }
    }

    /// Marks the input as failed at the present place; the first mark stays.
    #[inline(never)]
    pub fn fail(&mut self, expected: &'static str) {
        let at = self.at();
        self.failed.get_or_insert(Malformed { at, expected });
        self.rest = &[];
    }

    /// Where the input failed, if it did.
    #[must_use]
    pub fn failed(&self) -> Option<Malformed> {
        self.failed
    }

    fn at(&self) -> usize {
        self.text.len() - self.rest.len()
    }

    /// Takes so many bytes, none of which begin or end within a character.
    fn take_text(&mut self, len: usize) -> &'a str {
        let from = self.at();
        self.rest = self.rest.get(len..).unwrap_or_default();
        // `get` spares the component the panic of a cut within a character.
        self.text.get(from..from + len).unwrap_or_default()
    }

    /// Takes all before the last place of a text that does not occur in strings.
    pub(crate) fn take_before(&mut self, last: &str) -> Option<&'a str> {
        let mut places = self.rest.windows(last.len());
        let len = places.rposition(|place| same(place, last.as_bytes()))?;
        Some(self.take_text(len))
    }

    /// Whether the input goes on with this byte; takes it if so.
    fn take(&mut self, byte: u8) -> bool {
        match self.rest {
            [first, rest @ ..] if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Takes one byte that must stand here.
    #[inline(never)]
    pub(crate) fn byte(&mut self, byte: u8, expected: &'static str) {
        if !self.take(byte) {
            self.fail(expected);
        }
    }

    /// Whether the object that is being read goes on with this member, named as [`name`] says; takes its name if so.
    #[inline(never)]
    pub(crate) fn next(&mut self, name: &str) -> bool {
        let rest = match self.rest {
            rest if self.opened => rest,
            [b',', rest @ ..] => rest,
            _ => return false,
        };
        let found = starts_with(rest, name.as_bytes());
        if found {
            self.rest = &rest[name.len()..];
            self.opened = false;
        }
        found
    }

    /// Takes the name of a member that must be there.
    pub(crate) fn required(&mut self, name: &'static str) {
        if !self.next(name) {
            // Without what stands around it in the text.
            let bare = name.get(1..name.len() - 2);
            self.fail(bare.unwrap_or(name));
        }
    }

    /// Begins an object.
    #[inline(never)]
    pub(crate) fn open(&mut self) {
        self.open_as("an object");
    }

    /// Begins an object, of which is said what it is.
    pub(crate) fn open_as(&mut self, expected: &'static str) {
        self.byte(b'{', expected);
        self.opened = true;
    }

    /// Ends an object.
    #[inline(never)]
    pub(crate) fn close(&mut self) {
        self.close_as("a member in its order, or the end of the object");
    }

    /// Ends an object, or says what was expected instead.
    pub(crate) fn close_as(&mut self, expected: &'static str) {
        self.byte(b'}', expected);
        self.opened = false;
    }

    /// Takes a word, and answers with its place among those known.
    #[inline(never)]
    pub(crate) fn word(&mut self, words: &[&str]) -> usize {
        let word = self.string();
        place_of(words, &word).unwrap_or_else(|| {
            self.fail("a known word");
            0
        })
    }

    /// Takes a list, entry by entry.
    pub(crate) fn list(&mut self, entry: &mut dyn FnMut(&mut Self)) {
        self.byte(b'[', "a list");
        self.until(b']', entry);
    }

    /// Takes what stands between commas, up to the byte that ends it.
    pub(crate) fn until(&mut self, end: u8, entry: &mut dyn FnMut(&mut Self)) {
        self.opened = false;
        if self.take(end) {
            return;
        }
        while self.failed.is_none() {
            entry(self);
            if self.take(end) {
                return;
            }
            self.byte(b',', "a comma or the end of the list");
        }
    }

    /// What comes next.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Takes a number.
    pub(crate) fn digits(&mut self) -> u64 {
        self.integer(INTEGER_MAX)
    }

    /// Takes a text; borrowed where nothing in it is escaped.
    #[inline(never)]
    pub(crate) fn string(&mut self) -> Cow<'a, str> {
        self.byte(b'"', "a text");
        let len = plain_len(self.rest);
        if self.rest.get(len) != Some(&b'"') {
            return self.escaped_string();
        }
        let text = self.take_text(len);
        self.rest = &self.rest[1..];
        Cow::Borrowed(text)
    }

    /// The rest of a text that does not end before an escape.
    #[inline(never)]
    fn escaped_string(&mut self) -> Cow<'a, str> {
        // Room for all of it at once: some texts are kept for long.
        let mut rest = self.rest;
        while let [byte, after @ ..] = rest {
            match byte {
                b'"' => break,
                b'\\' => rest = after.get(1..).unwrap_or_default(),
                _ => rest = after,
            }
        }
        let mut text = String::with_capacity(self.rest.len() - rest.len());
        while self.failed.is_none() {
            let len = plain_len(self.rest);
            if len == self.rest.len() {
                self.fail("the end of a text");
                break;
            }
            text += self.take_text(len);
            if self.take(b'"') {
                return Cow::Owned(text);
            }
            text.push(self.escape());
        }
        Cow::Borrowed("")
    }

    fn escape(&mut self) -> char {
        let short = match self.rest {
            [b'\\', b'b', ..] => 0x08,
            [b'\\', b'f', ..] => 0x0c,
            [b'\\', b'n', ..] => b'\n',
            [b'\\', b'r', ..] => b'\r',
            [b'\\', b't', ..] => b'\t',
            [b'\\', byte @ (b'"' | b'\\'), ..] => *byte,
            _ => return self.long_escape(),
        };
        self.rest = &self.rest[2..];
        char::from(short)
    }

    #[inline(never)]
    fn long_escape(&mut self) -> char {
        let digits = self.text.get(self.at() + 4..self.at() + 6);
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(byte) = byte.filter(|byte| plain_len(&[*byte]) == 0) {
            // Whether this is its one form is seen where that is written.
            let mut form = Vec::with_capacity(6);
            write_escape(byte, &mut form);
            if self.rest.starts_with(&form) {
                self.rest = &self.rest[form.len()..];
                return char::from(byte);
            }
        }
        self.fail("an escape in its one form");
        ' '
    }

    #[inline(never)]
    pub(super) fn integer(&mut self, max: u64) -> u64 {
        let rest = self.rest;
        let (mut value, mut digits) = (0_u64, 0);
        // No bound has more digits than the largest integer of the contract.
        while let Some(digit @ b'0'..=b'9') = rest.get(digits).filter(|_| digits <= 16) {
            // Cannot overflow with so few digits; the test for it would be a call of 128-bit arithmetic in the component.
            value = value.wrapping_mul(10).wrapping_add((digit - b'0').into());
            digits += 1;
        }
        let zero_led = digits > 1 && rest[0] == b'0';
        if digits == 0 || zero_led || value > max {
            self.fail("a whole number within its bound");
            return 0;
        }
        self.rest = &rest[digits..];
        value
    }

    /// Nothing may be left, and nothing may have failed.
    ///
    /// # Errors
    /// The first place where the text is not canonical.
    pub fn end(&mut self) -> Result<(), Malformed> {
        if !self.rest.is_empty() {
            self.fail("the end");
        }
        self.failed.map_or(Ok(()), Err)
    }

    /// Takes true or false.
    pub(crate) fn flag(&mut self) -> bool {
        let value = starts_with(self.rest, b"true");
        if value {
            self.take_text(4);
        } else if starts_with(self.rest, b"false") {
            self.take_text(5);
        } else {
            self.fail("true or false");
        }
        value
    }
}
