// The conformance program of Node: `vectors`, `rate` and `soak`, each through the doors that there are.
//
// One line of JSON a result on stdout; what is wrong on stderr, and then the exit code is 1.

import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { coreDoor } from '../adapter/core.ts';
import type { OpenDoor } from '../adapter/door.ts';
import { jsonDoor } from '../adapter/json.ts';
import { component, coreModule } from '../adapter/load.ts';
import { recordsDoor } from '../adapter/records.ts';
import { pass, REBUILDS_MIN } from './pass.ts';
import { rate, workload } from './rate.ts';
import { grew, soak } from './soak.ts';
import type { Vector } from './vector.ts';

const HOST = `node ${process.versions.node}`;
const DOORS = ['records', 'json', 'core'] as const;

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    component: { type: 'string' },
    core: { type: 'string' },
    cache: { type: 'string', default: 'gen.cache' },
    door: { type: 'string' },
    vectors: { type: 'string' },
    workload: { type: 'string' },
    calls: { type: 'string', default: '1000000' },
  },
});

function needed(name: 'component' | 'core' | 'vectors' | 'workload'): string {
  const value = options[name];
  if (value === undefined) throw new Error(`--${name} is missing`);
  return value;
}

function say(result: object): void {
  console.log(JSON.stringify({ host: HOST, ...result }));
}

async function opener(door: (typeof DOORS)[number]): Promise<OpenDoor> {
  if (door === 'core') return coreDoor(await coreModule(needed('core')));
  const transpiled = await component(needed('component'), options.cache);
  return door === 'json' ? jsonDoor(transpiled) : recordsDoor(transpiled);
}

async function readVectors(folder: string): Promise<Map<string, Vector>> {
  const files = (await readdir(folder)).filter((file) => file.endsWith('.json')).sort();
  const read = files.map(async (file): Promise<[string, Vector]> => {
    return [file.slice(0, -'.json'.length), JSON.parse(await readFile(join(folder, file), 'utf8')) as Vector];
  });
  return new Map(await Promise.all(read));
}

async function vectors(door: string, open: OpenDoor): Promise<boolean> {
  const tally = await pass(await readVectors(needed('vectors')), open, (name, difference) => {
    console.error(`${door}: ${name}: ${difference}`);
  });
  say({ door, ...tally });
  if (tally.rebuilds <= REBUILDS_MIN) console.error(`${door}: only ${tally.rebuilds} instances were made anew`);
  return tally.vectors > 0 && tally.passed === tally.vectors && tally.rebuilds > REBUILDS_MIN;
}

async function rates(door: string, open: OpenDoor): Promise<boolean> {
  for (const batch of [1, 100]) {
    const file = join(needed('workload'), `batch-${batch}.jsonl`);
    say({ door, batch, envelopesPerSecond: rate(open, workload(await readFile(file, 'utf8'))) });
  }
  return true;
}

async function soaked(door: string, open: OpenDoor): Promise<boolean> {
  const resident = () => {
    // What the collector has not yet taken is not what grows.
    globalThis.gc?.();
    return process.memoryUsage.rss();
  };
  const points = soak(open, Number(options.calls), resident, (point) => say({ door, ...point }));
  if (!grew(points)) return true;
  console.error(`${door}: memory has grown`);
  return false;
}

const COMMANDS: Record<string, (door: string, open: OpenDoor) => Promise<boolean>> = { vectors, rate: rates, soak: soaked };

const command = COMMANDS[positionals[0] ?? ''];
if (command === undefined || positionals.length !== 1) {
  console.error('usage: vectors | rate | soak, with --component FILE --core FILE, and --vectors DIR, --workload DIR or --calls N');
  process.exit(2);
}
const wanted = DOORS.filter((door) => options.door === undefined || options.door === door);
if (wanted.length === 0) throw new Error(`--door is none of ${DOORS.join(', ')}`);
let isWell = true;
for (const door of wanted) isWell = (await command(door, await opener(door))) && isWell;
process.exitCode = isWell ? 0 : 1;
