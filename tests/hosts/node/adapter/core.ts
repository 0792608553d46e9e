// The door of the core module: the same engine as a plain WebAssembly module, with no tool and no library at all.
//
// JSON text in and out of its linear memory. Does not know components.

import type { Door, Imports, OpenDoor, Reply } from './door.ts';
import type { HookKind, HookNotice, Message, Priority } from './types.ts';

interface Exports {
  memory: WebAssembly.Memory;
  alloc(bytes: number): number;
  call(at: number, bytes: number): bigint;
  free(at: number, bytes: number): void;
}

/** What the module hands out, by the one import that it has. */
type HandedOut =
  | { call: 'append'; lines: string[] }
  | { call: 'enqueue'; messages: Message[] }
  | { call: 'withdraw' | 'cancel'; keys: string[] }
  | { call: 'enqueue-in-lane'; lane: string; priority: Priority; message: Message }
  | { call: 'ask'; hookId: string; kind: HookKind; subject: string }
  | { call: 'notify'; kind: HookNotice; subject: string };

const TAKEN = 0;
const REFUSED = 1;

/** Opens instances of the core module. */
export function coreDoor(module: WebAssembly.Module): OpenDoor {
  return (imports: Imports): Door => {
    const utf8 = { encoder: new TextEncoder(), decoder: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }) };
    const read = (at: number, bytes: number) => {
      // The memory may have grown, which gives it a new buffer.
      return utf8.decoder.decode(new Uint8Array(exports.memory.buffer, at >>> 0, bytes >>> 0));
    };
    const call = (at: number, bytes: number) => {
      return handed(imports, JSON.parse(read(at, bytes)) as HandedOut) ? TAKEN : REFUSED;
    };
    const instance = new WebAssembly.Instance(module, { qm2: { call } });
    const exports = instance.exports as unknown as Exports;
    return {
      memory: () => exports.memory.buffer.byteLength,
      call: (request) => {
        const bytes = utf8.encoder.encode(JSON.stringify(request));
        const at = exports.alloc(bytes.length);
        new Uint8Array(exports.memory.buffer, at >>> 0, bytes.length).set(bytes);
        const answer = BigInt.asUintN(64, exports.call(at, bytes.length));
        const [start, length] = [Number(answer >> 32n), Number(answer & 0xffff_ffffn)];
        const text = read(start, length);
        exports.free(start, length);
        return JSON.parse(text) as Reply;
      },
    };
  };
}

function handed(imports: Imports, out: HandedOut): boolean {
  switch (out.call) {
    case 'append':
      return imports.append(out.lines);
    case 'enqueue':
      return imports.enqueue(out.messages);
    case 'withdraw':
      return imports.withdraw(out.keys);
    case 'enqueue-in-lane':
      return imports.enqueueInLane(out.lane, out.priority, out.message);
    case 'cancel':
      return imports.cancel(out.keys);
    case 'ask':
      return imports.ask(out.hookId, out.kind, out.subject);
    case 'notify':
      return imports.notify(out.kind, out.subject);
  }
}
