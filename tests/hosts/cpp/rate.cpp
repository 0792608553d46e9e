// How fast envelopes go in, a door and a batch size at a time.
//
// Timed is from native values to native answers, with what is handed out staged as native values; no disk.

#include "conformance.hpp"

#include <chrono>
#include <fstream>

using namespace qm2;

namespace {

constexpr double SECONDS = 1.0;

struct Workload {
  std::string digest;

  explicit Workload(const std::string &path) {
    std::ifstream file(path);
    if (!file)
      throw std::runtime_error("cannot read " + path);
    for (std::string line; std::getline(file, line);) {
      auto json = Json::parse(line);
      if (json.contains("stateDigest")) {
        digest = json.at("stateDigest");
        continue;
      }
      auto name = json.at("call").get<std::string>();
      if (name == "configure")
        calls_.push_back([made = form::read_call<call::Configure>(json)](Instance &i) { return i.call(made), 0; });
      else if (name == "submit-plan")
        calls_.push_back([made = form::read_call<call::SubmitPlan>(json)](Instance &i) { return i.call(made), 0; });
      else if (name == "submit")
        calls_.push_back([this, made = form::read_call<call::Submit>(json)](Instance &i) { return timed(i, made), 0; });
      else
        throw std::runtime_error("the workload has a call that is not known: " + name);
    }
  }

  void round(const Door &door) {
    Stage stage;
    auto instance = door.instance(stage);
    for (const auto &call : calls_) {
      stage.staged = {};
      call(*instance);
    }
    auto got = instance->call(call::StateDigest{});
    if (got != digest)
      throw std::runtime_error(door.name + ": the state is " + got + " instead of " + digest);
  }

  double seconds = 0;
  std::size_t envelopes = 0;

private:
  void timed(Instance &instance, const call::Submit &made) {
    auto before = std::chrono::steady_clock::now();
    auto answer = instance.call(made);
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - before).count();
    envelopes += answer.size();
    for (const auto &item : answer)
      if (auto refused = std::get_if<Rejection>(&item))
        throw std::runtime_error("an envelope of the workload was refused: " + refused->message);
  }
  std::vector<std::function<int(Instance &)>> calls_;
};

} // namespace

void run_rate(const Door &door, const std::string &folder) {
  for (int batch : {1, 100}) {
    Workload workload(folder + "/batch-" + std::to_string(batch) + ".jsonl");
    workload.round(door); // a warm-up
    workload.seconds = 0;
    workload.envelopes = 0;
    while (workload.seconds < SECONDS)
      workload.round(door);
    auto rate = static_cast<std::uint64_t>(workload.envelopes / workload.seconds);
    std::cout << Line{{"host", HOST}, {"door", door.name}, {"batch", batch}, {"envelopesPerSecond", rate}}.dump() << std::endl;
  }
}
