// Tests of single values on their way into records, where jco would turn a wrong one into another, or throw half-way through.
//
// Forms only: bounds and meanings are tested by the component.

import { InvalidRequest } from './door.ts';

/** One past the largest integer of the contract; exact in a number, and the component refuses it by its own rules. */
const INTEGER_MAX = 2 ** 53;
const U32_MAX = 2 ** 32 - 1;

/** The path of a member; arguments of a call stand in nothing. */
export function under(at: string, member?: string): string {
  if (member === undefined) return at;
  return at === '' ? member : `${at}.${member}`;
}

function shown(value: unknown): string {
  return typeof value === 'string' ? JSON.stringify(value.slice(0, 40)) : String(value);
}

export function u64(value: number, at: string, member?: string): bigint {
  if (!Number.isInteger(value) || value < 0 || value > INTEGER_MAX) {
    throw new InvalidRequest(under(at, member), `${shown(value)} is no integer from 0 to 2^53`);
  }
  return BigInt(value);
}

export function u32(value: number, at: string, member?: string): number {
  if (!Number.isInteger(value) || value < 0 || value > U32_MAX) {
    throw new InvalidRequest(under(at, member), `${shown(value)} is no integer from 0 to 2^32-1`);
  }
  return value;
}

/** Half of a surrogate pair would silently become U+FFFD. */
export function text(value: string, at: string, member?: string): string {
  if (typeof value !== 'string') throw new InvalidRequest(under(at, member), `${shown(value)} is no text`);
  if (!isWellFormed(value)) throw new InvalidRequest(under(at, member), 'half of a surrogate pair stands alone');
  return value;
}

export function flag(value: boolean, at: string, member?: string): boolean {
  if (typeof value !== 'boolean') throw new InvalidRequest(under(at, member), `${shown(value)} is not true or false`);
  return value;
}

/** Tests that there are members, and answers the path to them. */
export function record(value: object, at: string, member?: string): string {
  const field = under(at, member);
  if (value === null || typeof value !== 'object') throw new InvalidRequest(field, `${shown(value)} is no object`);
  return field;
}

/** Tests one value; the path of it is put together only where something is wrong. */
type Each<T, U> = (value: T, at: string, member?: string) => U;

export function list<T, U>(values: T[], at: string, member: string, each: Each<T, U>): U[] {
  const field = under(at, member);
  if (!Array.isArray(values)) throw new InvalidRequest(field, `${shown(values)} is no list`);
  return values.map((value, index) => each(value, `${field}[${index}]`));
}

export function some<T, U>(value: T | undefined, at: string, member: string, each: Each<T, U>): U | undefined {
  return value === undefined ? undefined : each(value, at, member);
}

/** A word of an enum as the WIT has it: from snake_case to kebab-case, and only one that is known. */
export function words<const W extends string>(...known: W[]) {
  const ours = new Map(known.map((word) => [word.replaceAll('-', '_'), word]));
  return (value: string, at: string, member?: string): W => {
    const word = ours.get(value);
    if (word === undefined) {
      throw new InvalidRequest(under(at, member), `${shown(value)} is none of ${[...ours.keys()].join(', ')}`);
    }
    return word;
  };
}

// Not yet in the library that TypeScript knows for the oldest runtime here.
function isWellFormed(value: string): boolean {
  return (value as string & { isWellFormed(): boolean }).isWellFormed();
}
