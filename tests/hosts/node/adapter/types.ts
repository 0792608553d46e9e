// The values of the contract as plain JSON: what a host gives to the component and gets from it, whatever the door.
//
// Types only, named as in `wit/types.wit` and in the form of `tests/vectors/README.md`: camelCase members, numbers for all
// integers, words in snake_case, absent members left out. Docs, units and bounds of every member are in the WIT.

export type Role = 'user' | 'operator' | 'admin' | 'owner';
export type Intent = 'execute' | 'report' | 'cancel' | 'escalate' | 'ack';
export type Priority = 'low' | 'normal' | 'high' | 'critical';
export type DeliveryMode = 'best_effort' | 'at_least_once';
export type FailureClass = 'retryable' | 'permanent' | 'unknown';
export type ClaimMode = 'shared' | 'exclusive';
export type Access = 'read' | 'write';
export type Strategy = 'owner_wins' | 'priority_wins' | 'merge_if_safe' | 'manual_review';
export type HookKind = 'before_dispatch' | 'before_arbitrate';
export type HookNotice = 'escalation_requested' | 'step_ended' | 'coordination_ended' | 'message_undelivered';
export type NoticeKind = 'unknown-target' | 'dropped' | 'host-lost' | 'taken' | 'unreachable';
export type HumanVerdict = 'approve' | 'deny' | 'completed';
export type HookVerdict = 'no_opinion' | { deny: string } | 'review';

export interface Caller { session: string; role?: Role }
export interface Trace { runId?: string; spanId?: string; causalRef?: string; traceparent?: string }
export interface PayloadRef { uri: string; sha256: string; bytes: number }
export interface Extension { name: string; text: string }
export interface Failure { class: FailureClass; code: string; message: string }
export type Outcome = 'completed' | { failed: Failure } | { progress: { number: number } };
export interface Question { number: number; text: string }
export interface FencingToken { resource: string; token: number }
export interface Region { start: number; end: number }

export interface Envelope {
  coordinationId: string;
  stepId?: string;
  parentStepId?: string;
  attempt?: number;
  sourceSession: string;
  targetSession: string;
  intent: Intent;
  priority: Priority;
  deliveryMode: DeliveryMode;
  deadlineMs?: number;
  createdAtMs: number;
  trace?: Trace;
  contentType?: string;
  /** Text; never beside `payloadRef`. */
  payload?: string;
  payloadRef?: PayloadRef;
  extensions?: Extension[];
  outcome?: Outcome;
  reason?: string;
  question?: Question;
  tokens?: FencingToken[];
}

export interface Message {
  key: string;
  delivery: number;
  lane: string;
  priority: Priority;
  deliveryMode: DeliveryMode;
  deadlineMs?: number;
  envelope: Envelope;
}

export interface Receipt { status: 'accepted' | 'replayed' | 'late'; seq?: number; state: string }
export interface PlanReceipt {
  coordinationId: string;
  planDigest: string;
  createdSeq: number;
  replayed: boolean;
  state: string;
  terminal?: string;
}
export type Remedy = 'fix' | { retry: { afterMs: number } } | 'stop' | 'ask';
export interface Problem { stepId?: string; field: string; code: string; message: string }
export interface Rejection {
  code: string;
  field: string;
  message: string;
  next: Remedy;
  seq?: number;
  problems?: Problem[];
}
export type Result<T> = { ok: T } | { error: Rejection };

/** Why a whole call was refused; nothing was recorded. `seq` and `kind` stand with `read-only` alone. */
export interface CallError { code: string; message: string; field: string; seq?: number; kind?: string }

export interface Contender {
  coordinationId: string;
  stepId: string;
  attempt: number;
  session: string;
  priority: Priority;
  claimNumber: number;
  mode: ClaimMode;
  baseVersion?: string;
  regions?: Region[];
  token?: number;
  expiresMs?: number;
  preemptible?: boolean;
}
export interface Contest { resource: string; atMs: number; contenders: Contender[]; holders: Contender[] }
export interface ArbiterPolicy {
  default: Strategy;
  rules: { resource: string; strategy: Strategy }[];
  owners: { resource: string; session: string }[];
  highRisk: string[];
  preempt: boolean;
}
export interface ContenderOutcome {
  coordinationId: string;
  stepId: string;
  outcome: 'granted' | 'waits' | 'refused' | 'review' | 'preempts';
  order: number;
}
export interface Decision {
  stage: 'ownership' | 'lease' | 'strategy' | 'hook' | 'human';
  strategy: Strategy;
  outcomes: ContenderOutcome[];
  reason: string;
}
export interface ClaimRequest {
  coordinationId: string;
  stepId: string;
  attempt: number;
  resource: string;
  mode: ClaimMode;
  leaseMs: number;
  baseVersion?: string;
  regions: Region[];
}
export interface Grant { resource: string; token: number; expiresMs: number }
export interface GuardVerdict { allowed: boolean; reason: string; expiresMs?: number }
export interface Head { seq: number; hash: string }
export interface SnapshotChunk { chunk: string; next?: string }
export interface Notice { key: string; kind: NoticeKind }

/** Every function of the component: its arguments, and the value of its answer (`null` where there is none). */
export interface Calls {
  configure: [{ config: string }, null];
  'submit-plan': [{ caller: Caller; nowMs: number; plan: string }, Result<PlanReceipt>];
  submit: [{ caller: Caller; nowMs: number; envelopes: Envelope[] }, Result<Receipt>[]];
  acknowledge: [{ caller: Caller; nowMs: number; keys: string[] }, Result<Receipt>[]];
  advance: [{ nowMs: number }, boolean];
  'next-deadline': [{}, number | null];
  notice: [{ nowMs: number; notices: Notice[] }, Result<Receipt>[]];
  verdict: [{ nowMs: number; hookId: string; handler: string; verdict: HookVerdict }, Result<Receipt>];
  answer: [
    { actor: Caller; nowMs: number; escalationId: string; digest: string; verdict: HumanVerdict; text?: string },
    Result<Receipt>,
  ];
  arbitrate: [{ contest: Contest; policy: ArbiterPolicy }, Decision];
  claim: [{ caller: Caller; nowMs: number; request: ClaimRequest }, Result<Grant>];
  renew: [AttemptTokens, Result<Grant[]>];
  release: [AttemptTokens, Result<Receipt>];
  check: [
    {
      nowMs: number;
      resource: string;
      session: string;
      token: number;
      mode: Access;
      regions: Region[];
      baseVersion?: string;
    },
    GuardVerdict,
  ];
  describe: [{ id: string }, string];
  'explain-wait': [{ id: string; stepId: string }, string];
  head: [{}, Head];
  replay: [{ lines: string[]; checked: boolean }, Head];
  snapshot: [{ cursor?: string; maxBytes: number }, SnapshotChunk];
  restore: [{ chunk: string; last: boolean }, Head];
  reconcile: [{}, null];
  'state-digest': [{}, string];
}

interface AttemptTokens {
  caller: Caller;
  nowMs: number;
  coordinationId: string;
  stepId: string;
  attempt: number;
  tokens: number[];
}

export type Name = keyof Calls;
/** A call of any function; `call` names it. */
export type Request<N extends Name = Name> = { [K in N]: { call: K } & Calls[K][0] }[N];
export type Value<N extends Name> = Calls[N][1];
