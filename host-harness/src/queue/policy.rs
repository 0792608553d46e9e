//! How long to wait, how often to try, and which errors are for ever: the tables that agent hosts share.
//!
//! Knows no entry.

use std::time::Duration;

/// Failures after which an entry is given up.
pub const RETRIES_MAX: u32 = 5;

/// Waits before the first, second, third, fourth and every later retry.
const WAITS: [Duration; 5] = [
    Duration::from_secs(5),
    Duration::from_secs(25),
    Duration::from_secs(2 * 60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(10 * 60),
];

/// The wait before a retry, counted from 1. No jitter: two hosts with the same inputs do the same.
#[must_use]
pub fn wait(retry: u64) -> Duration {
    let Some(index) = retry.checked_sub(1) else {
        return Duration::ZERO;
    };
    let last = WAITS.len() - 1;
    WAITS[usize::try_from(index).map_or(last, |index| index.min(last))]
}

/// What channels say, in lower case, when a message can never be delivered.
const PERMANENT: [&str; 12] = [
    "no conversation reference found",
    "chat not found",
    "user not found",
    "bot was blocked by the user",
    "forbidden: bot was kicked",
    "bot is not a member",
    "chat_id is empty",
    "recipient is not a valid",
    "outbound not configured for channel",
    "user not in room",
    // With the name of a channel in between; see below.
    "ambiguous recipient",
    "ambiguous discord recipient",
];

/// Whether an error says that trying again is of no use.
#[must_use]
pub fn is_permanent(error: &str) -> bool {
    let error = error.to_lowercase();
    if PERMANENT.iter().any(|says| error.contains(says)) {
        return true;
    }
    // "Ambiguous NAME recipient", whatever the channel is called.
    error.match_indices("ambiguous ").any(|(at, found)| {
        let mut words = error[at + found.len()..].split_whitespace();
        words.next().is_some()
            && words
                .next()
                .is_some_and(|word| word.starts_with("recipient"))
    })
}
