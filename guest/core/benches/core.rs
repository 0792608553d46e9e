//! How fast the core is, natively: every scenario of the workload, in steps or in records a second.
//!
//! For a look at one machine; whether a change made it slower is seen better from `.ci/counts`, which no other work on the
//! machine disturbs.

#[allow(dead_code)] // What other benchmarks of the same work use.
mod workload;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use workload::{SCENARIOS, Work};

fn scenarios(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("core");
    group.sample_size(20);
    for name in SCENARIOS {
        let work = Work::new(name);
        let mut machine = work.begin();
        let head = work.run(&mut machine);
        work.check(&machine, &head);
        let elements = if work.steps > 0 {
            work.steps
        } else {
            work.records
        };
        group.throughput(Throughput::Elements(elements as u64));
        group.bench_function(name, |bencher| {
            // What is given back is dropped outside of the measurement.
            let run = |mut machine| (work.run(&mut machine), machine);
            bencher.iter_batched(|| work.begin(), run, BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, scenarios);
criterion_main!(benches);
