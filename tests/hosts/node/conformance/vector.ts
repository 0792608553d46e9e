// The form of a vector file, how two values are compared, and the rule by which faults are chosen.
//
// Runs nothing: plain.ts and faulty.ts do.

import { nothing, type Staged } from '../adapter/engine.ts';
import type { CallError, Head, Name, Request } from '../adapter/types.ts';

export interface Vector {
  format: number;
  title: string;
  rules: string[];
  runs: Run[];
}

export interface Run {
  run: number;
  begins?: { run: number; steps: number };
  steps: Step[];
  end?: End;
}

export type Step =
  | ({ call: Request; answer?: unknown; error?: CallError } & Partial<Staged>)
  | { refuseAppends: true }
  | { restart: true }
  | { lost: Request };

export interface End {
  head: Head;
  stateDigest: string;
  reconcile: { error?: CallError } & Partial<Staged>;
}

/** The wished size of the pieces of a snapshot, and how many lines a call gives back. */
export const SNAPSHOT_BYTES = 2_000;
export const LINES_A_REPLAY = 7;

/** Which import a list of a step came through. */
export const LISTS = Object.keys(nothing()) as (keyof Staged)[];

/** The runs of a vector, each with the steps that it begins with. */
export function runs(vector: Vector): Run[] {
  if (vector.format !== 1) throw new Error(`format ${vector.format} is not known`);
  const whole = new Map<number, Run>();
  for (const run of vector.runs) {
    let { steps } = run;
    if (run.begins !== undefined) {
      const earlier = whole.get(run.begins.run);
      if (earlier === undefined) throw new Error(`run ${run.run} begins with a run that is not there`);
      steps = [...earlier.steps.slice(0, run.begins.steps), ...steps];
    }
    whole.set(run.run, { ...run, steps });
  }
  return [...whole.values()];
}

export type { Name };

/** What stands beside a call once it was made: its answer or error, and the lists that are not empty. */
export function outcome(reply: unknown, staged: Staged): Record<string, unknown> {
  const isError = typeof reply === 'object' && reply !== null && 'error' in reply;
  return { ...(isError ? { error: reply.error } : { answer: reply }), ...lists(staged) };
}

export function lists(staged: Staged): Partial<Staged> {
  const made: Record<string, unknown[]> = {};
  for (const name of LISTS) if (staged[name].length > 0) made[name] = staged[name];
  return made as Partial<Staged>;
}

/** Throws at the first difference: members, in whatever order, must be the same, and lists in theirs; text by its letters. */
export function same(wanted: unknown, got: unknown, at: string): void {
  if (Object.is(wanted, got)) return;
  if (typeof wanted !== 'object' || typeof got !== 'object' || wanted === null || got === null) throw unlike(wanted, got, at);
  if (Array.isArray(wanted) !== Array.isArray(got)) throw unlike(wanted, got, at);
  const names = new Set([...Object.keys(wanted), ...Object.keys(got)]);
  for (const name of names) {
    // A member that is there and undefined is another one than a member that is not there.
    if (!Object.hasOwn(wanted, name) || !Object.hasOwn(got, name)) throw unlike(wanted, got, `${at}.${name}`);
    same((wanted as Record<string, unknown>)[name], (got as Record<string, unknown>)[name], `${at}.${name}`);
  }
}

function unlike(wanted: unknown, got: unknown, at: string): Error {
  return new Error(`${at}:\nwanted: ${JSON.stringify(wanted)}\n   got: ${JSON.stringify(got)}`);
}

/** FNV-1a: the same choice in every language. */
export function hash(text: string): number {
  let value = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) value = Math.imul(value ^ byte, 0x01000193) >>> 0;
  return value;
}
