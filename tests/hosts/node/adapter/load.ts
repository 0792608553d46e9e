// Gets the component and the core module from files, under Node.
//
// `transpiled` reads what the command `jco transpile --instantiation sync` wrote, and is all that a program needs at run time;
// `component` does with the plain .wasm what that command does, and keeps the outcome in a folder.

import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Component } from './component.ts';

const NAME = 'qm2';

/** From the folder that jco wrote. */
export async function transpiled(folder: string): Promise<Component> {
  const core = new Map<string, WebAssembly.Module>();
  for (const file of await readdir(folder)) {
    if (file.endsWith('.wasm')) core.set(file, await WebAssembly.compile(await readFile(join(folder, file))));
  }
  const { instantiate } = await import(pathToFileURL(resolve(folder, `${NAME}.js`)).href);
  return { instantiate, core };
}

/** From the component itself; needs the package of jco, and transpiles only what is not yet in the cache. */
export async function component(file: string, cache: string): Promise<Component> {
  return transpiled(await transpile(file, cache));
}

/** Transpiles a component into a folder of the cache that is named for its content, and answers that folder. */
export async function transpile(file: string, cache: string): Promise<string> {
  const wasm = await readFile(file);
  const { transpile, version } = await jco();
  const digest = createHash('sha256').update(version).update(wasm).digest('hex');
  const folder = join(cache, digest.slice(0, 32));
  if (await readdir(folder).then(() => true, () => false)) return folder;
  const { files } = await transpile(wasm, {
    name: NAME,
    instantiation: 'sync',
    strict: true,
    nodejsCompat: false,
    wasiShim: false,
  });
  // Renamed when it is whole, so that another process never sees a part of it.
  const unfinished = `${folder}.${process.pid}`;
  for (const [path, bytes] of Object.entries(files)) {
    await mkdir(dirname(join(unfinished, path)), { recursive: true });
    await writeFile(join(unfinished, path), bytes);
  }
  await writeFile(join(unfinished, 'package.json'), '{"type": "module"}');
  await rename(unfinished, folder).catch(() => rm(unfinished, { recursive: true }));
  return folder;
}

interface Jco {
  version: string;
  transpile(wasm: Uint8Array, options: object): Promise<{ files: Record<string, Uint8Array> }>;
}

/** By a name that the compiler does not follow: who uses `transpiled` alone needs no jco. */
async function jco(): Promise<Jco> {
  const name = '@bytecodealliance/jco';
  const { transpile } = await import(name);
  const manifest = new URL('../package.json', import.meta.resolve(name));
  const { version } = JSON.parse(await readFile(manifest, 'utf8')) as { version: string };
  return { version, transpile };
}

/** The core module. */
export async function coreModule(file: string): Promise<WebAssembly.Module> {
  return WebAssembly.compile(await readFile(file));
}
