//! Event stream: EV-1 to EV-10. That records are followed without a gap is in `tests/events.rs`.

use qm2_host::clock::ManualClock;
use qm2_host::event_stream::{
    ASSISTANT, COORDINATION, ERROR, Emitted, Event, EventStream, LIFECYCLE, Listener, RunContext,
    TOOL,
};
use serde_json::json;
use std::sync::{Arc, Mutex};

/// An event of a run.
fn of(run_id: &str) -> Event {
    on(run_id, ASSISTANT)
}

fn on(run_id: &str, stream: &str) -> Event {
    Event {
        run_id: run_id.into(),
        stream: stream.into(),
        ..Event::default()
    }
}

fn emit(stream: &EventStream, event: Event) -> Emitted {
    stream.emit(event).expect("it is of this generation")
}

fn seqs<const N: usize>(stream: &EventStream, runs: [&str; N]) -> [u64; N] {
    runs.map(|run| emit(stream, of(run)).seq)
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// A place where listeners leave marks.
#[derive(Clone, Default)]
struct Marks(Arc<Mutex<Vec<String>>>);

impl Marks {
    fn listener(&self, name: &'static str) -> Arc<Listener> {
        let marks = self.clone();
        Arc::new(move |event| marks.add(format!("{name}{}", event.seq)))
    }

    fn add(&self, mark: String) {
        self.0.lock().expect("no panic").push(mark);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("no panic"))
    }
}

#[test]
fn ev_01_events_of_a_run_are_numbered_from_1_and_dated_by_the_clock() {
    let clock = ManualClock::at(5_000);
    let stream = EventStream::new(clock.clone());
    assert_eq!(seqs(&stream, ["a", "a", "a"]), [1, 2, 3]);
    // One without a name is a run like any other.
    assert_eq!(seqs(&stream, ["", "", "a"]), [1, 2, 4]);
    assert_eq!(emit(&stream, of("a")).ts, 5_000);
    clock.set(4_000);
    let late = emit(&stream, of("a"));
    // The clock may go back; numbers do not.
    assert_eq!((late.ts, late.seq), (4_000, 6));
}

#[test]
fn ev_02_session_and_lineage_are_the_events_own_else_those_of_its_run() {
    let stream = EventStream::default();
    let context = RunContext {
        session_key: some("s"),
        lineage_id: some("l"),
        ..RunContext::default()
    };
    stream.register("a", context);
    let from_run = emit(&stream, of("a"));
    assert_eq!(
        (from_run.session_key, from_run.lineage_id),
        (some("s"), some("l"))
    );
    let own = |text: &str| {
        let event = Event {
            session_key: some(text),
            lineage_id: some(text),
            trace_id: some("t"),
            span_id: some("p"),
            ..of("a")
        };
        let emitted = emit(&stream, event);
        assert_eq!(
            (emitted.trace_id, emitted.span_id),
            (some("t"), some("p")),
            "passed through"
        );
        (emitted.session_key, emitted.lineage_id)
    };
    assert_eq!(own("own"), (some("own"), some("own")));
    assert_eq!(own(" "), (some("s"), some("l")), "blank is none");
    let unknown = emit(&stream, of("b"));
    assert_eq!((unknown.session_key, unknown.lineage_id), (None, None));
}

#[test]
fn ev_03_each_run_has_an_order_of_its_own() {
    let stream = EventStream::default();
    assert_eq!(seqs(&stream, ["a", "b", "a", "b", "b"]), [1, 1, 2, 2, 3]);
}

#[test]
fn ev_04_any_name_is_a_stream_and_all_of_a_run_share_its_numbers() {
    let stream = EventStream::default();
    let names = [
        LIFECYCLE,
        TOOL,
        ASSISTANT,
        ERROR,
        COORDINATION,
        "my.own",
        "",
    ];
    for (name, seq) in names.into_iter().zip(1..) {
        let emitted = emit(&stream, on("a", name));
        assert_eq!((emitted.stream.as_str(), emitted.seq), (name, seq));
    }
}

#[test]
fn ev_05_listeners_are_called_in_order_before_emit_returns_and_may_come_and_go_meanwhile() {
    let stream = EventStream::default();
    let marks = Marks::default();
    let (a, c) = (marks.listener("a"), marks.listener("c"));
    let first = stream.listen(a.clone());
    assert_eq!(stream.listen(a.clone()), first, "the same runs once");
    // The second one takes the third away before its turn, and adds a fourth, which hears this event already.
    let added = marks.listener("d");
    let third = Arc::new(Mutex::new(None));
    let second: Arc<Listener> = {
        let (stream, marks, third) = (stream.clone(), marks.clone(), third.clone());
        Arc::new(move |event| {
            marks.add(format!("b{}", event.seq));
            if let Some(id) = third.lock().expect("no panic").take() {
                assert!(stream.unlisten(id));
                stream.listen(added.clone());
            }
        })
    };
    stream.listen(second);
    *third.lock().expect("no panic") = Some(stream.listen(c));
    emit(&stream, of("r"));
    assert_eq!(marks.take(), ["a1", "b1", "d1"]);
    assert!(stream.unlisten(first));
    assert!(!stream.unlisten(first), "it is gone");
    emit(&stream, of("r"));
    assert_eq!(marks.take(), ["b2", "d2"]);
    // One that emits is heard, too.
    let again: Arc<Listener> = {
        let stream = stream.clone();
        Arc::new(move |event| {
            if event.stream != TOOL {
                emit(&stream, on("r", TOOL));
            }
        })
    };
    stream.listen(again);
    emit(&stream, of("r"));
    assert_eq!(marks.take(), ["b3", "d3", "b4", "d4"]);
}

#[test]
fn ev_06_a_listener_that_panics_keeps_nobody_from_hearing() {
    let stream = EventStream::default();
    let marks = Marks::default();
    stream.listen(Arc::new(|_| panic!("listeners may panic")));
    stream.listen(marks.listener("a"));
    assert_eq!(seqs(&stream, ["r", "r"]), [1, 2]);
    assert_eq!(marks.take(), ["a1", "a2"]);
}

#[test]
fn ev_07_an_event_that_nobody_listens_to_is_gone() {
    let stream = EventStream::default();
    assert_eq!(emit(&stream, of("r")).seq, 1);
    let marks = Marks::default();
    stream.listen(marks.listener("a"));
    assert_eq!(marks.take(), [""; 0]);
    emit(&stream, of("r"));
    assert_eq!(marks.take(), ["a2"], "the number shows what was missed");
}

#[test]
fn ev_08_a_second_registration_changes_what_it_brings_and_never_the_lineage() {
    let stream = EventStream::default();
    stream.register(" ", RunContext::default());
    assert_eq!(stream.run_count(), 0, "a blank run is ignored");
    let first = RunContext {
        session_key: some("s"),
        session_id: some("i"),
        lineage_id: some("l"),
        verbose_level: some("full"),
        is_heartbeat: Some(true),
        is_hidden: None,
    };
    stream.register("r", first.clone());
    assert_eq!(stream.context("r"), Some(first.clone()));
    let nothing = RunContext {
        session_key: some(" "),
        verbose_level: some(""),
        ..RunContext::default()
    };
    stream.register("r", nothing);
    assert_eq!(stream.context("r"), Some(first.clone()));
    let more = RunContext {
        session_key: some("t"),
        session_id: some("j"),
        lineage_id: some("m"),
        verbose_level: some("off"),
        is_heartbeat: Some(false),
        is_hidden: Some(true),
    };
    stream.register("r", more.clone());
    let lineage_id = first.lineage_id;
    assert_eq!(stream.context("r"), Some(RunContext { lineage_id, ..more }));
}

#[test]
fn ev_09_generation_run_and_number_identify_an_event_also_after_a_clear() {
    let stream = EventStream::default();
    let context = RunContext {
        session_key: some("s"),
        ..RunContext::default()
    };
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..2 {
        for _ in 0..2 {
            stream.register("r", context.clone());
            for _ in 0..3 {
                let emitted = emit(&stream, of("r"));
                assert!(seen.insert((emitted.generation, emitted.run_id, emitted.seq)));
            }
            stream.clear("r");
            assert_eq!(stream.context("r"), None);
            assert_eq!(emit(&stream, of("r")).session_key, None);
        }
        stream.rotate();
    }
    assert_eq!(seen.len(), 12);
}

#[test]
fn ev_10_older_generations_get_no_number_idle_runs_are_swept_and_hidden_ones_keep_their_session() {
    let clock = ManualClock::at(1_000_000);
    let stream = EventStream::new(clock.clone());
    let (old, marks) = (stream.generation(), Marks::default());
    stream.listen(marks.listener("a"));
    assert_eq!(seqs(&stream, ["r", "r"]), [1, 2]);
    let new = stream.rotate();
    assert_ne!(old, new);
    let of_generation = |generation: &str| {
        stream.emit(Event {
            generation: some(generation),
            ..of("r")
        })
    };
    assert_eq!(of_generation(&old), None);
    assert_eq!(of_generation(&new).map(|emitted| emitted.seq), Some(1));
    assert_eq!(marks.take(), ["a1", "a2", "a1"], "nobody heard the old one");

    let context = RunContext {
        session_key: some("s"),
        session_id: some("i"),
        is_hidden: Some(true),
        ..RunContext::default()
    };
    stream.register("hidden", context);
    let shown = |name: &str| {
        let event = Event {
            session_key: some("own"),
            data: json!({"phase": "start"}),
            ..on("hidden", name)
        };
        let emitted = emit(&stream, event);
        (emitted.session_key, emitted.session_id)
    };
    assert_eq!(shown(LIFECYCLE), (some("own"), some("i")));
    assert_eq!(shown(TOOL), (None, None));

    // Half an hour less one millisecond, then the whole of it.
    clock.forward(30 * 60 * 1_000 - 1);
    assert_eq!(stream.sweep(), 0);
    emit(&stream, of("r"));
    clock.forward(1);
    assert_eq!((stream.sweep(), stream.run_count()), (1, 1));
    assert_eq!(stream.context("hidden"), None);
    assert_eq!(seqs(&stream, ["r"]), [3]);
}
