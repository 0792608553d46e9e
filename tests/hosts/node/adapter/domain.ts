// A domain: the component with its store, its clock and its receivers. What a program uses.
//
// Opens and configures it, wakes up for its deadlines, and delivers what leaves it until it is taken. keeper.ts keeps and
// rebuilds. Runs no agents: `deliver` does.

import { type OpenDoor, type Reply, refusal } from './door.ts';
import type { Functions, Staged } from './engine.ts';
import { Keeper, Refused } from './keeper.ts';
import type { Store } from './store.ts';
import type { Calls, Head, HookKind, HookNotice, HookVerdict, Message, Name, Request, Value } from './types.ts';
import type * as json from './types.ts';

/** What a host does with what leaves the component; called only after it was kept. */
export interface Handlers {
  /**
   * Takes one message: `message.lane` says where to, `message.envelope` what. May be called again with the same key and delivery,
   * after a restart or when it throws, so what is known by its key is not to be begun a second time.
   */
  deliver(message: Message): void | Promise<void>;
  /** These messages are of no more use; what was not begun should not be. */
  withdraw?(keys: string[]): void;
  /** Answers a hook of a kind that the configuration registers. */
  ask?(kind: HookKind, subject: string): HookAnswer | Promise<HookAnswer>;
  /** Is told of something. */
  notify?(kind: HookNotice, subject: string): void;
  /** The event stream: ledger lines, in order and without gaps from the first of this process on. */
  record?(lines: string[]): void;
  /** Something went wrong that no caller waits for; console.error without it. */
  fault?(error: unknown): void;
}

export interface HookAnswer {
  handler: string;
  verdict: HookVerdict;
}

export interface Options {
  open: OpenDoor;
  store: Store;
  /** Configuration of the domain; the feature gate `phase1.enabled` is off where it does not say otherwise. */
  config: { domain: string; phase1?: { enabled: boolean }; [member: string]: unknown };
  handlers: Handlers;
  /** Functions of the host inside the imports; see `Functions`. */
  functions?: Functions;
  /** Milliseconds since the Unix epoch. */
  now?: () => number;
}

/** A timer of JavaScript cannot wait longer; it is then set again. */
const TIMER_MAX_MS = 2 ** 31 - 1;
/** Waits before a message that its receiver did not take is offered again: doubled from the first to the last. */
const AGAIN_MS = { first: 1_000, last: 60_000 };

export class Domain {
  #keeper!: Keeper;
  readonly #store: Store;
  readonly #handlers: Handlers;
  readonly now: () => number;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Messages that their receiver did not take, and that wait to be offered again. */
  readonly #again = new Set<ReturnType<typeof setTimeout>>();
  /** Keys of what was handed out before the domain was open. */
  readonly #opening = new Set<string>();
  #isOpen = false;
  #closed = false;

  private constructor({ store, handlers, now }: Options) {
    this.#store = store;
    this.#handlers = handlers;
    this.now = now ?? Date.now;
  }

  /** Replays what is there, configures, fires what has become due meanwhile, and hands out again what was on its way. */
  static async open(options: Options): Promise<Domain> {
    const domain = new Domain(options);
    domain.#keeper = await Keeper.open({
      ...options,
      committed: (staged) => domain.#handOut(staged),
      idle: () => domain.#arm(),
    });
    const left = await options.store.undelivered();
    await domain.call({ call: 'configure', config: JSON.stringify(options.config) });
    if (options.config.phase1?.enabled === true) {
      await domain.advance();
      await domain.call({ call: 'reconcile' });
    }
    // Most of it `reconcile` has just handed out; what it does not know of any more goes out from here.
    for (const message of left) if (!domain.#opening.has(message.key)) domain.#deliver(message);
    domain.#opening.clear();
    domain.#isOpen = true;
    return domain;
  }

  /** How often an instance was lost and made anew. */
  get rebuilds(): number {
    return this.#keeper.rebuilds;
  }

  /** Any call as it stands. Throws `Refused`, `InvalidRequest`, or `Spent` where the call costs every instance it is made on. */
  async call<N extends Name>(request: Request<N>): Promise<Value<N>> {
    const reply = await this.reply(request as Request);
    const error = refusal(reply);
    if (error !== undefined) throw new Refused(error);
    return (typeof reply === 'string' ? null : reply[request.call]) as Value<N>;
  }

  /** The same with the reply as it came. */
  reply(request: Request): Promise<Reply> {
    return this.#keeper.reply(request);
  }

  submitPlan(plan: { ownerSession: string; [member: string]: unknown }): Promise<Value<'submit-plan'>> {
    const caller = { session: plan.ownerSession };
    return this.call({ call: 'submit-plan', caller, nowMs: this.now(), plan: JSON.stringify(plan) });
  }

  /** Envelopes of one session. */
  submit(session: string, envelopes: json.Envelope[]): Promise<Value<'submit'>> {
    return this.call({ call: 'submit', caller: { session }, nowMs: this.now(), envelopes });
  }

  notice(notices: json.Notice[]): Promise<Value<'notice'>> {
    return this.call({ call: 'notice', nowMs: this.now(), notices });
  }

  /** Whether this session may touch this resource under this token now; ask right before each write. */
  check(ask: Omit<Calls['check'][0], 'nowMs'>): Promise<Value<'check'>> {
    return this.call({ call: 'check', nowMs: this.now(), ...ask });
  }

  /** Asks, and where it is allowed does it, before anything else can happen in the domain. Keep it short. */
  async guarded(ask: Omit<Calls['check'][0], 'nowMs'>, run: () => void | Promise<void>): Promise<json.GuardVerdict> {
    const reply = await this.#keeper.replyAnd({ call: 'check', nowMs: this.now(), ...ask }, (reply) => {
      return verdictOf(reply).allowed ? run() : undefined;
    });
    return verdictOf(reply);
  }

  async advance(): Promise<void> {
    while (await this.call({ call: 'advance', nowMs: this.now() }));
  }

  head(): Promise<Head> {
    return this.call({ call: 'head' });
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const timer of this.#again) clearTimeout(timer);
    await this.#keeper.close();
  }

  #handOut(staged: Staged): void {
    if (staged.lines.length > 0) this.#guarded(() => this.#handlers.record?.(staged.lines));
    const withdrawn = [...staged.withdrawn, ...staged.laneCancelled];
    if (withdrawn.length > 0) this.#guarded(() => this.#handlers.withdraw?.(withdrawn));
    for (const message of staged.messages) this.#deliver(message);
    for (const { message } of staged.laneMessages) this.#drop(message);
    for (const { hookId, kind, subject } of staged.asks) {
      this.#guarded(async () => {
        if (this.#handlers.ask === undefined) throw new Error(`nobody answers ${kind}`);
        const answer = await this.#handlers.ask(kind, subject);
        await this.call({ call: 'verdict', nowMs: this.now(), hookId, ...answer });
      });
    }
    for (const { kind, subject } of staged.notifications) this.#guarded(() => this.#handlers.notify?.(kind, subject));
  }

  /** At least once: until it is taken. */
  #deliver(message: Message, againMs = AGAIN_MS.first): void {
    const { key, delivery } = message;
    if (!this.#isOpen) this.#opening.add(key);
    this.#guarded(async () => {
      try {
        await this.#handlers.deliver(message);
      } catch (error) {
        const timer = setTimeout(() => {
          this.#again.delete(timer);
          this.#guarded(async () => {
            const still = await this.#store.undelivered();
            if (still.some((kept) => kept.key === key && kept.delivery === delivery)) {
              this.#deliver(message, Math.min(2 * againMs, AGAIN_MS.last));
            }
          });
        }, againMs);
        if (this.#closed) clearTimeout(timer);
        else this.#again.add(timer);
        throw error;
      }
      if (!this.#closed) await this.#store.delivered(key, delivery);
    });
  }

  /** At most once: a best-effort message that is not taken is dropped, and the component is told. */
  #drop(message: Message): void {
    this.#guarded(async () => {
      try {
        await this.#handlers.deliver(message);
      } catch (error) {
        await this.notice([{ key: message.key, kind: 'dropped' }]);
        throw error;
      }
    });
  }

  /** What a handler throws goes to `fault`, and nowhere else. */
  #guarded(run: () => void | Promise<void>): void {
    const fault = this.#handlers.fault ?? console.error;
    void (async () => run())().catch(fault);
  }

  /** Wakes up for the next deadline. */
  #arm(): void {
    clearTimeout(this.#timer);
    if (this.#closed) return;
    const due = this.#nextDeadline();
    if (due === null) return;
    const wait = Math.min(Math.max(due - this.now(), 0), TIMER_MAX_MS);
    this.#timer = setTimeout(() => this.#guarded(() => this.advance()), wait);
  }

  /** None where the gate is off. An instance that is gone is asked once it was made anew, which `advance` does: now. */
  #nextDeadline(): number | null {
    const reply = this.#keeper.peek({ call: 'next-deadline' });
    if (reply === undefined) return 0;
    return typeof reply === 'string' ? null : ((reply['next-deadline'] as number | undefined) ?? null);
  }
}

function verdictOf(reply: Reply): json.GuardVerdict {
  const error = refusal(reply);
  if (error !== undefined) throw new Refused(error);
  return (reply as { readonly check: json.GuardVerdict }).check;
}
