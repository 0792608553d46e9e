// A ledger line in words, for whoever watches the example.

interface Line {
  seq: number;
  type: string;
  stepId?: string;
  attempt?: number;
  data: Record<string, unknown>;
}

/** One line of text, such as `  7 step.dispatched write-a to agent:writer:a`. */
export function shown(line: string): string {
  const { seq, type, stepId, data } = JSON.parse(line) as Line;
  const about = stepId === undefined ? '' : ` ${stepId}`;
  return `${String(seq).padStart(3)} ${type}${about}${detail(data)}`;
}

const WORDS: Record<string, string> = {
  targetSession: 'to',
  resource: 'of',
  strategy: 'by',
  nextAttempt: 'again as attempt',
  question: 'asks',
  actor: 'by',
  verdict: 'says',
  terminal: 'ends as',
};

function detail(data: Record<string, unknown>): string {
  const said = Object.entries(WORDS).filter(([name]) => typeof data[name] === 'string' || typeof data[name] === 'number');
  return said.map(([name, word]) => ` ${word} ${String(data[name])}`).join('');
}
