//! Keys, withdrawals, deadlines and dead letters.

use super::{BEGIN_MS, Outbox, Recipient, chat, down, drain, new, open, summary, unconnected};
use qm2_host::HostError;
use qm2_host::clock::Clock;
use qm2_host::queue::{
    Delivered, Evidence, Options, Place, Policy, Reason, Reconciled, SendError, SendState, beside,
};
use rusqlite::Connection;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[tokio::test]
async fn same_key_again_is_the_same_entry_wherever_it_is() {
    let mut place = Outbox::new();
    let place_of = async |place: &Outbox, key: &str| {
        let other = new(key).deadline_ms(BEGIN_MS + 5);
        place.queue.enqueue(other).await.unwrap().place
    };
    for key in ["waits", "acked", "withdrawn", "dead", "dropped"] {
        place.put(key).await;
    }
    place.queue.ack("acked").await.unwrap();
    assert!(place.queue.withdraw("withdrawn").await.unwrap());
    let recipient = Recipient::saying([
        unconnected(),
        SendError::Permanent("no".into()),
        SendError::Permanent("no".into()),
    ]);
    place.drain(&recipient).await;
    place.queue.drop_dead("dropped").await.unwrap();
    for _ in 0..2 {
        assert_eq!(place_of(&place, "waits").await, Place::Waiting);
        assert_eq!(place_of(&place, "acked").await, Place::Settled);
        assert_eq!(place_of(&place, "withdrawn").await, Place::Settled);
        assert_eq!(place_of(&place, "dead").await, Place::Dead);
        assert_eq!(place_of(&place, "dropped").await, Place::Settled);
        place.again().await;
    }
    assert_eq!(
        place.entry("waits").await.deadline_ms,
        None,
        "as it was first given"
    );
    let known = place
        .queue
        .send(new("acked"), &*recipient, Policy::Required);
    assert!(matches!(known.await.unwrap(), Delivered::Known(_)));
    assert_eq!(recipient.keys(), ["waits", "dead", "dropped"]);
}

#[tokio::test]
async fn withdrawn_entry_is_never_sent() {
    let place = Outbox::new();
    place.put("first").await;
    place.put("second").await;
    place.put("dead").await;
    for _ in 0..5 {
        place.queue.fail("dead", "503").await.unwrap();
    }
    // Also one that is yet to come.
    assert!(!place.queue.withdraw("early").await.unwrap());
    let early = place.queue.enqueue(new("early")).await.unwrap();
    assert_eq!(early.place, Place::Settled);
    // The second is withdrawn while a pass that has listed it is under way.
    let recipient = Recipient::new();
    let queue = place.queue.clone();
    let withdrawn = Arc::new(Mutex::new(None));
    let done = withdrawn.clone();
    recipient.on_send(move |entry| {
        assert_eq!(entry.key, "first");
        let queue = queue.clone();
        let task = tokio::spawn(async move { queue.withdraw("second").await.unwrap() });
        *done.lock().unwrap() = Some(task);
    });
    let pass = place.drain(&recipient).await;
    assert_eq!(pass, summary(1, 0, 1, 0));
    let task = withdrawn.lock().unwrap().take().unwrap();
    assert!(task.await.unwrap());
    assert_eq!(recipient.keys(), ["first"]);
    assert!(place.queue.withdraw("dead").await.unwrap());
    assert_eq!(place.dead().await, []);
    let gone = place.queue.replay("dead", Evidence::Kept).await;
    assert!(matches!(gone, Err(HostError::Entry { .. })), "{gone:?}");
}

#[tokio::test]
async fn nothing_is_sent_at_or_after_its_deadline() {
    let place = Outbox::new();
    for (key, after_ms) in [("at", 1_000), ("before", 1_001)] {
        let new = new(key).deadline_ms(BEGIN_MS + after_ms);
        place.queue.enqueue(new).await.unwrap();
    }
    place.clock.forward(1_000);
    let recipient = Recipient::saying([unconnected()]);
    assert_eq!(place.drain(&recipient).await, summary(0, 2, 0, 0));
    assert_eq!(recipient.keys(), ["before"]);
    assert_eq!(place.dead().await[0].entry.key, "at");
    assert_eq!(place.dead().await[0].reason, Reason::Deadline);
    // The other is not due for 25 s, but it will never be sent, and that is said at once.
    place.clock.forward(1);
    assert_eq!(place.drain(&recipient).await, summary(0, 1, 0, 0));
    let dead = place.dead().await;
    assert_eq!(dead[1].reason, Reason::Deadline);
    assert_eq!(
        dead[1].entry.last_error.as_deref(),
        Some("connection refused")
    );
    let late = place.queue.replay("at", Evidence::Kept).await.unwrap_err();
    assert!(late.to_string().contains("deadline has passed"), "{late}");
    assert_eq!(place.dead().await.len(), 2);
}

/// A clock of a slow disk: by the time that a send is noted, ten seconds have passed.
struct SlowDisk {
    folder: PathBuf,
}

impl Clock for SlowDisk {
    fn now_ms(&self) -> u64 {
        let file = Connection::open(self.folder.join("outbox.db")).unwrap();
        let sql = "SELECT count(*) FROM entry WHERE state = 'send_started'";
        let noted: u32 = file.query_row(sql, [], |row| row.get(0)).unwrap();
        BEGIN_MS + 10_000 * u64::from(noted)
    }

    fn sleep_until(&self, _at_ms: Option<u64>) -> Duration {
        Duration::from_millis(2)
    }
}

#[tokio::test]
async fn nothing_is_sent_whose_deadline_comes_while_the_send_is_noted() {
    for (after_ms, is_sent) in [(9_999, false), (10_000, false), (10_001, true)] {
        let folder = tempfile::tempdir().unwrap();
        let clock = SlowDisk {
            folder: folder.path().to_path_buf(),
        };
        let queue = Options::new().clock(clock).open(folder.path()).unwrap();
        let new = new("a").deadline_ms(BEGIN_MS + after_ms);
        queue.enqueue(new).await.unwrap();
        let recipient = Recipient::new();
        drain(&queue, &recipient).await;
        assert_eq!(recipient.keys().len(), usize::from(is_sent), "{after_ms}");
        let dead = queue.dead_letters().await.unwrap();
        let reasons: Vec<Reason> = dead.iter().map(|dead| dead.reason).collect();
        let due: &[Reason] = if is_sent { &[] } else { &[Reason::Deadline] };
        assert_eq!(reasons, due, "{after_ms}");
    }
}

#[tokio::test]
async fn what_may_have_been_sent_is_asked_about_even_after_its_deadline() {
    let unresolved = Reconciled::Unresolved {
        retryable: true,
        error: "no answer".into(),
    };
    for (knows, dead) in [
        (Reconciled::Sent, None),
        (Reconciled::NotSent, Some(Reason::Deadline)),
        (unresolved, Some(Reason::Deadline)),
    ] {
        let place = Outbox::new();
        let new = new("a").deadline_ms(BEGIN_MS + 1_000);
        place.queue.enqueue(new).await.unwrap();
        let recipient = Recipient::saying([down()]);
        recipient.knows.lock().unwrap().push_back(knows);
        place.drain(&recipient).await;
        place.clock.forward(1_000);
        let recovered = u64::from(dead.is_none());
        let due = summary(recovered, 1 - recovered, 0, 0);
        assert_eq!(place.drain(&recipient).await, due);
        assert_eq!(recipient.asked(), ["a"]);
        assert_eq!(recipient.keys(), ["a"], "never sent again");
        let is = place.dead().await.first().map(|dead| dead.reason);
        assert_eq!(is, dead);
    }
}

#[tokio::test]
async fn dead_letter_is_replayed_as_if_it_had_never_failed() {
    let mut place = Outbox::new();
    place.put("a").await;
    for _ in 0..5 {
        place.queue.fail("a", "503").await.unwrap();
    }
    let recipient = Recipient::new();
    assert_eq!(place.drain(&recipient).await, summary(0, 0, 1, 0));
    place.queue.replay("a", Evidence::Kept).await.unwrap();
    place.again().await;
    let entry = place.entry("a").await;
    assert_eq!((entry.retry_count, entry.last_attempt_at_ms), (0, None));
    assert_eq!(place.dead().await, []);
    assert_eq!(place.drain(&recipient).await, summary(1, 0, 0, 0));
    for key in ["a", "never there"] {
        for refused in [
            place.queue.replay(key, Evidence::Kept).await,
            place.queue.drop_dead(key).await,
        ] {
            let says = refused.unwrap_err().to_string();
            assert!(says.ends_with("is no dead letter"), "{says}");
        }
    }
}

#[tokio::test]
async fn replayed_dead_letter_that_may_have_been_sent_is_asked_about_unless_a_person_knows() {
    for (evidence, asked) in [(Evidence::Kept, true), (Evidence::NotSent, false)] {
        let place = Outbox::new();
        place.put("a").await;
        let recipient = Recipient::saying([SendError::PartlySent("half".into())]);
        recipient
            .knows
            .lock()
            .unwrap()
            .push_back(Reconciled::NotSent);
        place.drain(&recipient).await;
        place.clock.forward(25_000);
        place.drain(&recipient).await;
        let dead = place.dead().await;
        assert_eq!(dead[0].reason, Reason::Unresolved);
        assert_eq!(dead[0].entry.state, SendState::UnknownAfterSend);
        place.queue.replay("a", evidence).await.unwrap();
        // A person has looked at it: now the channel's word counts.
        assert_eq!(place.drain(&recipient).await, summary(1, 0, 0, 0));
        assert_eq!(recipient.asked().len(), 1 + usize::from(asked));
        assert_eq!(recipient.keys(), ["a", "a"]);
    }
}

#[tokio::test]
async fn dead_letters_are_settled_beside_the_process_that_sends() {
    let place = Outbox::new();
    for key in ["a", "b", "waits"] {
        place.put(key).await;
    }
    let no = || SendError::Permanent("no".into());
    let recipient = Recipient::saying([no(), no(), unconnected()]);
    place.drain(&recipient).await;
    let contents = beside::read(place.path()).unwrap();
    let keys = |contents: &beside::Contents| {
        let dead = contents.dead_letters.iter();
        dead.map(|dead| dead.entry.key.clone()).collect::<Vec<_>>()
    };
    assert_eq!(keys(&contents), ["a", "b"]);
    assert_eq!(contents.entries, place.queue.load().await.unwrap());
    beside::replay(place.path(), "a", Evidence::Kept, BEGIN_MS).unwrap();
    beside::drop_dead(place.path(), "b").unwrap();
    // What is on its way is not settled by hand.
    for refused in [
        beside::drop_dead(place.path(), "waits"),
        beside::replay(place.path(), "waits", Evidence::Kept, BEGIN_MS),
    ] {
        assert!(
            matches!(refused, Err(HostError::Entry { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(place.drain(&recipient).await, summary(1, 0, 0, 1));
    assert_eq!(recipient.keys(), ["a", "b", "waits", "a"]);
    let settled = place.queue.enqueue(new("b")).await.unwrap();
    assert_eq!(settled.place, Place::Settled);
}

#[tokio::test]
async fn failed_send_is_kept_for_a_drain_and_a_bad_one_is_a_dead_letter() {
    let place = Outbox::new();
    let recipient = Recipient::saying([unconnected(), SendError::Permanent("no".into())]);
    let kept = place.queue.send(new("a"), &*recipient, Policy::Required);
    let (key, error) = ("a".to_owned(), "connection refused".to_owned());
    assert_eq!(kept.await.unwrap(), Delivered::Kept { key, error });
    let dead = place.queue.send(new("b"), &*recipient, Policy::BestEffort);
    let dead = dead.await.unwrap();
    let due = Delivered::Dead {
        key: "b".into(),
        reason: Reason::Permanent,
        error: "no".into(),
    };
    assert_eq!(dead, due);
    place.clock.forward(25_000);
    assert_eq!(place.drain(&recipient).await, summary(1, 0, 0, 0));
}

#[tokio::test]
async fn copies_of_a_channel_list_and_of_a_queue_are_the_same_ones() {
    let place = Outbox::new();
    place.put("a").await;
    let recipient = Recipient::new();
    assert_eq!(format!("{:?}", chat(&recipient)), "{\"chat\"}");
    let copy = place.queue.clone();
    assert_eq!(drain(&copy, &recipient).await, summary(1, 0, 0, 0));
    copy.close().await;
    assert!(matches!(place.queue.load().await, Err(HostError::Closed)));
    open(place.path(), &place.clock).close().await;
}
