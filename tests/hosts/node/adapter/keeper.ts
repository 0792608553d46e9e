// Keeps what an instance says: calls in, one commit for those that come together, and a new instance where one is lost.
//
// Every answer, and everything handed out, waits for the commit that covers it. An instance that is lost is made anew from the
// ledger and the call made again, once. Knows no clock, no configuration and no receivers; domain.ts does.

import { Engine, type Functions, isSpent, LINES_AT_ONCE, nothing, type Staged, Spent } from './engine.ts';
import { InvalidRequest, type OpenDoor, type Reply, refusal } from './door.ts';
import type { Store } from './store.ts';
import type { CallError, Request } from './types.ts';

export interface Kept {
  open: OpenDoor;
  store: Store;
  /** Functions of the host inside the imports; see `Functions`. */
  functions?: Functions;
  /** Gets what calls handed out, once it is kept. Must not throw. */
  committed(staged: Staged): void;
  /** Called when no call is left to make. Must not throw. */
  idle?(): void;
}

/** The whole call was refused; nothing was recorded. */
export class Refused extends Error {
  override name = 'Refused';
  readonly error: CallError;
  constructor(error: CallError) {
    super(`${error.code}: ${error.message}`);
    this.error = error;
  }
}

interface Waiting {
  request: Request;
  /** Answers the caller once all is kept; no other call is made before it has returned. */
  resolve(reply: Reply): void | Promise<void>;
  reject(error: unknown): void;
  isHeld: boolean;
}

export class Keeper {
  readonly #engine: Engine;
  readonly #store: Store;
  readonly #committed: (staged: Staged) => void;
  readonly #idle: () => void;
  readonly #waiting: Waiting[] = [];
  #working: Promise<void> | undefined;
  /** The instance is not what the store says, and must be made anew before the next call. */
  #stale = false;
  #closed = false;
  /** How often an instance was lost and made anew. */
  rebuilds = 0;

  private constructor({ open, store, functions, committed, idle }: Kept) {
    this.#engine = new Engine(open, functions);
    this.#store = store;
    this.#committed = committed;
    this.#idle = idle ?? (() => {});
  }

  /** Replays what is in the store. Throws `Refused` where the ledger is broken. */
  static async open(kept: Kept): Promise<Keeper> {
    const keeper = new Keeper(kept);
    await keeper.#replay(nothing());
    return keeper;
  }

  /** Throws `InvalidRequest`, `Spent` where the call costs every instance, or what the store throws. */
  reply(request: Request): Promise<Reply> {
    return new Promise((resolve, reject) => this.#take({ request, resolve, reject, isHeld: false }));
  }

  /** The same, and `then` runs to its end before any other call is made: what the reply says holds all the while. */
  replyAnd(request: Request, then: (reply: Reply) => void | Promise<void>): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const settled = (reply: Reply) => Promise.resolve(reply).then(then).then(() => resolve(reply), reject);
      this.#take({ request, resolve: settled, reject, isHeld: true });
    });
  }

  #take(waiting: Waiting): void {
    if (this.#closed) return waiting.reject(new Error('the domain is closed'));
    this.#waiting.push(waiting);
    this.#working ??= this.#work();
  }

  /** One of the calls that record nothing and hand nothing out, at once; none while an instance must be made anew. */
  peek(request: Request<'next-deadline' | 'head' | 'describe'>): Reply | undefined {
    if (this.#stale) return undefined;
    try {
      return this.#engine.call(request).reply;
    } catch (error) {
      this.#stale = true;
      if (error instanceof Spent) return undefined;
      throw error;
    }
  }

  memory(): number {
    return this.#engine.memory();
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#working;
    await this.#store.close();
  }

  async #work(): Promise<void> {
    // Whoever asks in the same turn as the first shares its commit.
    await Promise.resolve();
    while (this.#waiting.length > 0) await this.#batch(this.#waiting.splice(0, this.#together()));
    this.#working = undefined;
    this.#idle();
  }

  /** A call that something holds on to is the last of its commit: what follows could undo what it says. */
  #together(): number {
    const holding = this.#waiting.findIndex(({ isHeld }) => isHeld);
    return holding === -1 ? this.#waiting.length : holding + 1;
  }

  async #batch(batch: Waiting[], isSecondTry = false): Promise<void> {
    const staged = nothing();
    const settled: (() => void | Promise<void>)[] = [];
    for (const { request, resolve, reject } of batch) {
      try {
        const reply = await this.#made(request, staged);
        settled.push(() => resolve(reply));
      } catch (error) {
        settled.push(() => reject(error));
      }
    }
    try {
      await this.#store.commit(staged);
    } catch (error) {
      // Nobody was told anything yet, so all of it can be done once more, on what the store has now.
      this.#stale = true;
      if (!isSecondTry) return this.#batch(batch, true);
      for (const { reject } of batch) reject(error);
      return;
    }
    this.#committed(staged);
    for (const settle of settled) {
      const busy = settle();
      if (busy !== undefined) await busy;
    }
  }

  /** One call, made again once on a new instance where it has cost the first. What it hands out is added to `staged`. */
  async #made(request: Request, staged: Staged): Promise<Reply> {
    for (let isSecondTry = false; ; isSecondTry = true) {
      if (this.#stale) await this.#rebuild(staged);
      try {
        const called = this.#engine.call(request);
        if (!isSpent(called.reply)) {
          add(staged, called.staged);
          // Taking in a ledger from elsewhere is keeping it.
          if (request.call === 'replay' && refusal(called.reply) === undefined) add(staged, { lines: request.lines });
          return called.reply;
        }
        this.#stale = true;
        if (isSecondTry) return called.reply;
      } catch (error) {
        if (error instanceof InvalidRequest) throw error;
        this.#stale = true;
        if (isSecondTry || !(error instanceof Spent)) throw error;
      }
    }
  }

  async #rebuild(staged: Staged): Promise<void> {
    this.#engine.renew();
    await this.#replay(staged);
    this.#stale = false;
    this.rebuilds += 1;
  }

  /** The ledger as it is kept, and after it what is still on its way there. */
  async #replay(staged: Staged): Promise<void> {
    const give = (lines: string[]): void => {
      const error = this.#engine.replay(lines);
      if (error !== undefined) throw new Refused(error);
    };
    for await (const lines of this.#store.lines(LINES_AT_ONCE)) give(lines);
    if (staged.lines.length > 0) give(staged.lines);
  }
}

function add(staged: Staged, more: Partial<Staged>): void {
  const all = staged as unknown as Record<string, unknown[]>;
  for (const [name, values] of Object.entries(more)) {
    const into = all[name];
    if (into !== undefined) for (const value of values) into.push(value);
  }
}
