// Serves the page to a headless Chromium that it starts, on this machine alone, and prints what the page says.
//
// `server.js vectors|rate|example …`; with `--serve` it only serves, for a browser of one's own. Ends with the exit code that the
// page gives, or 1 when the browser ends before.

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { transpile } from '../node/adapter/load.ts';

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    component: { type: 'string' },
    core: { type: 'string' },
    cache: { type: 'string', default: 'gen.cache' },
    vectors: { type: 'string' },
    workload: { type: 'string' },
    door: { type: 'string' },
    data: { type: 'string' },
    yes: { type: 'boolean', default: false },
    'kill-at': { type: 'string' },
    serve: { type: 'boolean', default: false },
    browser: { type: 'string', default: 'chromium' },
  },
});
const command = positionals[0] ?? '';
if (!['vectors', 'rate', 'example'].includes(command) || options.component === undefined) {
  console.error('usage: vectors | rate | example, with --component FILE, --core FILE, and --vectors DIR, --workload DIR or --yes');
  process.exit(2);
}
const project = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const transpiled = await transpile(options.component, options.cache);

const TYPES: Record<string, string> = {
  html: 'text/html',
  js: 'text/javascript',
  wasm: 'application/wasm',
  json: 'application/json',
  jsonl: 'text/plain',
};

/** A page that is isolated has a clock of 5 µs; another one of 100 µs, which is no use for rates. */
const HEADERS = {
  'cache-control': 'no-store',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-embedder-policy': 'require-corp',
};

/** What a path shows; undefined for what there is not. */
async function content(path: string): Promise<Uint8Array | string | undefined> {
  const inside = (folder: string | undefined, rest: string) => {
    return folder === undefined || rest.includes('..') ? undefined : readFile(join(folder, rest));
  };
  if (path === '/') return readFile(join(project, 'index.html'));
  if (path.startsWith('/dist/')) return inside(project, path);
  if (path === '/core.wasm') return options.core === undefined ? undefined : readFile(options.core);
  if (path === '/component/files.json') {
    return JSON.stringify((await readdir(transpiled)).filter((file) => file.endsWith('.wasm')));
  }
  if (path.startsWith('/component/')) return inside(transpiled, path.slice('/component/'.length));
  if (path.startsWith('/workload/')) return inside(options.workload, path.slice('/workload/'.length));
  if (path === '/vectors.json') return vectors();
  return undefined;
}

async function vectors(): Promise<string | undefined> {
  const folder = options.vectors;
  if (folder === undefined) return undefined;
  const files = (await readdir(folder)).filter((file) => file.endsWith('.json')).sort();
  const entries = files.map(async (file) => `["${file.slice(0, -'.json'.length)}",${await readFile(join(folder, file), 'utf8')}]`);
  return `[${(await Promise.all(entries)).join(',')}]`;
}

let said = 0;
let ended!: (code: number) => void;
const end = new Promise<number>((resolve) => (ended = resolve));

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = new URL(request.url ?? '/', 'http://localhost').pathname;
  if (request.method === 'POST') {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const text = Buffer.concat(parts).toString('utf8');
    response.writeHead(204).end();
    if (path === '/say') console.log(text);
    if (path === '/complain') console.error(text);
    if (path === '/end') ended(Number(text));
    else if (path === '/say' && (said += 1) === killAt) await again();
    return;
  }
  const body = await content(path).catch(() => undefined);
  const type = TYPES[path === '/' ? 'html' : (path.split('.').pop() ?? '')] ?? 'application/octet-stream';
  response.writeHead(body === undefined ? 404 : 200, { 'content-type': type, ...HEADERS }).end(body);
}

const server = createServer((request, response) => void answer(request, response));
await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
const query = new URLSearchParams({ run: command, ...(options.yes ? { yes: '' } : {}) });
for (const door of options.door === undefined ? ['records', 'json', 'core'] : [options.door]) query.append('door', door);
const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/?${query}`;

// The page's profile, and with it its IndexedDB; kept where a folder is named.
const data = options.data === undefined ? await mkdtemp(join(tmpdir(), 'qm2-browser-')) : resolve(options.data);
await mkdir(data, { recursive: true });
const killAt = options['kill-at'] === undefined ? 0 : Number(options['kill-at']);
let browser: ChildProcess | undefined;

function launch(): ChildProcess {
  const flags = [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--disable-dev-shm-usage',
    `--user-data-dir=${data}`,
  ];
  // A group of its own, so that all of its processes can be ended together.
  const launched = spawn(options.browser, [...flags, address], { stdio: 'ignore', detached: true });
  launched.on('error', (error) => {
    console.error(`${options.browser} does not start: ${error.message}`);
    ended(1);
  });
  launched.on('exit', (code, signal) => {
    if (browser !== launched) return;
    console.error(`${options.browser} ended with ${code ?? signal}`);
    ended(1);
  });
  return launched;
}

async function kill(): Promise<void> {
  const killed = browser;
  browser = undefined;
  if (killed?.pid === undefined || killed.exitCode !== null) return;
  const gone = new Promise((resolve) => killed.once('exit', resolve));
  process.kill(-killed.pid, 'SIGKILL');
  await gone;
}

async function again(): Promise<void> {
  await kill();
  console.log('    the browser was killed; it starts again');
  browser = launch();
}

if (options.serve) console.log(address);
else browser = launch();
process.exitCode = await end;
await kill();
server.close();
server.closeAllConnections();
if (options.data === undefined) await rm(data, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
