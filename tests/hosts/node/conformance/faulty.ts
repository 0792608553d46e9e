// The second pass over a vector: the same calls through the adapter, while something breaks once. It must not show.
//
// What breaks, and when, follows from the name of the file alone: a function of the host throws inside an import, the component
// traps, or the commit fails. The adapter makes a new instance and the call again; everything must come out as written.

import { Keeper } from '../adapter/keeper.ts';
import { nothing, type Staged } from '../adapter/engine.ts';
import { type Door, type OpenDoor, refusal, type Reply } from '../adapter/door.ts';
import { type Commit, MemoryStore } from '../adapter/store.ts';
import type { Request } from '../adapter/types.ts';
import { type End, hash, lists, outcome, type Run, runs, same, type Step, type Vector } from './vector.ts';

/** What breaks: the import whose function throws, the component, or the store. */
const FAULTS = ['append', 'enqueue', 'withdraw', 'enqueueInLane', 'cancel', 'ask', 'notify', 'trap', 'commit'] as const;
type Fault = (typeof FAULTS)[number];

/** The list of a step that says that its call comes by there. */
const COMES_BY: Record<Fault, keyof Staged> = {
  append: 'lines',
  enqueue: 'messages',
  withdraw: 'withdrawn',
  enqueueInLane: 'laneMessages',
  cancel: 'laneCancelled',
  ask: 'asks',
  notify: 'notifications',
  trap: 'lines',
  commit: 'lines',
};

interface Place {
  fault: Fault;
  run: number;
  step: number;
}

/** Throws at the first difference; answers how many instances were made anew. */
export async function faulty(name: string, vector: Vector, open: OpenDoor): Promise<number> {
  const all = runs(vector).filter(({ steps }) => !steps.some(isOfSpent));
  const place = chosen(name, all);
  let rebuilds = 0;
  for (const run of all) rebuilds += await new Faulty(open, run, place).run();
  return rebuilds;
}

/** The adapter never shows a spent instance, so what one answers is for the first pass alone. */
function isOfSpent(step: Step): boolean {
  return 'refuseAppends' in step || ('call' in step && step.error?.code === 'rebuild');
}

/** The first fault, from one that the name gives on, that some step comes by; and one of those steps. */
function chosen(name: string, all: Run[]): Place | undefined {
  const start = hash(name);
  // What was taken in by `restore` is in no ledger, so there is nothing to make such an instance anew from.
  const whole = all.filter(({ steps }) => !steps.some((step) => 'call' in step && step.call.call === 'restore'));
  for (let nth = 0; nth < FAULTS.length; nth += 1) {
    const fault = FAULTS[(start + nth) % FAULTS.length] as Fault;
    const comesBy = (step: Step) => 'call' in step && (step[COMES_BY[fault]]?.length ?? 0) > 0;
    const places = whole.flatMap(({ run, steps }) => {
      return steps.flatMap((step, index) => (comesBy(step) ? [{ fault, run, step: index }] : []));
    });
    if (places.length > 0) return places[start % places.length];
  }
  return undefined;
}

/** Fails to keep, once or as long as it is told. */
class BreakingStore extends MemoryStore {
  breaks = 0;
  override commit(commit: Commit): void {
    if (this.breaks > 0) {
      this.breaks -= 1;
      throw new Error('the commit fails');
    }
    super.commit(commit);
  }
}

class Faulty {
  readonly #open: OpenDoor;
  readonly #run: Run;
  readonly #place: Place | undefined;
  readonly #store = new BreakingStore();
  #armed: Fault | undefined;
  #staged = nothing();
  #rebuilds = 0;

  constructor(open: OpenDoor, run: Run, place: Place | undefined) {
    this.#open = this.#trapping(open);
    this.#run = run;
    this.#place = place?.run === run.run ? place : undefined;
  }

  async run(): Promise<number> {
    const { run, steps, end } = this.#run;
    let keeper = await this.#keeper();
    for (const [index, step] of steps.entries()) {
      if ('call' in step) {
        const { call, ...wanted } = step;
        const at = `run ${run}, step ${index + 1} (${call.call})`;
        const fault = index === this.#place?.step ? this.#place.fault : undefined;
        const before = keeper.rebuilds;
        if (fault === 'commit') this.#store.breaks = 1;
        else this.#armed = fault;
        const reply = await this.#reply(keeper, call);
        same(wanted, outcome(reply, this.#staged), fault === undefined ? at : `${at}, after a fault (${fault})`);
        same(fault === undefined ? 0 : 1, keeper.rebuilds - before, `${at}, rebuilds`);
      } else if ('restart' in step) {
        keeper = await this.#anew(keeper);
      } else if ('lost' in step) {
        // Neither the first try nor the second is kept.
        this.#store.breaks = 2;
        const isKept = await this.#reply(keeper, step.lost).then(() => true, () => false);
        same(false, isKept && this.#store.breaks === 0, `run ${run}, step ${index + 1}, whether the lost call was kept`);
        this.#store.breaks = 0;
        keeper = await this.#anew(keeper);
      }
    }
    if (end !== undefined) same(end, await this.#ended(keeper), `end of run ${run}`);
    return this.#rebuilds + keeper.rebuilds;
  }

  #keeper(): Promise<Keeper> {
    const breaks = (fault: Fault) => () => {
      if (this.#armed !== fault) return;
      this.#armed = undefined;
      throw new Error(`${fault} breaks`);
    };
    return Keeper.open({
      open: this.#open,
      store: this.#store,
      functions: {
        append: breaks('append'),
        enqueue: breaks('enqueue'),
        withdraw: breaks('withdraw'),
        enqueueInLane: breaks('enqueueInLane'),
        cancel: breaks('cancel'),
        ask: breaks('ask'),
        notify: breaks('notify'),
      },
      committed: (staged) => void (this.#staged = staged),
    });
  }

  async #anew(keeper: Keeper): Promise<Keeper> {
    this.#rebuilds += keeper.rebuilds;
    return this.#keeper();
  }

  async #reply(keeper: Keeper, request: Request): Promise<Reply> {
    this.#staged = nothing();
    const reply = await keeper.reply(request);
    // The keeper counts the lines of a replay among what it keeps; the component did not say them.
    if (request.call === 'replay' && refusal(reply) === undefined) this.#staged = nothing();
    return reply;
  }

  async #ended(keeper: Keeper): Promise<End> {
    const value = async (call: 'head' | 'state-digest') => {
      const reply = await this.#reply(keeper, { call });
      return (reply as Record<string, unknown>)[call];
    };
    const [head, stateDigest] = [await value('head'), await value('state-digest')];
    const error = refusal(await this.#reply(keeper, { call: 'reconcile' }));
    const reconcile = { ...(error === undefined ? {} : { error }), ...lists(this.#staged) };
    return { head, stateDigest, reconcile } as End;
  }

  /** A component that traps for real: it is entered from inside its own import, which nobody may do. */
  #trapping(open: OpenDoor): OpenDoor {
    return (imports) => {
      const door: Door = open({
        ...imports,
        append: (lines) => {
          if (this.#armed === 'trap') {
            this.#armed = undefined;
            door.call({ call: 'head' });
          }
          return imports.append(lines);
        },
      });
      return door;
    };
  }
}
