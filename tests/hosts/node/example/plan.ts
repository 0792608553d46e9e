// The plan of the example: two writers that need the same file for themselves, and a publisher that asks a person first.

import type { Options } from '../adapter/domain.ts';

export const FILE = 'notes.md';
export const OWNER = 'user:owner';
export const LINES_A_WRITER = 5;
const WRITERS = ['a', 'b'];

export const CONFIG: Options['config'] = { domain: 'example', phase1: { enabled: true } };

export const PLAN = {
  coordinationId: 'notes-1',
  objective: 'two agents write one file, none over the other; then a person lets a third publish it',
  ownerSession: OWNER,
  failurePolicy: {
    retryBudget: 2,
    backoffMs: [1_000],
    escalationPolicy: 'hitl',
    human: { levels: [{ sessions: ['user:dana'], minRole: 'operator', timeoutMs: 600_000 }], fallback: 'deny' },
  },
  steps: [
    ...WRITERS.map((writer) => ({
      stepId: `write-${writer}`,
      targetSession: `agent:writer:${writer}`,
      payload: writer,
      timeoutMs: 60_000,
      claims: [{ resource: `file:${FILE}`, mode: 'exclusive', leaseMs: 30_000 }],
    })),
    {
      stepId: 'publish',
      targetSession: 'agent:publisher',
      timeoutMs: 60_000,
      dependsOn: WRITERS.map((writer) => ({ stepId: `write-${writer}` })),
    },
  ],
};

/** What a writer writes. */
export function lineOf(writer: string, number: number): string {
  return `line ${number} of ${writer}\n`;
}

/** Throws unless every line of every writer is in the text, once. */
export function verifyText(text: string): void {
  const wanted = WRITERS.flatMap((writer) => Array.from({ length: LINES_A_WRITER }, (_, at) => lineOf(writer, at + 1)));
  const got = text.split(/(?<=\n)/);
  if (got.sort().join('') !== wanted.sort().join('')) throw new Error(`${FILE} is not what was to be written:\n${text}`);
}
