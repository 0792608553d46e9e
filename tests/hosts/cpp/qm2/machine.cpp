// Rebuilding an instance.

#include "machine.hpp"

namespace qm2 {

namespace {
constexpr std::uint64_t REPLAY_LINES = 1000;
}

void Machine::rebuild() {
  stage_ = make_stage_();
  auto instance = door_.instance(*stage_);
  std::uint64_t seq = 0;
  for (;;) {
    auto lines = store.lines(seq, REPLAY_LINES);
    if (lines.empty())
      break;
    seq += lines.size();
    instance->call(call::Replay{std::move(lines), false});
  }
  instance_ = std::move(instance);
}

} // namespace qm2
