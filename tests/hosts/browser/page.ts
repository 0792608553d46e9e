// What runs in the page: vectors, rates and the example, with the sources of the Node host and a store of the browser's own.
//
// The address says what to run; each line goes to the page and to the server, and the last says how it ended.

import type { Component } from '../node/adapter/component.ts';
import { coreDoor } from '../node/adapter/core.ts';
import type { OpenDoor } from '../node/adapter/door.ts';
import { jsonDoor } from '../node/adapter/json.ts';
import { recordsDoor } from '../node/adapter/records.ts';
import { pass, REBUILDS_MIN } from '../node/conformance/pass.ts';
import { rate, workload } from '../node/conformance/rate.ts';
import type { Vector } from '../node/conformance/vector.ts';
import { example } from './example.ts';

const asked = new URLSearchParams(location.search);
const HOST = `chromium ${/Chrome\/([\d.]+)/.exec(navigator.userAgent)?.[1] ?? 'of some version'}`;

let sent = Promise.resolve();
function post(path: string, body: string): void {
  sent = sent.then(async () => void (await fetch(path, { method: 'POST', body })));
}

function show(text: string): void {
  document.querySelector('#said')?.append(`${text}\n`);
}

function say(text: string): void {
  show(text);
  post('/say', text);
}

function complain(text: string): void {
  show(text);
  post('/complain', text);
}

async function fetched(path: string): Promise<Response> {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response;
}

/** The core modules are compiled before, while they come in: what makes instances later is synchronous. */
async function component(): Promise<Component> {
  const files = (await (await fetched('/component/files.json')).json()) as string[];
  const compiled = files.map(async (file): Promise<[string, WebAssembly.Module]> => {
    return [file, await WebAssembly.compileStreaming(fetched(`/component/${file}`))];
  });
  const address = '/component/qm2.js';
  const { instantiate } = (await import(address)) as Pick<Component, 'instantiate'>;
  return { instantiate, core: new Map(await Promise.all(compiled)) };
}

async function opener(door: string): Promise<OpenDoor> {
  if (door === 'core') return coreDoor(await WebAssembly.compileStreaming(fetched('/core.wasm')));
  return door === 'json' ? jsonDoor(await component()) : recordsDoor(await component());
}

async function vectors(door: string): Promise<boolean> {
  const all = (await (await fetched('/vectors.json')).json()) as [string, Vector][];
  const tally = await pass(new Map(all), await opener(door), (name, difference) => {
    complain(`${door}: ${name}: ${difference}`);
  });
  say(JSON.stringify({ host: HOST, door, ...tally }));
  if (tally.rebuilds <= REBUILDS_MIN) complain(`${door}: only ${tally.rebuilds} instances were made anew`);
  return tally.vectors > 0 && tally.passed === tally.vectors && tally.rebuilds > REBUILDS_MIN;
}

async function rates(door: string): Promise<boolean> {
  const open = await opener(door);
  for (const batch of [1, 100]) {
    const text = await (await fetched(`/workload/batch-${batch}.jsonl`)).text();
    say(JSON.stringify({ host: HOST, door, batch, envelopesPerSecond: rate(open, workload(text)) }));
  }
  return true;
}

async function run(): Promise<boolean> {
  const command = asked.get('run');
  if (command === 'example') return example(recordsDoor(await component()), asked.has('yes'), say);
  let isWell = true;
  for (const door of asked.getAll('door')) {
    isWell = (await (command === 'rate' ? rates(door) : vectors(door))) && isWell;
  }
  return isWell;
}

addEventListener('unhandledrejection', ({ reason }) => complain(String(reason?.stack ?? reason)));
run().then(
  (isWell) => post('/end', isWell ? '0' : '1'),
  (error: unknown) => {
    complain(error instanceof Error ? (error.stack ?? error.message) : String(error));
    post('/end', '1');
  },
);
