// A durable store in one SQLite file: ledger and outbox, each commit one transaction, on disk before it returns.
//
// Node's own SQLite where it has one (from 22.13), else the package of the same interface. One process owns the file: a second
// one that opens it is refused.

import { createRequire } from 'node:module';
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import type { Commit, Store } from './store.ts';
import type { Message } from './types.ts';

const SCHEMA = `
CREATE TABLE IF NOT EXISTS ledger (seq INTEGER PRIMARY KEY, line TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (key TEXT PRIMARY KEY, delivery INTEGER NOT NULL, message TEXT NOT NULL);
`;

interface Statements {
  begin: StatementSync;
  commit: StatementSync;
  rollback: StatementSync;
  line: StatementSync;
  message: StatementSync;
  withdraw: StatementSync;
  delivered: StatementSync;
}

function open(path: string): DatabaseSync {
  const require = createRequire(import.meta.url);
  let sqlite: typeof import('node:sqlite');
  try {
    sqlite = require('node:sqlite');
  } catch {
    sqlite = require('@photostructure/sqlite');
  }
  return new sqlite.DatabaseSync(path);
}

export class SqliteStore implements Store {
  readonly #database: DatabaseSync;
  readonly #statements: Statements;
  #head: number;

  constructor(path: string) {
    const database = open(path);
    this.#database = database;
    database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;');
    database.exec(`BEGIN EXCLUSIVE; ${SCHEMA} COMMIT;`);
    this.#statements = {
      begin: database.prepare('BEGIN IMMEDIATE'),
      commit: database.prepare('COMMIT'),
      rollback: database.prepare('ROLLBACK'),
      line: database.prepare('INSERT INTO ledger (seq, line) VALUES (?, ?)'),
      message: database.prepare(
        `INSERT INTO outbox (key, delivery, message) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE
         SET delivery = excluded.delivery, message = excluded.message WHERE delivery <= excluded.delivery`,
      ),
      withdraw: database.prepare('DELETE FROM outbox WHERE key = ?'),
      delivered: database.prepare('DELETE FROM outbox WHERE key = ? AND delivery = ?'),
    };
    this.#head = this.#last();
  }

  *lines(atOnce: number): Iterable<string[]> {
    const some = this.#database.prepare('SELECT line FROM ledger WHERE seq > ? ORDER BY seq LIMIT ?');
    for (let seq = 0; seq < this.#head; seq += atOnce) {
      yield some.all(seq, atOnce).map((row) => row['line'] as string);
    }
  }

  undelivered(): Message[] {
    const rows = this.#database.prepare('SELECT message FROM outbox ORDER BY rowid').all();
    return rows.map((row) => JSON.parse(row['message'] as string) as Message);
  }

  commit({ lines, messages, withdrawn }: Commit): void {
    if (lines.length === 0 && messages.length === 0 && withdrawn.length === 0) return;
    const statements = this.#statements;
    statements.begin.run();
    try {
      let seq = this.#head;
      for (const line of lines) statements.line.run((seq += 1), line);
      for (const message of messages) statements.message.run(message.key, message.delivery, JSON.stringify(message));
      for (const key of withdrawn) statements.withdraw.run(key);
      statements.commit.run();
      this.#head = seq;
    } catch (error) {
      // Also after a commit whose end nobody knows: what is in the file counts.
      if (this.#database.isTransaction) statements.rollback.run();
      this.#head = this.#last();
      throw error;
    }
  }

  delivered(key: string, delivery: number): void {
    this.#statements.delivered.run(key, delivery);
  }

  close(): void {
    this.#database.close();
  }

  #last(): number {
    return this.#database.prepare('SELECT coalesce(max(seq), 0) AS seq FROM ledger').get()?.['seq'] as number;
  }
}
