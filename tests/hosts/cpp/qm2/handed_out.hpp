// What a call hands out beside lines, messages and keys: one entry each, as doors read it and stores keep it.
//
// Holds no behaviour; what becomes of an entry is the domain's.
#pragma once

#include "types.hpp"

namespace qm2 {

struct LaneMessage {
  std::string lane;
  Priority priority{};
  Message message;
  QM2_FIELDS {
    v("lane", "lane", self.lane);
    v("priority", "priority", self.priority);
    v("message", "message", self.message);
  }
};
struct HookAsk {
  std::string hook_id;
  HookKind kind{};
  std::string subject;
  QM2_FIELDS {
    v("hook-id", "hookId", self.hook_id);
    v("kind", "kind", self.kind);
    v("subject", "subject", self.subject);
  }
};
struct HookTold {
  HookNotice kind{};
  std::string subject;
  QM2_FIELDS {
    v("kind", "kind", self.kind);
    v("subject", "subject", self.subject);
  }
};

} // namespace qm2
