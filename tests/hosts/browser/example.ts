// The example in a page: the agents are promises, the file and the ledger are in IndexedDB. Plan and agents are those of Node's.
//
// A page that was closed, or a browser that was killed, goes on where it was.

import { Domain } from '../node/adapter/domain.ts';
import type { OpenDoor } from '../node/adapter/door.ts';
import { verifyChain } from '../node/adapter/ledger.ts';
import type { Envelope, HumanVerdict } from '../node/adapter/types.ts';
import { Crew, type Means } from '../node/example/crew.ts';
import { CONFIG, FILE, PLAN, verifyText } from '../node/example/plan.ts';
import { shown } from '../node/example/show.ts';
import { type Wish, work } from '../node/example/work.ts';
import { IndexedDbStore } from './indexeddb.ts';

/** Whether all went well. */
export async function example(open: OpenDoor, yes: boolean, say: (text: string) => void): Promise<boolean> {
  const store = await IndexedDbStore.open('qm2-example');

  const start = (envelope: Envelope, ask: (wish: Wish) => Promise<string>): ReturnType<Means['start']> => {
    say(`    an agent takes up ${envelope.stepId}, attempt ${envelope.attempt}`);
    let stopped = false;
    const asking = async (wish: Wish): Promise<string> => {
      if (stopped) throw new Error('it was stopped');
      if (wish.wish === 'write') say(`    ${envelope.stepId} writes under token ${wish.token}`);
      return ask(wish);
    };
    return { agent: { stop: () => void (stopped = true) }, result: work(envelope, asking) };
  };
  const person = async (question: string): Promise<HumanVerdict> => {
    say(`    a person is asked: ${question}`);
    return yes || confirm(question) ? 'approve' : 'deny';
  };
  const crew = new Crew({
    start,
    read: (path) => store.readFile(path),
    write: (path, text) => store.writeFile(path, text),
    person,
  });

  const domain = await Domain.open({
    open,
    store,
    config: CONFIG,
    handlers: {
      deliver: (message) => crew.deliver(message),
      record: (lines) => lines.forEach((line) => say(shown(line))),
    },
  });
  crew.serve(domain);
  const submitted = await domain.submitPlan(PLAN);
  if ('error' in submitted) throw new Error(submitted.error.message);
  const terminal = submitted.ok.terminal ?? (await crew.ended);

  const ledger: string[] = [];
  for await (const lines of store.lines(1_000)) ledger.push(...lines);
  const head = await verifyChain(ledger);
  verifyText(await store.readFile(FILE));
  if (!ledger.some((line) => line.includes('"type":"conflict.detected"'))) throw new Error('nothing was contested');
  if (!ledger.some((line) => line.includes('"type":"human.decided"'))) throw new Error('no person was asked');
  await domain.close();
  say(`${terminal}: ${head.seq} records, their chain holds, ${head.hash}`);
  return terminal === 'success';
}
