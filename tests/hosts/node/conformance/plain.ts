// The first pass over a vector: a bare instance, every call and everything that comes of it, and the three instances of its end.
//
// Nothing goes wrong here but what the vector says; faulty.ts makes things go wrong.

import { verifyChain } from '../adapter/ledger.ts';
import { Engine } from '../adapter/engine.ts';
import { type OpenDoor, refusal } from '../adapter/door.ts';
import type { Request, SnapshotChunk, Value } from '../adapter/types.ts';
import { type End, LINES_A_REPLAY, lists, outcome, type Run, runs, same, SNAPSHOT_BYTES, type Vector } from './vector.ts';

/** Throws at the first difference. */
export async function plain(vector: Vector, open: OpenDoor): Promise<void> {
  for (const run of runs(vector)) await new Plain(open).run(run);
}

class Plain {
  readonly #open: OpenDoor;
  readonly #engine: Engine;
  #refusing = false;
  readonly #ledger: string[] = [];
  #restored = false;

  constructor(open: OpenDoor) {
    this.#open = open;
    this.#engine = new Engine(open, { append: () => !this.#refusing });
  }

  async run({ run, steps, end }: Run): Promise<void> {
    for (const [index, step] of steps.entries()) {
      const at = `run ${run}, step ${index + 1}`;
      if ('refuseAppends' in step) {
        this.#refusing = true;
      } else if ('restart' in step) {
        this.#restart();
      } else if ('lost' in step) {
        this.#engine.call(step.lost);
        this.#restart();
      } else {
        const { call, ...wanted } = step;
        same(wanted, this.#call(call), `${at} (${call.call})`);
      }
    }
    if (end !== undefined) await this.#end(end, `end of run ${run}`);
  }

  #call(request: Request): Record<string, unknown> {
    const { reply, staged } = this.#engine.call(request);
    this.#ledger.push(...staged.lines);
    if (refusal(reply) === undefined) {
      if (request.call === 'replay') this.#ledger.push(...request.lines);
      if (request.call === 'restore') this.#restored = true;
    }
    return outcome(reply, staged);
  }

  #restart(): void {
    this.#refusing = false;
    this.#engine.renew();
    replay(this.#engine, this.#ledger, this.#ledger.length);
  }

  async #end(wanted: End, at: string): Promise<void> {
    same(wanted, ended(this.#engine), at);
    if (!this.#restored) {
      same(wanted.head, await verifyChain(this.#ledger), `${at}, chain`);
      const replayed = new Engine(this.#open);
      replay(replayed, this.#ledger, LINES_A_REPLAY);
      same(wanted, ended(replayed), `${at}, replayed`);
    }
    same(wanted, ended(this.#copied()), `${at}, restored`);
  }

  #copied(): Engine {
    const copy = new Engine(this.#open);
    for (let cursor: string | undefined; ; ) {
      const request: Request<'snapshot'> = { call: 'snapshot', maxBytes: SNAPSHOT_BYTES };
      if (cursor !== undefined) request.cursor = cursor;
      const { chunk, next } = value<'snapshot'>(this.#engine, request) as SnapshotChunk;
      value<'restore'>(copy, { call: 'restore', chunk, last: next === undefined });
      if (next === undefined) return copy;
      cursor = next;
    }
  }
}

function value<N extends Request['call']>(engine: Engine, request: Request<N>): Value<N> {
  const { reply } = engine.call(request as Request);
  if (typeof reply === 'string' || 'error' in reply) throw new Error(`${request.call}: ${JSON.stringify(reply)}`);
  return reply[request.call] as Value<N>;
}

function replay(engine: Engine, ledger: string[], atOnce: number): void {
  for (let at = 0; at < ledger.length; at += atOnce) {
    const error = engine.replay(ledger.slice(at, at + atOnce));
    if (error !== undefined) throw new Error(`replay: ${JSON.stringify(error)}`);
  }
}

/** Where an instance is, and what it has out. */
export function ended(engine: Engine): End {
  const head = value<'head'>(engine, { call: 'head' });
  const stateDigest = value<'state-digest'>(engine, { call: 'state-digest' });
  const { reply, staged } = engine.call({ call: 'reconcile' });
  const error = refusal(reply);
  if (error === undefined) same('reconcile', reply, 'reconcile');
  return { head, stateDigest, reconcile: { ...(error === undefined ? {} : { error }), ...lists(staged) } };
}
