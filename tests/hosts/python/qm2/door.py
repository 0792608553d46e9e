"""The component in wasmtime, behind two of its doors: `records` (the typed interfaces) and `json` (the text interface).

An instance is called with Python values and answers with them; what it hands out meanwhile goes to `Imports`. Rebuilding an
instance that is spent, and keeping what was handed out, is the work of `domain`.
"""

from __future__ import annotations

import ctypes
import json
from ctypes import byref
from os import PathLike
from typing import Any, Callable, Optional, Protocol, Union

from wasmtime import Engine, Store, WasmtimeError
from wasmtime import _ffi as ffi
from wasmtime import component as wc

from . import form
from . import schema as s
from . import types as t
from . import values


class Imports(Protocol):
    """What an instance is given. False says unavailable or busy; an exception counts as that, and is kept in `Failed`."""

    def append(self, lines: list[str]) -> bool: ...
    def enqueue(self, messages: list[t.Message]) -> bool: ...
    def withdraw(self, keys: list[str]) -> bool: ...
    def enqueue_in_lane(self, lane: str, priority: t.Priority, message: t.Message) -> bool: ...
    def cancel(self, keys: list[str]) -> bool: ...
    def ask(self, hook_id: str, kind: t.HookKind, subject: str) -> bool: ...
    def notify(self, kind: t.HookNotice, subject: str) -> bool: ...


class InstanceLost(Exception):
    """The instance trapped, or an import of it raised (then that is the cause). Nothing of the call may be kept, and the
    instance is of no more use."""


class Instance(Protocol):
    """One instance of QM2, whatever its door."""

    def call(self, name: str, *arguments: Any) -> Any:
        """The answer; `CallError` where the whole call was refused; `FormError`, before the call, for a wrong argument."""

    def memory_bytes(self) -> Optional[int]:
        """Size of its linear memory, where the door can see it."""

    def close(self) -> None: ...


class Door(Protocol):
    """Makes instances."""

    name: str

    def instance(self, imports: Imports) -> Instance: ...


class Guarded:
    """Calls imports so that nothing they raise reaches the component."""

    def __init__(self, imports: Imports) -> None:
        self.imports = imports
        self.raised: Optional[BaseException] = None

    def call(self, read: Callable[[], tuple[str, Any]]) -> bool:
        """`read` says which import, and with what."""
        try:
            name, arguments = read()
            return bool(getattr(self.imports, name.replace("-", "_"))(*arguments))
        except BaseException as error:  # also an interrupt: it must not unwind through the component
            self.raised = self.raised or error
            return False

    def check(self) -> None:
        """After a call: what an import raised is raised now."""
        raised, self.raised = self.raised, None
        if raised is not None:
            raise InstanceLost(f"a host function raised {raised!r}") from raised


class Component:
    """The compiled component; its doors share it."""

    def __init__(self, path: Union[str, PathLike[str]], engine: Optional[Engine] = None) -> None:
        self.engine = engine or Engine()
        self.compiled = wc.Component.from_file(self.engine, path)
        kind = self.compiled.type
        self.exports = self._functions(kind.exports(self.engine))
        imports = self._functions(kind.imports(self.engine))
        for function in s.EXPORTS.values():
            self._compare(function, self.exports)
        for function in s.IMPORTS.values():
            self._compare(function, imports)

    def _functions(self, items: dict[str, Any]) -> dict[tuple[str, str], Any]:
        found = {}
        for instance, item in items.items():
            if isinstance(item.ty, wc.ComponentInstanceType):
                for name, inner in item.ty.exports(self.engine).items():
                    if isinstance(inner.ty, wc.FuncType):
                        found[instance, name] = inner.ty
        return found

    @staticmethod
    def _compare(function: s.Function, real: dict[tuple[str, str], Any]) -> None:
        ty = real.get((function.instance, function.name))
        if ty is None:
            raise ValueError(f"the component has no {function.instance}#{function.name}")
        params = [(name.replace("_", "-"), kind) for name, kind in function.params]
        if [name for name, _ in ty.params] != [name for name, _ in params]:
            raise ValueError(f"{function.name} has other parameters in this component: {[name for name, _ in ty.params]}")
        for (name, kind), (_, got) in zip(params, ty.params):
            for says in values.match(kind, got):
                raise ValueError(f"{function.name}({name}) has another type in this component: {says}")
        for says in values.match(function.result, ty.result):
            raise ValueError(f"{function.name} has another answer in this component: {says}")

    def door(self, name: str) -> Door:
        return Records(self) if name == "records" else Json(self)


class _Instance:
    """What both doors share: a store of its own, since a trap poisons the whole store; the imports; and calling."""

    def __init__(self, component: Component, imports: Imports) -> None:
        self._guarded = Guarded(imports)
        self._store = Store(component.engine)
        # A linker of its own, so that its callbacks are this instance's.
        self._linker = wc.Linker(component.engine)
        self._callbacks: list[Any] = []  # the linker holds only their addresses
        with self._linker.root() as root:
            for interface in dict.fromkeys(function.instance for function in s.IMPORTS.values()):
                with root.add_instance(interface) as instance:
                    for function in s.IMPORTS.values():
                        if function.instance == interface:
                            self._add(instance, function)
        self._instance = self._linker.instantiate(self._store, component.compiled)
        self._functions: dict[str, Any] = {}
        self._arena = values.Arena()
        self._result = ffi.wasmtime_component_val_t()

    def _add(self, instance: Any, function: s.Function) -> None:
        assert isinstance(function.result.err, s.Enum)
        lifters = [values.lifter(ty) for _, ty in function.params]
        refusal, guarded, size = function.result.err.words[0], self._guarded, values.VALUE.size

        def callback(_: Any, __: Any, ___: Any, args: Any, count: int, results: Any, ____: int) -> int:
            address = ctypes.addressof(args.contents)
            # The C API frees the arguments when this returns; only what was read out of them lives on.
            ok = guarded.call(
                lambda: (function.name, [lift(*values.words_at(address + size * i)) for i, lift in enumerate(lifters)])
            )
            result = results[0]
            result.kind = ffi.WASMTIME_COMPONENT_RESULT
            result.of.result.is_ok = ok
            result.of.result.val = None if ok else _enum(refusal)
            return 0

        raw = ffi.wasmtime_component_func_callback_t(callback)
        self._callbacks.append(raw)
        name = function.name.encode()
        error = ffi.wasmtime_component_linker_instance_add_func(instance.ptr(), name, len(name), raw, None, _FINALIZE)
        if error:
            raise WasmtimeError._from_ptr(error)

    def _function(self, interface: str, name: str) -> Any:
        if name not in self._functions:
            outer = self._instance.get_export_index(self._store, interface)
            index = self._instance.get_export_index(self._store, name, outer) if outer else None
            found = self._instance.get_func(self._store, index) if index else None
            if found is None:
                raise ValueError(f"the component has no {interface}#{name}")
            self._functions[name] = found._func
        return self._functions[name]

    def _run(self, function: Any, address: int, count: int, lift: Callable[[Any], Any]) -> Any:
        result = self._result
        args = ctypes.cast(address, _VALUES)
        error = ffi.wasmtime_component_func_call(byref(function), self._store._context(), args, count, byref(result), 1)
        if error:
            trap = WasmtimeError._from_ptr(error)
            self._guarded.raised, raised = None, self._guarded.raised
            raise InstanceLost(str(trap)) from (raised or trap)
        try:
            self._guarded.check()
            return lift(values.words_at(ctypes.addressof(result)))
        finally:
            ffi.wasmtime_component_val_delete(byref(result))
            result.kind = ffi.WASMTIME_COMPONENT_BOOL  # the next call drops what it finds here

    def memory_bytes(self) -> Optional[int]:
        return None  # a component shows nobody its memory

    def close(self) -> None:
        """Frees the instance now, without waiting for a collection of garbage."""
        self._functions.clear()
        self._store.close()
        self._linker.close()
        self._callbacks.clear()


_VALUES = ctypes.POINTER(ffi.wasmtime_component_val_t)


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)  # type: ignore[misc]
def _FINALIZE(_: Any) -> None:
    """The callbacks are kept by their instance, so there is nothing to free."""


def _enum(name: str) -> Any:
    value = ffi.wasmtime_component_val_t()
    value.kind = ffi.WASMTIME_COMPONENT_ENUM
    value.of.enumeration = ffi.str_to_capi(name)
    return ffi.wasmtime_component_val_new(byref(value))


class Records:
    """The typed interfaces."""

    name = "records"

    def __init__(self, component: Component) -> None:
        self.component = component

    def instance(self, imports: Imports) -> Instance:
        return _RecordsInstance(self.component, imports)


class _RecordsInstance(_Instance):
    def call(self, name: str, *arguments: Any) -> Any:
        function = s.EXPORTS[name]
        if len(arguments) != len(function.params):
            raise TypeError(f"{name} takes {len(function.params)} arguments")
        address = self._arena.lower([values.lowerer(ty) for _, ty in function.params], arguments)
        lift = values.lifter(function.result)
        answer = self._run(self._function(function.instance, name), address, len(arguments), lambda words: lift(*words))
        if isinstance(answer, t.CallError):
            raise answer
        return answer


class Json:
    """The text interface; what is handed out still comes as records."""

    name = "json"

    def __init__(self, component: Component) -> None:
        self.component = component

    def instance(self, imports: Imports) -> Instance:
        return _JsonInstance(self.component, imports)


_STR = s.Str()


class _JsonInstance(_Instance):
    _INTERFACE = f"qm2:coordination/json@{s.VERSION}"
    _LOWER, _LIFT = [values.lowerer(_STR)], values.lifter(_STR)

    def call(self, name: str, *arguments: Any) -> Any:
        function = s.EXPORTS[name]
        text = self.text(name, json.dumps(form.write_arguments(function, arguments), ensure_ascii=False, separators=(",", ":")))
        return form.read_answer(function, json.loads(text))

    def text(self, name: str, request: str) -> str:
        """The bare text interface."""
        address, lift = self._arena.lower(self._LOWER, (request,)), type(self)._LIFT
        return str(self._run(self._function(self._INTERFACE, name), address, 1, lambda words: lift(*words)))
