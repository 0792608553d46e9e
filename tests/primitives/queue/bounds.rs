//! Every bound of the queue, at the bound and one past it.

use super::{BEGIN_MS, Outbox, Recipient, new, summary};
use qm2_host::HostError;
use qm2_host::clock::ManualClock;
use qm2_host::queue::{
    CHANNEL_BYTES_MAX, COORDINATION, ERROR_BYTES_MAX, KEY_BYTES_MAX, NewEntry, Options,
    PAYLOAD_BYTES_MAX, Place, RETRIES_MAX, Reason, SendError, TARGET_BYTES_MAX,
};

fn entry(key: usize, channel: usize, target: usize, payload: usize) -> NewEntry {
    let text = |bytes: usize| "x".repeat(bytes);
    NewEntry::new(text(channel), text(target), text(payload)).key(text(key))
}

#[tokio::test]
async fn fields_are_taken_at_their_bound_and_refused_past_it() {
    let place = Outbox::new();
    let whole = [
        KEY_BYTES_MAX,
        CHANNEL_BYTES_MAX,
        TARGET_BYTES_MAX,
        PAYLOAD_BYTES_MAX,
    ];
    let make = |sizes: [usize; 4]| entry(sizes[0], sizes[1], sizes[2], sizes[3]);
    for (index, field) in ["key", "channel", "target", "payload"].iter().enumerate() {
        for wrong in [Some(whole[index] + 1), (index < 3).then_some(0)] {
            let Some(wrong) = wrong else { continue };
            let mut sizes = whole;
            sizes[index] = wrong;
            let refused = place.queue.enqueue(make(sizes)).await.unwrap_err();
            let says = refused.to_string();
            assert!(
                says.contains(&format!("its {field} has {wrong} bytes")),
                "{says}"
            );
            assert!(!refused.retryable(), "{says}");
        }
    }
    assert_eq!(place.queue.load().await.unwrap(), []);
    let taken = place.queue.enqueue(make(whole)).await.unwrap();
    assert_eq!(taken.place, Place::New);
    let found = place.entry(&taken.key).await;
    assert_eq!(found.payload.len(), PAYLOAD_BYTES_MAX);
    // Nothing is a payload, too.
    place.queue.enqueue(entry(1, 1, 1, 0)).await.unwrap();
    // Bytes, not characters.
    let wide = "é".repeat(KEY_BYTES_MAX / 2 + 1);
    let refused = place.queue.enqueue(new(&wide)).await;
    assert!(
        matches!(refused, Err(HostError::Entry { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn error_is_kept_up_to_its_bound() {
    let place = Outbox::new();
    place.put("a").await;
    for (says, kept) in [
        ("e".repeat(ERROR_BYTES_MAX), ERROR_BYTES_MAX),
        ("e".repeat(ERROR_BYTES_MAX + 1), ERROR_BYTES_MAX),
        // A character that stands across the bound goes as a whole.
        (
            format!("e{}", "é".repeat(ERROR_BYTES_MAX)),
            ERROR_BYTES_MAX - 1,
        ),
    ] {
        place.queue.fail("a", &says).await.unwrap();
        let error = place.entry("a").await.last_error.unwrap();
        assert_eq!(error.len(), kept);
        assert!(says.starts_with(&error));
    }
}

#[tokio::test]
async fn last_retry_is_tried_and_one_more_is_not() {
    assert_eq!(RETRIES_MAX, 5);
    let place = Outbox::new();
    place.put("a").await;
    let refuse = || SendError::NotConnected("connection refused".into());
    let recipient = Recipient::saying((0..10).map(|_| refuse()));
    for failures in 1..=RETRIES_MAX {
        assert_eq!(place.drain(&recipient).await, summary(0, 1, 0, 0));
        assert_eq!(place.entry("a").await.retry_count, failures);
        place.clock.forward(600_000);
    }
    assert_eq!(place.drain(&recipient).await, summary(0, 0, 1, 0));
    assert_eq!(recipient.keys().len(), 5);
    assert_eq!(place.dead().await[0].reason, Reason::MaxRetries);
}

#[tokio::test]
async fn full_queue_takes_no_more_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(BEGIN_MS);
    let open = || {
        let options = Options::new().clock(clock.clone()).entries_max(2);
        options.open(folder.path()).unwrap()
    };
    let queue = open();
    queue.enqueue(new("a")).await.unwrap();
    queue.enqueue(new("b")).await.unwrap();
    // What is there may come again; that takes no room.
    let again = queue.enqueue(new("a")).await.unwrap();
    assert_eq!(again.place, Place::Waiting);
    queue.close().await;
    let queue = open();
    let full = queue.enqueue(new("c")).await.unwrap_err();
    assert!(full.retryable(), "{full}");
    assert!(full.to_string().contains("full"), "{full}");
    queue.ack("a").await.unwrap();
    assert_eq!(queue.enqueue(new("c")).await.unwrap().place, Place::New);
    assert!(queue.enqueue(new("d")).await.is_err());
    queue.withdraw("b").await.unwrap();
    assert_eq!(queue.enqueue(new("d")).await.unwrap().place, Place::New);
    assert!(queue.enqueue(new("e")).await.is_err());
}

#[tokio::test]
async fn settled_keys_are_known_again_up_to_their_number() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new().keys_remembered(3);
    let queue = options.open(folder.path()).unwrap();
    for key in ["1", "2", "3", "4"] {
        queue.enqueue(new(key)).await.unwrap();
        queue.ack(key).await.unwrap();
    }
    for key in ["2", "3", "4"] {
        let known = queue.enqueue(new(key)).await.unwrap();
        assert_eq!(known.place, Place::Settled, "{key}");
    }
    assert_eq!(queue.enqueue(new("1")).await.unwrap().place, Place::New);
}

#[tokio::test]
async fn channel_of_the_domain_is_not_for_others() {
    let place = Outbox::new();
    let new = NewEntry::new(COORDINATION, "agent:a", "x");
    let refused = place.queue.enqueue(new).await;
    assert!(
        matches!(refused, Err(HostError::Entry { .. })),
        "{refused:?}"
    );
}
