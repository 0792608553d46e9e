// The door of records: the typed interfaces `coordination`, `arbitration` and `recovery`, as jco binds them.
//
// Turns plain JSON values into records and back. jco takes a value that is half right as it comes, and its u64 is a bigint;
// hence lower.ts and lift.ts.

import type { Door, Imports, OpenDoor, Reply } from './door.ts';
import * as lift from './lift.ts';
import * as lower from './lower.ts';
import { flag, list, some, text, u32, u64 } from './check.ts';
import { type Component, type Exports, instance } from './component.ts';
import type * as json from './types.ts';
import type { CallError } from '../gen/interfaces/qm2-coordination-types.js';

type Interfaces = Pick<Exports, 'coordination' | 'arbitration' | 'recovery'>;
type Functions = { [N in json.Name]: (to: Interfaces, request: json.Request<N>) => json.Value<N> };

const CALLS: Functions = {
  configure: (to, it) => (to.coordination.configure(text(it.config, 'config')), null),
  'submit-plan': (to, it) => {
    const caller = lower.caller(it.caller, 'caller');
    return lift.result(to.coordination.submitPlan(caller, u64(it.nowMs, 'nowMs'), text(it.plan, 'plan')), lift.planReceipt);
  },
  submit: (to, it) => {
    const caller = lower.caller(it.caller, 'caller');
    const envelopes = list(it.envelopes, '', 'envelopes', lower.envelope);
    return receipts(to.coordination.submit(caller, u64(it.nowMs, 'nowMs'), envelopes));
  },
  acknowledge: (to, it) => {
    const caller = lower.caller(it.caller, 'caller');
    return receipts(to.coordination.acknowledge(caller, u64(it.nowMs, 'nowMs'), list(it.keys, '', 'keys', text)));
  },
  advance: (to, it) => to.coordination.advance(u64(it.nowMs, 'nowMs')),
  'next-deadline': (to) => {
    const due = to.coordination.nextDeadline();
    return due === undefined ? null : Number(due);
  },
  notice: (to, it) => {
    return receipts(to.coordination.notice(u64(it.nowMs, 'nowMs'), list(it.notices, '', 'notices', lower.notice)));
  },
  verdict: (to, it) => {
    const [hookId, handler] = [text(it.hookId, 'hookId'), text(it.handler, 'handler')];
    const verdict = lower.hookVerdict(it.verdict, 'verdict');
    return lift.result(to.coordination.verdict(u64(it.nowMs, 'nowMs'), hookId, handler, verdict), lift.receipt);
  },
  answer: (to, it) => {
    const [actor, nowMs] = [lower.caller(it.actor, 'actor'), u64(it.nowMs, 'nowMs')];
    const [id, digest] = [text(it.escalationId, 'escalationId'), text(it.digest, 'digest')];
    const verdict = lower.humanVerdict(it.verdict, 'verdict');
    const said = some(it.text, '', 'text', text);
    return lift.result(to.coordination.answer(actor, nowMs, id, digest, verdict, said), lift.receipt);
  },
  arbitrate: (to, it) => {
    return lift.decision(to.arbitration.arbitrate(lower.contest(it.contest, 'contest'), lower.policy(it.policy, 'policy')));
  },
  claim: (to, it) => {
    const [caller, nowMs] = [lower.caller(it.caller, 'caller'), u64(it.nowMs, 'nowMs')];
    return lift.result(to.arbitration.claim(caller, nowMs, lower.claimRequest(it.request, 'request')), lift.grant);
  },
  renew: (to, it) => lift.result(to.arbitration.renew(...attemptTokens(it)), (grants) => grants.map(lift.grant)),
  release: (to, it) => lift.result(to.arbitration.release(...attemptTokens(it)), lift.receipt),
  check: (to, it) => {
    const [nowMs, token] = [u64(it.nowMs, 'nowMs'), u64(it.token, 'token')];
    const [resource, session] = [text(it.resource, 'resource'), text(it.session, 'session')];
    const mode = lower.access(it.mode, 'mode');
    const regions = list(it.regions, '', 'regions', lower.region);
    const baseVersion = some(it.baseVersion, '', 'baseVersion', text);
    return lift.guardVerdict(to.arbitration.check(nowMs, resource, session, token, mode, regions, baseVersion));
  },
  describe: (to, it) => to.coordination.describe(text(it.id, 'id')),
  'explain-wait': (to, it) => to.coordination.explainWait(text(it.id, 'id'), text(it.stepId, 'stepId')),
  head: (to) => lift.head(to.coordination.head()),
  replay: (to, it) => lift.head(to.recovery.replay(list(it.lines, '', 'lines', text), flag(it.checked, 'checked'))),
  snapshot: (to, it) => {
    return lift.chunk(to.recovery.snapshot(some(it.cursor, '', 'cursor', text), u64(it.maxBytes, 'maxBytes')));
  },
  restore: (to, it) => lift.head(to.recovery.restore(text(it.chunk, 'chunk'), flag(it.last, 'last'))),
  reconcile: (to) => (to.recovery.reconcile(), null),
  'state-digest': (to) => to.recovery.stateDigest(),
};

function receipts(values: ReturnType<Interfaces['coordination']['submit']>): json.Result<json.Receipt>[] {
  return values.map((value) => lift.result(value, lift.receipt));
}

function attemptTokens(it: json.Request<'renew' | 'release'>): Parameters<Interfaces['arbitration']['renew']> {
  return [
    lower.caller(it.caller, 'caller'),
    u64(it.nowMs, 'nowMs'),
    text(it.coordinationId, 'coordinationId'),
    text(it.stepId, 'stepId'),
    u32(it.attempt, 'attempt'),
    BigUint64Array.from(list(it.tokens, '', 'tokens', u64)),
  ];
}

/** Opens instances of a component that jco has transpiled. */
export function recordsDoor(component: Component): OpenDoor {
  return (imports: Imports): Door => {
    const { exports, memory } = instance(component, imports);
    return { memory, call: (request) => call(exports, request) };
  };
}

function call(exports: Interfaces, request: json.Request): Reply {
  const { call: name } = request;
  // The table has a function of just this request's kind under its name, which TypeScript does not follow.
  const made = CALLS[name] as (to: Interfaces, request: json.Request) => unknown;
  let value: unknown;
  try {
    value = made(exports, request);
  } catch (thrown) {
    const payload = (thrown as { payload?: CallError } | undefined)?.payload;
    // A result of the WIT comes as jco's ComponentError; everything else is a trap, or a fault of the host.
    if (payload?.tag === undefined) throw thrown;
    return { error: lift.callError(payload) };
  }
  return value === null && NO_VALUE.has(name) ? name : { [name]: value };
}

const NO_VALUE: ReadonlySet<string> = new Set(['configure', 'reconcile']);
