// From plain JSON values to the records of jco: the arguments of a call, each tested for its form before the component is entered.
//
// Without that a wrong value would wrap, or throw when half of the call is already in the component's memory. The other
// direction is lift.ts.

import { InvalidRequest } from './door.ts';
import { flag, list, record, some, text, u32, u64, under, words } from './check.ts';
import type * as json from './types.ts';
import type * as wit from '../gen/interfaces/qm2-coordination-types.js';

const role = words('user', 'operator', 'admin', 'owner');
const intent = words('execute', 'report', 'cancel', 'escalate', 'ack');
const priority = words('low', 'normal', 'high', 'critical');
const deliveryMode = words('best-effort', 'at-least-once');
const failureClass = words('retryable', 'permanent', 'unknown');
const claimMode = words('shared', 'exclusive');
const strategy = words('owner-wins', 'priority-wins', 'merge-if-safe', 'manual-review');
export const access = words('read', 'write');
export const humanVerdict = words('approve', 'deny', 'completed');

export function caller(value: json.Caller, at: string, member?: string): wit.Caller {
  at = record(value, at, member);
  return { session: text(value.session, at, 'session'), role: some(value.role, at, 'role', role) };
}

export function envelope(value: json.Envelope, at: string, member?: string): wit.Envelope {
  at = record(value, at, member);
  return {
    coordinationId: text(value.coordinationId, at, 'coordinationId'),
    stepId: some(value.stepId, at, 'stepId', text),
    parentStepId: some(value.parentStepId, at, 'parentStepId', text),
    attempt: some(value.attempt, at, 'attempt', u32),
    sourceSession: text(value.sourceSession, at, 'sourceSession'),
    targetSession: text(value.targetSession, at, 'targetSession'),
    intent: intent(value.intent, at, 'intent'),
    priority: priority(value.priority, at, 'priority'),
    deliveryMode: deliveryMode(value.deliveryMode, at, 'deliveryMode'),
    deadlineMs: some(value.deadlineMs, at, 'deadlineMs', u64),
    createdAtMs: u64(value.createdAtMs, at, 'createdAtMs'),
    trace: some(value.trace, at, 'trace', trace) ?? {},
    contentType: some(value.contentType, at, 'contentType', text),
    payload: payload(value, at),
    extensions: list(value.extensions ?? [], at, 'extensions', extension),
    outcome: some(value.outcome, at, 'outcome', outcome),
    reason: some(value.reason, at, 'reason', text),
    question: some(value.question, at, 'question', question),
    tokens: list(value.tokens ?? [], at, 'tokens', fencingToken),
  };
}

function trace(value: json.Trace, at: string, member?: string): wit.Trace {
  at = record(value, at, member);
  return {
    runId: some(value.runId, at, 'runId', text),
    spanId: some(value.spanId, at, 'spanId', text),
    causalRef: some(value.causalRef, at, 'causalRef', text),
    traceparent: some(value.traceparent, at, 'traceparent', text),
  };
}

function payload({ payload, payloadRef }: json.Envelope, at: string): wit.Payload {
  if (payloadRef === undefined) {
    return payload === undefined ? { tag: 'empty' } : { tag: 'text', val: text(payload, at, 'payload') };
  }
  if (payload !== undefined) throw new InvalidRequest(under(at, 'payloadRef'), 'stands beside payload');
  const field = record(payloadRef, at, 'payloadRef');
  const uri = text(payloadRef.uri, field, 'uri');
  const sha256 = text(payloadRef.sha256, field, 'sha256');
  return { tag: 'reference', val: { uri, sha256, bytes: u64(payloadRef.bytes, field, 'bytes') } };
}

function extension(value: json.Extension, at: string, member?: string): wit.Extension {
  at = record(value, at, member);
  return { name: text(value.name, at, 'name'), text: text(value.text, at, 'text') };
}

function outcome(value: json.Outcome, at: string, member?: string): wit.Outcome {
  at = under(at, member);
  if (value === 'completed') return { tag: 'completed' };
  if (value !== null && typeof value === 'object' && 'progress' in value) {
    return { tag: 'progress', val: u64(value.progress.number, at, 'progress.number') };
  }
  if (value === null || typeof value !== 'object' || !('failed' in value)) {
    throw new InvalidRequest(at, 'is none of completed, failed, progress');
  }
  const { failed } = value;
  const code = text(failed.code, at, 'failed.code');
  const message = text(failed.message, at, 'failed.message');
  return { tag: 'failed', val: { class: failureClass(failed.class, at, 'failed.class'), code, message } };
}

function question(value: json.Question, at: string, member?: string): wit.Question {
  at = record(value, at, member);
  return { number: u64(value.number, at, 'number'), text: text(value.text, at, 'text') };
}

function fencingToken(value: json.FencingToken, at: string, member?: string): wit.FencingToken {
  at = record(value, at, member);
  return { resource: text(value.resource, at, 'resource'), token: u64(value.token, at, 'token') };
}

export function region(value: json.Region, at: string, member?: string): wit.Region {
  at = record(value, at, member);
  return { start: u64(value.start, at, 'start'), end: u64(value.end, at, 'end') };
}

/** These words stand as in the WIT. */
const NOTICE_KINDS: readonly string[] = ['unknown-target', 'dropped', 'host-lost', 'taken', 'unreachable'];

export function notice(value: json.Notice, at: string, member?: string): wit.Notice {
  at = record(value, at, member);
  if (!NOTICE_KINDS.includes(value.kind)) {
    throw new InvalidRequest(under(at, 'kind'), `is none of ${NOTICE_KINDS.join(', ')}`);
  }
  return { key: text(value.key, at, 'key'), kind: value.kind };
}

export function hookVerdict(value: json.HookVerdict, at: string, member?: string): wit.HookVerdict {
  at = under(at, member);
  if (value === 'no_opinion') return { tag: 'no-opinion' };
  if (value === 'review') return { tag: 'review' };
  if (value === null || typeof value !== 'object' || !('deny' in value)) {
    throw new InvalidRequest(at, 'is none of no_opinion, deny, review');
  }
  return { tag: 'deny', val: text(value.deny, at, 'deny') };
}

export function claimRequest(value: json.ClaimRequest, at: string, member?: string): wit.ClaimRequest {
  at = record(value, at, member);
  return {
    coordinationId: text(value.coordinationId, at, 'coordinationId'),
    stepId: text(value.stepId, at, 'stepId'),
    attempt: u32(value.attempt, at, 'attempt'),
    resource: text(value.resource, at, 'resource'),
    mode: claimMode(value.mode, at, 'mode'),
    leaseMs: u64(value.leaseMs, at, 'leaseMs'),
    baseVersion: some(value.baseVersion, at, 'baseVersion', text),
    regions: list(value.regions, at, 'regions', region),
  };
}

export function contest(value: json.Contest, at: string, member?: string): wit.Contest {
  at = record(value, at, member);
  return {
    resource: text(value.resource, at, 'resource'),
    atMs: u64(value.atMs, at, 'atMs'),
    contenders: list(value.contenders, at, 'contenders', contender),
    holders: list(value.holders, at, 'holders', contender),
  };
}

function contender(value: json.Contender, at: string, member?: string): wit.Contender {
  at = record(value, at, member);
  return {
    coordinationId: text(value.coordinationId, at, 'coordinationId'),
    stepId: text(value.stepId, at, 'stepId'),
    attempt: u32(value.attempt, at, 'attempt'),
    session: text(value.session, at, 'session'),
    priority: priority(value.priority, at, 'priority'),
    claimNumber: u64(value.claimNumber, at, 'claimNumber'),
    mode: claimMode(value.mode, at, 'mode'),
    baseVersion: some(value.baseVersion, at, 'baseVersion', text),
    regions: list(value.regions ?? [], at, 'regions', region),
    token: some(value.token, at, 'token', u64),
    expiresMs: some(value.expiresMs, at, 'expiresMs', u64),
    preemptible: flag(value.preemptible ?? false, at, 'preemptible'),
  };
}

export function policy(value: json.ArbiterPolicy, at: string, member?: string): wit.ArbiterPolicy {
  at = record(value, at, member);
  return {
    defaultStrategy: strategy(value.default, at, 'default'),
    rules: list(value.rules, at, 'rules', (rule, at) => ({
      resource: text(rule.resource, at, 'resource'),
      strategy: strategy(rule.strategy, at, 'strategy'),
    })),
    owners: list(value.owners, at, 'owners', (owner, at) => ({
      resource: text(owner.resource, at, 'resource'),
      session: text(owner.session, at, 'session'),
    })),
    highRisk: list(value.highRisk, at, 'highRisk', text),
    preempt: flag(value.preempt, at, 'preempt'),
  };
}
