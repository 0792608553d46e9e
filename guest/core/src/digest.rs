//! SHA-256 as lower-case hexadecimal text.
//!
//! Does not say what is hashed; [`crate::codec`] makes the bytes.

use crate::codec::text_of;
use sha2::{Digest, Sha256};

/// The hash before the first record.
pub const ZERO: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// SHA-256 of the parts one after another.
#[must_use]
pub fn sha256_hex(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hex(&hasher.finalize().into())
}

pub(crate) fn hex(bytes: &[u8; 32]) -> String {
    let mut text = [[0; 8]; 8];
    let (fours, _) = bytes.as_chunks::<4>();
    for (digits, four) in text.iter_mut().zip(fours) {
        *digits = digits_of(*four);
    }
    text_of(text.as_flattened().to_vec())
}

/// The bytes of such a text; none of any other.
pub(crate) fn bytes(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [[0; 4]; 8];
    let (words, rest) = hex.as_bytes().as_chunks::<8>();
    if words.len() != bytes.len() || !rest.is_empty() {
        return None;
    }
    for (four, digits) in bytes.iter_mut().zip(words) {
        *four = bytes_of(*digits);
        if digits_of(*four) != *digits {
            return None;
        }
    }
    bytes.as_flattened().try_into().ok()
}

const EACH: u64 = 0x0101_0101_0101_0101;
/// The lower half of each byte, and of every second one.
const LOWER: u64 = EACH * 15;
const LOW_HALVES: u64 = 0x000f_000f_000f_000f;

/// The digits of four bytes, all at once: in the lanes of a word first the halves of the bytes, and then what they are written as.
#[inline(always)]
fn digits_of(bytes: [u8; 4]) -> [u8; 8] {
    let mut lanes = u64::from(u32::from_le_bytes(bytes));
    lanes = (lanes | lanes << 16) & 0x0000_ffff_0000_ffff;
    lanes = (lanes | lanes << 8) & 0x00ff_00ff_00ff_00ff;
    let halves = lanes >> 4 & LOW_HALVES | (lanes & LOW_HALVES) << 8;
    // No lane overflows; to test that would be a call of 128-bit arithmetic in the component.
    let letters = halves.wrapping_add(EACH * 6) >> 4 & EACH;
    let digits = halves.wrapping_add(EACH * b'0' as u64);
    let to_letters = letters.wrapping_mul((b'a' - b'9' - 1) as u64);
    digits.wrapping_add(to_letters).to_le_bytes()
}

/// The four bytes that have these digits. Anything else makes bytes that have other ones.
#[inline(always)]
fn bytes_of(digits: [u8; 8]) -> [u8; 4] {
    let word = u64::from_le_bytes(digits);
    let letters = word >> 6 & EACH;
    let halves = (word & LOWER).wrapping_add(letters.wrapping_mul(9)) & LOWER;
    let mut lanes = (halves << 4 | halves >> 8) & 0x00ff_00ff_00ff_00ff;
    lanes = (lanes | lanes >> 8) & 0x0000_ffff_0000_ffff;
    lanes |= lanes >> 16;
    // The lower half has them all.
    let [first, second, third, fourth, ..] = lanes.to_le_bytes();
    [first, second, third, fourth]
}

#[cfg(test)]
mod tests {
    use super::{bytes, hex};

    #[test]
    fn every_byte_has_its_two_digits_and_nothing_else_is_read_as_one() {
        for byte in 0..=u8::MAX {
            for place in 0..32 {
                let mut all = [0x5a; 32];
                all[place] = byte;
                let expected: String = all.iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(hex(&all), expected);
                assert_eq!(bytes(&expected), Some(all));
            }
            if !byte.is_ascii() || matches!(byte, b'0'..=b'9' | b'a'..=b'f') {
                continue;
            }
            for place in 0..64 {
                let mut text = "0f".repeat(32).into_bytes();
                text[place] = byte;
                assert_eq!(bytes(std::str::from_utf8(&text).unwrap()), None, "{byte}");
            }
        }
        assert_eq!(bytes(&"\u{e9}".repeat(32)), None);
        assert_eq!(bytes(&"00".repeat(31)), None);
    }

    #[test]
    fn the_empty_text_has_its_known_digest() {
        let known = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(super::sha256_hex(&[]), known);
        assert_eq!(
            super::sha256_hex(&[b"a", b"b"]),
            super::sha256_hex(&[b"ab"])
        );
    }
}
