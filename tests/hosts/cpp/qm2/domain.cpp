// Opening a domain, and delivering.

#include "domain.hpp"

#include <algorithm>
#include <chrono>

namespace qm2 {

std::uint64_t wall_clock() {
  auto now = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
}

Domain::Domain(Door door, const std::string &path, const Json &config, Host host_, std::function<std::uint64_t()> clock_)
    : machine(door, path), host(std::move(host_)), clock(std::move(clock_)), door_(std::move(door)) {
  call(call::Configure{config.dump()});
  enabled_ = config.contains("phase1") && config.at("phase1").value("enabled", false);
  if (enabled_) {
    tick();
    call(call::Reconcile{});
  }
  delivering_ = false;
  deliver();
}

template <class F> void Domain::safely(F &&f) {
  try {
    f();
  } catch (const std::exception &error) {
    host.failed(error.what());
  }
}

void Domain::hand_out(Staged staged) {
  if (!staged.lines.empty())
    safely([&] { host.publish(staged.lines); });
  for (auto &entry : staged.lane_messages)
    lanes_.push_back(std::move(entry.message));
  auto cancelled = [&](const Message &message) {
    const auto &keys = staged.lane_cancelled;
    return std::find(keys.begin(), keys.end(), message.key) != keys.end();
  };
  lanes_.erase(std::remove_if(lanes_.begin(), lanes_.end(), cancelled), lanes_.end());
  for (const auto &told : staged.notifications)
    safely([&] { host.notify(told); });
  for (const auto &asked : staged.asks)
    safely([&] {
      if (auto verdict = host.ask(asked))
        call(call::Verdict{0, asked.hook_id, "host", *verdict});
    });
  deliver();
}

// Safe to call from inside a delivery: the outer one goes on with what has come.
void Domain::deliver() {
  if (delivering_)
    return;
  struct Delivering {
    bool &flag;
    explicit Delivering(bool &flag_) : flag(flag_) { flag = true; }
    ~Delivering() { flag = false; }
  } delivering(delivering_);
  std::int64_t place = 0;
  for (;;) {
    if (!lanes_.empty()) {
      auto message = std::move(lanes_.front());
      lanes_.erase(lanes_.begin());
      safely([&] { host.deliver(message); });
      continue;
    }
    auto queued = machine.store.queued(place);
    if (!queued)
      return;
    place = queued->first;
    safely([&] {
      host.deliver(queued->second);
      machine.store.delivered(queued->second);
    });
  }
}

LedgerHead Domain::verify() {
  Stage stage;
  auto second = door_.instance(stage);
  LedgerHead head;
  for (;;) {
    auto lines = machine.store.lines(head.seq, 1000);
    if (lines.empty())
      break;
    head = second->call(call::Replay{std::move(lines), false});
  }
  if (second->call(call::StateDigest{}) != call(call::StateDigest{}))
    throw std::runtime_error("the ledger leads to another state than the one that is there");
  return head;
}

} // namespace qm2
