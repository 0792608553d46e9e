// From the records of jco to plain JSON values: what the component hands out and answers.
//
// Tests nothing: what comes from the component is of the form that its WIT says. The other direction is lower.ts.

import type * as json from './types.ts';
import type * as wit from '../gen/interfaces/qm2-coordination-types.js';

/** Words of the contract are few, so each is turned around once. */
const SNAKE = new Map<string, string>();
export function word<W extends string>(kebab: string): W {
  let snake = SNAKE.get(kebab);
  if (snake === undefined) SNAKE.set(kebab, (snake = kebab.replaceAll('-', '_')));
  return snake as W;
}

export function message(value: wit.Message): json.Message {
  const made: json.Message = {
    key: value.key,
    delivery: value.delivery,
    lane: value.lane,
    priority: value.priority,
    deliveryMode: word(value.deliveryMode),
    envelope: envelope(value.envelope),
  };
  if (value.deadlineMs !== undefined) made.deadlineMs = Number(value.deadlineMs);
  return made;
}

export function envelope(value: wit.Envelope): json.Envelope {
  const made: json.Envelope = {
    coordinationId: value.coordinationId,
    sourceSession: value.sourceSession,
    targetSession: value.targetSession,
    intent: value.intent,
    priority: value.priority,
    deliveryMode: word(value.deliveryMode),
    createdAtMs: Number(value.createdAtMs),
  };
  if (value.stepId !== undefined) made.stepId = value.stepId;
  if (value.parentStepId !== undefined) made.parentStepId = value.parentStepId;
  if (value.attempt !== undefined) made.attempt = value.attempt;
  if (value.deadlineMs !== undefined) made.deadlineMs = Number(value.deadlineMs);
  const given = trace(value.trace);
  if (given !== undefined) made.trace = given;
  if (value.contentType !== undefined) made.contentType = value.contentType;
  const { payload } = value;
  if (payload.tag === 'text') made.payload = payload.val;
  if (payload.tag === 'reference') made.payloadRef = { ...payload.val, bytes: Number(payload.val.bytes) };
  if (value.extensions.length > 0) made.extensions = value.extensions;
  if (value.outcome !== undefined) made.outcome = outcome(value.outcome);
  if (value.reason !== undefined) made.reason = value.reason;
  if (value.question !== undefined) made.question = { number: Number(value.question.number), text: value.question.text };
  if (value.tokens.length > 0) {
    made.tokens = value.tokens.map(({ resource, token }) => ({ resource, token: Number(token) }));
  }
  return made;
}

/** An empty one is left out. */
function trace(value: wit.Trace): json.Trace | undefined {
  let made: json.Trace | undefined;
  if (value.runId !== undefined) (made ??= {}).runId = value.runId;
  if (value.spanId !== undefined) (made ??= {}).spanId = value.spanId;
  if (value.causalRef !== undefined) (made ??= {}).causalRef = value.causalRef;
  if (value.traceparent !== undefined) (made ??= {}).traceparent = value.traceparent;
  return made;
}

function outcome(value: wit.Outcome): json.Outcome {
  switch (value.tag) {
    case 'completed':
      return 'completed';
    case 'failed':
      return { failed: { class: value.val.class, code: value.val.code, message: value.val.message } };
    case 'progress':
      return { progress: { number: Number(value.val) } };
  }
}

type WitResult<T> = { tag: 'ok'; val: T } | { tag: 'err'; val: wit.Rejection };

export function result<T, U>(value: WitResult<T>, ok: (value: T) => U): json.Result<U> {
  return value.tag === 'ok' ? { ok: ok(value.val) } : { error: rejection(value.val) };
}

export function receipt(value: wit.Receipt): json.Receipt {
  const made: json.Receipt = { status: value.status, state: value.state };
  if (value.seq !== undefined) made.seq = Number(value.seq);
  return made;
}

export function planReceipt(value: wit.PlanReceipt): json.PlanReceipt {
  const { coordinationId, planDigest, createdSeq, replayed, state, terminal } = value;
  const made: json.PlanReceipt = { coordinationId, planDigest, createdSeq: Number(createdSeq), replayed, state };
  if (terminal !== undefined) made.terminal = terminal;
  return made;
}

function rejection(value: wit.Rejection): json.Rejection {
  const { next } = value;
  const made: json.Rejection = {
    code: value.code,
    field: value.field,
    message: value.message,
    next: next.tag === 'retry' ? { retry: { afterMs: Number(next.val) } } : next.tag,
  };
  if (value.seq !== undefined) made.seq = Number(value.seq);
  if (value.problems.length > 0) made.problems = value.problems.map(problem);
  return made;
}

function problem({ stepId, field, code, message }: wit.Problem): json.Problem {
  return stepId === undefined ? { field, code, message } : { stepId, field, code, message };
}

export function grant({ resource, token, expiresMs }: wit.Grant): json.Grant {
  return { resource, token: Number(token), expiresMs: Number(expiresMs) };
}

export function decision({ stage, strategy, outcomes, reason }: wit.Decision): json.Decision {
  return { stage, strategy: word(strategy), outcomes, reason };
}

export function guardVerdict({ allowed, reason, expiresMs }: wit.GuardVerdict): json.GuardVerdict {
  return expiresMs === undefined ? { allowed, reason } : { allowed, reason, expiresMs: Number(expiresMs) };
}

export function head({ seq, hash }: wit.LedgerHead): json.Head {
  return { seq: Number(seq), hash };
}

export function chunk({ chunk, next }: wit.SnapshotChunk): json.SnapshotChunk {
  return next === undefined ? { chunk } : { chunk, next };
}

/** What the four cases without a text of their own say. */
const SAYS = {
  disabled: 'the domain is not configured or coordination.phase1.enabled is off',
  busy: 'more timers are due than one call may fire; advance until there are no more',
  'ledger-unavailable': 'the host did not take the records',
  rebuild: 'the instance is spent; make a new one and replay the ledger',
} as const;

export function callError(value: wit.CallError): json.CallError {
  switch (value.tag) {
    case 'invalid-config':
    case 'bound':
      return { code: value.tag, message: value.val.message, field: value.val.field };
    case 'unknown':
      return { code: value.tag, message: value.val, field: '' };
    case 'read-only': {
      const { seq, kind, message } = value.val;
      return { code: value.tag, message, field: '', seq: Number(seq), kind };
    }
    default:
      return { code: value.tag, message: SAYS[value.tag], field: '' };
  }
}
