//! Lines of a ledger, read one by one and replayed as a whole, with the chain to be verified and said to be verified.
//!
//! Must hold: a line that is read is written as the same bytes; what replays is a state that replays again, goes through a
//! snapshot and goes on without a panic; a fault names the first bad line; and an accepted ledger with one byte changed, a line
//! less or two lines swapped is refused at that line.

use crate::world::{self, World};
use qm2_core::codec::canonical;
use qm2_core::event::Record;
use qm2_core::machine::Machine;
use qm2_core::receipt::CallError;

const LINES_MAX: usize = 400;
/// How often time goes on to the next deadline with an accepted ledger.
const DEADLINES_MAX: usize = 40;
/// `,"hash":"…"}`
const HASH_MEMBER_BYTES: usize = 75;

/// Reads and replays the lines.
///
/// # Panics
/// Where something does not hold.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let lines: Vec<String> = text.lines().take(LINES_MAX).map(str::to_owned).collect();
    for line in &lines {
        read(line);
    }
    for checked in [true, false] {
        let mut machine = Machine::new();
        match machine.replay(&lines, checked) {
            Ok(head) => assert_eq!(head.seq, lines.len() as u64),
            Err(CallError::ReadOnly(fault)) => {
                let head = machine.head().expect("what was read before stays readable");
                assert_eq!(fault.seq, head.seq + 1, "{}", fault.message);
                assert!(machine.state_digest().is_ok());
                let further = machine.replay(&[], checked);
                assert_eq!(
                    further,
                    Err(CallError::ReadOnly(fault)),
                    "it stays read-only"
                );
                continue;
            }
            Err(other) => panic!("replay: {other}"),
        }
        go_on(machine);
        if !checked && !lines.is_empty() {
            damage(&lines, data);
        }
    }
}

fn read(line: &str) {
    let Ok((record, prev, hash)) = Record::parse_linked(line) else {
        return;
    };
    // Digests are hexadecimal, which only the chain tests; other text would need escapes.
    if canonical(&prev) != format!("\"{prev}\"") {
        return;
    }
    let (written, _) = record.line(&prev);
    let body = &written[..written.len() - HASH_MEMBER_BYTES];
    let hash = canonical(&hash);
    assert_eq!(
        format!("{body},\"hash\":{hash}}}"),
        line,
        "written otherwise than read"
    );
}

/// A state that came from an accepted ledger is like any other.
fn go_on(machine: Machine) {
    let chunks = world::chunks(&machine, 1_000);
    let restored = world::restored(&chunks).expect("a snapshot that was taken can be taken in");
    assert_eq!(restored.state_digest(), machine.state_digest());
    let mut world = World::of(machine, 0);
    world.ask_everything();
    world.pass_deadlines(DEADLINES_MAX);
}

/// Whoever changes an accepted ledger without making its hashes right again is found out, at that line.
fn damage(lines: &[String], data: &[u8]) {
    // Where, comes from the input, so that the same input does the same.
    let mut at = data.iter().fold(7_usize, |at, byte| {
        at.wrapping_mul(31).wrapping_add(usize::from(*byte))
    });
    let mut below = |bound: usize| {
        at = at
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (at >> 33) % bound
    };
    for _ in 0..3 {
        let index = below(lines.len());
        let mut changed = lines.to_vec();
        let mut bytes = std::mem::take(&mut changed[index]).into_bytes();
        let place = below(bytes.len());
        bytes[place] ^= 1 << below(7);
        changed[index] = String::from_utf8_lossy(&bytes).into_owned();
        assert_refused(&changed, index);
    }
    let index = below(lines.len());
    if index + 1 < lines.len() {
        let mut shorter = lines.to_vec();
        shorter.remove(index);
        assert_refused(&shorter, index);
        let mut swapped = lines.to_vec();
        swapped.swap(index, index + 1);
        assert_refused(&swapped, index);
    }
}

fn assert_refused(lines: &[String], index: usize) {
    match Machine::new().replay(lines, false) {
        Err(CallError::ReadOnly(fault)) => assert_eq!(fault.seq, index as u64 + 1),
        other => panic!("a ledger that was changed at line {}: {other:?}", index + 1),
    }
}
