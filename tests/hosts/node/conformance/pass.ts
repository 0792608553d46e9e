// All vectors through one door, in both passes, and requests of the wrong form; the same in Node and in a browser.

import type { OpenDoor } from '../adapter/door.ts';
import { faulty } from './faulty.ts';
import { plain } from './plain.ts';
import type { Vector } from './vector.ts';
import { wrong } from './wrong.ts';

export interface Tally {
  vectors: number;
  passed: number;
  rebuilds: number;
  seconds: number;
}

/** A door must have been lost and made anew more often than this. */
export const REBUILDS_MIN = 100;

/** `failed` is told of every vector that does not come out as written. */
export async function pass(
  vectors: ReadonlyMap<string, Vector>,
  open: OpenDoor,
  failed: (name: string, difference: string) => void,
): Promise<Tally> {
  const started = performance.now();
  const tally = { vectors: vectors.size, passed: 0, rebuilds: 0, seconds: 0 };
  try {
    wrong(open);
  } catch (error) {
    failed('requests of the wrong form', String(error));
    return tally;
  }
  for (const [name, vector] of vectors) {
    try {
      await plain(vector, open);
      tally.rebuilds += await faulty(name, vector, open);
      tally.passed += 1;
    } catch (error) {
      failed(name, error instanceof Error ? `${error.message}${cause(error)}` : String(error));
    }
  }
  tally.seconds = Math.round(performance.now() - started) / 1_000;
  return tally;
}

function cause({ cause }: Error): string {
  return cause === undefined ? '' : `\nbecause: ${cause instanceof Error ? cause.stack : String(cause)}`;
}
