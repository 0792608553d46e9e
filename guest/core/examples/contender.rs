//! One more contender on a resource that many wait for: the work to count instructions of.
//!
//! `contender N` makes N steps wait for one resource, each in a plan of its own, and then submits one plan more. `one_more`
//! is what a profiler counts; see `tests/contender.sh`. Measures no time.

use qm2_core::config::Config;
use qm2_core::machine::Machine;
use qm2_core::message::{Caller, HookKind, Host, Message, Refused};
use std::hint::black_box;

/// A host that keeps the number of what it gets.
#[derive(Default)]
struct Counted {
    lines: usize,
    messages: usize,
}

impl Host for Counted {
    fn append(&mut self, lines: Vec<String>) -> Result<(), Refused> {
        self.lines += lines.len();
        Ok(())
    }
    fn enqueue(&mut self, messages: Vec<Message>) -> Result<(), Refused> {
        self.messages += messages.len();
        Ok(())
    }
    fn withdraw(&mut self, _: Vec<String>) -> Result<(), Refused> {
        Ok(())
    }
    fn enqueue_in_lane(&mut self, _: Message) -> Result<(), Refused> {
        Ok(())
    }
    fn cancel(&mut self, _: Vec<String>) -> Result<(), Refused> {
        Ok(())
    }
    fn ask(&mut self, _: &str, _: HookKind, _: &str) -> Result<(), Refused> {
        Ok(())
    }
    fn notify(&mut self, _: HookKind, _: &str) -> Result<(), Refused> {
        Ok(())
    }
}

fn plan(number: usize) -> String {
    format!(
        r#"{{"coordinationId":"c{number:06}","objective":"wait","ownerSession":"owner","steps":[{{"stepId":"s","targetSession":"agent:{number}","timeoutMs":1000000,"claims":[{{"resource":"file:shared"}}]}}]}}"#
    )
}

#[inline(never)]
fn one_more(machine: &mut Machine, host: &mut Counted, caller: &Caller, plan: &str) {
    let answer = machine.submit_plan(host, caller, 1, plan);
    let receipt = answer.expect("the call is within its bounds");
    black_box(receipt).expect("the plan is whole");
}

fn main() {
    let argument = std::env::args().nth(1).expect("how many wait");
    let waiters: usize = argument.parse().expect("a number");
    let mut config = Config::new("contenders");
    config.phase1.enabled = true;
    let (mut machine, mut host) = (Machine::new(), Counted::default());
    machine
        .configure(&mut host, &config.to_json())
        .expect("the configuration holds");
    let caller = Caller {
        session: "owner".into(),
        role: None,
    };
    // The first one holds the resource.
    for number in 0..=waiters {
        let answer = machine.submit_plan(&mut host, &caller, 1, &plan(number));
        answer
            .expect("the call is within its bounds")
            .expect("the plan is whole");
    }
    let last = plan(waiters + 1);
    let before = host.lines;
    one_more(&mut machine, &mut host, &caller, &last);
    // Its plan, the contest, and the decision that it waits.
    assert_eq!(host.lines - before, 3);
    assert_eq!(host.messages, 1);
    let wait = machine
        .explain_wait(&format!("c{:06}", waiters + 1), "s")
        .expect("it is live");
    assert!(
        wait.contains(&format!("\"place\":{}", waiters + 1)),
        "{wait}"
    );
}
