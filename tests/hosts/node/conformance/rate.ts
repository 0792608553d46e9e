// How many envelopes a second one door takes, on a workload of calls; the same in Node and in a browser.
//
// Counts the `submit` calls alone: from values of the language to values of the language, with what they hand out staged, without
// a store.

import type { OpenDoor } from '../adapter/door.ts';
import { Engine } from '../adapter/engine.ts';
import type { Request } from '../adapter/types.ts';

export interface Workload {
  calls: Request[];
  stateDigest: string;
}

/** Measured at least so long, after a first round that does not count. */
const MEASURED_MS = 1_000;

/** A file of a workload: a call a line, and in the last the state that they lead to. */
export function workload(text: string): Workload {
  const lines = text.trimEnd().split('\n').map((line) => JSON.parse(line) as unknown);
  const { stateDigest } = lines.pop() as { stateDigest: string };
  return { calls: lines as Request[], stateDigest };
}

/** Envelopes a second. */
export function rate(open: OpenDoor, { calls, stateDigest }: Workload): number {
  let [measured, envelopes] = [0, 0];
  for (let round = 0; measured < MEASURED_MS; round += 1) {
    const engine = new Engine(open);
    for (const request of calls) {
      const started = performance.now();
      const { reply } = engine.call(request);
      const took = performance.now() - started;
      if (typeof reply === 'object' && 'error' in reply) throw new Error(`${request.call}: ${JSON.stringify(reply)}`);
      if (round === 0 || request.call !== 'submit') continue;
      measured += took;
      envelopes += request.envelopes.length;
    }
    const { reply } = engine.call({ call: 'state-digest' });
    const digest = (reply as Record<string, unknown>)['state-digest'];
    if (digest !== stateDigest) throw new Error(`the state is ${String(digest)} and not ${stateDigest}`);
  }
  return Math.round((1_000 * envelopes) / measured);
}
