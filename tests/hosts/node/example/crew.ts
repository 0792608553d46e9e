// The host's side of the agents: takes what leaves the component, runs the attempts, and says back what came of them.
//
// Does not know how an agent runs (a process, a promise), where files are, or how a person is asked; it is given all three.

import type { Domain } from '../adapter/domain.ts';
import type { Envelope, HumanVerdict, Message, Result } from '../adapter/types.ts';
import type { Wish } from './work.ts';

/** A running attempt. */
export interface Agent {
  stop(): void;
}

export interface Means {
  /** Runs the attempt; the promise is its result. `ask` answers what the agent wishes. */
  start(envelope: Envelope, ask: (wish: Wish) => Promise<string>): { agent: Agent; result: Promise<string> };
  read(path: string): string | Promise<string>;
  write(path: string, text: string): void | Promise<void>;
  /** A person's answer to a question. */
  person(question: string): Promise<HumanVerdict>;
}

interface Attempt {
  agent: Agent;
  /** Waits for a person's answer to its question. */
  answered?: (text: string) => void;
  questions: number;
}

export class Crew {
  readonly #means: Means;
  readonly #attempts = new Map<string, Attempt>();
  #domain!: Domain;
  #ended!: (terminal: string) => void;
  #failed!: (error: unknown) => void;
  /** How the plan ended. */
  readonly ended = new Promise<string>((resolve, reject) => {
    this.#ended = resolve;
    this.#failed = reject;
  });

  constructor(means: Means) {
    this.#means = means;
  }

  /** Begins to serve; messages that came before wait for it. */
  serve(domain: Domain): void {
    this.#domain = domain;
    this.#serving();
  }
  #serving!: () => void;
  readonly #served = new Promise<void>((resolve) => (this.#serving = resolve));

  async deliver(message: Message): Promise<void> {
    await this.#served;
    const { key, envelope } = message;
    const [kind = ''] = key.split(':', 1);
    const attempt = this.#attempts.get(`${envelope.coordinationId}:${envelope.stepId}:${envelope.attempt}`);
    // An id of a coordination may be any word, so the intent decides before the key does.
    if (envelope.intent === 'cancel') return attempt?.agent.stop();
    if (envelope.intent === 'escalate') return void this.#question(envelope).catch(this.#failed);
    if (envelope.intent === 'report' && kind === 'report') return this.#reported(key, envelope);
    if (envelope.intent === 'report') return this.#answer(envelope, attempt);
    if (kind === 'probe') return this.#probe(key.slice('probe:'.length), attempt !== undefined);
    if (attempt === undefined) await this.#begin(key, envelope);
  }

  /** Ends what still runs. */
  stop(): void {
    for (const { agent } of this.#attempts.values()) agent.stop();
  }

  async #begin(key: string, envelope: Envelope): Promise<void> {
    const attempt: Attempt = { agent: { stop: () => {} }, questions: 0 };
    // Noted before anything is waited for, so that the same message a second time finds it.
    this.#attempts.set(key, attempt);
    await this.#say({ ...back(envelope), intent: 'ack' });
    const { agent, result } = this.#means.start(envelope, (wish) => this.#grant(wish, envelope, attempt));
    attempt.agent = agent;
    void result
      .then(
        (payload): Partial<Envelope> => ({ outcome: 'completed', payload }),
        (error: unknown): Partial<Envelope> => {
          const message = String(error).slice(0, 1_000);
          return { outcome: { failed: { class: 'retryable', code: 'agent-failed', message } } };
        },
      )
      .then((end) => this.#say({ ...back(envelope), ...end, intent: 'report' }))
      .finally(() => this.#attempts.delete(key))
      .catch(this.#failed);
  }

  async #grant(wish: Wish, envelope: Envelope, attempt: Attempt): Promise<string> {
    switch (wish.wish) {
      case 'read':
        return this.#means.read(wish.path);
      case 'write': {
        const { path, text, token } = wish;
        const guard = { resource: `file:${path}`, session: envelope.targetSession, token, regions: [] };
        const verdict = await this.#domain.guarded({ ...guard, mode: 'write' }, () => this.#means.write(path, text));
        if (!verdict.allowed) throw new Error(verdict.reason);
        return '';
      }
      case 'question': {
        attempt.questions += 1;
        const answered = new Promise<string>((resolve) => (attempt.answered = resolve));
        await this.#say({
          ...back(envelope),
          intent: 'escalate',
          question: { number: attempt.questions, text: wish.text },
        });
        return answered;
      }
    }
  }

  async #question({ payload = '', targetSession, question }: Envelope): Promise<void> {
    const { escalationId, digest } = JSON.parse(payload) as { escalationId: string; digest: string };
    const verdict = await this.#means.person(question?.text ?? payload);
    const actor = { session: targetSession, role: 'operator' } as const;
    const text = `${targetSession} says ${verdict}`;
    const answer = { escalationId, digest, verdict, text };
    taken(await this.#domain.call({ call: 'answer', actor, nowMs: this.#domain.now(), ...answer }));
  }

  /** Of a question that was asked before a restart nobody waits for the answer any more. */
  async #answer(envelope: Envelope, attempt: Attempt | undefined): Promise<void> {
    if (attempt?.answered !== undefined) attempt.answered(envelope.payload ?? '');
    else await this.#probe(`${envelope.coordinationId}:${envelope.stepId}:${envelope.attempt}`, false);
  }

  /** Agents end with the process of their host, so what is not running here is dead. */
  async #probe(key: string, runs: boolean): Promise<void> {
    await this.#domain.notice([{ key, kind: runs ? 'taken' : 'host-lost' }]);
  }

  async #reported(key: string, { stepId, coordinationId, targetSession }: Envelope): Promise<void> {
    const caller = { session: targetSession };
    await this.#domain.call({ call: 'acknowledge', caller, nowMs: this.#domain.now(), keys: [key] });
    if (stepId !== undefined) return;
    const { terminal } = JSON.parse(await this.#domain.call({ call: 'describe', id: coordinationId })) as { terminal: string };
    this.#ended(terminal);
  }

  async #say(envelope: Envelope): Promise<void> {
    const [result] = await this.#domain.submit(envelope.sourceSession, [envelope]);
    if (result !== undefined) taken(result);
  }
}

/** An instruction in the other direction, about the same attempt. */
function back({ coordinationId, stepId, attempt, sourceSession, targetSession, priority }: Envelope): Omit<Envelope, 'intent'> {
  return {
    coordinationId,
    ...(stepId === undefined ? {} : { stepId }),
    ...(attempt === undefined ? {} : { attempt }),
    sourceSession: targetSession,
    targetSession: sourceSession,
    priority,
    deliveryMode: 'at_least_once',
    createdAtMs: Date.now(),
  };
}

/** Too late is no fault of the host. */
function taken(result: Result<unknown>): void {
  if ('error' in result && result.error.code !== 'closed') throw new Error(`${result.error.code}: ${result.error.message}`);
}
