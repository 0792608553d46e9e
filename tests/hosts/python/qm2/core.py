"""The third door, `core`: the same engine as a plain core module, called with JSON text through its linear memory.

For hosts whose runtime knows no components, and for comparison; in Python it asks nothing of the package but its public API.
"""

from __future__ import annotations

import json
from os import PathLike
from typing import Any, Optional, Union

from wasmtime import Caller, Engine, Func, FuncType, Linker, Memory, Module, Store, Trap, ValType, WasmtimeError

from . import form
from . import schema as s
from .door import Guarded, Imports, Instance, InstanceLost

_U32 = 0xFFFF_FFFF


class Core:
    """The compiled module."""

    name = "core"

    def __init__(self, path: Union[str, PathLike[str]], engine: Optional[Engine] = None) -> None:
        self.engine = engine or Engine()
        self.module = Module.from_file(self.engine, str(path))

    def instance(self, imports: Imports) -> Instance:
        return _CoreInstance(self, imports)


class _CoreInstance:
    def __init__(self, door: Core, imports: Imports) -> None:
        self._guarded = Guarded(imports)
        self._store = Store(door.engine)
        i32 = ValType.i32()
        linker = Linker(door.engine)
        linker.define(self._store, "qm2", "call", Func(self._store, FuncType([i32, i32], [i32]), self._handed_out, access_caller=True))
        exports = linker.instantiate(self._store, door.module).exports(self._store)
        memory, alloc, call, free = (exports[name] for name in ("memory", "alloc", "call", "free"))
        assert isinstance(memory, Memory) and isinstance(alloc, Func) and isinstance(call, Func) and isinstance(free, Func)
        self._memory, self._alloc, self._call, self._free = memory, alloc, call, free

    def call(self, name: str, *arguments: Any) -> Any:
        function = s.EXPORTS[name]
        request = {"call": name, **form.write_arguments(function, arguments)}
        return form.read_answer(function, json.loads(self.text(json.dumps(request, ensure_ascii=False, separators=(",", ":")))))

    def text(self, request: str) -> bytes:
        """The bare text interface."""
        data = request.encode()
        store = self._store
        try:
            at = self._alloc(store, len(data)) & _U32
            self._memory.write(store, data, at)
            place = self._call(store, at, len(data))
        except (Trap, WasmtimeError) as error:
            self._guarded.raised, raised = None, self._guarded.raised
            raise InstanceLost(str(error)) from (raised or error)
        self._guarded.check()
        at, size = place >> 32 & _U32, place & _U32  # i64 comes with a sign
        answer = bytes(self._memory.read(store, at, at + size))
        self._free(store, at, size)
        return answer

    def _handed_out(self, caller: Caller, at: int, size: int) -> int:
        def read() -> tuple[str, tuple[Any, ...]]:
            first = at & _U32
            memory = caller["memory"]
            assert isinstance(memory, Memory)
            said = json.loads(bytes(memory.read(caller, first, first + (size & _U32))))
            name = said["call"]
            return name, form.read_arguments(s.IMPORTS[name], said)

        return 0 if self._guarded.call(read) else 1

    def memory_bytes(self) -> Optional[int]:
        return self._memory.data_len(self._store)

    def close(self) -> None:
        self._store.close()
