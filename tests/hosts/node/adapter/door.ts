// A door: one way into the component. Three files make one: records.ts, json.ts and core.ts.
//
// Says what goes through a door in either direction. Does not stage, store or rebuild; engine.ts and domain.ts do.

import type { CallError, HookKind, HookNotice, Message, Name, Priority, Request } from './types.ts';

/**
 * What the component hands out during a call. True says taken; false is the WIT error (`unavailable` of `append`, `busy` of
 * the others). None of them may throw, wait, or call the component.
 */
export interface Imports {
  append(lines: string[]): boolean;
  enqueue(messages: Message[]): boolean;
  withdraw(keys: string[]): boolean;
  enqueueInLane(lane: string, priority: Priority, message: Message): boolean;
  cancel(keys: string[]): boolean;
  ask(hookId: string, kind: HookKind, subject: string): boolean;
  notify(kind: HookNotice, subject: string): boolean;
}

/** `{"NAME": VALUE}`, the bare name where there is no value, or why the whole call was refused. */
export type Reply = Name | { readonly [name: string]: unknown };

/** An instance of the component. */
export interface Door {
  /** An error in the reply leaves the instance as it was; whatever is thrown, but `InvalidRequest`, has spent it. */
  call(request: Request): Reply;
  /** Bytes of its memory. */
  memory(): number;
}

/** Makes a new instance, without records. The code is compiled once, before. */
export type OpenDoor = (imports: Imports) => Door;

/** The request is not of the form of its call; the component was not entered. */
export class InvalidRequest extends Error {
  override name = 'InvalidRequest';
  readonly field: string;
  constructor(field: string, message: string) {
    super(`${field}: ${message}`);
    this.field = field;
  }
}

export function refusal(reply: Reply): CallError | undefined {
  return typeof reply === 'string' ? undefined : (reply['error'] as CallError | undefined);
}
