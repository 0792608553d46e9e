"""The contract as data: the types that cross the boundary, and the exported and imported functions.

`form` (JSON) and `values` (records) are made from this one description; it says nothing of either. The types are read off the
dataclasses of `types`, so that no member is written down twice.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any, Callable, Literal, Optional, Union, get_args, get_origin

from . import types as t

VERSION = "0.1.0"


class Type:
    """Some type of the contract. Each is itself and equal to no other, so that codecs are found by it without looking inside."""


@dataclass(frozen=True, eq=False)
class Bool(Type):
    pass


@dataclass(frozen=True, eq=False)
class Int(Type):
    bits: int


@dataclass(frozen=True, eq=False)
class Str(Type):
    pass


@dataclass(frozen=True, eq=False)
class List(Type):
    item: Type


@dataclass(frozen=True, eq=False)
class Option(Type):
    item: Type


@dataclass(frozen=True, eq=False)
class Enum(Type):
    #: As in the JSON form; in the WIT '_' is '-'.
    words: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Case:
    """A case of a variant. In Python it is `value`, or an instance of `cls`."""

    word: str
    value: Optional[str] = None
    cls: Optional[type] = None
    #: What it holds in the WIT; None for nothing.
    item: Optional[Type] = None
    #: The one member of `cls` that the WIT holds bare.
    member: Optional[str] = None
    #: The JSON form holds that member bare as well.
    bare: bool = False


@dataclass(frozen=True, eq=False)
class Variant(Type):
    cases: tuple[Case, ...]


@dataclass(frozen=True, eq=False)
class Field:
    name: str
    json: str
    wit: str
    type: Type
    #: Left out of the JSON form where it is `default()`.
    omit: bool
    #: None where the member must be there.
    default: Optional[Callable[[], Any]]


@dataclass(frozen=True, eq=False)
class Record(Type):
    cls: type
    fields: tuple[Field, ...]


@dataclass(frozen=True, eq=False)
class Result(Type):
    """In Python the one or the other; told apart by their class."""

    ok: Optional[Type]
    err: Type


@dataclass(frozen=True, eq=False)
class CallErrorType(Type):
    """In Python `CallError`, an exception."""

    cases: tuple[Case, ...]


_PAYLOAD = Variant((
    Case("empty"),
    Case("text", cls=str, item=Str()),
    Case("reference", cls=t.PayloadRef),
))
#: Unions by their Python type; what `item` a record is, is filled in by `of`.
_VARIANTS: list[tuple[Any, tuple[Case, ...]]] = [
    (t.Payload, _PAYLOAD.cases),
    (t.Outcome, (
        Case("completed", value="completed"),
        Case("failed", cls=t.Failure),
        Case("progress", cls=t.Progress, item=Int(64), member="number"),
    )),
    (t.Remedy, (
        Case("fix", value="fix"),
        Case("retry", cls=t.Retry, item=Int(64), member="after_ms"),
        Case("stop", value="stop"),
        Case("ask", value="ask"),
    )),
    (t.HookVerdict, (
        Case("no_opinion", value="no_opinion"),
        Case("deny", cls=t.Deny, item=Str(), member="reason", bare=True),
        Case("review", value="review"),
    )),
]
_RECORDS: dict[type, Record] = {}


def camel(name: str) -> str:
    head, *rest = name.strip("_").split("_")
    return head + "".join(part.capitalize() for part in rest)


def kebab(name: str) -> str:
    return name.strip("_").replace("_", "-")


def of(hint: Any) -> Type:
    """The type that a hint stands for."""
    for union, cases in _VARIANTS:
        if hint == union:
            return Variant(tuple(_completed(case) for case in cases))
    if hint is bool:
        return Bool()
    if hint is str:
        return Str()
    origin, args = get_origin(hint), get_args(hint)
    if origin is typing.Annotated:
        return Int(args[1])
    if origin is Literal:
        return Enum(args)
    if origin is list:
        return List(of(args[0]))
    if origin is Union:
        return Option(of(Union[tuple(arg for arg in args if arg is not type(None))]))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return record(hint)
    raise TypeError(f"{hint} is no type of the contract")


def _completed(case: Case) -> Case:
    if case.cls is None or case.item is not None:
        return case
    return dataclasses.replace(case, item=record(case.cls))


def record(cls: type) -> Record:
    if cls not in _RECORDS:
        hints = typing.get_type_hints(cls, include_extras=True)
        _RECORDS[cls] = Record(cls, tuple(_field(f, hints[f.name]) for f in dataclasses.fields(cls)))
    return _RECORDS[cls]


def _field(f: dataclasses.Field[Any], hint: Any) -> Field:
    default: Optional[Callable[[], Any]] = None
    if f.default_factory is not dataclasses.MISSING:
        default = f.default_factory
    elif f.default is not dataclasses.MISSING:
        default = lambda: f.default  # noqa: E731
    return Field(f.name, f.metadata.get("json", camel(f.name)), kebab(f.name), of(hint), "omit" in f.metadata, default)


_BLAME = record(t.Blame)
CALL_ERROR = CallErrorType((
    Case("disabled"), Case("invalid-config", item=_BLAME), Case("bound", item=_BLAME), Case("busy"), Case("ledger-unavailable"),
    Case("rebuild"), Case("read-only", item=record(t.LedgerFault)), Case("unknown", item=Str()),
))
#: What the cases without a text say.
TEXTS = {
    "disabled": "the domain is not configured or coordination.phase1.enabled is off",
    "busy": "more timers are due than one call may fire; advance until there are no more",
    "ledger-unavailable": "the host did not take the records",
    "rebuild": "the instance is spent; make a new one and replay the ledger",
}


@dataclass(frozen=True, eq=False)
class Function:
    """One exported or imported function: its parameters by their names in Python, and its answer without the call error."""

    interface: str
    name: str
    params: tuple[tuple[str, Type], ...]
    ok: Optional[Type]
    result: Result

    @property
    def instance(self) -> str:
        return f"qm2:coordination/{self.interface}@{VERSION}"


def _function(interface: str, name: str, ok: Any = None, *, err: Type = CALL_ERROR, refused: bool = False, **params: Any) -> Function:
    answer = None if ok is None else of(ok)
    if refused:  # every item may be refused on its own
        rejected = record(t.Rejection)
        answer = List(Result(answer.item, rejected)) if name in _BATCHES and isinstance(answer, List) else Result(answer, rejected)
    return Function(interface, name, tuple((param, of(hint)) for param, hint in params.items()), answer, Result(answer, err))


_BATCHES = ("submit", "acknowledge", "notice")
_C, _A, _R = "coordination", "arbitration", "recovery"
EXPORTS = {f.name: f for f in [
    _function(_C, "configure", config=str),
    _function(_C, "submit-plan", t.PlanReceipt, refused=True, caller=t.Caller, now_ms=t.U64, plan=str),
    _function(_C, "submit", list[t.Receipt], refused=True, caller=t.Caller, now_ms=t.U64, envelopes=list[t.Envelope]),
    _function(_C, "acknowledge", list[t.Receipt], refused=True, caller=t.Caller, now_ms=t.U64, keys=list[str]),
    _function(_C, "advance", bool, now_ms=t.U64),
    _function(_C, "next-deadline", Optional[t.U64]),
    _function(_C, "notice", list[t.Receipt], refused=True, now_ms=t.U64, notices=list[t.Notice]),
    _function(_C, "verdict", t.Receipt, refused=True, now_ms=t.U64, hook_id=str, handler=str, verdict=t.HookVerdict),
    _function(
        _C, "answer", t.Receipt, refused=True,
        actor=t.Caller, now_ms=t.U64, escalation_id=str, digest=str, verdict=t.HumanVerdict, text=t.Text,
    ),
    _function(_C, "describe", str, id=str),
    _function(_C, "explain-wait", str, id=str, step_id=str),
    _function(_C, "head", t.LedgerHead),
    _function(_A, "arbitrate", t.Decision, contest=t.Contest, policy=t.ArbiterPolicy),
    _function(_A, "claim", t.Grant, refused=True, caller=t.Caller, now_ms=t.U64, request=t.ClaimRequest),
    _function(
        _A, "renew", list[t.Grant], refused=True,
        caller=t.Caller, now_ms=t.U64, coordination_id=str, step_id=str, attempt=t.U32, tokens=list[t.U64],
    ),
    _function(
        _A, "release", t.Receipt, refused=True,
        caller=t.Caller, now_ms=t.U64, coordination_id=str, step_id=str, attempt=t.U32, tokens=list[t.U64],
    ),
    _function(
        _A, "check", t.GuardVerdict,
        now_ms=t.U64, resource=str, session=str, token=t.U64, mode=t.Access, regions=list[t.Region], base_version=t.Text,
    ),
    _function(_R, "replay", t.LedgerHead, lines=list[str], checked=bool),
    _function(_R, "snapshot", t.SnapshotChunk, cursor=t.Text, max_bytes=t.U64),
    _function(_R, "restore", t.LedgerHead, chunk=str, last=bool),
    _function(_R, "reconcile"),
    _function(_R, "state-digest", str),
]}

UNAVAILABLE, BUSY = Enum(("unavailable",)), Enum(("busy",))
IMPORTS = {f.name: f for f in [
    _function("event-stream", "append", err=UNAVAILABLE, lines=list[str]),
    _function("queue", "enqueue", err=BUSY, messages=list[t.Message]),
    _function("queue", "withdraw", err=BUSY, keys=list[str]),
    _function("lanes", "enqueue-in-lane", err=BUSY, lane=str, priority=t.Priority, message=t.Message),
    _function("lanes", "cancel", err=BUSY, keys=list[str]),
    _function("hooks", "ask", err=BUSY, hook_id=str, kind=t.HookKind, subject=str),
    _function("hooks", "notify", err=BUSY, kind=t.HookNotice, subject=str),
]}
