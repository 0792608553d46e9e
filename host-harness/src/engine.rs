//! wasmtime around the component: a deterministic configuration, a compiled component, instances with a memory limit
//! and a deadline for every call.
//!
//! Links exactly the interfaces of the WIT and no WASI. An instance that traps, overruns its deadline or breaks the contract
//! is dead, and nothing of that call is left. Does not keep anything: what an instance says is staged and taken by the
//! caller.

use crate::cache;
use crate::component::HostState;
pub use crate::component::ImportFault;
use crate::component::bindings::exports::qm2::coordination::{
    arbitration, coordination, json as door, recovery,
};
use crate::component::bindings::qm2::coordination::{event_stream, hooks, lanes, queue, types};
use crate::component::bindings::{Coordinator, CoordinatorPre};
use crate::contract::Allowance;
use crate::convert::{self, contested};
use crate::error::{HostError, Result};
pub use qm2_core::call::{Answer, Call};
use qm2_core::digest::sha256_hex;
use qm2_core::envelope::Envelope;
use qm2_core::receipt::CallError;
pub use qm2_core::staged::{HookRequest, Staged};
use serde_json::json;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Config, EngineWeak, Store, StoreLimitsBuilder, Trap};

/// How often the deadline of a call is looked at; a deadline is met within one tick.
const TICK: Duration = Duration::from_millis(20);

/// Tables, and their elements, of an instance: the one of its functions, and those that join its parts.
const TABLES_MAX: usize = 16;
const TABLE_ELEMENTS_MAX: usize = 1_000_000;
/// The interpreter, by the width and byte order of this machine.
const PULLEY: &str = match (size_of::<usize>(), cfg!(target_endian = "big")) {
    (8, false) => "pulley64",
    (8, true) => "pulley64be",
    (_, false) => "pulley32",
    (_, true) => "pulley32be",
};
/// Core modules of an instance: the program, and what joins it to the imports.
const CORE_INSTANCES_MAX: usize = 64;

/// What bounds an instance. One that passes a bound dies; see [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Longest linear memory of an instance in bytes; it has one.
    pub memory_bytes_max: usize,
    /// Longest duration of one export call, and of making an instance.
    pub call_deadline: Duration,
    /// Most bytes that the host keeps of what one call hands it, and that one call or answer may carry over.
    pub staged_bytes_max: usize,
    /// Most ledger lines, messages, keys, and words to hooks of one call, all together.
    pub staged_count_max: usize,
    /// Whether the component is interpreted (by Pulley) instead of compiled to code of this machine: slower, and with the same
    /// answers to the byte.
    pub interpreted: bool,
}

impl Default for Sandbox {
    /// 2 GiB, 30 seconds, and 2 GiB in 4 000 000 things: what a domain at all of its bounds may say in one call.
    fn default() -> Self {
        Self {
            memory_bytes_max: 2 * 1024 * 1024 * 1024,
            call_deadline: Duration::from_secs(30),
            staged_bytes_max: 2 * 1024 * 1024 * 1024,
            staged_count_max: 4_000_000,
            interpreted: false,
        }
    }
}

/// The compiled component; cheap to clone, and shared by any number of domains.
#[derive(Clone)]
pub struct Engine {
    engine: wasmtime::Engine,
    /// SHA-256 of the component's bytes.
    digest: Arc<str>,
    pre: Arc<CoordinatorPre<HostState>>,
    sandbox: Sandbox,
}

/// Why an instance died. What it had staged in this call is gone, and so is the instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It trapped, or did what the contract does not allow.
    Trap(String),
    /// The call took longer than its deadline.
    Deadline,
    /// It died in an earlier call.
    Dead,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trap(message) => write!(f, "trap: {message}"),
            Self::Deadline => f.write_str("the call took longer than its deadline"),
            Self::Dead => f.write_str("the instance died in an earlier call"),
        }
    }
}

impl std::error::Error for Fault {}

impl Engine {
    /// Compiles the embedded component, or takes it from the user's cache folder.
    ///
    /// # Errors
    /// [`HostError::Component`] if the component does not compile or imports what it must not.
    pub fn new() -> Result<Self> {
        Self::with(Sandbox::default(), None)
    }

    /// As [`Engine::new`], with other bounds, and a folder to cache in where the user has no cache folder.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn with(sandbox: Sandbox, cache_fallback: Option<&Path>) -> Result<Self> {
        Self::of_component(crate::COMPONENT, sandbox, cache_fallback)
    }

    /// As [`Engine::with`], of another component than the embedded one, such as a newer `qm2.wasm`. It takes a ledger up
    /// where the last one left it, or refuses it. Whatever it does, the host and other domains go on.
    ///
    /// # Errors
    /// [`HostError::Component`] if the bytes are no component, do not compile, do not have the world's exports, or import
    /// anything else than the interfaces of the world.
    pub fn of_component(
        component: &[u8],
        sandbox: Sandbox,
        cache_fallback: Option<&Path>,
    ) -> Result<Self> {
        let failed = |e: wasmtime::Error| HostError::Component(format!("{e:#}"));
        let engine = config(sandbox.interpreted)
            .and_then(|config| wasmtime::Engine::new(&config))
            .map_err(failed)?;
        let digest = sha256_hex(&[component]).into();
        let component = cache::compiled(&engine, component, cache_fallback)?;
        let pre = link(&engine, &component).map_err(failed)?;
        start_ticker(engine.weak());
        Ok(Self {
            engine,
            digest,
            pre: Arc::new(pre),
            sandbox,
        })
    }

    /// SHA-256 of the component's bytes, in hexadecimal.
    #[must_use]
    pub fn component_digest(&self) -> &str {
        &self.digest
    }

    pub(crate) fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// A new instance without any record.
    ///
    /// # Errors
    /// [`HostError::Component`] if it cannot be made.
    pub fn instance(&self) -> Result<Instance> {
        let limits = StoreLimitsBuilder::new()
            .memory_size(self.sandbox.memory_bytes_max)
            .memories(1)
            .tables(TABLES_MAX)
            .table_elements(TABLE_ELEMENTS_MAX)
            .instances(CORE_INSTANCES_MAX)
            .trap_on_grow_failure(true)
            .build();
        let allowance =
            Allowance::new(self.sandbox.staged_bytes_max, self.sandbox.staged_count_max);
        let mut store = Store::new(&self.engine, HostState::new(limits, allowance));
        store.limiter(|state| &mut state.limits);
        // What it carries over is copied before anyone can count it, and many texts may lie in one place there.
        store.set_hostcall_fuel(self.sandbox.staged_bytes_max);
        let ticks = self.sandbox.call_deadline.as_millis() / TICK.as_millis() + 1;
        let deadline_ticks = u64::try_from(ticks).unwrap_or(u64::MAX >> 1);
        // A component may run code of its own before the first call.
        store.set_epoch_deadline(deadline_ticks);
        let coordinator = self
            .pre
            .instantiate(&mut store)
            .map_err(|e| HostError::Component(format!("{e:#}")))?;
        Ok(Instance {
            store,
            coordinator,
            deadline_ticks,
            dead: false,
        })
    }
}

/// Same inputs, same bytes, on every platform: nothing that may differ is on.
fn config(interpreted: bool) -> wasmtime::Result<Config> {
    let mut config = Config::new();
    if interpreted {
        config.target(PULLEY)?;
    }
    config
        .wasm_relaxed_simd(false)
        .relaxed_simd_deterministic(true)
        .wasm_shared_everything_threads(false)
        .shared_memory(false)
        .cranelift_nan_canonicalization(true)
        .epoch_interruption(true);
    Ok(config)
}

fn link(
    engine: &wasmtime::Engine,
    component: &Component,
) -> wasmtime::Result<CoordinatorPre<HostState>> {
    let mut linker = Linker::<HostState>::new(engine);
    types::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    event_stream::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    queue::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    lanes::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    hooks::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    CoordinatorPre::new(linker.instantiate_pre(component)?)
}

/// Deadlines need someone who counts; ends with the engine.
fn start_ticker(engine: EngineWeak) {
    let ticker = thread::Builder::new().name("qm2-epoch".into());
    let started = ticker.spawn(move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
        }
    });
    if let Err(e) = started {
        tracing::warn!(
            "calls of the component run without a deadline: no thread to count time: {e}"
        );
    }
}

/// One instance of the component: the state of one domain.
pub struct Instance {
    store: Store<HostState>,
    coordinator: Coordinator,
    deadline_ticks: u64,
    dead: bool,
}

type Door = fn(&door::Guest, &mut Store<HostState>, &str) -> wasmtime::Result<String>;

/// The functions of the JSON door.
static DOORS: [(&str, Door); 22] = [
    ("configure", |door, store, text| {
        door.call_configure(store, text)
    }),
    ("submit-plan", |door, store, text| {
        door.call_submit_plan(store, text)
    }),
    ("submit", |door, store, text| door.call_submit(store, text)),
    ("acknowledge", |door, store, text| {
        door.call_acknowledge(store, text)
    }),
    ("advance", |door, store, text| {
        door.call_advance(store, text)
    }),
    ("next-deadline", |door, store, text| {
        door.call_next_deadline(store, text)
    }),
    ("notice", |door, store, text| door.call_notice(store, text)),
    ("verdict", |door, store, text| {
        door.call_verdict(store, text)
    }),
    ("answer", |door, store, text| door.call_answer(store, text)),
    ("arbitrate", |door, store, text| {
        door.call_arbitrate(store, text)
    }),
    ("claim", |door, store, text| door.call_claim(store, text)),
    ("renew", |door, store, text| door.call_renew(store, text)),
    ("release", |door, store, text| {
        door.call_release(store, text)
    }),
    ("check", |door, store, text| door.call_check(store, text)),
    ("describe", |door, store, text| {
        door.call_describe(store, text)
    }),
    ("explain-wait", |door, store, text| {
        door.call_explain_wait(store, text)
    }),
    ("head", |door, store, text| door.call_head(store, text)),
    ("replay", |door, store, text| door.call_replay(store, text)),
    ("snapshot", |door, store, text| {
        door.call_snapshot(store, text)
    }),
    ("restore", |door, store, text| {
        door.call_restore(store, text)
    }),
    ("reconcile", |door, store, text| {
        door.call_reconcile(store, text)
    }),
    ("state-digest", |door, store, text| {
        door.call_state_digest(store, text)
    }),
];

/// What JSON can say and the WIT cannot: content and a reference to it at once. Sent on, one of them would be lost.
fn unspeakable(call: &Call) -> Option<CallError> {
    let Call::Submit { envelopes, .. } = call else {
        return None;
    };
    let both = |envelope: &Envelope| envelope.payload.is_some() && envelope.payload_ref.is_some();
    let index = envelopes.iter().position(both)?;
    let field = format!("envelopes[{index}].payloadRef");
    let says = format!("{field} stands beside payload; one of the two is allowed");
    Some(CallError::bound(&field, says))
}

impl Instance {
    /// Calls an exported function. What it says meanwhile is staged: see [`Instance::take_staged`].
    ///
    /// # Errors
    /// The outer one says that the instance died in this call; the inner one is the component's own refusal of the
    /// whole call.
    pub fn call(&mut self, call: &Call) -> Result<Result<Answer, CallError>, Fault> {
        if self.dead {
            return Err(Fault::Dead);
        }
        if let Some(refused) = unspeakable(call) {
            return Ok(Err(refused));
        }
        let answer = self.guarded(call.name(), |instance| instance.dispatch(call))?;
        Ok(answer.map_err(convert::call_error_from_wit))
    }

    /// Calls a function of the JSON door, by its name in the WIT. Answers as `{"error": …}` where there is no such function.
    ///
    /// # Errors
    /// The instance died in this call.
    pub fn call_json(&mut self, function: &str, request: &str) -> Result<String, Fault> {
        if self.dead {
            return Err(Fault::Dead);
        }
        let Some(door) = DOORS.iter().find(|(name, _)| *name == function) else {
            let message = format!("call is {function:?}, no function");
            let error = json!({"code": "invalid-request", "message": message, "field": "call"});
            return Ok(json!({ "error": error }).to_string());
        };
        self.guarded(door.0, |instance| {
            let exports = instance.coordinator.qm2_coordination_json();
            door.1(exports, &mut instance.store, request)
        })
    }

    /// Makes a call, with its deadline and what its host still takes; an instance that breaks a bound is dead after it.
    fn guarded<T>(
        &mut self,
        function: &'static str,
        call: impl FnOnce(&mut Self) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        self.store.set_epoch_deadline(self.deadline_ticks);
        let host = self.store.data_mut();
        (host.imports, host.fault_struck) = (0, false);
        host.allowance.begin(function);
        match call(self) {
            Ok(answer) => Ok(answer),
            Err(e) => {
                self.dead = true;
                // Of a host that died on purpose is looked at what it had taken before.
                if !self.store.data().fault_struck {
                    self.store.data_mut().staged = Staged::default();
                }
                Err(match e.downcast_ref::<Trap>() {
                    Some(Trap::Interrupt) => Fault::Deadline,
                    _ => {
                        tracing::debug!("{e:?}");
                        Fault::Trap(e.root_cause().to_string())
                    }
                })
            }
        }
    }

    /// Fails one import of the calls that follow, or none from here on. A host for users never does; simulations do.
    pub fn fail_import(&mut self, fault: Option<ImportFault>) {
        self.store.data_mut().fault = fault;
    }

    /// Whether the last call came to the import that fails.
    #[must_use]
    pub fn import_fault_struck(&self) -> bool {
        self.store.data().fault_struck
    }

    /// Takes what was staged since the last time.
    pub fn take_staged(&mut self) -> Staged {
        let state = self.store.data_mut();
        state.allowance.taken();
        state.staged.take()
    }

    /// Bytes of its linear memory, which grows in whole pages and never shrinks.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.store.data().limits.memory_bytes
    }

    /// From here on its host does not take ledger lines: how the loss of a disk is tried out.
    pub fn refuse_appends(&mut self) {
        self.store.data_mut().staged.refuses_append = true;
    }

    /// Bytes that are kept for what was staged since the last time.
    pub(crate) fn staged_bytes(&self) -> usize {
        self.store.data().allowance.bytes()
    }

    fn dispatch(&mut self, call: &Call) -> wasmtime::Result<Result<Answer, types::CallError>> {
        match call {
            Call::Replay { .. }
            | Call::Snapshot { .. }
            | Call::Restore { .. }
            | Call::Reconcile
            | Call::StateDigest => self.dispatch_recovery(call),
            Call::Arbitrate { .. }
            | Call::Claim { .. }
            | Call::Renew { .. }
            | Call::Release { .. }
            | Call::Check { .. } => self.dispatch_arbitration(call),
            _ => self.dispatch_coordination(call),
        }
    }

    fn dispatch_coordination(
        &mut self,
        call: &Call,
    ) -> wasmtime::Result<Result<Answer, types::CallError>> {
        let exports: &coordination::Guest = self.coordinator.qm2_coordination_coordination();
        let store = &mut self.store;
        let receipts = |items: Vec<_>| items.into_iter().map(convert::receipt_from_wit).collect();
        Ok(match call {
            Call::Configure { config } => exports
                .call_configure(store, config)?
                .map(|()| Answer::Configure),
            Call::SubmitPlan {
                caller,
                now_ms,
                plan,
            } => exports
                .call_submit_plan(store, &convert::caller_to_wit(caller), *now_ms, plan)?
                .map(|receipt| Answer::SubmitPlan(convert::plan_receipt_from_wit(receipt))),
            Call::Submit {
                caller,
                now_ms,
                envelopes,
            } => {
                let envelopes: Vec<_> = envelopes.iter().map(convert::envelope_to_wit).collect();
                exports
                    .call_submit(store, &convert::caller_to_wit(caller), *now_ms, &envelopes)?
                    .map(|items| Answer::Submit(receipts(items)))
            }
            Call::Acknowledge {
                caller,
                now_ms,
                keys,
            } => exports
                .call_acknowledge(store, &convert::caller_to_wit(caller), *now_ms, keys)?
                .map(|items| Answer::Acknowledge(receipts(items))),
            Call::Advance { now_ms } => exports.call_advance(store, *now_ms)?.map(Answer::Advance),
            Call::Notice { now_ms, notices } => {
                let notices: Vec<_> = notices.iter().map(convert::notice_to_wit).collect();
                exports
                    .call_notice(store, *now_ms, &notices)?
                    .map(|items| Answer::Notice(receipts(items)))
            }
            Call::Verdict {
                now_ms,
                hook_id,
                handler,
                verdict,
            } => {
                let verdict = convert::hook_verdict_to_wit(verdict);
                exports
                    .call_verdict(store, *now_ms, hook_id, handler, &verdict)?
                    .map(|receipt| Answer::Verdict(convert::receipt_from_wit(receipt)))
            }
            Call::Answer {
                actor,
                now_ms,
                escalation_id,
                digest,
                verdict,
                text,
            } => exports
                .call_answer(
                    store,
                    &convert::caller_to_wit(actor),
                    *now_ms,
                    escalation_id,
                    digest,
                    convert::human_verdict_to_wit(*verdict),
                    text.as_deref(),
                )?
                .map(|receipt| Answer::Answer(convert::receipt_from_wit(receipt))),
            Call::Describe { id } => exports.call_describe(store, id)?.map(Answer::Describe),
            Call::ExplainWait { id, step_id } => exports
                .call_explain_wait(store, id, step_id)?
                .map(Answer::ExplainWait),
            Call::Head => exports
                .call_head(store)?
                .map(|head| Answer::Head(convert::head_from_wit(head))),
            _ => exports.call_next_deadline(store)?.map(Answer::NextDeadline),
        })
    }

    fn dispatch_arbitration(
        &mut self,
        call: &Call,
    ) -> wasmtime::Result<Result<Answer, types::CallError>> {
        let exports: &arbitration::Guest = self.coordinator.qm2_coordination_arbitration();
        let store = &mut self.store;
        Ok(match call {
            Call::Arbitrate { contest, policy } => {
                let contest = contested::contest_to_wit(contest);
                exports
                    .call_arbitrate(store, &contest, &contested::policy_to_wit(policy))?
                    .map(|decision| Answer::Arbitrate(contested::decision_from_wit(decision)))
            }
            Call::Claim {
                caller,
                now_ms,
                request,
            } => {
                let request = contested::claim_request_to_wit(request);
                exports
                    .call_claim(store, &convert::caller_to_wit(caller), *now_ms, &request)?
                    .map(|grant| Answer::Claim(contested::grant_from_wit(grant)))
            }
            Call::Renew {
                caller,
                now_ms,
                coordination_id,
                step_id,
                attempt,
                tokens,
            } => {
                let caller = convert::caller_to_wit(caller);
                exports
                    .call_renew(
                        store,
                        &caller,
                        *now_ms,
                        coordination_id,
                        step_id,
                        *attempt,
                        tokens,
                    )?
                    .map(|grants| Answer::Renew(contested::grants_from_wit(grants)))
            }
            Call::Release {
                caller,
                now_ms,
                coordination_id,
                step_id,
                attempt,
                tokens,
            } => {
                let caller = convert::caller_to_wit(caller);
                exports
                    .call_release(
                        store,
                        &caller,
                        *now_ms,
                        coordination_id,
                        step_id,
                        *attempt,
                        tokens,
                    )?
                    .map(|receipt| Answer::Release(convert::receipt_from_wit(receipt)))
            }
            Call::Check {
                now_ms,
                resource,
                session,
                token,
                mode,
                regions,
                base_version,
            } => {
                let mode = contested::access_to_wit(*mode);
                let regions = contested::regions_to_wit(regions);
                exports
                    .call_check(
                        store,
                        *now_ms,
                        resource,
                        session,
                        *token,
                        mode,
                        &regions,
                        base_version.as_deref(),
                    )?
                    .map(|verdict| Answer::Check(contested::guard_verdict_from_wit(verdict)))
            }
            _ => return Err(wasmtime::format_err!("{} is no such call", call.name())),
        })
    }

    fn dispatch_recovery(
        &mut self,
        call: &Call,
    ) -> wasmtime::Result<Result<Answer, types::CallError>> {
        let exports: &recovery::Guest = self.coordinator.qm2_coordination_recovery();
        let store = &mut self.store;
        Ok(match call {
            Call::Replay { lines, checked } => exports
                .call_replay(store, lines, *checked)?
                .map(|head| Answer::Replay(convert::head_from_wit(head))),
            Call::Snapshot { cursor, max_bytes } => exports
                .call_snapshot(store, cursor.as_deref(), *max_bytes)?
                .map(|chunk| Answer::Snapshot(convert::chunk_from_wit(chunk))),
            Call::Restore { chunk, last } => exports
                .call_restore(store, chunk, *last)?
                .map(|head| Answer::Restore(convert::head_from_wit(head))),
            Call::Reconcile => exports.call_reconcile(store)?.map(|()| Answer::Reconcile),
            _ => exports.call_state_digest(store)?.map(Answer::StateDigest),
        })
    }
}
