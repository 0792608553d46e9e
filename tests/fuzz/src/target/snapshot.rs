//! Pieces of a snapshot, one a line, taken in by a fresh machine.
//!
//! Must hold: they are refused, or the machine has a state whose own snapshot gives the same state and the same text again, and
//! about which everything can be asked. A refused piece leaves no state behind.

use crate::world::{self, World};
use qm2_core::receipt::CallError;

const CHUNKS_MAX: usize = 64;

/// Takes the pieces in.
///
/// # Panics
/// Where something does not hold.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let chunks: Vec<String> = text.lines().take(CHUNKS_MAX).map(str::to_owned).collect();
    let machine = match world::restored(&chunks) {
        Ok(machine) => machine,
        Err(CallError::Bound(blame)) => {
            assert!(!blame.message.is_empty());
            return;
        }
        Err(other) => panic!("restore: {other}"),
    };
    let digest = machine.state_digest();
    for max_bytes in [1, 1 << 20] {
        let chunks = world::chunks(&machine, max_bytes);
        let again = world::restored(&chunks).expect("a snapshot that was taken can be taken in");
        assert_eq!(
            again.state_digest(),
            digest,
            "the snapshot is another state"
        );
        assert_eq!(world::chunks(&again, max_bytes), chunks);
    }
    World::of(machine, 0).ask_everything();
}
