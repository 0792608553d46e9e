// An instance that can be lost: calls go in, what they hand out is collected, and a new one is made of the ledger.
//
// Synchronous, without a store, a clock or a policy: it says that an instance is spent and why; domain.ts rebuilds and asks again.

import { type Door, type Imports, InvalidRequest, type OpenDoor, type Reply, refusal } from './door.ts';
import type { CallError, HookKind, HookNotice, Message, Priority, Request } from './types.ts';

/** What one call handed out, each list in the order in which it was said. */
export interface Staged {
  lines: string[];
  messages: Message[];
  withdrawn: string[];
  laneMessages: { lane: string; priority: Priority; message: Message }[];
  laneCancelled: string[];
  asks: { hookId: string; kind: HookKind; subject: string }[];
  notifications: { kind: HookNotice; subject: string }[];
}

/**
 * A host's own functions, called in the middle of a call, before what they are given is staged. They may look, and refuse by
 * answering false; one that throws, or that calls the component, costs the instance.
 */
export type Functions = { [F in keyof Imports]?: (...given: Parameters<Imports[F]>) => boolean | void };

export interface Called {
  reply: Reply;
  staged: Staged;
}

/** The instance is gone, with everything that its last call handed out. */
export class Spent extends Error {
  override name = 'Spent';
}

/** The words of a refused call after which an instance takes nothing more. */
const SPENT_CODES: readonly string[] = ['ledger-unavailable', 'rebuild'];
/** Lines given back at once; bounds how much of a ledger is in memory a second time. */
export const LINES_AT_ONCE = 1_000;

export function nothing(): Staged {
  return {
    lines: [],
    messages: [],
    withdrawn: [],
    laneMessages: [],
    laneCancelled: [],
    asks: [],
    notifications: [],
  };
}

export class Engine {
  readonly #open: OpenDoor;
  readonly #imports: Imports;
  #door: Door | undefined;
  #staged = nothing();
  /** Whether a call is on its way, and what a function of the host threw meanwhile. */
  #calling = false;
  #thrown: { error: unknown } | undefined;

  constructor(open: OpenDoor, functions: Functions = {}) {
    this.#open = open;
    this.#imports = this.#staging(functions);
    this.#door = open(this.#imports);
  }

  /** Throws `InvalidRequest`, which changed nothing, or `Spent`, after which only `renew` helps. */
  call(request: Request): Called {
    if (this.#calling) throw this.#fault(new Error(`${request.call} was called from inside an import`));
    if (this.#door === undefined) throw new Spent('the instance is gone; it must be made anew');
    this.#staged = nothing();
    this.#thrown = undefined;
    this.#calling = true;
    try {
      const reply = this.#door.call(request);
      if (this.#thrown !== undefined) throw (this.#thrown as { error: unknown }).error;
      return { reply, staged: this.#staged };
    } catch (error) {
      if (error instanceof InvalidRequest && this.#thrown === undefined) throw error;
      this.#door = undefined;
      throw new Spent(`${request.call} has cost the instance: ${error}`, { cause: error });
    } finally {
      this.#calling = false;
    }
  }

  /** A new instance without records. */
  renew(): void {
    this.#door = this.#open(this.#imports);
  }

  /** Gives it ledger lines. Nothing is handed out. */
  replay(lines: string[]): CallError | undefined {
    return refusal(this.call({ call: 'replay', lines, checked: false }).reply);
  }

  memory(): number {
    return this.#door?.memory() ?? 0;
  }

  #fault(error: unknown): unknown {
    this.#thrown ??= { error };
    return error;
  }

  /** Nothing thrown ever reaches the component: it gets the error of the WIT, and the instance is dropped after the call. */
  #staging(functions: Functions): Imports {
    const taken = <A extends unknown[]>(own: ((...given: A) => boolean | void) | undefined, stage: (...given: A) => void) => {
      return (...given: A): boolean => {
        if (this.#thrown !== undefined) return false;
        try {
          if (own?.(...given) === false) return false;
          stage(...given);
          return this.#thrown === undefined;
        } catch (error) {
          this.#fault(error);
          return false;
        }
      };
    };
    const keep = <T>(into: T[], values: T[]): void => {
      for (const value of values) into.push(value);
    };
    return {
      append: taken(functions.append, (lines) => keep(this.#staged.lines, lines)),
      enqueue: taken(functions.enqueue, (messages) => keep(this.#staged.messages, messages)),
      withdraw: taken(functions.withdraw, (keys) => keep(this.#staged.withdrawn, keys)),
      enqueueInLane: taken(functions.enqueueInLane, (lane, priority, message) => {
        this.#staged.laneMessages.push({ lane, priority, message });
      }),
      cancel: taken(functions.cancel, (keys) => keep(this.#staged.laneCancelled, keys)),
      ask: taken(functions.ask, (hookId, kind, subject) => void this.#staged.asks.push({ hookId, kind, subject })),
      notify: taken(functions.notify, (kind, subject) => void this.#staged.notifications.push({ kind, subject })),
    };
  }
}

/** Whether the component itself says that the instance takes nothing more. */
export function isSpent(reply: Reply): boolean {
  const code = refusal(reply)?.code;
  return code !== undefined && SPENT_CODES.includes(code);
}
