// The exported functions: a type for each, with its arguments as members and its answer as `Answer`.
//
// Says nothing of how a call is made; that is `door.hpp`.
#pragma once

#include "types.hpp"

namespace qm2::call {

#define QM2_CALL(N, I, ...)                                                                                                        \
  static constexpr std::string_view name = N, interface = "qm2:coordination/" I "@0.1.0";                                         \
  using Answer = __VA_ARGS__

using Nothing = std::monostate;
template <class T> using Each = std::vector<Result<T>>;

struct Configure {
  QM2_CALL("configure", "coordination", Nothing);
  std::string config;
  QM2_FIELDS { v("config", "config", self.config); }
};
struct SubmitPlan {
  QM2_CALL("submit-plan", "coordination", Result<PlanReceipt>);
  Caller caller;
  std::uint64_t now_ms = 0;
  std::string plan;
  QM2_FIELDS {
    v("caller", "caller", self.caller);
    v("now-ms", "nowMs", self.now_ms);
    v("plan", "plan", self.plan);
  }
};
struct Submit {
  QM2_CALL("submit", "coordination", Each<Receipt>);
  Caller caller;
  std::uint64_t now_ms = 0;
  std::vector<Envelope> envelopes;
  QM2_FIELDS {
    v("caller", "caller", self.caller);
    v("now-ms", "nowMs", self.now_ms);
    v("envelopes", "envelopes", self.envelopes);
  }
};
struct Acknowledge {
  QM2_CALL("acknowledge", "coordination", Each<Receipt>);
  Caller caller;
  std::uint64_t now_ms = 0;
  std::vector<std::string> keys;
  QM2_FIELDS {
    v("caller", "caller", self.caller);
    v("now-ms", "nowMs", self.now_ms);
    v("keys", "keys", self.keys);
  }
};
struct Advance {
  QM2_CALL("advance", "coordination", bool);
  std::uint64_t now_ms = 0;
  QM2_FIELDS { v("now-ms", "nowMs", self.now_ms); }
};
struct NextDeadline {
  QM2_CALL("next-deadline", "coordination", Number);
  QM2_FIELDS {}
};
struct SayNotice {
  QM2_CALL("notice", "coordination", Each<Receipt>);
  std::uint64_t now_ms = 0;
  std::vector<Notice> notices;
  QM2_FIELDS {
    v("now-ms", "nowMs", self.now_ms);
    v("notices", "notices", self.notices);
  }
};
struct Verdict {
  QM2_CALL("verdict", "coordination", Result<Receipt>);
  std::uint64_t now_ms = 0;
  std::string hook_id, handler;
  HookVerdict verdict;
  QM2_FIELDS {
    v("now-ms", "nowMs", self.now_ms);
    v("hook-id", "hookId", self.hook_id);
    v("handler", "handler", self.handler);
    v("verdict", "verdict", self.verdict);
  }
};
struct AnswerQuestion {
  QM2_CALL("answer", "coordination", Result<Receipt>);
  Caller actor;
  std::uint64_t now_ms = 0;
  std::string escalation_id, digest;
  HumanVerdict verdict{};
  Text text;
  QM2_FIELDS {
    v("actor", "actor", self.actor);
    v("now-ms", "nowMs", self.now_ms);
    v("escalation-id", "escalationId", self.escalation_id);
    v("digest", "digest", self.digest);
    v("verdict", "verdict", self.verdict);
    v("text", "text", self.text);
  }
};
struct Describe {
  QM2_CALL("describe", "coordination", std::string);
  std::string id;
  QM2_FIELDS { v("id", "id", self.id); }
};
struct ExplainWait {
  QM2_CALL("explain-wait", "coordination", std::string);
  std::string id, step_id;
  QM2_FIELDS {
    v("id", "id", self.id);
    v("step-id", "stepId", self.step_id);
  }
};
struct Head {
  QM2_CALL("head", "coordination", LedgerHead);
  QM2_FIELDS {}
};
struct Arbitrate {
  QM2_CALL("arbitrate", "arbitration", Decision);
  Contest contest;
  ArbiterPolicy policy;
  QM2_FIELDS {
    v("contest", "contest", self.contest);
    v("policy", "policy", self.policy);
  }
};
struct Claim {
  QM2_CALL("claim", "arbitration", Result<Grant>);
  Caller caller;
  std::uint64_t now_ms = 0;
  ClaimRequest request;
  QM2_FIELDS {
    v("caller", "caller", self.caller);
    v("now-ms", "nowMs", self.now_ms);
    v("request", "request", self.request);
  }
};
// What renew and release are told.
struct Held {
  Caller caller;
  std::uint64_t now_ms = 0;
  std::string coordination_id, step_id;
  std::uint32_t attempt = 1;
  std::vector<std::uint64_t> tokens;
  QM2_FIELDS {
    v("caller", "caller", self.caller);
    v("now-ms", "nowMs", self.now_ms);
    v("coordination-id", "coordinationId", self.coordination_id);
    v("step-id", "stepId", self.step_id);
    v("attempt", "attempt", self.attempt);
    v("tokens", "tokens", self.tokens);
  }
};
struct Renew : Held {
  QM2_CALL("renew", "arbitration", Result<std::vector<Grant>>);
};
struct Release : Held {
  QM2_CALL("release", "arbitration", Result<Receipt>);
};
struct Check {
  QM2_CALL("check", "arbitration", GuardVerdict);
  std::uint64_t now_ms = 0;
  std::string resource, session;
  std::uint64_t token = 0;
  Access mode = Access::write;
  std::vector<Region> regions;
  Text base_version;
  QM2_FIELDS {
    v("now-ms", "nowMs", self.now_ms);
    v("resource", "resource", self.resource);
    v("session", "session", self.session);
    v("token", "token", self.token);
    v("mode", "mode", self.mode);
    v("regions", "regions", self.regions);
    v("base-version", "baseVersion", self.base_version);
  }
};
struct Replay {
  QM2_CALL("replay", "recovery", LedgerHead);
  std::vector<std::string> lines;
  bool checked = false;
  QM2_FIELDS {
    v("lines", "lines", self.lines);
    v("checked", "checked", self.checked);
  }
};
struct Snapshot {
  QM2_CALL("snapshot", "recovery", SnapshotChunk);
  Text cursor;
  std::uint64_t max_bytes = 0;
  QM2_FIELDS {
    v("cursor", "cursor", self.cursor);
    v("max-bytes", "maxBytes", self.max_bytes);
  }
};
struct Restore {
  QM2_CALL("restore", "recovery", LedgerHead);
  std::string chunk;
  bool last = false;
  QM2_FIELDS {
    v("chunk", "chunk", self.chunk);
    v("last", "last", self.last);
  }
};
struct Reconcile {
  QM2_CALL("reconcile", "recovery", Nothing);
  QM2_FIELDS {}
};
struct StateDigest {
  QM2_CALL("state-digest", "recovery", std::string);
  QM2_FIELDS {}
};

// All of them, for what must be done for each.
#define QM2_EACH_CALL(X)                                                                                                           \
  X(Submit) X(SubmitPlan) X(Configure) X(Acknowledge) X(Advance) X(NextDeadline) X(SayNotice) X(Verdict) X(AnswerQuestion)         \
  X(Describe) X(ExplainWait) X(Head) X(Arbitrate) X(Claim) X(Renew) X(Release) X(Check) X(Replay) X(Snapshot) X(Restore)           \
  X(Reconcile) X(StateDigest)

// Calls `f` with an empty call of the function of that name; false where there is none.
template <class F> bool named(std::string_view name, F &&f) {
#define QM2_NAMED(C)                                                                                                               \
  if (C::name == name)                                                                                                             \
    return f(C{}), true;
  QM2_EACH_CALL(QM2_NAMED)
#undef QM2_NAMED
  return false;
}

} // namespace qm2::call
