// Kills the example at several places and starts it again: it must go on where it was, and end as if nothing had happened.
//
// `killed.js` with the arguments of the example, without `--data`. A kill is SIGKILL, right after a line was printed.

import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** Lines after which a life ends: at the start, while the file is written, while a person is asked; some are killed twice. */
const KILLS = [[1], [7], [11, 12], [24], [32], [33, 8]];

/** Runs it until its end, or until it has said so many lines. */
function life(data: string, lines: number): Promise<number | null> {
  const program = join(dirname(fileURLToPath(import.meta.url)), 'main.js');
  const example = spawn(process.execPath, [program, ...process.argv.slice(2), '--data', data], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = 0;
  createInterface({ input: example.stdout }).on('line', () => {
    if ((said += 1) === lines) example.kill('SIGKILL');
  });
  return new Promise((resolve, reject) => example.on('error', reject).on('close', resolve));
}

for (const kills of KILLS) {
  const data = await mkdtemp(join(tmpdir(), 'qm2-killed-'));
  for (const lines of kills) {
    if ((await life(data, lines)) !== null) throw new Error(`it ended before it had said ${lines} lines`);
  }
  const code = await life(data, Infinity);
  if (code !== 0) throw new Error(`killed after ${kills.join(' and ')} lines, it ends with ${code}; see ${data}`);
  await rm(data, { recursive: true });
}
console.log(JSON.stringify({ host: `node ${process.versions.node}`, killed: KILLS.flat().length, wentOn: KILLS.length }));
