// Many calls on one instance: does memory stay where it is?

#include "conformance.hpp"

#include <fstream>
#include <unistd.h>

using namespace qm2;

namespace {

constexpr std::uint64_t EVERY = 1000, SLACK_BYTES = 8 << 20;
const Caller OWNER{"user:owner", {}}, AGENT{"agent:a", {}};

std::uint64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  std::uint64_t all = 0, resident = 0;
  file >> all >> resident;
  return resident * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

Envelope report(const std::string &plan, std::uint64_t now) {
  Envelope envelope;
  envelope.coordination_id = plan;
  envelope.step_id = "a";
  envelope.attempt = 1;
  envelope.source_session = AGENT.session;
  envelope.target_session = OWNER.session;
  envelope.intent = Intent::report;
  envelope.created_at_ms = now;
  envelope.payload = "done";
  envelope.outcome = Completed{};
  return envelope;
}

// A mix of calls; every now and then a plan that runs to its close.
struct Soak {
  Stage stage;
  std::unique_ptr<Instance> instance;
  std::uint64_t now = 1, calls = 0;
  std::vector<Envelope> known;

  explicit Soak(const Door &door) : instance(door.instance(stage)) {
    call(call::Configure{R"({"domain":"soak","phase1":{"enabled":true}})"});
    plan("known", "all"); // its reports are never acknowledged, so it stays open to repeats
    known = {report("known", now)};
    submit(known, ReceiptStatus::accepted);
  }

  template <class C> typename C::Answer call(const C &made) {
    stage.staged = {};
    ++calls;
    return instance->call(made);
  }

  void submit(const std::vector<Envelope> &envelopes, ReceiptStatus wanted) {
    auto answer = call(call::Submit{AGENT, now, envelopes});
    auto receipt = std::get_if<Receipt>(&answer.at(0));
    if (!receipt || receipt->status != wanted)
      throw std::runtime_error("an envelope got another answer: " + form::write(answer).dump());
  }

  void plan(const std::string &name, const std::string &reports) {
    Json step{{"stepId", "a"}, {"targetSession", AGENT.session}, {"timeoutMs", 1000}, {"payload", "go"}};
    Json plan{{"coordinationId", name}, {"objective", "soak"}, {"ownerSession", OWNER.session}, {"reports", reports}};
    plan["steps"] = Json::array({step});
    auto answer = call(call::SubmitPlan{OWNER, now, plan.dump()});
    if (!std::get_if<PlanReceipt>(&answer))
      throw std::runtime_error("a plan was refused: " + form::write(answer).dump());
  }

  // From a plan to its close.
  void coordination() {
    ++now;
    auto name = "c-" + std::to_string(calls);
    plan(name, "failures");
    submit({report(name, now)}, ReceiptStatus::accepted);
    std::vector<std::string> reports;
    for (const auto &message : stage.staged.messages)
      if (message.key.rfind("report:", 0) == 0)
        reports.push_back(message.key);
    for (const auto &item : call(call::Acknowledge{OWNER, now, reports}))
      if (!std::get_if<Receipt>(&item))
        throw std::runtime_error("a report was not acknowledged");
    auto state = Json::parse(call(call::Describe{name})).at("state").get<std::string>();
    if (state != "closed")
      throw std::runtime_error(name + " is " + state);
  }

  void step() {
    if (calls % EVERY == 0)
      return coordination();
    switch (calls % 6) {
    case 0:
      return submit(known, ReceiptStatus::replayed);
    case 1:
      call(call::Advance{now});
      break;
    case 2:
      call(call::Head{});
      break;
    case 3:
      call(call::NextDeadline{});
      break;
    case 4:
      call(call::Describe{"known"});
      break;
    default:
      call(call::Check{now, "file:x", "agent:a", 1, Access::write, {}, {}});
    }
  }
};

} // namespace

bool run_soak(const Door &door, std::uint64_t calls) {
  Soak soak(door);
  std::vector<std::uint64_t> points;
  for (std::uint64_t tenth = 1; tenth <= 10; ++tenth) {
    while (soak.calls < calls * tenth / 10)
      soak.step();
    points.push_back(resident_bytes());
    Line says{{"host", HOST}, {"door", door.name}, {"calls", soak.calls}, {"residentBytes", points.back()}};
    if (auto bytes = soak.instance->memory_bytes())
      says["wasmBytes"] = *bytes;
    std::cout << says.dump() << std::endl;
  }
  auto grown = points.back() > points[1] ? points.back() - points[1] : 0;
  if (grown > SLACK_BYTES && grown > points[1] / 10) {
    std::cerr << door.name << ": memory grew by " << grown << " bytes\n";
    return false;
  }
  return true;
}
