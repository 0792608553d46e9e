// What jco makes of the component: its code compiled once, instances as many as wanted.
//
// The same for Node and browsers; where the files come from is the caller's business (load.ts for Node). Knows no door: the
// doors of records and of JSON both take an instance from here.

import type { Imports } from './door.ts';
import * as lift from './lift.ts';
import type { ImportObject, instantiate, Root } from '../gen/qm2.js';

export type Exports = Root;

/** The module that `jco transpile --instantiation sync` writes, and the core modules beside it, compiled. */
export interface Component {
  instantiate: typeof instantiate;
  core: ReadonlyMap<string, WebAssembly.Module>;
}

export interface Instance {
  exports: Exports;
  memory(): number;
}

/** A new instance. The imports must not throw: jco would leave the component half-way in its call, and go on. */
export function instance(component: Component, imports: Imports): Instance {
  const memories: WebAssembly.Memory[] = [];
  const core = (path: string): WebAssembly.Module => {
    const module = component.core.get(path);
    if (module === undefined) throw new Error(`${path} is not among the core modules of the component`);
    return module;
  };
  const started = (module: WebAssembly.Module, given: WebAssembly.Imports): WebAssembly.Instance => {
    const made = new WebAssembly.Instance(module, given);
    memories.push(...Object.values(made.exports).filter((value) => value instanceof WebAssembly.Memory));
    return made;
  };
  const exports = withPromising(() => component.instantiate(core, importObject(imports), started));
  const memory = () => memories.reduce((bytes, { buffer }) => bytes + buffer.byteLength, 0);
  return { exports, memory };
}

/**
 * Where the runtime has no JSPI (Node 20) jco calls `WebAssembly.promising` all the same and catches what comes: some twenty times
 * an instance, and V8 parses all of jco's code anew for the message of each, 40 ms together. Nothing here is ever asynchronous,
 * so there is something to call meanwhile.
 */
function withPromising<T>(run: () => T): T {
  const namespace = WebAssembly as { promising?: unknown };
  if (namespace.promising !== undefined) return run();
  namespace.promising = (exported: unknown) => exported;
  try {
    return run();
  } finally {
    delete namespace.promising;
  }
}

/** A result's error is thrown as the bare case: jco turns exactly that into the WIT error, and everything else into a leak. */
function refused(taken: boolean, error: 'unavailable' | 'busy'): void {
  if (!taken) throw error;
}

function importObject(imports: Imports): ImportObject {
  const eventStream = {
    append: (lines: string[]) => refused(imports.append(lines), 'unavailable'),
  };
  const queue: ImportObject['qm2:coordination/queue@0.1.0'] = {
    enqueue: (messages) => refused(imports.enqueue(messages.map(lift.message)), 'busy'),
    withdraw: (keys) => refused(imports.withdraw(keys), 'busy'),
  };
  const lanes: ImportObject['qm2:coordination/lanes@0.1.0'] = {
    enqueueInLane: (lane, priority, message) => {
      refused(imports.enqueueInLane(lane, priority, lift.message(message)), 'busy');
    },
    cancel: (keys) => refused(imports.cancel(keys), 'busy'),
  };
  const hooks: ImportObject['qm2:coordination/hooks@0.1.0'] = {
    ask: (hookId, kind, subject) => refused(imports.ask(hookId, lift.word(kind), subject), 'busy'),
    notify: (kind, subject) => refused(imports.notify(lift.word(kind), subject), 'busy'),
  };
  // The code reads the names without a version, its .d.ts demands those with one (jco issue 708).
  const unversioned: object = {
    'qm2:coordination/event-stream': eventStream,
    'qm2:coordination/queue': queue,
    'qm2:coordination/lanes': lanes,
    'qm2:coordination/hooks': hooks,
  };
  return {
    ...unversioned,
    'qm2:coordination/event-stream@0.1.0': eventStream,
    'qm2:coordination/queue@0.1.0': queue,
    'qm2:coordination/lanes@0.1.0': lanes,
    'qm2:coordination/hooks@0.1.0': hooks,
    'qm2:coordination/types@0.1.0': {} as ImportObject['qm2:coordination/types@0.1.0'],
  };
}
