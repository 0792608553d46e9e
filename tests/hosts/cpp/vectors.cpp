// Runs the vectors (`tests/vectors/README.md`) through a door, and compares exactly.
//
// First on bare instances, the three-instance end included; then through the adapter's `Machine`, where at a call that the file's
// name chooses a host function throws, or calls the component that is calling it: the instance must be rebuilt and the vector end
// the same. Knows nothing of what the answers mean.

#include "conformance.hpp"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>

using namespace qm2;

namespace {

struct Differs : std::runtime_error {
  using runtime_error::runtime_error;
};

// By value; the library tells numbers from booleans and keeps members sorted.
void same(const std::string &what, const Json &wanted, const Json &got) {
  if (wanted != got)
    throw Differs(what + "\nwanted: " + wanted.dump() + "\n   got: " + got.dump());
}

// Which host function goes wrong, and from which step on; by the file's name, so that every run is the same.
const std::vector<std::string> FAULTS{"append", "enqueue", "withdraw", "enqueue-in-lane", "cancel", "ask", "notify", "enter"};

struct Plan {
  std::string fault;
  std::size_t from;
  bool armed = false;
  std::size_t fired = 0;

  explicit Plan(const std::string &name) {
    std::uint64_t hash = 14695981039346656037u; // FNV-1a
    for (unsigned char c : name)
      hash = (hash ^ c) * 1099511628211u;
    fault = FAULTS[(hash >> 32) % FAULTS.size()];
    from = (hash >> 40) % 256;
  }
};

// Goes wrong once.
struct Faulty : Stage {
  Plan &plan;
  std::function<void()> enter;
  Faulty(Plan &plan_, std::function<void()> enter_) : plan(plan_), enter(std::move(enter_)) {}

  void maybe(const char *name) {
    if (!plan.armed || (plan.fault != name && plan.fault != "enter"))
      return;
    plan.armed = false;
    ++plan.fired;
    if (plan.fault == "enter")
      enter();
    throw std::runtime_error(std::string(name) + " goes wrong here");
  }

  bool append(std::vector<std::string> lines) override { return maybe("append"), Stage::append(std::move(lines)); }
  bool enqueue(std::vector<Message> messages) override { return maybe("enqueue"), Stage::enqueue(std::move(messages)); }
  bool withdraw(std::vector<std::string> keys) override { return maybe("withdraw"), Stage::withdraw(std::move(keys)); }
  bool cancel(std::vector<std::string> keys) override { return maybe("cancel"), Stage::cancel(std::move(keys)); }
  bool enqueue_in_lane(std::string lane, Priority priority, Message message) override {
    return maybe("enqueue-in-lane"), Stage::enqueue_in_lane(std::move(lane), priority, std::move(message));
  }
  bool ask(std::string hook_id, HookKind kind, std::string subject) override {
    return maybe("ask"), Stage::ask(std::move(hook_id), kind, std::move(subject));
  }
  bool notify(HookNotice kind, std::string subject) override {
    return maybe("notify"), Stage::notify(kind, std::move(subject));
  }
};

struct Recorder : Stage {
  bool refuses = false;
  bool append(std::vector<std::string> lines) override { return !refuses && Stage::append(std::move(lines)); }
};

// In the form of a vector: each list left out where it is empty.
Json handed_out(const Staged &staged) {
  Json out = Json::object();
  auto put = [&](const char *name, const auto &list) {
    if (!list.empty())
      out[name] = form::write(list);
  };
  put("lines", staged.lines);
  put("messages", staged.messages);
  put("withdrawn", staged.withdrawn);
  put("laneMessages", staged.lane_messages);
  put("laneCancelled", staged.lane_cancelled);
  put("asks", staged.asks);
  put("notifications", staged.notifications);
  return out;
}

// What a run is played on.
struct Player {
  virtual ~Player() = default;
  // The answer; what was handed out, also with a call that was refused, is added to `out`.
  virtual Json call(const Json &call, Json &out) = 0;
  virtual void lose(const Json &call) = 0;
  virtual void refuse() = 0;
  virtual void restart() = 0;
  virtual std::vector<std::string> ledger() = 0;
};

template <class F> void with_call(const Json &json, F &&f) {
  auto name = json.at("call").get<std::string>();
  bool known = call::named(name, [&](auto empty) { f(form::read_call<decltype(empty)>(json)); });
  if (!known)
    throw Differs("there is no function " + name);
}

// A bare instance and a ledger beside it.
struct Bare final : Player {
  const Door &door;
  std::vector<std::string> lines;
  std::unique_ptr<Recorder> recorder;
  std::unique_ptr<Instance> instance;

  explicit Bare(const Door &door_, std::vector<std::string> lines_ = {}, std::size_t at_once = 1000)
      : door(door_), lines(std::move(lines_)) {
    start(at_once);
  }

  void start(std::size_t at_once) {
    instance.reset();
    recorder = std::make_unique<Recorder>();
    instance = door.instance(*recorder);
    for (std::size_t first = 0; first < lines.size(); first += at_once) {
      auto last = std::min(first + at_once, lines.size());
      instance->call(call::Replay{{lines.begin() + first, lines.begin() + last}, false});
    }
  }

  Json call(const Json &json, Json &out) override {
    Json answer;
    auto take = [&] {
      out.update(handed_out(recorder->staged));
      lines.insert(lines.end(), recorder->staged.lines.begin(), recorder->staged.lines.end());
      recorder->staged = {};
    };
    with_call(json, [&](const auto &made) {
      using C = std::decay_t<decltype(made)>;
      try {
        answer = form::write_answer<C>(instance->call(made));
      } catch (const CallError &) {
        take();
        throw;
      }
      take();
      if constexpr (std::is_same_v<C, call::Replay>)
        lines.insert(lines.end(), made.lines.begin(), made.lines.end());
    });
    return answer;
  }

  void lose(const Json &json) override {
    with_call(json, [&](const auto &made) {
      try {
        instance->call(made);
      } catch (const CallError &) {
      }
    });
    restart();
  }
  void refuse() override { recorder->refuses = true; }
  void restart() override { start(1000); }
  std::vector<std::string> ledger() override { return lines; }
};

// The adapter, over a store in memory.
struct Rebuilding final : Player {
  Machine machine;

  Rebuilding(const Door &door, Plan &plan)
      : machine(door, ":memory:", [this, &plan] {
          return std::make_unique<Faulty>(plan, [this] { machine.instance()->call(call::Head{}); });
        }) {}

  Json call(const Json &json, Json &out) override {
    Json answer;
    with_call(json, [&](const auto &made) {
      using C = std::decay_t<decltype(made)>;
      Staged staged;
      answer = form::write_answer<C>(machine.call(made, staged));
      out.update(handed_out(staged));
      if constexpr (std::is_same_v<C, call::Replay>) {
        Staged replayed;
        replayed.lines = made.lines;
        machine.store.commit(replayed);
      }
    });
    return answer;
  }

  void lose(const Json &json) override {
    // Below the machine, so that nothing of it is kept.
    if (machine.instance() == nullptr) {
      Staged none;
      machine.call(call::Head{}, none);
    }
    with_call(json, [&](const auto &made) {
      try {
        machine.instance()->call(made);
      } catch (const CallError &) {
      } catch (const InstanceLost &) { // a fault of the plan, which is lost with the call
      }
    });
    restart();
  }
  void refuse() override { throw std::logic_error("a run that refuses lines is not rebuilt"); }
  void restart() override { machine.drop(); }
  std::vector<std::string> ledger() override { return machine.store.lines(0, std::uint64_t{1} << 40); }
};

void call_step(Player &player, const Json &step) {
  Json wanted = step, got = Json::object();
  wanted.erase("call");
  const auto &made = step.at("call");
  try {
    auto answer = player.call(made, got);
    got["answer"] = answer;
  } catch (const CallError &error) {
    got["error"] = form::write_error(error);
  }
  same(made.at("call").get<std::string>(), wanted, got);
}

Json end_of(Player &player) {
  Json none, out = Json::object();
  auto head = player.call({{"call", "head"}}, none).at("head");
  auto digest = player.call({{"call", "state-digest"}}, none).at("state-digest");
  try {
    player.call({{"call", "reconcile"}}, out);
  } catch (const CallError &error) {
    out["error"] = form::write_error(error);
  }
  return {{"head", head}, {"stateDigest", digest}, {"reconcile", out}};
}

void three_ends(const Door &door, Player &player, const Json &wanted, bool restored) {
  same("the end of the instance that made the run", wanted, end_of(player));
  if (!restored) {
    Bare replayed(door, player.ledger(), 7);
    same("the end of one made by replay", wanted, end_of(replayed));
  }
  Bare other(door);
  Json cursor, none;
  for (;;) {
    Json request{{"call", "snapshot"}, {"maxBytes", 2000u}};
    if (!cursor.is_null())
      request["cursor"] = cursor;
    auto piece = player.call(request, none).at("snapshot");
    bool last = !piece.contains("next");
    other.instance->call(call::Restore{piece.at("chunk"), last});
    if (last)
      break;
    cursor = piece.at("next");
  }
  same("the end of one made of a snapshot", wanted, end_of(other));
}

struct Run {
  std::int64_t number;
  std::vector<Json> steps;
  Json end;
};

std::vector<Run> full_runs(const Json &vector) {
  std::map<std::int64_t, std::vector<Json>> steps;
  std::vector<Run> runs;
  for (const auto &run : vector.at("runs")) {
    std::vector<Json> all;
    if (run.contains("begins")) {
      const auto &before = steps.at(run.at("begins").at("run"));
      all.assign(before.begin(), before.begin() + run.at("begins").at("steps").get<std::ptrdiff_t>());
    }
    for (const auto &step : run.at("steps"))
      all.push_back(step);
    steps[run.at("run")] = all;
    runs.push_back({run.at("run"), std::move(all), run.value("end", Json())});
  }
  return runs;
}

void play(const Door &door, Player &player, const Run &run, Plan *plan) {
  bool restored = false;
  for (std::size_t index = 0; index < run.steps.size(); ++index) {
    const auto &step = run.steps[index];
    if (plan && index == plan->from % run.steps.size())
      plan->armed = true;
    try {
      if (step.contains("refuseAppends"))
        player.refuse();
      else if (step.contains("restart"))
        player.restart();
      else if (step.contains("lost"))
        player.lose(step.at("lost"));
      else {
        restored |= step.at("call").at("call") == "restore" && step.contains("answer");
        call_step(player, step);
      }
    } catch (const Differs &differs) {
      throw Differs("step " + std::to_string(index + 1) + ": " + differs.what());
    }
  }
  if (plan)
    plan->armed = false;
  if (!run.end.is_null())
    three_ends(door, player, run.end, restored);
}

// How many rebuilds there were.
std::size_t check(const Door &door, const std::string &name, const Json &vector) {
  if (vector.at("format") != 1)
    throw Differs("the format is not known");
  std::size_t rebuilds = 0;
  for (const auto &run : full_runs(vector)) {
    // A ledger that lines do not tell whole, or are refused for, cannot be rebuilt from.
    bool rebuildable = true;
    for (const auto &step : run.steps)
      rebuildable &= !step.contains("refuseAppends") && !(step.contains("call") && step.at("call").at("call") == "restore");
    Plan plan(name);
    try {
      Bare bare(door);
      play(door, bare, run, nullptr);
      if (rebuildable) {
        Rebuilding rebuilding(door, plan);
        play(door, rebuilding, run, &plan);
        rebuilds += rebuilding.machine.rebuilds;
      }
    } catch (const std::exception &error) {
      throw Differs("run " + std::to_string(run.number) + (plan.fired ? " after " + plan.fault + " went wrong" : "") + ": " +
                    error.what());
    }
  }
  return rebuilds;
}

} // namespace

bool run_vectors(const Door &door, const std::string &folder) {
  auto started = std::chrono::steady_clock::now();
  std::vector<std::filesystem::path> files;
  for (const auto &entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".json")
      files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::size_t passed = 0, rebuilds = 0;
  for (const auto &path : files) {
    try {
      std::ifstream file(path);
      rebuilds += check(door, path.filename(), Json::parse(file));
      ++passed;
    } catch (const std::exception &error) {
      std::cerr << door.name << ": " << path.filename().string() << ": " << error.what() << "\n";
    }
  }
  std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
  std::cout << Line{{"host", HOST}, {"door", door.name}, {"vectors", files.size()}, {"passed", passed}, {"rebuilds", rebuilds},
                    {"seconds", std::round(seconds.count() * 10) / 10}}
                   .dump()
            << std::endl;
  return !files.empty() && passed == files.size() && rebuilds > 100;
}
