// Checks the hash chain of a ledger without the component, as anybody could.
//
// Says that no line was changed, lost or added. Whether the records make sense the component says, in `replay`.

import type { Head } from './types.ts';

const HASH = /^(.*),"hash":"([0-9a-f]{64})"\}$/s;

/** The head of these lines; throws with the number of the first that is wrong. */
export async function verifyChain(lines: Iterable<string>): Promise<Head> {
  const encoder = new TextEncoder();
  const head: Head = { seq: 0, hash: '0'.repeat(64) };
  for (const line of lines) {
    head.seq += 1;
    const [, content, hash] = HASH.exec(line) ?? [];
    if (content === undefined || hash === undefined) throw new Error(`record ${head.seq} has no hash`);
    const { seq, prev } = JSON.parse(line) as { seq: number; prev: string };
    if (seq !== head.seq) throw new Error(`record ${head.seq} says that it is ${seq}`);
    if (prev !== head.hash) throw new Error(`record ${head.seq} does not follow the one before it`);
    const digest = await crypto.subtle.digest('SHA-256', encoder.encode(`${content}}`));
    const hex = Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('');
    if (hex !== hash) throw new Error(`record ${head.seq} is not what was hashed`);
    head.hash = hash;
  }
  return head;
}
