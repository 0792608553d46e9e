// The example under Node: three agents as processes, one file that two of them need, one person, and a ledger on disk.
//
// `main.js [--data DIR] [--yes]` with what jco wrote to `gen`, or with the plain `--component FILE`, which needs jco at run time.
// Killed at any moment and started again it goes on where it was.

import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface as lines } from 'node:readline';
import { createInterface } from 'node:readline/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Domain } from '../adapter/domain.ts';
import { verifyChain } from '../adapter/ledger.ts';
import { component, transpiled } from '../adapter/load.ts';
import { recordsDoor } from '../adapter/records.ts';
import { SqliteStore } from '../adapter/sqlite.ts';
import type { Envelope } from '../adapter/types.ts';
import { Crew, type Means } from './crew.ts';
import { CONFIG, FILE, PLAN, verifyText } from './plan.ts';
import { shown } from './show.ts';
import type { Wish } from './work.ts';

const { values: options } = parseArgs({
  options: {
    component: { type: 'string' },
    transpiled: { type: 'string', default: 'gen' },
    cache: { type: 'string' },
    data: { type: 'string', default: '.qm2-example' },
    yes: { type: 'boolean', default: false },
  },
});
const folder = options.data;
mkdirSync(folder, { recursive: true });

/** A process of its own an attempt; it cannot outlive this one, since it ends with its stdin. */
function start(envelope: Envelope, ask: (wish: Wish) => Promise<string>): ReturnType<Means['start']> {
  const program = join(dirname(fileURLToPath(import.meta.url)), 'agent.js');
  const process_ = spawn(process.execPath, [program], { stdio: ['pipe', 'pipe', 'inherit'] });
  // One that is gone does not read any more; its exit says so.
  process_.stdin.on('error', () => {});
  const tell = (message: object) => process_.stdin.write(`${JSON.stringify(message)}\n`);
  tell({ envelope });
  console.log(`    agent ${process_.pid} takes up ${envelope.stepId}, attempt ${envelope.attempt}`);
  const result = new Promise<string>((resolve, reject) => {
    lines({ input: process_.stdout }).on('line', (line) => {
      const said = JSON.parse(line) as { ask: Wish } | { result: string } | { failed: string };
      if ('ask' in said) {
        if (said.ask.wish === 'write') console.log(`    ${envelope.stepId} writes under token ${said.ask.token}`);
        ask(said.ask).then((ok) => tell({ ok }), (error) => tell({ error: String(error) }));
      } else if ('result' in said) resolve(said.result);
      else reject(new Error(said.failed));
    });
    process_.on('error', reject).on('exit', (code, signal) => reject(new Error(`it ended with ${code ?? signal}`)));
  });
  const end = () => process_.stdin.end();
  result.then(end, end);
  return { agent: { stop: () => void process_.kill('SIGKILL') }, result };
}

async function person(question: string): Promise<'approve' | 'deny'> {
  console.log(`    a person is asked: ${question}`);
  if (options.yes) return 'approve';
  if (!process.stdin.isTTY) throw new Error('nobody is here to answer: run it on a terminal, or with --yes');
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  try {
    return /^y/i.test(await terminal.question('    [y/n] ')) ? 'approve' : 'deny';
  } finally {
    terminal.close();
  }
}

function read(path: string): string {
  try {
    return readFileSync(join(folder, path), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}

/** Whole or not at all. */
function write(path: string, text: string): void {
  const unfinished = join(folder, `${path}.new`);
  writeFileSync(unfinished, text, { flush: true });
  renameSync(unfinished, join(folder, path));
}

const code = options.component === undefined
  ? await transpiled(options.transpiled)
  : await component(options.component, options.cache ?? join(folder, 'gen'));
const store = new SqliteStore(join(folder, 'qm2.db'));
const crew = new Crew({ start, read, write, person });
const domain = await Domain.open({
  open: recordsDoor(code),
  store,
  config: CONFIG,
  handlers: {
    deliver: (message) => crew.deliver(message),
    record: (lines) => lines.forEach((line) => console.log(shown(line))),
  },
});
crew.serve(domain);

const submitted = await domain.submitPlan(PLAN);
if ('error' in submitted) throw new Error(submitted.error.message);
const terminal = submitted.ok.terminal ?? (await crew.ended);

const ledger = [...store.lines(1_000)].flat();
const head = await verifyChain(ledger);
writeFileSync(join(folder, 'ledger.jsonl'), ledger.map((line) => `${line}\n`).join(''));
verifyText(read(FILE));
if (!ledger.some((line) => line.includes('"type":"conflict.detected"'))) throw new Error('nothing was contested');
if (!ledger.some((line) => line.includes('"type":"human.decided"'))) throw new Error('no person was asked');
crew.stop();
await domain.close();
console.log(`${terminal}: ${head.seq} records, their chain holds, ${head.hash}`);
console.log(`ledger: ${join(folder, 'ledger.jsonl')}, file: ${join(folder, FILE)}`);
process.exitCode = terminal === 'success' ? 0 : 1;
