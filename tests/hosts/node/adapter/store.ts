// Where a domain is kept: the interface, and one in memory for tests and for trying things out.
//
// sqlite.ts keeps one durably under Node, ../browser/indexeddb.ts in a browser.

import type { Message } from './types.ts';

/** What one or more calls brought, to be kept as a whole or not at all. */
export interface Commit {
  lines: string[];
  /** To be delivered; a later delivery of a key takes the place of the one before. */
  messages: Message[];
  /** Keys whose messages must not go out any more. */
  withdrawn: string[];
}

/** The answers may be promises or not. */
export interface Store {
  /** The whole ledger in order, so many lines at once. */
  lines(atOnce: number): Iterable<string[]> | AsyncIterable<string[]>;
  /** Messages that were kept and not yet delivered, oldest first. */
  undelivered(): Message[] | Promise<Message[]>;
  /** Durable when it returns. Throws if nothing was kept, or if that is not known. */
  commit(commit: Commit): void | Promise<void>;
  /** This delivery was taken by its receiver. */
  delivered(key: string, delivery: number): void | Promise<void>;
  close(): void | Promise<void>;
}

/** The messages of an outbox: one a key, the latest delivery of it. */
export function post(outbox: Map<string, Message>, { messages, withdrawn }: Commit): void {
  for (const message of messages) {
    const before = outbox.get(message.key);
    if (before === undefined || before.delivery <= message.delivery) outbox.set(message.key, message);
  }
  for (const key of withdrawn) outbox.delete(key);
}

export class MemoryStore implements Store {
  readonly ledger: string[] = [];
  readonly #outbox = new Map<string, Message>();

  *lines(atOnce: number): Iterable<string[]> {
    for (let at = 0; at < this.ledger.length; at += atOnce) yield this.ledger.slice(at, at + atOnce);
  }

  undelivered(): Message[] {
    return [...this.#outbox.values()];
  }

  commit(commit: Commit): void {
    for (const line of commit.lines) this.ledger.push(line);
    post(this.#outbox, commit);
  }

  delivered(key: string, delivery: number): void {
    if (this.#outbox.get(key)?.delivery === delivery) this.#outbox.delete(key);
  }

  close(): void {}
}
