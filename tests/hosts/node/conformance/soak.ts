// Many calls on one instance, and the memory that they take.
//
// What is replayed, read and closed must leave nothing behind: neither in the host nor in the component.

import type { OpenDoor } from '../adapter/door.ts';
import { Engine } from '../adapter/engine.ts';
import type { Envelope, Request } from '../adapter/types.ts';

export interface Point {
  calls: number;
  /** Bytes of the process. */
  resident: number;
  /** Bytes of the component. */
  wasm: number;
}

const POINTS = 10;
/** So often a coordination of two steps runs from its plan to its close. */
const COORDINATION_EVERY = 1_000;
const OWNER = 'user:owner';

/** Memory at ten points. */
export function soak(open: OpenDoor, calls: number, resident: () => number, point: (point: Point) => void): Point[] {
  const points: Point[] = [];
  const run = new Soak(open);
  run.start();
  for (let tenth = 1; tenth <= POINTS; tenth += 1) {
    const upTo = Math.round((calls * tenth) / POINTS);
    while (run.calls < upTo) run.next();
    const reached = { calls: run.calls, resident: resident(), wasm: run.engine.memory() };
    points.push(reached);
    point(reached);
  }
  return points;
}

/** Whether the last tenth takes more than the second: by a tenth, and by more than 8 MiB. */
export function grew(points: Point[]): boolean {
  const [before, after] = [points[1], points.at(-1)];
  if (before === undefined || after === undefined) throw new Error('too few points');
  return [[before.resident, after.resident], [before.wasm, after.wasm]].some(([from = 0, to = 0]) => {
    return to > 1.1 * from && to - from > 8 * 1024 * 1024;
  });
}

class Soak {
  readonly engine: Engine;
  calls = 0;
  #nowMs = 1_000;
  #coordinations = 0;

  constructor(open: OpenDoor) {
    this.engine = new Engine(open);
  }

  /** A coordination that stays: its step is taken up, and the ack for it is what comes again and again. */
  start(): void {
    this.#call({ call: 'configure', config: JSON.stringify({ domain: 'soak', phase1: { enabled: true }, maxInFlight: 16 }) });
    this.#plan('stays', ['a'], 86_400_000 * 300);
    this.#submit(envelope('stays', 'a', 'ack'), 'accepted');
  }

  next(): void {
    if (this.calls % COORDINATION_EVERY === 0) return this.#coordination();
    switch (this.calls % 6) {
      case 0:
        return this.#submit(envelope('stays', 'a', 'ack'), 'replayed');
      case 1:
        this.#nowMs += 1;
        return void this.#call({ call: 'advance', nowMs: this.#nowMs });
      case 2:
        return void this.#call({ call: 'head' });
      case 3:
        return void this.#call({ call: 'next-deadline' });
      case 4:
        return void this.#call({ call: 'describe', id: 'stays' });
      default: {
        const session = 'agent:a';
        const guard = { resource: 'file:notes.md', session, token: 1, mode: 'write', regions: [] } as const;
        return void this.#call({ call: 'check', nowMs: this.#nowMs, ...guard, regions: [] });
      }
    }
  }

  #coordination(): void {
    this.#coordinations += 1;
    const id = `c${this.#coordinations}`;
    this.#plan(id, ['x', 'y'], 60_000);
    for (const step of ['x', 'y']) this.#submit(envelope(id, step, 'ack'), 'accepted');
    for (const step of ['x', 'y']) this.#submit({ ...envelope(id, step, 'report'), outcome: 'completed' }, 'accepted');
    const keys = this.#reports.splice(0);
    if (keys.length === 0) throw new Error(`the owner of ${id} got no report of its end`);
    this.#call({ call: 'acknowledge', caller: { session: OWNER }, nowMs: this.#nowMs, keys });
  }

  readonly #reports: string[] = [];

  #plan(coordinationId: string, steps: string[], timeoutMs: number): void {
    const plan = {
      coordinationId,
      objective: 'last',
      ownerSession: OWNER,
      steps: steps.map((stepId) => ({ stepId, targetSession: `agent:${stepId}`, timeoutMs })),
    };
    this.#call({ call: 'submit-plan', caller: { session: OWNER }, nowMs: this.#nowMs, plan: JSON.stringify(plan) });
  }

  #submit(sent: Envelope, status: string): void {
    const value = this.#call({ call: 'submit', caller: { session: sent.sourceSession }, nowMs: this.#nowMs, envelopes: [sent] });
    const receipt = (value as { ok?: { status: string } }[])[0]?.ok;
    if (receipt?.status !== status) throw new Error(`submit: ${JSON.stringify(value)} is not ${status}`);
  }

  #call(request: Request): unknown {
    this.calls += 1;
    const { reply, staged } = this.engine.call(request);
    for (const { key } of staged.messages) if (key.startsWith('report:')) this.#reports.push(key);
    if (typeof reply === 'string') return undefined;
    if ('error' in reply) throw new Error(`${request.call}: ${JSON.stringify(reply)}`);
    return reply[request.call];
  }
}

function envelope(coordinationId: string, stepId: string, intent: 'ack' | 'report'): Envelope {
  return {
    coordinationId,
    stepId,
    attempt: 1,
    sourceSession: `agent:${stepId}`,
    targetSession: OWNER,
    intent,
    priority: 'normal',
    deliveryMode: 'at_least_once',
    createdAtMs: 1_000,
  };
}
