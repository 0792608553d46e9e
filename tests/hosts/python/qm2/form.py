"""The JSON form of the contract's values (`tests/vectors/README.md`): to and from what the `json` module reads and writes.

Strict both ways: a member that is not known, one that is missing, or a value of another type is a `FormError` with its path.
Knows no WebAssembly.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Callable

from . import schema as s
from . import types as t

Codec = Callable[[Any], Any]
INT_MAX = 2**53
_WRITERS: dict[s.Type, Codec] = {}
_READERS: dict[s.Type, Codec] = {}


class FormError(ValueError):
    """A value is not of the form that the contract says."""

    def __init__(self, says: str, path: str = "") -> None:
        super().__init__(f"{path}: {says}" if path else says)
        self.says, self.path = says, path

    def inside(self, step: str) -> FormError:
        return FormError(self.says, step + ("." if self.path and not self.path.startswith("[") else "") + self.path)


def writer(ty: s.Type) -> Codec:
    """From Python to JSON."""
    if ty not in _WRITERS:
        _WRITERS[ty] = _make_writer(ty)
    return _WRITERS[ty]


def reader(ty: s.Type) -> Codec:
    """From JSON to Python."""
    if ty not in _READERS:
        _READERS[ty] = _make_reader(ty)
    return _READERS[ty]


# ---- what is the same in both directions ----


def _is(cls: type) -> Codec:
    def same(value: Any) -> Any:
        if type(value) is not cls:
            raise FormError(f"{value!r} is no {cls.__name__}")
        return value

    return same


def integer(bits: int) -> Codec:
    """Nothing may wrap: WebAssembly would take an integer modulo 2^bits without a word."""
    most = min(INT_MAX, 2**bits - 1)

    def same(value: Any) -> Any:
        if type(value) is not int:
            raise FormError(f"{value!r} is no integer")
        if not 0 <= value <= most:
            raise FormError(f"{value} is not in 0..{most}")
        return value

    return same


def word(words: tuple[str, ...]) -> Codec:
    known = frozenset(words)

    def same(value: Any) -> Any:
        if type(value) is not str or value not in known:
            raise FormError(f"{value!r} is none of {', '.join(words)}")
        return value

    return same


def _plain(ty: s.Type) -> Codec | None:
    if isinstance(ty, s.Bool):
        return _is(bool)
    if isinstance(ty, s.Str):
        return _is(str)
    if isinstance(ty, s.Int):
        return integer(ty.bits)
    if isinstance(ty, s.Enum):
        return word(ty.words)
    return None


def _list(item: Codec) -> Codec:
    def each(value: Any) -> Any:
        if type(value) is not list:
            raise FormError(f"{value!r} is no list")
        done: list[Any] = []
        try:
            for entry in value:
                done.append(item(entry))
        except FormError as error:
            raise error.inside(f"[{len(done)}]") from None
        return done

    return each


# ---- to JSON ----


def _make_writer(ty: s.Type) -> Codec:
    plain = _plain(ty)
    if plain:
        return plain
    if isinstance(ty, s.List):
        return _list(writer(ty.item))
    if isinstance(ty, s.Option):
        item = writer(ty.item)
        return lambda value: None if value is None else item(value)
    if isinstance(ty, s.Record):
        return _record_writer(ty)
    if isinstance(ty, s.Variant):
        return _variant_writer(ty)
    if isinstance(ty, s.Result) and isinstance(ty.err, s.Record):
        ok, err, refused = writer(ty.ok) if ty.ok else None, writer(ty.err), ty.err.cls
        return lambda value: {"error": err(value)} if type(value) is refused else {"ok": ok(value) if ok else None}
    raise TypeError(f"{ty} has no JSON form")


def _record_writer(ty: s.Record) -> Codec:
    members = [
        (isinstance(f.type, (s.Option, s.Variant)), f.json, writer(f.type), f.default() if f.omit and f.default else None)
        for f in ty.fields
    ]
    cls, values = ty.cls, attrgetter(*(f.name for f in ty.fields))
    single = len(ty.fields) == 1

    def write(value: Any) -> Any:
        if type(value) is not cls:
            raise FormError(f"{value!r} is no {cls.__name__}")
        out: dict[str, Any] = {}
        got = (values(value),) if single else values(value)
        for (optional, json, codec, omit), member in zip(members, got):
            if (member is None and optional) or (omit is not None and member == omit):
                continue
            try:
                form = codec(member)
            except FormError as error:
                raise error.inside(json) from None
            if json == "payload" and type(form) is dict:  # the one variant that is spread over two members
                out["payloadRef"] = form["reference"]
            else:
                out[json] = form["text"] if json == "payload" and type(form) is not str else form
        return out

    return write


def _variant_writer(ty: s.Variant) -> Codec:
    if ty.cases[0].word == "empty":  # the payload of an envelope; `_record_writer` spreads it
        text, reference = _is(str), writer(s.record(t.PayloadRef))
        return lambda value: {"reference": reference(value)} if type(value) is t.PayloadRef else text(value)
    words = {case.value for case in ty.cases if case.value}
    classes: dict[Any, tuple[s.Case, Codec]] = {case.cls: (case, writer(case.item)) for case in ty.cases if case.cls and case.item}

    def write(value: Any) -> Any:
        if type(value) is str and value in words:
            return value
        case, codec = classes.get(type(value), (None, None))
        if case is None or codec is None:
            raise FormError(f"{value!r} is none of {', '.join(c.word for c in ty.cases)}")
        if case.member is None:
            return {case.word: codec(value)}
        member = codec(getattr(value, case.member))
        return {case.word: member if case.bare else {s.camel(case.member): member}}

    return write


# ---- from JSON ----


def _make_reader(ty: s.Type) -> Codec:
    plain = _plain(ty)
    if plain:
        return plain
    if isinstance(ty, s.List):
        return _list(reader(ty.item))
    if isinstance(ty, s.Option):
        return reader(ty.item)  # what is absent is no member at all
    if isinstance(ty, s.Record):
        return _record_reader(ty)
    if isinstance(ty, s.Variant):
        return _variant_reader(ty)
    if isinstance(ty, s.Result) and isinstance(ty.err, s.Record):
        sides = {"ok": reader(ty.ok) if ty.ok else None, "error": reader(ty.err)}

        def read(value: Any) -> Any:
            side, inner = one_member(value)
            codec = sides.get(side)
            if codec is None:
                raise FormError(f"{side} is neither ok nor error")
            return codec(inner)

        return read
    raise TypeError(f"{ty} has no JSON form")


def one_member(value: Any) -> tuple[str, Any]:
    if type(value) is not dict or len(value) != 1:
        raise FormError(f"{value!r} is no object of one member")
    return next(iter(value.items()))


def _record_reader(ty: s.Record) -> Codec:
    members = {f.json: (f.name, reader(f.type)) for f in ty.fields}
    if "payload" in members:
        members["payloadRef"] = ("payload", reader(s.record(t.PayloadRef)))
        members["payload"] = ("payload", _is(str))
    cls = ty.cls

    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise FormError(f"{value!r} is no object")
        got: dict[str, Any] = {}
        json = ""
        try:
            for json, member in value.items():
                name, codec = members[json]
                got[name] = codec(member)
            return cls(**got)
        except KeyError:
            raise FormError("there is no such member", json) from None
        except FormError as error:
            raise error.inside(json) from None
        except TypeError as error:  # a member without a default is missing
            raise FormError(str(error)) from None

    return read


def _variant_reader(ty: s.Variant) -> Codec:
    words = {case.value for case in ty.cases if case.value}
    cases = {case.word: (case, reader(case.item)) for case in ty.cases if case.item}

    def read(value: Any) -> Any:
        if type(value) is str and value in words:
            return value
        name, inner = one_member(value)
        if name not in cases:
            raise FormError(f"{name} is none of {', '.join(c.word for c in ty.cases)}")
        case, codec = cases[name]
        if case.member is None or case.cls is None:
            return codec(inner)
        if not case.bare:
            member, inner = one_member(inner)
            if member != s.camel(case.member):
                raise FormError("there is no such member", member)
        return case.cls(codec(inner))

    return read


# ---- calls and answers ----


def write_arguments(function: s.Function, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """The object of a call, without its name."""
    if len(arguments) != len(function.params):
        raise TypeError(f"{function.name} takes {len(function.params)} arguments")
    out: dict[str, Any] = {}
    for (name, ty), value in zip(function.params, arguments):
        json = s.camel(name)
        try:
            form = writer(ty)(value)
        except FormError as error:
            raise error.inside(json) from None
        if form is not None:
            out[json] = form
    return out


def read_arguments(function: s.Function, value: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments of a call, from its object; its name may stand there."""
    known = {s.camel(name) for name, _ in function.params} | {"call"}
    for member in value:
        if member not in known:
            raise FormError("there is no such member", member)
    arguments: list[Any] = []
    for name, ty in function.params:
        json = s.camel(name)
        if json not in value:
            if not isinstance(ty, s.Option):
                raise FormError("it is missing", json)
            arguments.append(None)
            continue
        try:
            arguments.append(reader(ty)(value[json]))
        except FormError as error:
            raise error.inside(json) from None
    return tuple(arguments)


def write_answer(function: s.Function, answer: Any) -> Any:
    return function.name if function.ok is None else {function.name: writer(function.ok)(answer)}


def read_answer(function: s.Function, value: Any) -> Any:
    """The answer of a call; raises the `CallError` that it may be."""
    if function.ok is None and value == function.name:
        return None
    name, inner = one_member(value)
    if name == "error":
        raise read_error(inner)
    if name != function.name or function.ok is None:
        raise FormError(f"{name} is not the answer to {function.name}")
    if inner is None and isinstance(function.ok, s.Option):
        return None
    return reader(function.ok)(inner)


def write_error(error: t.CallError) -> dict[str, Any]:
    out: dict[str, Any] = {"code": error.code, "message": error.message, "field": error.field}
    if error.seq is not None:
        out |= {"seq": error.seq, "kind": error.kind}
    return out


def read_error(value: dict[str, Any]) -> t.CallError:
    extra = value.keys() - {"code", "message", "field", "seq", "kind"}
    if extra:
        raise FormError("there is no such member", extra.pop())
    return t.CallError(**value)
