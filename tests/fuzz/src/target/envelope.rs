//! Calls to a running domain, one a line as JSON, as `qm2_core::call::Call` reads them; a line that is an envelope is
//! submitted by the session that it names.
//!
//! Must hold: no call panics; the folded ledger and the restored snapshot are the live state; everything can be described;
//! and left alone, everything ends. The core's own debug assertions say that replay takes every record that is written.

use crate::world::{World, caller};
use qm2_core::call::Call;
use qm2_core::envelope::Envelope;

/// More calls than a domain needs to get into any state with the few steps that fit an input.
const CALLS_MAX: usize = 96;

/// Makes the calls.
///
/// # Panics
/// Where something does not hold.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    play(text, true);
}

/// Makes the calls, and tests what must hold in the end if that is wanted; gives what has become of the domain.
pub fn play(text: &str, to_the_end: bool) -> World {
    let mut calls = text.lines().take(CALLS_MAX).filter_map(read).peekable();
    let mut world = match calls.peek() {
        Some(Call::Configure { .. }) => World::new(),
        _ => World::open(|_| {}),
    };
    for mut call in calls {
        match call {
            // Both would bring in a ledger that is none of this domain; other targets do that.
            Call::Replay { .. } => world.replay(),
            Call::Restore { .. } => world.restore(1_000),
            _ => {
                world.resolve(&mut call);
                // What is refused is as good an input as any.
                let _ = world.call(&call);
            }
        }
    }
    if to_the_end {
        world.ask_everything();
        world.replay();
        world.restore(1);
        world.run_out();
        world.replay();
        world.restore(1 << 20);
    }
    world
}

fn read(line: &str) -> Option<Call> {
    if let Ok(call) = serde_json::from_str(line) {
        return Some(call);
    }
    let envelope: Envelope = serde_json::from_str(line).ok()?;
    Some(Call::Submit {
        caller: caller(&envelope.source_session),
        now_ms: 0,
        envelopes: vec![envelope],
    })
}
