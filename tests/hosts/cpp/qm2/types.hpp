// The records of the contract (`wit/types.wit`) as C++ values, and the calls with their arguments.
//
// Holds no behaviour. Each type tells its members once, in the order of the WIT, to whoever asks through `fields`: a visitor gets
// the name in the WIT, the name in the JSON form, the member, and whether the JSON form leaves it out where it is empty.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace qm2 {

using Text = std::optional<std::string>;
using Number = std::optional<std::uint64_t>;
constexpr bool OMIT = true;

// ---- words: an enumeration and its words in the JSON form; in the WIT '_' is '-' ----

template <class E> struct Words;
#define QM2_WORDS(E, ...)                                                                                                          \
  template <> struct Words<E> {                                                                                                    \
    static constexpr std::string_view all[] = {__VA_ARGS__};                                                                       \
  }

enum class Role { user, operator_, admin, owner };
QM2_WORDS(Role, "user", "operator", "admin", "owner");
enum class Intent { execute, report, cancel, escalate, ack };
QM2_WORDS(Intent, "execute", "report", "cancel", "escalate", "ack");
enum class Priority { low, normal, high, critical };
QM2_WORDS(Priority, "low", "normal", "high", "critical");
enum class DeliveryMode { best_effort, at_least_once };
QM2_WORDS(DeliveryMode, "best_effort", "at_least_once");
enum class FailureClass { retryable, permanent, unknown };
QM2_WORDS(FailureClass, "retryable", "permanent", "unknown");
enum class ReceiptStatus { accepted, replayed, late };
QM2_WORDS(ReceiptStatus, "accepted", "replayed", "late");
enum class RejectionCode {
  invalid_field, invalid_plan, plan_conflict, unknown_coordination, unknown_step, unknown_attempt, unknown_key, unauthorized_session,
  content_mismatch, not_dispatched, not_running, stale_question, not_eligible, no_human, claim_refused, bound, deadline_past,
  coordination_stopping, closed, domain_full, component_fault
};
QM2_WORDS(RejectionCode, "invalid-field", "invalid-plan", "plan-conflict", "unknown-coordination", "unknown-step",
          "unknown-attempt", "unknown-key", "unauthorized-session", "content-mismatch", "not-dispatched", "not-running",
          "stale-question", "not-eligible", "no-human", "claim-refused", "bound", "deadline-past", "coordination-stopping", "closed",
          "domain-full", "component-fault");
enum class LedgerFaultKind { broken_chain, nondeterminism, unsupported };
QM2_WORDS(LedgerFaultKind, "broken-chain", "nondeterminism", "unsupported");
enum class NoticeKind { unknown_target, dropped, host_lost, taken, unreachable };
QM2_WORDS(NoticeKind, "unknown-target", "dropped", "host-lost", "taken", "unreachable");
enum class HookKind { before_dispatch, before_arbitrate };
QM2_WORDS(HookKind, "before_dispatch", "before_arbitrate");
enum class HookNotice { escalation_requested, step_ended, coordination_ended, message_undelivered };
QM2_WORDS(HookNotice, "escalation_requested", "step_ended", "coordination_ended", "message_undelivered");
enum class HumanVerdict { approve, deny, completed };
QM2_WORDS(HumanVerdict, "approve", "deny", "completed");
enum class ClaimMode { shared, exclusive };
QM2_WORDS(ClaimMode, "shared", "exclusive");
enum class Access { read, write };
QM2_WORDS(Access, "read", "write");
enum class Strategy { owner_wins, priority_wins, merge_if_safe, manual_review };
QM2_WORDS(Strategy, "owner_wins", "priority_wins", "merge_if_safe", "manual_review");
enum class DecisionStage { ownership, lease, strategy, hook, human };
QM2_WORDS(DecisionStage, "ownership", "lease", "strategy", "hook", "human");
enum class OutcomeKind { granted, waits, refused, review, preempts };
QM2_WORDS(OutcomeKind, "granted", "waits", "refused", "review", "preempts");

// ---- variants: a type for each case, with its word ----

template <class T> struct Case; // `word`, and whether it is a word alone, a record, or one member
#define QM2_CASE(T, W, K)                                                                                                          \
  template <> struct Case<T> {                                                                                                     \
    static constexpr std::string_view word = W;                                                                                    \
    static constexpr CaseKind kind = CaseKind::K;                                                                                  \
  }
// member: `{"retry": {"afterMs": 1}}`; bare: `{"deny": "why"}`; in the WIT both hold the member alone.
enum class CaseKind { word, record, member, bare };

#define QM2_FIELDS template <class V, class Self> static void fields([[maybe_unused]] V &v, [[maybe_unused]] Self &self)

struct Failure {
  FailureClass class_{};
  std::string code, message;
  QM2_FIELDS {
    v("class", "class", self.class_);
    v("code", "code", self.code);
    v("message", "message", self.message);
  }
};
struct Completed {};
struct Progress {
  std::uint64_t number = 0;
  QM2_FIELDS { v("number", "number", self.number); }
};
QM2_CASE(Completed, "completed", word);
QM2_CASE(Failure, "failed", record);
QM2_CASE(Progress, "progress", member);
using Outcome = std::variant<Completed, Failure, Progress>;

struct Fix {};
struct Stop {};
struct Ask {};
struct Retry {
  std::uint64_t after_ms = 0;
  QM2_FIELDS { v("after-ms", "afterMs", self.after_ms); }
};
QM2_CASE(Fix, "fix", word);
QM2_CASE(Retry, "retry", member);
QM2_CASE(Stop, "stop", word);
QM2_CASE(Ask, "ask", word);
using Remedy = std::variant<Fix, Retry, Stop, Ask>;

struct NoOpinion {};
struct Review {};
struct Deny {
  std::string reason;
  QM2_FIELDS { v("reason", "reason", self.reason); }
};
QM2_CASE(NoOpinion, "no_opinion", word);
QM2_CASE(Deny, "deny", bare);
QM2_CASE(Review, "review", word);
using HookVerdict = std::variant<NoOpinion, Deny, Review>;

struct PayloadRef {
  std::string uri, sha256;
  std::uint64_t bytes = 0;
  QM2_FIELDS {
    v("uri", "uri", self.uri);
    v("sha256", "sha256", self.sha256);
    v("bytes", "bytes", self.bytes);
  }
};
// In the JSON form no member, `payload`, or `payloadRef`.
using Payload = std::variant<std::monostate, std::string, PayloadRef>;

// ---- records ----

struct Caller {
  std::string session;
  std::optional<Role> role;
  QM2_FIELDS {
    v("session", "session", self.session);
    v("role", "role", self.role);
  }
};

struct Trace {
  Text run_id, span_id, causal_ref, traceparent;
  QM2_FIELDS {
    v("run-id", "runId", self.run_id);
    v("span-id", "spanId", self.span_id);
    v("causal-ref", "causalRef", self.causal_ref);
    v("traceparent", "traceparent", self.traceparent);
  }
  bool empty() const { return !(run_id || span_id || causal_ref || traceparent); }
};

struct Extension {
  std::string name, text;
  QM2_FIELDS {
    v("name", "name", self.name);
    v("text", "text", self.text);
  }
};

struct Question {
  std::uint64_t number = 0;
  std::string text;
  QM2_FIELDS {
    v("number", "number", self.number);
    v("text", "text", self.text);
  }
};

struct FencingToken {
  std::string resource;
  std::uint64_t token = 0;
  QM2_FIELDS {
    v("resource", "resource", self.resource);
    v("token", "token", self.token);
  }
};

struct Envelope {
  std::string coordination_id;
  Text step_id, parent_step_id;
  std::optional<std::uint32_t> attempt;
  std::string source_session, target_session;
  Intent intent{};
  Priority priority = Priority::normal;
  DeliveryMode delivery_mode = DeliveryMode::at_least_once;
  Number deadline_ms;
  std::uint64_t created_at_ms = 0;
  Trace trace;
  Text content_type;
  Payload payload;
  std::vector<Extension> extensions;
  std::optional<Outcome> outcome;
  Text reason;
  std::optional<Question> question;
  std::vector<FencingToken> tokens;
  QM2_FIELDS {
    v("coordination-id", "coordinationId", self.coordination_id);
    v("step-id", "stepId", self.step_id);
    v("parent-step-id", "parentStepId", self.parent_step_id);
    v("attempt", "attempt", self.attempt);
    v("source-session", "sourceSession", self.source_session);
    v("target-session", "targetSession", self.target_session);
    v("intent", "intent", self.intent);
    v("priority", "priority", self.priority);
    v("delivery-mode", "deliveryMode", self.delivery_mode);
    v("deadline-ms", "deadlineMs", self.deadline_ms);
    v("created-at-ms", "createdAtMs", self.created_at_ms);
    v("trace", "trace", self.trace, OMIT);
    v("content-type", "contentType", self.content_type);
    v("payload", "payload", self.payload);
    v("extensions", "extensions", self.extensions, OMIT);
    v("outcome", "outcome", self.outcome);
    v("reason", "reason", self.reason);
    v("question", "question", self.question);
    v("tokens", "tokens", self.tokens, OMIT);
  }
};

struct Message {
  std::string key;
  std::uint32_t delivery = 0;
  std::string lane;
  Priority priority{};
  DeliveryMode delivery_mode{};
  Number deadline_ms;
  Envelope envelope;
  QM2_FIELDS {
    v("key", "key", self.key);
    v("delivery", "delivery", self.delivery);
    v("lane", "lane", self.lane);
    v("priority", "priority", self.priority);
    v("delivery-mode", "deliveryMode", self.delivery_mode);
    v("deadline-ms", "deadlineMs", self.deadline_ms);
    v("envelope", "envelope", self.envelope);
  }
};

struct Receipt {
  ReceiptStatus status{};
  Number seq;
  std::string state;
  QM2_FIELDS {
    v("status", "status", self.status);
    v("seq", "seq", self.seq);
    v("state", "state", self.state);
  }
};

struct PlanReceipt {
  std::string coordination_id, plan_digest;
  std::uint64_t created_seq = 0;
  bool replayed = false;
  std::string state;
  Text terminal;
  QM2_FIELDS {
    v("coordination-id", "coordinationId", self.coordination_id);
    v("plan-digest", "planDigest", self.plan_digest);
    v("created-seq", "createdSeq", self.created_seq);
    v("replayed", "replayed", self.replayed);
    v("state", "state", self.state);
    v("terminal", "terminal", self.terminal);
  }
};

struct Problem {
  Text step_id;
  std::string field, code, message;
  QM2_FIELDS {
    v("step-id", "stepId", self.step_id);
    v("field", "field", self.field);
    v("code", "code", self.code);
    v("message", "message", self.message);
  }
};

struct Rejection {
  RejectionCode code{};
  std::string field, message;
  Remedy next;
  Number seq;
  std::vector<Problem> problems;
  QM2_FIELDS {
    v("code", "code", self.code);
    v("field", "field", self.field);
    v("message", "message", self.message);
    v("next", "next", self.next);
    v("seq", "seq", self.seq);
    v("problems", "problems", self.problems, OMIT);
  }
};

// An answer or why there is none: an ordinary answer, not an exception.
template <class T> using Result = std::variant<T, Rejection>;

struct Blame {
  std::string field, message;
  QM2_FIELDS {
    v("field", "field", self.field);
    v("message", "message", self.message);
  }
};

struct LedgerFault {
  std::uint64_t seq = 0;
  LedgerFaultKind kind{};
  std::string message;
  QM2_FIELDS {
    v("seq", "seq", self.seq);
    v("kind", "kind", self.kind);
    v("message", "message", self.message);
  }
};

struct Notice {
  std::string key;
  NoticeKind kind{};
  QM2_FIELDS {
    v("key", "key", self.key);
    v("kind", "kind", self.kind);
  }
};

struct LedgerHead {
  std::uint64_t seq = 0;
  std::string hash;
  QM2_FIELDS {
    v("seq", "seq", self.seq);
    v("hash", "hash", self.hash);
  }
};

struct SnapshotChunk {
  std::string chunk;
  Text next;
  QM2_FIELDS {
    v("chunk", "chunk", self.chunk);
    v("next", "next", self.next);
  }
};

struct Region {
  std::uint64_t start = 0, end = 0;
  QM2_FIELDS {
    v("start", "start", self.start);
    v("end", "end", self.end);
  }
};

struct PolicyRule {
  std::string resource;
  Strategy strategy{};
  QM2_FIELDS {
    v("resource", "resource", self.resource);
    v("strategy", "strategy", self.strategy);
  }
};

struct PolicyOwner {
  std::string resource, session;
  QM2_FIELDS {
    v("resource", "resource", self.resource);
    v("session", "session", self.session);
  }
};

struct ArbiterPolicy {
  Strategy default_strategy{};
  std::vector<PolicyRule> rules;
  std::vector<PolicyOwner> owners;
  std::vector<std::string> high_risk;
  bool preempt = false;
  QM2_FIELDS {
    v("default-strategy", "default", self.default_strategy);
    v("rules", "rules", self.rules);
    v("owners", "owners", self.owners);
    v("high-risk", "highRisk", self.high_risk);
    v("preempt", "preempt", self.preempt);
  }
};

struct Contender {
  std::string coordination_id, step_id;
  std::uint32_t attempt = 1;
  std::string session;
  Priority priority{};
  std::uint64_t claim_number = 0;
  ClaimMode mode{};
  Text base_version;
  std::vector<Region> regions;
  Number token, expires_ms;
  bool preemptible = false;
  QM2_FIELDS {
    v("coordination-id", "coordinationId", self.coordination_id);
    v("step-id", "stepId", self.step_id);
    v("attempt", "attempt", self.attempt);
    v("session", "session", self.session);
    v("priority", "priority", self.priority);
    v("claim-number", "claimNumber", self.claim_number);
    v("mode", "mode", self.mode);
    v("base-version", "baseVersion", self.base_version);
    v("regions", "regions", self.regions, OMIT);
    v("token", "token", self.token);
    v("expires-ms", "expiresMs", self.expires_ms);
    v("preemptible", "preemptible", self.preemptible, OMIT);
  }
};

struct Contest {
  std::string resource;
  std::uint64_t at_ms = 0;
  std::vector<Contender> contenders, holders;
  QM2_FIELDS {
    v("resource", "resource", self.resource);
    v("at-ms", "atMs", self.at_ms);
    v("contenders", "contenders", self.contenders);
    v("holders", "holders", self.holders);
  }
};

struct ContenderOutcome {
  std::string coordination_id, step_id;
  OutcomeKind outcome{};
  std::uint32_t order = 0;
  QM2_FIELDS {
    v("coordination-id", "coordinationId", self.coordination_id);
    v("step-id", "stepId", self.step_id);
    v("outcome", "outcome", self.outcome);
    v("order", "order", self.order);
  }
};

struct Decision {
  DecisionStage stage{};
  Strategy strategy{};
  std::vector<ContenderOutcome> outcomes;
  std::string reason;
  QM2_FIELDS {
    v("stage", "stage", self.stage);
    v("strategy", "strategy", self.strategy);
    v("outcomes", "outcomes", self.outcomes);
    v("reason", "reason", self.reason);
  }
};

struct ClaimRequest {
  std::string coordination_id, step_id;
  std::uint32_t attempt = 1;
  std::string resource;
  ClaimMode mode{};
  std::uint64_t lease_ms = 0;
  Text base_version;
  std::vector<Region> regions;
  QM2_FIELDS {
    v("coordination-id", "coordinationId", self.coordination_id);
    v("step-id", "stepId", self.step_id);
    v("attempt", "attempt", self.attempt);
    v("resource", "resource", self.resource);
    v("mode", "mode", self.mode);
    v("lease-ms", "leaseMs", self.lease_ms);
    v("base-version", "baseVersion", self.base_version);
    v("regions", "regions", self.regions);
  }
};

struct Grant {
  std::string resource;
  std::uint64_t token = 0, expires_ms = 0;
  QM2_FIELDS {
    v("resource", "resource", self.resource);
    v("token", "token", self.token);
    v("expires-ms", "expiresMs", self.expires_ms);
  }
};

struct GuardVerdict {
  bool allowed = false;
  std::string reason;
  Number expires_ms;
  QM2_FIELDS {
    v("allowed", "allowed", self.allowed);
    v("reason", "reason", self.reason);
    v("expires-ms", "expiresMs", self.expires_ms);
  }
};

// A whole call was refused and nothing was recorded. Branch on `code`; `field` is empty where none is to blame.
struct CallError : std::runtime_error {
  std::string code, message, field;
  Number seq;
  std::optional<LedgerFaultKind> kind;
  CallError(std::string code_, std::string message_, std::string field_ = "")
      : runtime_error(code_ + ": " + (field_.empty() ? "" : field_ + ": ") + message_), code(std::move(code_)),
        message(std::move(message_)), field(std::move(field_)) {}
};

// A value is not of the form that the contract says.
struct FormError : std::runtime_error {
  using runtime_error::runtime_error;
};

// The instance trapped, or a host function threw (which is told in the text). Nothing of the call may be kept.
struct InstanceLost : std::runtime_error {
  using runtime_error::runtime_error;
};

} // namespace qm2
