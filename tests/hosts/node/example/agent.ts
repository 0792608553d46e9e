// One agent as a process of its own: a line of JSON in and out a message, and it ends when its host does.

import { createInterface } from 'node:readline';
import type { Envelope } from '../adapter/types.ts';
import { type Wish, work } from './work.ts';

type In = { envelope: Envelope } | { ok: string } | { error: string };

let answered: { resolve(value: string): void; reject(error: Error): void } | undefined;

function say(out: { ask: Wish } | { result: string } | { failed: string }): void {
  process.stdout.write(`${JSON.stringify(out)}\n`);
}

function ask(wish: Wish): Promise<string> {
  say({ ask: wish });
  return new Promise((resolve, reject) => (answered = { resolve, reject }));
}

createInterface({ input: process.stdin })
  .on('line', (line) => {
    const message = JSON.parse(line) as In;
    if ('ok' in message) answered?.resolve(message.ok);
    else if ('error' in message) answered?.reject(new Error(message.error));
    else void work(message.envelope, ask).then((result) => say({ result }), (error) => say({ failed: String(error) }));
  })
  .on('close', () => process.exit());
