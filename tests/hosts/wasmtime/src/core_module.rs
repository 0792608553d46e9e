//! The plain core module in wasmtime's core API: how a host without components loads it.
//!
//! Knows no rule and keeps nothing; what is handed out is staged as by the component's host.

use crate::artifact;
use crate::door::Door;
use crate::handed;
use qm2_core::call::{Answer, Call};
use qm2_core::message::Refused;
use qm2_core::receipt::CallError;
use qm2_core::staged::Staged;
use qm2_host::engine::Fault;
use std::sync::OnceLock;
use wasmtime::{Caller, Config, Engine, Instance, Linker, Memory, Module, Store, TypedFunc};

/// What a store of the module carries.
#[derive(Default)]
struct HostState {
    staged: Staged,
    /// The import of this call, from 0, in which the host dies.
    dies_at: Option<u32>,
    imports: u32,
    died: bool,
}

impl HostState {
    fn take(&mut self, text: &str) -> wasmtime::Result<Result<(), Refused>> {
        self.imports += 1;
        if self.dies_at == Some(self.imports - 1) {
            self.died = true;
            wasmtime::bail!("the host dies here, on purpose");
        }
        handed::stage(&mut self.staged, text).map_err(wasmtime::Error::msg)
    }
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<HostState>> {
    let mut linker = Linker::new(engine);
    linker.func_wrap(
        "qm2",
        "call",
        |mut caller: Caller<'_, HostState>, ptr: u32, len: u32| -> wasmtime::Result<u32> {
            let memory = caller.get_export("memory").and_then(|it| it.into_memory());
            let memory = memory.ok_or_else(|| wasmtime::format_err!("it exports no memory"))?;
            let text = text(memory.data(&caller), ptr, len)?;
            let taken = caller.data_mut().take(&text)?;
            Ok(u32::from(taken.is_err()))
        },
    )?;
    Ok(linker)
}

fn text(memory: &[u8], ptr: u32, len: u32) -> wasmtime::Result<String> {
    let from = ptr as usize;
    let bytes = memory.get(from..from.saturating_add(len as usize));
    let bytes = bytes.ok_or_else(|| wasmtime::format_err!("a text outside its memory"))?;
    Ok(std::str::from_utf8(bytes)?.to_owned())
}

/// The module, compiled once.
fn module(interpreted: bool) -> &'static Module {
    static MODULES: [OnceLock<Module>; 2] = [OnceLock::new(), OnceLock::new()];
    MODULES[usize::from(interpreted)].get_or_init(|| {
        let mut config = Config::new();
        if interpreted {
            config.target("pulley64").expect("the interpreter is there");
        }
        let engine = Engine::new(&config).expect("wasmtime has an engine");
        Module::new(&engine, artifact::core_module()).expect("the core module compiles")
    })
}

/// An instance of the module with its host.
pub struct CoreModule<const INTERPRETED: bool> {
    store: Store<HostState>,
    memory: Memory,
    alloc: TypedFunc<u32, u32>,
    call: TypedFunc<(u32, u32), u64>,
    free: TypedFunc<(u32, u32), ()>,
}

impl<const INTERPRETED: bool> CoreModule<INTERPRETED> {
    fn new() -> wasmtime::Result<Self> {
        let module = module(INTERPRETED);
        let mut store = Store::new(module.engine(), HostState::default());
        let instance: Instance = linker(module.engine())?.instantiate(&mut store, module)?;
        let memory = instance.get_memory(&mut store, "memory");
        Ok(Self {
            memory: memory.ok_or_else(|| wasmtime::format_err!("it exports no memory"))?,
            alloc: instance.get_typed_func(&mut store, "alloc")?,
            call: instance.get_typed_func(&mut store, "call")?,
            free: instance.get_typed_func(&mut store, "free")?,
            store,
        })
    }

    fn text(&mut self, request: &str) -> wasmtime::Result<String> {
        let (store, len) = (&mut self.store, u32::try_from(request.len())?);
        let ptr = self.alloc.call(&mut *store, len)?;
        self.memory
            .write(&mut *store, ptr as usize, request.as_bytes())?;
        let answer = self.call.call(&mut *store, (ptr, len))?;
        let (ptr, len) = ((answer >> 32) as u32, answer as u32);
        let text = text(self.memory.data(&*store), ptr, len)?;
        self.free.call(&mut *store, (ptr, len))?;
        Ok(text)
    }
}

impl<const INTERPRETED: bool> Door for CoreModule<INTERPRETED> {
    const NAME: &str = "core";

    fn open() -> Self {
        Self::new().expect("an instance of the core module")
    }

    fn try_call(&mut self, call: &Call) -> Result<Result<Answer, CallError>, Fault> {
        let state = self.store.data_mut();
        (state.imports, state.died) = (0, false);
        let request = serde_json::to_string(call).map_err(|e| Fault::Trap(e.to_string()))?;
        match self.text(&request) {
            Ok(answer) => crate::door::parse(&answer),
            Err(e) => Err(Fault::Trap(e.root_cause().to_string())),
        }
    }

    fn take_staged(&mut self) -> Staged {
        self.store.data_mut().staged.take()
    }

    fn refuse_appends(&mut self) {
        self.store.data_mut().staged.refuses_append = true;
    }

    fn die_at(&mut self, import: Option<u32>) {
        self.store.data_mut().dies_at = import;
    }

    fn died(&self) -> bool {
        self.store.data().died
    }
}
