//! What it costs to reach the core through the component: the fan-out of the core's benchmarks, one call of few and of many
//! envelopes, the JSON door, a call that only reads, and a new instance.
//!
//! Compare `boundary/fanout` with `core/fanout` of qm2-core, which is the same work without a component. No store and no agents.

#[allow(dead_code)] // What the core's benchmarks use of it.
#[path = "../../guest/core/benches/workload/mod.rs"]
mod workload;

use criterion::{BatchSize, Bencher, Criterion, Throughput, criterion_group, criterion_main};
use qm2_host::engine::{Answer, Call, Engine, Instance};
use serde_json::Value;
use std::hint::black_box;
use workload::Work;

/// Envelopes of one call.
const BATCHES: [usize; 3] = [1, 100, 512];

fn call(instance: &mut Instance, call: &Call) -> Answer {
    let answer = instance.call(call).expect("the instance lives");
    answer.expect("the call is within its bounds")
}

/// An instance that has this ledger.
fn instance_with(engine: &Engine, lines: &[String]) -> Instance {
    let mut instance = engine.instance().expect("an instance");
    let lines = lines.to_vec();
    call(
        &mut instance,
        &Call::Replay {
            lines,
            checked: true,
        },
    );
    instance
}

/// The calls of the core's `fanout`, each with what it hands out taken, in instances made before.
fn fanout(criterion: &mut Criterion, engine: &Engine) {
    let work = Work::new("fanout");
    let run = |instance: &mut Instance| {
        for one in work.calls() {
            black_box(call(instance, one));
            black_box(instance.take_staged());
        }
    };
    let mut instance = instance_with(engine, work.lines_before());
    run(&mut instance);
    let Answer::StateDigest(digest) = call(&mut instance, &Call::StateDigest) else {
        panic!("a digest was asked for");
    };
    let Answer::Head(head) = call(&mut instance, &Call::Head) else {
        panic!("the head was asked for");
    };
    work.check_digest(&head, &digest);
    let mut group = criterion.benchmark_group("boundary");
    group.sample_size(20);
    group.throughput(Throughput::Elements(work.steps as u64));
    group.bench_function("fanout", |bencher| {
        let new = || instance_with(engine, work.lines_before());
        bencher.iter_batched_ref(new, run, BatchSize::PerIteration);
    });
    group.finish();
}

fn taken(answer: &Answer, count: usize) {
    let Answer::Submit(results) = answer else {
        panic!("envelopes were submitted");
    };
    assert!(results.len() == count && results.iter().all(Result::is_ok));
}

/// The reports of so many steps in one call, through the WIT and through the JSON door.
fn one_call(criterion: &mut Criterion, engine: &Engine) {
    for count in BATCHES {
        let (domain, submit) = workload::one_call(count);
        let request = serde_json::to_string(&submit).expect("a call is JSON");
        let new = || instance_with(engine, &domain.lines);
        taken(&call(&mut new(), &submit), count);
        let door = |instance: &mut Instance| {
            let answer = instance.call_json("submit", &request);
            answer.expect("the instance lives")
        };
        let answer: Value = serde_json::from_str(&door(&mut new())).expect("the door says JSON");
        let results = answer["submit"].as_array().expect("one result each");
        assert!(results.len() == count && results.iter().all(|result| result["ok"].is_object()));

        let mut group = criterion.benchmark_group("boundary");
        group.sample_size(20);
        group.throughput(Throughput::Elements(count as u64));
        // An instance is made for each, as a report is taken once.
        group.bench_function(format!("submit/{count}"), |bencher: &mut Bencher<'_>| {
            let run = |instance: &mut Instance| call(instance, &submit);
            bencher.iter_batched_ref(new, run, BatchSize::PerIteration);
        });
        group.bench_function(
            format!("submit-json/{count}"),
            |bencher: &mut Bencher<'_>| {
                bencher.iter_batched_ref(new, door, BatchSize::PerIteration);
            },
        );
        group.finish();
    }
}

/// What a call costs that does nothing, and what an instance costs, the component being compiled.
fn least(criterion: &mut Criterion, engine: &Engine) {
    let mut group = criterion.benchmark_group("boundary");
    let mut instance = engine.instance().expect("an instance");
    group.bench_function("head", |bencher| {
        bencher.iter(|| call(&mut instance, &Call::Head));
    });
    group.bench_function("instance", |bencher| {
        bencher.iter_with_large_drop(|| engine.instance().expect("an instance"));
    });
    group.finish();
}

fn boundary(criterion: &mut Criterion) {
    let engine = Engine::new().expect("the component compiles");
    fanout(criterion, &engine);
    one_call(criterion, &engine);
    least(criterion, &engine);
}

criterion_group!(benches, boundary);
criterion_main!(benches);
