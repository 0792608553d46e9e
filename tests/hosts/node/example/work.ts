// What the three agents do. Runs wherever there is a way to ask the host: in a process of its own, or as a promise.
//
// An agent has no file and no person at hand; it asks, under the fencing token of its attempt.

import type { Envelope } from '../adapter/types.ts';
import { FILE, LINES_A_WRITER, lineOf } from './plan.ts';

/** What an agent can ask of its host; an error is thrown. */
export type Wish =
  | { wish: 'read'; path: string }
  | { wish: 'write'; path: string; text: string; token: number }
  | { wish: 'question'; text: string };
export type Ask = (wish: Wish) => Promise<string>;

/** Long enough for another to get in between, were it let. */
const THINKS_MS = 10;

/** The outcome of an attempt. */
export async function work(envelope: Envelope, ask: Ask): Promise<string> {
  return envelope.targetSession === 'agent:publisher' ? publish(ask) : write(envelope, ask);
}

async function write({ payload = '', tokens = [] }: Envelope, ask: Ask): Promise<string> {
  const token = tokens.find(({ resource }) => resource === `file:${FILE}`)?.token;
  if (token === undefined) throw new Error(`there is no token for ${FILE}`);
  for (let number = 1; number <= LINES_A_WRITER; number += 1) {
    const text = await ask({ wish: 'read', path: FILE });
    const line = lineOf(payload, number);
    // An attempt before this one may have come so far.
    if (text.includes(line)) continue;
    await new Promise((resolve) => setTimeout(resolve, THINKS_MS));
    await ask({ wish: 'write', path: FILE, text: text + line, token });
  }
  return `${LINES_A_WRITER} lines`;
}

async function publish(ask: Ask): Promise<string> {
  const text = await ask({ wish: 'read', path: FILE });
  const said = await ask({ wish: 'question', text: `Publish ${FILE} with ${text.split('\n').length - 1} lines?` });
  return `published: ${said}`;
}
