// The door of JSON: the component's interface `json`, which has every function once more over text.
//
// One conversion a call instead of one a member; what the component hands out still comes as records. Does not test requests:
// the component does, and names the member (`invalid-request`).

import { type Component, type Exports, instance } from './component.ts';
import type { Door, Imports, OpenDoor, Reply } from './door.ts';
import type { Name } from './types.ts';

type Functions = Exports['json'];
type Text = (request: string) => string;

function functions(json: Functions): Record<Name, Text> {
  return {
    configure: json.configure,
    'submit-plan': json.submitPlan,
    submit: json.submit,
    acknowledge: json.acknowledge,
    advance: json.advance,
    'next-deadline': json.nextDeadline,
    notice: json.notice,
    verdict: json.verdict,
    answer: json.answer,
    arbitrate: json.arbitrate,
    claim: json.claim,
    renew: json.renew,
    release: json.release,
    check: json.check,
    describe: json.describe,
    'explain-wait': json.explainWait,
    head: json.head,
    replay: json.replay,
    snapshot: json.snapshot,
    restore: json.restore,
    reconcile: json.reconcile,
    'state-digest': json.stateDigest,
  };
}

/** Opens instances of a component that jco has transpiled. */
export function jsonDoor(component: Component): OpenDoor {
  return (imports: Imports): Door => {
    const { exports, memory } = instance(component, imports);
    const calls = functions(exports.json);
    return { memory, call: (request) => JSON.parse(calls[request.call](JSON.stringify(request))) as Reply };
  };
}
