// The adapter that a program uses: calls with the time of a clock, a durable queue, timers, hooks.
//
// A call returns after what came of it is on disk; messages are delivered after that, by plain functions of the program. It starts
// no thread: call `tick` when `next_deadline` has come. Not to be used by two threads at once.
#pragma once

#include "machine.hpp"

namespace qm2 {

// What a program does with what QM2 hands out; each is called after the commit, and may call the domain again. What they throw is
// told to `failed`: the call before it is on disk.
struct Host {
  // Ledger lines that were kept, for those who follow the event stream.
  std::function<void(const std::vector<std::string> &)> publish = [](auto &) {};
  // A message for its lane. One that comes again has the same (key, delivery), and the receiver does nothing. When this throws,
  // an at-least-once message stays in the queue.
  std::function<void(const Message &)> deliver = [](auto &) {};
  // A hook's question; answers now, or gives nothing and calls `Verdict` later.
  std::function<std::optional<HookVerdict>(const HookAsk &)> ask = [](auto &) { return std::nullopt; };
  // A hook's notice.
  std::function<void(const HookTold &)> notify = [](auto &) {};
  std::function<void(const std::string &)> failed = [](auto &) {};
};

std::uint64_t wall_clock();

class Domain {
public:
  // Opening it replays the ledger, fires what is due and hands out again what is out.
  Domain(Door door, const std::string &path, const Json &config, Host host, std::function<std::uint64_t()> clock = wall_clock);

  // Any of `qm2::call`; `now_ms` is set here.
  template <class C> typename C::Answer call(C made) {
    if constexpr (has_now<C>::value)
      made.now_ms = clock();
    Staged staged;
    auto answer = machine.call(made, staged);
    hand_out(std::move(staged));
    return answer;
  }

  // When to call `tick` next; nothing when no time is awaited.
  Number next_deadline() { return enabled_ ? call(call::NextDeadline{}) : std::nullopt; }

  // Fires what is due, and tries messages again that could not be delivered.
  void tick() {
    while (call(call::Advance{})) {
    }
    deliver();
  }

  // Replays the ledger into a second instance, which recomputes every hash and whether the rules allow each record; its end, which
  // is that of this instance.
  LedgerHead verify();

  Machine machine;
  Host host;
  std::function<std::uint64_t()> clock;

private:
  template <class C, class = void> struct has_now : std::false_type {};
  template <class C> struct has_now<C, std::void_t<decltype(C::now_ms)>> : std::true_type {};

  void hand_out(Staged staged);
  void deliver();
  template <class F> void safely(F &&f);

  Door door_;
  std::vector<Message> lanes_;
  bool enabled_ = false, delivering_ = true; // until all is there again: what waits and what is out may be the same message
};

} // namespace qm2
