// A durable store in a browser: ledger, outbox and the files of the example in one IndexedDB, each commit one transaction.
//
// Imports of the component are synchronous and IndexedDB is not: the adapter stages during a call and waits for `commit` before it
// answers. One page owns a database; a second is not kept out here (the Web Locks API can do that).

import type { Commit, Store } from '../node/adapter/store.ts';
import type { Message } from '../node/adapter/types.ts';

const STORES = ['ledger', 'outbox', 'files'] as const;
type Name = (typeof STORES)[number];

interface Posted {
  key: string;
  /** How much of the ledger there was; orders the outbox. */
  seq: number;
  message: Message;
}

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

export class IndexedDbStore implements Store {
  readonly #database: IDBDatabase;
  #head: number;

  private constructor(database: IDBDatabase, head: number) {
    this.#database = database;
    this.#head = head;
  }

  static async open(name: string): Promise<IndexedDbStore> {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => {
      for (const store of STORES) request.result.createObjectStore(store);
    };
    const database = await done(request);
    const last = await done(database.transaction('ledger').objectStore('ledger').openKeyCursor(null, 'prev'));
    return new IndexedDbStore(database, (last?.key as number | undefined) ?? 0);
  }

  async *lines(atOnce: number): AsyncIterable<string[]> {
    for (let seq = 1; seq <= this.#head; seq += atOnce) {
      const range = IDBKeyRange.bound(seq, Math.min(seq + atOnce - 1, this.#head));
      yield (await done(this.#read('ledger').getAll(range))) as string[];
    }
  }

  async undelivered(): Promise<Message[]> {
    const posted = (await done(this.#read('outbox').getAll())) as Posted[];
    return posted.sort((a, b) => a.seq - b.seq).map(({ message }) => message);
  }

  async commit({ lines, messages, withdrawn }: Commit): Promise<void> {
    if (lines.length === 0 && messages.length === 0 && withdrawn.length === 0) return;
    let seq = this.#head;
    await this.#written(['ledger', 'outbox'], (store) => {
      // `add` fails on a number that is there: then somebody else writes this ledger too, and nothing of this is kept.
      for (const line of lines) store('ledger').add(line, (seq += 1));
      for (const message of messages) store('outbox').put({ key: message.key, seq, message } satisfies Posted, message.key);
      for (const key of withdrawn) store('outbox').delete(key);
    });
    this.#head = seq;
  }

  async delivered(key: string, delivery: number): Promise<void> {
    await this.#written(['outbox'], (store) => {
      const request = store('outbox').get(key) as IDBRequest<Posted | undefined>;
      request.onsuccess = () => {
        if (request.result?.message.delivery === delivery) store('outbox').delete(key);
      };
    });
  }

  close(): void {
    this.#database.close();
  }

  /** A file of the example. */
  async readFile(path: string): Promise<string> {
    return ((await done(this.#read('files').get(path))) as string | undefined) ?? '';
  }

  async writeFile(path: string, text: string): Promise<void> {
    await this.#written(['files'], (store) => void store('files').put(text, path));
  }

  #read(name: Name): IDBObjectStore {
    return this.#database.transaction(name).objectStore(name);
  }

  /** Resolves once all of it is on disk; rejects with nothing kept. */
  #written(names: Name[], write: (store: (name: Name) => IDBObjectStore) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      const transaction = this.#database.transaction(names, 'readwrite', { durability: 'strict' });
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error ?? new Error('the transaction was given up'));
      write((name) => transaction.objectStore(name));
    });
  }
}
