// Requests of the wrong form: each must be refused through every door, with the same member to blame, and cost nothing.
//
// Bounds and meanings are in the vectors; this is about what would wrap, or break a call half-way, on its way in.

import { InvalidRequest, type OpenDoor, refusal } from '../adapter/door.ts';
import { Engine } from '../adapter/engine.ts';
import type { Request } from '../adapter/types.ts';
import { same } from './vector.ts';

const ENVELOPE = {
  coordinationId: 'c',
  stepId: 's',
  attempt: 1,
  sourceSession: 'agent:a',
  targetSession: 'user:owner',
  intent: 'report',
  priority: 'normal',
  deliveryMode: 'at_least_once',
  createdAtMs: 0,
};
const SUBMIT = { call: 'submit', caller: { session: 'agent:a' }, nowMs: 0, envelopes: [ENVELOPE] };

function submit(member: object): object {
  return { ...SUBMIT, envelopes: [ENVELOPE, { ...ENVELOPE, ...member }] };
}

const WRONG: [request: object, field: string][] = [
  [{ call: 'advance', nowMs: -1 }, 'nowMs'],
  [{ call: 'advance', nowMs: 1.5 }, 'nowMs'],
  [{ call: 'advance', nowMs: 2 ** 64 }, 'nowMs'],
  [{ call: 'advance', nowMs: '12' }, 'nowMs'],
  [{ ...SUBMIT, caller: { session: 'agent:a', role: 'boss' } }, 'caller.role'],
  [submit({ attempt: 2 ** 32 + 7 }), 'envelopes[1].attempt'],
  [submit({ intent: 'shout' }), 'envelopes[1].intent'],
  [submit({ deliveryMode: 'at-least-once' }), 'envelopes[1].deliveryMode'],
  [submit({ outcome: { progress: { number: -3 } } }), 'envelopes[1].outcome.progress.number'],
  [submit({ extensions: [{ name: 'n', text: 7 }] }), 'envelopes[1].extensions[0].text'],
  [{ call: 'notice', nowMs: 0, notices: [{ key: 'c:s:1', kind: 'host_lost' }] }, 'notices[0].kind'],
  [{ call: 'replay', lines: ['{}', 7], checked: false }, 'lines[1]'],
  [{ call: 'describe', id: true }, 'id'],
];

/** Throws at the first that is taken, or that is refused for another member. */
export function wrong(open: OpenDoor): void {
  const engine = new Engine(open);
  for (const [request, field] of WRONG) {
    same(field, blamed(engine, request as Request), JSON.stringify(request));
    same({ head: { seq: 0, hash: '0'.repeat(64) } }, engine.call({ call: 'head' }).reply, 'head after a wrong request');
  }
}

function blamed(engine: Engine, request: Request): string | undefined {
  try {
    const error = refusal(engine.call(request).reply);
    return error?.code === 'invalid-request' ? error.field : undefined;
  } catch (error) {
    if (error instanceof InvalidRequest) return error.field;
    throw error;
  }
}
