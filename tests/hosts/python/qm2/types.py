"""The records of the contract (`wit/types.wit`) as Python values.

Holds no behaviour: how they cross the boundary is in `schema`, `form` and `values`. Members stand in the order of the WIT. Words
are those of the JSON form (`at_least_once`, `host-lost`). A member that is an optional one in the WIT is None where it is absent.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as member
from typing import Annotated, Literal, Optional, Union

#: 0..2^53: every integer of the contract is exact in every language.
U64 = Annotated[int, 64]
U32 = Annotated[int, 32]

Role = Literal["user", "operator", "admin", "owner"]
Intent = Literal["execute", "report", "cancel", "escalate", "ack"]
Priority = Literal["low", "normal", "high", "critical"]
DeliveryMode = Literal["best_effort", "at_least_once"]
FailureClass = Literal["retryable", "permanent", "unknown"]
ReceiptStatus = Literal["accepted", "replayed", "late"]
RejectionCode = Literal[
    "invalid-field", "invalid-plan", "plan-conflict", "unknown-coordination", "unknown-step", "unknown-attempt",
    "unknown-key", "unauthorized-session", "content-mismatch", "not-dispatched", "not-running", "stale-question",
    "not-eligible", "no-human", "claim-refused", "bound", "deadline-past", "coordination-stopping", "closed", "domain-full",
    "component-fault",
]
LedgerFaultKind = Literal["broken-chain", "nondeterminism", "unsupported"]
NoticeKind = Literal["unknown-target", "dropped", "host-lost", "taken", "unreachable"]
HookKind = Literal["before_dispatch", "before_arbitrate"]
HookNotice = Literal["escalation_requested", "step_ended", "coordination_ended", "message_undelivered"]
HumanVerdict = Literal["approve", "deny", "completed"]
ClaimMode = Literal["shared", "exclusive"]
Access = Literal["read", "write"]
Strategy = Literal["owner_wins", "priority_wins", "merge_if_safe", "manual_review"]
DecisionStage = Literal["ownership", "lease", "strategy", "hook", "human"]
OutcomeKind = Literal["granted", "waits", "refused", "review", "preempts"]

Text = Optional[str]
#: For members that the JSON form leaves out where they are empty or false.
OMIT = {"omit": True}


@dataclass(slots=True, kw_only=True)
class Caller:
    """Who makes a call, as the host authenticated it."""

    session: str
    role: Optional[Role] = None


@dataclass(slots=True, kw_only=True)
class Trace:
    run_id: Text = None
    span_id: Text = None
    causal_ref: Text = None
    traceparent: Text = None


@dataclass(slots=True, kw_only=True)
class PayloadRef:
    uri: str
    sha256: str
    bytes: U64


Payload = Union[None, str, PayloadRef]


@dataclass(slots=True, kw_only=True)
class Extension:
    name: str
    text: str


@dataclass(slots=True, kw_only=True)
class Failure:
    class_: FailureClass
    code: str
    message: str


@dataclass(slots=True)
class Progress:
    number: U64


Outcome = Union[Literal["completed"], Failure, Progress]


@dataclass(slots=True, kw_only=True)
class Question:
    number: U64
    text: str


@dataclass(slots=True, kw_only=True)
class FencingToken:
    resource: str
    token: U64


@dataclass(slots=True, kw_only=True)
class Envelope:
    """One instruction between agents."""

    coordination_id: str
    step_id: Text = None
    parent_step_id: Text = None
    attempt: Optional[U32] = None
    source_session: str
    target_session: str
    intent: Intent
    priority: Priority = "normal"
    delivery_mode: DeliveryMode = "at_least_once"
    deadline_ms: Optional[U64] = None
    created_at_ms: U64
    trace: Trace = member(default_factory=Trace, metadata=OMIT)
    content_type: Text = None
    payload: Payload = None
    extensions: list[Extension] = member(default_factory=list, metadata=OMIT)
    outcome: Optional[Outcome] = None
    reason: Text = None
    question: Optional[Question] = None
    tokens: list[FencingToken] = member(default_factory=list, metadata=OMIT)


@dataclass(slots=True, kw_only=True)
class Message:
    """What leaves through queue and lanes; idempotent by (key, delivery)."""

    key: str
    delivery: U32
    lane: str
    priority: Priority
    delivery_mode: DeliveryMode
    deadline_ms: Optional[U64] = None
    envelope: Envelope


@dataclass(slots=True, kw_only=True)
class Receipt:
    status: ReceiptStatus
    seq: Optional[U64] = None
    state: str


@dataclass(slots=True, kw_only=True)
class PlanReceipt:
    coordination_id: str
    plan_digest: str
    created_seq: U64
    replayed: bool
    state: str
    terminal: Text = None


@dataclass(slots=True)
class Retry:
    after_ms: U64


Remedy = Union[Literal["fix"], Retry, Literal["stop"], Literal["ask"]]


@dataclass(slots=True, kw_only=True)
class Problem:
    step_id: Text = None
    field: str
    code: str
    message: str


@dataclass(slots=True, kw_only=True)
class Rejection:
    """Why an input was refused, and what to do: an ordinary answer, not an exception."""

    code: RejectionCode
    field: str
    message: str
    next: Remedy
    seq: Optional[U64] = None
    problems: list[Problem] = member(default_factory=list, metadata=OMIT)


@dataclass(slots=True, kw_only=True)
class Blame:
    """What is to blame for the refusal of a call; in Python part of `CallError`."""

    field: str
    message: str


@dataclass(slots=True, kw_only=True)
class LedgerFault:
    seq: U64
    kind: LedgerFaultKind
    message: str


@dataclass(slots=True, kw_only=True)
class Notice:
    key: str
    kind: NoticeKind


@dataclass(slots=True, kw_only=True)
class LedgerHead:
    seq: U64
    hash: str


@dataclass(slots=True, kw_only=True)
class SnapshotChunk:
    chunk: str
    next: Text = None


@dataclass(slots=True)
class Deny:
    reason: str


HookVerdict = Union[Literal["no_opinion"], Deny, Literal["review"]]


@dataclass(slots=True, kw_only=True)
class Region:
    start: U64
    end: U64


@dataclass(slots=True, kw_only=True)
class PolicyRule:
    resource: str
    strategy: Strategy


@dataclass(slots=True, kw_only=True)
class PolicyOwner:
    resource: str
    session: str


@dataclass(slots=True, kw_only=True)
class ArbiterPolicy:
    #: `default` in the JSON form.
    default_strategy: Strategy = member(default="owner_wins", metadata={"json": "default"})
    rules: list[PolicyRule] = member(default_factory=list)
    owners: list[PolicyOwner] = member(default_factory=list)
    high_risk: list[str] = member(default_factory=list)
    preempt: bool = False


@dataclass(slots=True, kw_only=True)
class Contender:
    coordination_id: str
    step_id: str
    attempt: U32
    session: str
    priority: Priority
    claim_number: U64
    mode: ClaimMode
    base_version: Text = None
    regions: list[Region] = member(default_factory=list, metadata=OMIT)
    token: Optional[U64] = None
    expires_ms: Optional[U64] = None
    preemptible: bool = member(default=False, metadata=OMIT)


@dataclass(slots=True, kw_only=True)
class Contest:
    resource: str
    at_ms: U64
    contenders: list[Contender]
    holders: list[Contender]


@dataclass(slots=True, kw_only=True)
class ContenderOutcome:
    coordination_id: str
    step_id: str
    outcome: OutcomeKind
    order: U32


@dataclass(slots=True, kw_only=True)
class Decision:
    stage: DecisionStage
    strategy: Strategy
    outcomes: list[ContenderOutcome]
    reason: str


@dataclass(slots=True, kw_only=True)
class ClaimRequest:
    coordination_id: str
    step_id: str
    attempt: U32
    resource: str
    mode: ClaimMode
    lease_ms: U64
    base_version: Text = None
    regions: list[Region] = member(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Grant:
    resource: str
    token: U64
    expires_ms: U64


@dataclass(slots=True, kw_only=True)
class GuardVerdict:
    allowed: bool
    reason: str
    expires_ms: Optional[U64] = None


class CallError(Exception):
    """A whole call was refused and nothing was recorded. Branch on `code`; `field` is empty where none is to blame."""

    def __init__(
        self, code: str, message: str, field: str = "", seq: Optional[int] = None, kind: Optional[str] = None
    ) -> None:
        super().__init__(f"{code}: {field + ': ' if field else ''}{message}")
        self.code, self.message, self.field, self.seq, self.kind = code, message, field, seq, kind
