//! The hash chain: does each line follow the one before it?
//!
//! Does not know what records mean; whether the rules allow one is tested in `legal.rs`.

use crate::codec::same;
use crate::digest::sha256_hex;
use crate::event::hashed_part;
use crate::receipt::{Head, LedgerFault, LedgerFaultKind};

/// A ledger that is being verified line by line.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// The last line that held.
    pub head: Head,
}

/// What ties a line to its place, read off its two ends, where canonical lines have it.
struct Link<'a> {
    seq: u64,
    prev: &'a str,
    hash: &'a str,
}

impl<'a> Link<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let version = line.strip_prefix("{\"v\":")?;
        let rest = version.trim_start_matches(|c: char| c.is_ascii_digit());
        let rest = rest.strip_prefix(",\"seq\":")?;
        let seq = rest.split(',').next()?.parse().ok()?;
        let (rest, hash) = cut_member(line.strip_suffix('}')?, "hash")?;
        let (_, prev) = cut_member(rest, "prev")?;
        Some(Self { seq, prev, hash })
    }
}

/// A last member whose value is a digest: what stands before it, and the digest.
fn cut_member<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let text = text.strip_suffix('"')?;
    let at = text.len().checked_sub(64)?;
    let (rest, digest) = (text.get(..at)?, text.get(at..)?);
    let rest = rest.strip_suffix("\":\"")?.strip_suffix(name)?;
    Some((rest.strip_suffix(",\"")?, digest))
}

impl Chain {
    /// Tests the next line: its number, the hash before it, and its own.
    ///
    /// # Errors
    /// Names the number that the line should have had.
    pub fn push(&mut self, line: &str) -> Result<(), LedgerFault> {
        let seq = self.head.seq + 1;
        let broken = |message: String| LedgerFault {
            seq,
            kind: LedgerFaultKind::BrokenChain,
            message,
        };
        let Some(link) = Link::read(line) else {
            return Err(broken("is not a record".into()));
        };
        if link.seq != seq {
            return Err(broken(format!("says seq {} where {seq} is due", link.seq)));
        }
        if !same(link.prev.as_bytes(), self.head.hash.as_bytes()) {
            return Err(broken(
                "prev is not the hash of the record before it".into(),
            ));
        }
        let Some(parts) = hashed_part(line) else {
            return Err(broken("does not end in a hash".into()));
        };
        let hash = sha256_hex(&parts);
        if !same(link.hash.as_bytes(), hash.as_bytes()) {
            return Err(broken(format!(
                "hash is {}, its content has {hash}",
                link.hash
            )));
        }
        self.head = Head { seq, hash };
        Ok(())
    }
}
