"""Component values in memory: from Python into what wasmtime's C API reads, and back.

The package's own conversion asks for the type of every value anew, takes u64 modulo 2^64, gives a variant another shape when a
case is added, and leaks 48 bytes for every option, variant and result that it lifts. So none of it is used: values are packed
into one buffer of ours, which the C API only reads, and results are read where the C API left them and then freed as a whole.
Layouts are those of wasmtime 50 and are compared with the package's own when this module is loaded. What the component really
takes and gives is compared with `schema` by `match` before anything here may run: reading trusts it.
"""

from __future__ import annotations

import ctypes
from ctypes import string_at
from operator import attrgetter
from struct import Struct
from typing import Any, Callable, Iterator, Optional

from wasmtime import _ffi as ffi
from wasmtime.component import _types as w

from . import schema as s
from . import types as t
from .form import FormError, integer

(_BOOL, _U32, _U64, _STRING, _LIST, _RECORD, _VARIANT, _ENUM, _OPTION, _RESULT) = (0, 6, 8, 12, 13, 14, 16, 17, 18, 19)
#: A value: its kind, and up to three words, whatever they are. An entry of a record has its name before it.
VALUE, ENTRY, NAME = Struct("<B7xQQQ"), 48, Struct("<QQ")
_WORDS = Struct("<8xQQQ")

_layouts = (
    (ffi.wasmtime_component_val_t, VALUE.size, {"kind": 0, "of": 8}),
    (ffi.wasmtime_component_valrecord_entry_t, ENTRY, {"name": 0, "val": 16}),
    (ffi.wasm_byte_vec_t, NAME.size, {"size": 0, "data": 8}),
    (ffi.wasmtime_component_valvariant_t, 24, {"discriminant": 0, "val": 16}),
    (ffi.wasmtime_component_valresult_t, 16, {"is_ok": 0, "val": 8}),
    (ffi.wasmtime_component_vallist_t, 16, {"size": 0, "data": 8}),
)
for _struct, _size, _offsets in _layouts:
    if ctypes.sizeof(_struct) != _size or any(getattr(_struct, name).offset != at for name, at in _offsets.items()):
        raise ImportError(f"{_struct.__name__} has another layout in this version of wasmtime")


class _Full(Exception):
    """The arena has no room; `Arena.lower` begins again with a larger one."""


class Arena:
    """Memory for the arguments of one call. It is used again by the next one."""

    def __init__(self, size: int = 1 << 16) -> None:
        self._make(size)

    def _make(self, size: int) -> None:
        self.memory = ctypes.create_string_buffer(size)
        self.view = memoryview(self.memory).cast("B")
        self.base, self.size, self.top = ctypes.addressof(self.memory), size, 0

    def take(self, size: int) -> int:
        """Room for so many bytes, from this offset."""
        at = self.top
        self.top = (at + size + 7) & ~7
        if self.top > self.size:
            raise _Full
        return at

    def put(self, data: bytes) -> int:
        at = self.take(len(data))
        self.view[at : at + len(data)] = data
        return at

    def lower(self, lowerers: list[Lower], arguments: tuple[Any, ...]) -> int:
        """The address of these arguments, valid until the next call of this."""
        while True:
            try:
                self.top = 0
                at = self.take(VALUE.size * len(lowerers))
                for index, (lower, argument) in enumerate(zip(lowerers, arguments)):
                    lower(self, at + VALUE.size * index, argument)
                return self.base + at
            except _Full:
                self._make(self.size * 4)


#: Writes a value at an offset of an arena.
Lower = Callable[[Arena, int, Any], None]
#: Reads a value from its three words.
Lift = Callable[[int, int, int], Any]
_LOWERERS: dict[s.Type, Lower] = {}
_LIFTERS: dict[s.Type, Lift] = {}
#: Names live as long as the process, since arenas point at them.
_NAMES: dict[str, tuple[int, int, Any]] = {}
_pack = VALUE.pack_into


def _name(name: str) -> tuple[int, int]:
    """Length and address."""
    if name not in _NAMES:
        data = name.encode()
        memory = ctypes.create_string_buffer(data)
        _NAMES[name] = (len(data), ctypes.addressof(memory), memory)
    return _NAMES[name][:2]


# ---- from Python ----


def lowerer(ty: s.Type) -> Lower:
    if ty not in _LOWERERS:
        _LOWERERS[ty] = _make_lowerer(ty)
    return _LOWERERS[ty]


def _lower_str(arena: Arena, at: int, value: Any) -> None:
    if type(value) is not str:
        raise FormError(f"{value!r} is no str")
    data = value.encode()
    _pack(arena.memory, at, _STRING, len(data), arena.base + arena.put(data), 0)


def _lower_bool(arena: Arena, at: int, value: Any) -> None:
    if type(value) is not bool:
        raise FormError(f"{value!r} is no bool")
    _pack(arena.memory, at, _BOOL, value, 0, 0)


def _make_lowerer(ty: s.Type) -> Lower:
    if isinstance(ty, s.Str):
        return _lower_str
    if isinstance(ty, s.Bool):
        return _lower_bool
    if isinstance(ty, s.Int):
        kind, checked = (_U64 if ty.bits == 64 else _U32), integer(ty.bits)
        return lambda arena, at, value: _pack(arena.memory, at, kind, checked(value), 0, 0)
    if isinstance(ty, s.Enum):
        return _enum_lowerer(ty)
    if isinstance(ty, s.List):
        return _list_lowerer(lowerer(ty.item))
    if isinstance(ty, s.Option):
        return _option_lowerer(lowerer(ty.item))
    if isinstance(ty, s.Record):
        return _record_lowerer(ty)
    if isinstance(ty, s.Variant):
        return _variant_lowerer(ty)
    raise TypeError(f"{ty} is nothing that a host gives")


def _enum_lowerer(ty: s.Enum) -> Lower:
    # A name that the enum does not have would poison the whole store; so none gets that far.
    names = {word: _name(s.kebab(word)) for word in ty.words}

    def lower(arena: Arena, at: int, value: Any) -> None:
        name = names.get(value) if type(value) is str else None
        if name is None:
            raise FormError(f"{value!r} is none of {', '.join(names)}")
        _pack(arena.memory, at, _ENUM, *name, 0)

    return lower


def _list_lowerer(item: Lower) -> Lower:
    def lower(arena: Arena, at: int, value: Any) -> None:
        if type(value) is not list:
            raise FormError(f"{value!r} is no list")
        entry = first = arena.take(VALUE.size * len(value))
        _pack(arena.memory, at, _LIST, len(value), arena.base + first, 0)
        try:
            for one in value:
                item(arena, entry, one)
                entry += VALUE.size
        except FormError as error:
            raise error.inside(f"[{(entry - first) // VALUE.size}]") from None

    return lower


def _option_lowerer(item: Lower) -> Lower:
    def lower(arena: Arena, at: int, value: Any) -> None:
        if value is None:
            return _pack(arena.memory, at, _OPTION, 0, 0, 0)
        inner = arena.take(VALUE.size)
        _pack(arena.memory, at, _OPTION, arena.base + inner, 0, 0)
        item(arena, inner, value)

    return lower


def _record_lowerer(ty: s.Record) -> Lower:
    cls, count, single = ty.cls, len(ty.fields), len(ty.fields) == 1
    names = b"".join(NAME.pack(*_name(f.wit)) + bytes(VALUE.size) for f in ty.fields)
    lowerers = [lowerer(f.type) for f in ty.fields]
    values = attrgetter(*(f.name for f in ty.fields))

    def lower(arena: Arena, at: int, value: Any) -> None:
        if type(value) is not cls:
            raise FormError(f"{value!r} is no {cls.__name__}")
        entries = arena.put(names)
        _pack(arena.memory, at, _RECORD, count, arena.base + entries, 0)
        entry = entries + NAME.size
        try:
            for member, codec in zip((values(value),) if single else values(value), lowerers):
                codec(arena, entry, member)
                entry += ENTRY
        except FormError as error:
            raise error.inside(ty.fields[(entry - entries) // ENTRY].json) from None

    return lower


def _variant_lowerer(ty: s.Variant) -> Lower:
    bare = {case.value: _name(s.kebab(case.word)) for case in ty.cases if case.item is None}
    held: dict[Any, tuple[tuple[int, int], Lower, Optional[str]]] = {
        case.cls: (_name(s.kebab(case.word)), lowerer(case.item), case.member) for case in ty.cases if case.item
    }

    def lower(arena: Arena, at: int, value: Any) -> None:
        case = held.get(type(value))
        if case is None:
            if not (value is None or type(value) is str) or value not in bare:
                raise FormError(f"{value!r} is none of {', '.join(c.word for c in ty.cases)}")
            return _pack(arena.memory, at, _VARIANT, *bare[value], 0)
        name, codec, member = case
        inner = arena.take(VALUE.size)
        _pack(arena.memory, at, _VARIANT, *name, arena.base + inner)
        codec(arena, inner, value if member is None else getattr(value, member))

    return lower


# ---- to Python ----


def lifter(ty: s.Type) -> Lift:
    if ty not in _LIFTERS:
        _LIFTERS[ty] = _make_lifter(ty)
    return _LIFTERS[ty]


def words_at(address: int) -> tuple[int, int, int]:
    """The three words of the value there."""
    return _WORDS.unpack(string_at(address, VALUE.size))


def _make_lifter(ty: s.Type) -> Lift:
    if isinstance(ty, s.Str):
        return lambda size, data, _: string_at(data, size).decode() if size else ""
    if isinstance(ty, s.Bool):
        return lambda value, _, __: bool(value & 1)
    if isinstance(ty, s.Int):
        mask = 2**ty.bits - 1  # the rest of the word is whatever was there before
        return lambda value, _, __: value & mask
    if isinstance(ty, s.Enum):
        words = {s.kebab(word).encode(): word for word in ty.words}
        return lambda size, data, _: words[string_at(data, size)]
    if isinstance(ty, s.List):
        return _list_lifter(lifter(ty.item))
    if isinstance(ty, s.Option):
        item = lifter(ty.item)
        return lambda inner, _, __: item(*words_at(inner)) if inner else None
    if isinstance(ty, s.Record):
        return _record_lifter(ty)
    if isinstance(ty, s.Variant):
        return _variant_lifter(ty)
    if isinstance(ty, s.CallErrorType):
        return _call_error_lifter(ty)
    if isinstance(ty, s.Result):
        ok, err = lifter(ty.ok) if ty.ok else None, lifter(ty.err)

        def lift(is_ok: int, inner: int, _: int) -> Any:
            if is_ok & 1:
                return ok(*words_at(inner)) if ok else None
            return err(*words_at(inner))

        return lift
    raise TypeError(f"{ty} is nothing that a component gives")


def _list_lifter(item: Lift) -> Lift:
    def lift(size: int, data: int, _: int) -> Any:
        if not size:
            return []
        return [item(a, b, c) for a, b, c in _WORDS.iter_unpack(string_at(data, VALUE.size * size))]

    return lift


def _record_lifter(ty: s.Record) -> Lift:
    size, unpack = ENTRY * len(ty.fields), Struct("<" + "24xQQQ" * len(ty.fields)).unpack
    members = [(f.name, lifter(f.type), 3 * index) for index, f in enumerate(ty.fields)]
    cls = ty.cls

    def lift(_: int, data: int, __: int) -> Any:
        words = unpack(string_at(data, size))
        return cls(**{name: codec(words[at], words[at + 1], words[at + 2]) for name, codec, at in members})

    return lift


def _variant_lifter(ty: s.Variant) -> Lift:
    cases: dict[bytes, tuple[Optional[Lift], Any]] = {}
    for case in ty.cases:
        made = case.cls if case.member else None
        name = s.kebab(case.word).encode()
        cases[name] = (lifter(case.item), made) if case.item else (None, case.value)

    def lift(size: int, data: int, inner: int) -> Any:
        codec, made = cases[string_at(data, size)]
        if codec is None:
            return made
        value = codec(*words_at(inner))
        return made(value) if made else value

    return lift


def _call_error_lifter(ty: s.CallErrorType) -> Lift:
    cases = {case.word.encode(): (case.word, lifter(case.item) if case.item else None) for case in ty.cases}

    def lift(size: int, data: int, inner: int) -> Any:
        word, codec = cases[string_at(data, size)]
        held = codec(*words_at(inner)) if codec else s.TEXTS[word]
        if isinstance(held, t.LedgerFault):
            return t.CallError(word, held.message, seq=held.seq, kind=held.kind)
        if isinstance(held, t.Blame):
            return t.CallError(word, held.message, held.field)
        return t.CallError(word, held)

    return lift


# ---- what the component says ----


def match(ty: Optional[s.Type], real: Any) -> Iterator[str]:
    """Where the component's type is not the one described here."""
    wanted = _shape(ty)
    got = _real_shape(real)
    if wanted != got:
        yield f"wanted {wanted}, got {got}"


def _shape(ty: Optional[s.Type]) -> Any:
    if ty is None:
        return None
    if isinstance(ty, (s.Bool, s.Str)):
        return type(ty).__name__
    if isinstance(ty, s.Int):
        return f"U{ty.bits}"
    if isinstance(ty, s.Enum):
        return ("enum", *(s.kebab(word) for word in ty.words))
    if isinstance(ty, (s.List, s.Option)):
        return (type(ty).__name__, _shape(ty.item))
    if isinstance(ty, s.Record):
        return ("record", *((f.wit, _shape(f.type)) for f in ty.fields))
    if isinstance(ty, (s.Variant, s.CallErrorType)):
        return ("variant", *((s.kebab(case.word), _shape(case.item)) for case in ty.cases))
    if isinstance(ty, s.Result):
        return ("result", _shape(ty.ok), _shape(ty.err))
    raise TypeError(f"{ty} has no shape")


def _real_shape(real: Any) -> Any:
    if real is None:
        return None
    if isinstance(real, w.Bool):
        return "Bool"
    if isinstance(real, w.String):
        return "Str"
    if isinstance(real, (w.U32, w.U64)):
        return type(real).__name__
    if isinstance(real, w.EnumType):
        return ("enum", *real.names)
    if isinstance(real, w.ListType):
        return ("List", _real_shape(real.element))
    if isinstance(real, w.OptionType):
        return ("Option", _real_shape(real.payload))
    if isinstance(real, w.RecordType):
        return ("record", *((name, _real_shape(ty)) for name, ty in real.fields))
    if isinstance(real, w.VariantType):
        return ("variant", *((name, _real_shape(ty)) for name, ty in real.cases))
    if isinstance(real, w.ResultType):
        return ("result", _real_shape(real.ok), _real_shape(real.err))
    return type(real).__name__
