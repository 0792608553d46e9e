//! A host that keeps what it is handed: nothing of it has happened yet.
//!
//! Whoever makes calls takes it, makes it durable, and carries it out, or throws it away. Refuses nothing of its own accord.

use crate::envelope::Priority;
use crate::message::{HookKind, Host, Message, Refused};
use std::collections::BTreeSet;

/// A question to the hooks of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookRequest {
    /// `h` and the number of the hook.requested record; the verdict names it.
    pub hook_id: String,
    /// One of the kinds that are asked.
    pub kind: HookKind,
    /// Canonical JSON of what is asked about.
    pub subject: String,
}

/// What the component said during one call, in the order in which it said it. Nothing of it has happened yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Staged {
    /// Ledger lines, without newlines.
    pub lines: Vec<String>,
    /// At-least-once messages.
    pub messages: Vec<Message>,
    /// Keys of the durable queue whose attempts have ended.
    pub withdrawn: Vec<String>,
    /// Best-effort messages with the lane and priority to run them in.
    pub lane_messages: Vec<(String, Priority, Message)>,
    /// Keys of best-effort messages whose attempts have ended.
    pub lane_cancelled: Vec<String>,
    /// Questions to hooks, which want an answer.
    pub asks: Vec<HookRequest>,
    /// Kind and subject of what hooks are told.
    pub notifications: Vec<(HookKind, String)>,
    /// Whether the next append is refused: how the loss of a disk is tried out.
    pub refuses_append: bool,
}

impl Staged {
    /// Whether nothing was said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
            && self.messages.is_empty()
            && self.withdrawn.is_empty()
            && self.lane_messages.is_empty()
            && self.lane_cancelled.is_empty()
            && self.asks.is_empty()
            && self.notifications.is_empty()
    }

    /// Takes what was said so far; whether appends are refused stays.
    pub fn take(&mut self) -> Self {
        let refuses_append = self.refuses_append;
        let taken = std::mem::take(self);
        self.refuses_append = refuses_append;
        Self {
            refuses_append: false,
            ..taken
        }
    }

    /// Puts what was said later behind what was said before.
    pub fn extend(&mut self, mut later: Self) {
        self.lines.append(&mut later.lines);
        self.messages.append(&mut later.messages);
        self.withdrawn.append(&mut later.withdrawn);
        self.lane_messages.append(&mut later.lane_messages);
        self.lane_cancelled.append(&mut later.lane_cancelled);
        self.asks.append(&mut later.asks);
        self.notifications.append(&mut later.notifications);
    }

    /// Drops messages whose attempt ended before they could go out; an ended attempt never comes back.
    pub fn drop_withdrawn(&mut self) {
        if !self.withdrawn.is_empty() {
            let withdrawn: BTreeSet<&str> = self.withdrawn.iter().map(String::as_str).collect();
            self.messages
                .retain(|message| !withdrawn.contains(message.key.as_str()));
        }
        if !self.lane_cancelled.is_empty() {
            let ended: BTreeSet<&str> = self.lane_cancelled.iter().map(String::as_str).collect();
            self.lane_messages
                .retain(|(_, _, message)| !ended.contains(message.key.as_str()));
        }
    }
}

impl Host for Staged {
    fn append(&mut self, lines: Vec<String>) -> Result<(), Refused> {
        if self.refuses_append {
            return Err(Refused);
        }
        self.lines.extend(lines);
        Ok(())
    }

    fn enqueue(&mut self, messages: Vec<Message>) -> Result<(), Refused> {
        self.messages.extend(messages);
        Ok(())
    }

    fn withdraw(&mut self, keys: Vec<String>) -> Result<(), Refused> {
        self.withdrawn.extend(keys);
        Ok(())
    }

    fn enqueue_in_lane(&mut self, message: Message) -> Result<(), Refused> {
        let entry = (message.lane.clone(), message.priority, message);
        self.lane_messages.push(entry);
        Ok(())
    }

    fn cancel(&mut self, keys: Vec<String>) -> Result<(), Refused> {
        self.lane_cancelled.extend(keys);
        Ok(())
    }

    fn ask(&mut self, hook_id: &str, kind: HookKind, subject: &str) -> Result<(), Refused> {
        self.asks.push(HookRequest {
            hook_id: hook_id.to_owned(),
            kind,
            subject: subject.to_owned(),
        });
        Ok(())
    }

    fn notify(&mut self, kind: HookKind, subject: &str) -> Result<(), Refused> {
        self.notifications.push((kind, subject.to_owned()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::DeliveryMode;

    fn message(key: &str) -> Message {
        let envelope =
            r#"{"coordinationId":"c","sourceSession":"s","targetSession":"t","intent":"execute"}"#;
        Message {
            key: key.to_owned(),
            delivery: 1,
            lane: "control".into(),
            priority: Priority::High,
            delivery_mode: DeliveryMode::BestEffort,
            deadline_ms: None,
            envelope: serde_json::from_str(envelope).expect("an envelope"),
        }
    }

    /// Every import once, each said apart.
    fn one_of_each() -> Vec<Staged> {
        let mut all = vec![Staged::default(); 7];
        let said = [
            all[0].append(vec!["line".into()]),
            all[1].enqueue(vec![message("a")]),
            all[2].withdraw(vec!["b".into()]),
            all[3].enqueue_in_lane(message("c")),
            all[4].cancel(vec!["d".into()]),
            all[5].ask("h1", HookKind::BeforeDispatch, "{}"),
            all[6].notify(HookKind::StepEnded, "{}"),
        ];
        assert_eq!(said, [Ok(()); 7]);
        all
    }

    #[test]
    fn whatever_was_said_is_kept_in_order_and_taken_once() {
        let mut all = Staged::default();
        assert!(all.is_empty());
        for said in one_of_each() {
            assert!(!said.is_empty(), "{said:?}");
            let before = all.clone();
            all.extend(said);
            assert_ne!(all, before);
        }
        all.extend(Staged {
            lines: vec!["later".into()],
            ..Staged::default()
        });
        assert_eq!(all.lines, ["line", "later"]);
        assert_eq!(all.lane_messages[0].1, Priority::High);
        all.refuses_append = true;
        let taken = all.take();
        assert_eq!((taken.lines.len(), taken.refuses_append), (2, false));
        assert!(all.is_empty());
        assert_eq!(all.append(vec!["lost".into()]), Err(Refused));
        assert!(all.is_empty());
    }

    #[test]
    fn messages_of_attempts_that_ended_meanwhile_are_dropped() {
        let mut all = Staged::default();
        for key in ["a", "b"] {
            all.messages.push(message(key));
            all.enqueue_in_lane(message(key)).unwrap();
        }
        let kept = all.clone();
        all.drop_withdrawn();
        assert_eq!(all, kept);
        all.withdrawn.push("a".into());
        all.lane_cancelled.push("b".into());
        all.drop_withdrawn();
        let left = (&*all.messages[0].key, &*all.lane_messages[0].2.key);
        assert_eq!(left, ("b", "a"));
        assert_eq!((all.messages.len(), all.lane_messages.len()), (1, 1));
    }
}
