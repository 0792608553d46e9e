// Three agents, each a process of its own, finish a plan: two append to the same file, one publishes it after a person said yes.
//
//     example --component qm2-coordination-0.1.0.wasm --data DIR [--yes]
//
// Killed half-way and started again with the same folder it goes on. What QM2 is told and hands out is `qm2::Domain`; here is what a
// program adds: processes, and a person.

#include "qm2.hpp"

#include <algorithm>
#include <csignal>
#include <deque>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.hpp"

using namespace qm2;

namespace {

const Caller OWNER{"user:me", {}}, PERSON{"user:dana", Role::operator_};
const std::string PLAN_ID = "example";

Json plan(const std::string &folder) {
  auto append = [&](const char *name) {
    Json work{{"do", "append"}, {"file", folder + "/notes.txt"}, {"count", 5}};
    Json claim{{"resource", "file:notes.txt"}, {"mode", "exclusive"}, {"leaseMs", 30'000}};
    return Json{{"stepId", name}, {"targetSession", "agent:" + std::string(name)}, {"timeoutMs", 60'000},
                {"payload", work.dump()}, {"claims", Json::array({claim})}};
  };
  auto after = [](const char *name) { return Json{{"stepId", name}, {"on", "success"}}; };
  Json work{{"do", "publish"}, {"file", folder + "/notes.txt"}, {"to", folder + "/published.txt"}};
  Json publish{{"stepId", "publish"}, {"targetSession", "agent:publish"}, {"timeoutMs", 600'000}, {"payload", work.dump()},
               {"dependsOn", Json::array({after("left"), after("right")})}};
  Json level{{"sessions", Json::array({PERSON.session})}, {"minRole", "operator"}, {"timeoutMs", 600'000}};
  Json failure{{"retryBudget", 2}, {"escalationPolicy", "hitl"}, {"human", {{"levels", Json::array({level})}}}};
  return Json{{"coordinationId", PLAN_ID}, {"objective", "Write notes together and publish them."},
              {"ownerSession", OWNER.session}, {"steps", Json::array({append("left"), append("right"), publish})},
              {"reports", "all"}, {"failurePolicy", failure}};
}

// One process, for one attempt. Its lock file is held by the process itself: who gets the lock knows that it is dead.
struct Agent {
  Envelope envelope;
  pid_t pid = 0;
  int in = -1, out = -1; // its stdin and stdout, seen from here
  std::string text;      // what it said so far of a line
  bool reported = false;

  Agent(const Message &message, const std::string &lock) : envelope(message.envelope) {
    int to[2], from[2];
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0)
      throw std::runtime_error("no pipe");
    int held = open(lock.c_str(), O_CREAT | O_RDWR, 0600); // inherited
    if (held < 0 || flock(held, LOCK_EX) != 0)
      throw std::runtime_error("cannot lock " + lock);
    pid = fork();
    if (pid == 0) {
      dup2(to[0], 0);
      dup2(from[1], 1);
      execl("/proc/self/exe", "example", "agent", nullptr);
      _exit(127);
    }
    close(to[0]);
    close(from[1]);
    close(held);
    if (pid < 0)
      throw std::runtime_error("cannot start a process");
    in = to[1];
    out = from[0];
    tell({{"envelope",
           {{"stepId", *envelope.step_id}, {"payload", std::get<std::string>(envelope.payload)}, {"tokens", form::write(envelope.tokens)}}}});
  }

  void tell(const Json &line) {
    auto text = line.dump() + "\n";
    if (write(in, text.data(), text.size()) < 0 && errno != EPIPE) // it may have ended, and its end is read
      throw std::runtime_error("cannot write to an agent");
  }
};

class Example {
public:
  Example(std::string folder, const Door &door, bool yes) : folder_(std::move(folder)), yes_(yes) {
    std::filesystem::create_directories(folder_ + "/locks");
    Host host;
    // Messages of an earlier run come out while this opens; `domain` is there only afterwards, so they are kept till then.
    host.deliver = [this](const Message &message) { domain ? deliver(message) : early_.push_back(message); };
    host.failed = [](const std::string &says) { std::cerr << says << "\n"; };
    Json config{{"domain", "example"}, {"phase1", {{"enabled", true}}}};
    domain = std::make_unique<Domain>(door, folder_ + "/run.db", config, host);
  }

  std::string run() {
    for (const auto &message : early_)
      deliver(message);
    auto answer = domain->call(call::SubmitPlan{OWNER, 0, plan(folder_).dump()});
    if (auto refused = std::get_if<Rejection>(&answer))
      throw std::runtime_error("the plan was refused: " + form::write(*refused).dump());
    std::cout << (std::get<PlanReceipt>(answer).replayed ? "the plan goes on" : "the plan is new") << std::endl;
    for (;;) {
      auto state = Json::parse(domain->call(call::Describe{PLAN_ID}));
      if (agents_.empty() && (state.at("state") == "final" || state.at("state") == "closed"))
        return state.at("terminal");
      step();
    }
  }

  std::unique_ptr<Domain> domain;

private:
  // What an agent says, a question, or a timer.
  void step() {
    while (!questions_.empty()) {
      auto question = questions_.front();
      questions_.pop_front();
      ask(question);
    }
    std::vector<pollfd> waits;
    std::vector<std::string> keys;
    for (const auto &[key, agent] : agents_) {
      waits.push_back({agent->out, POLLIN, 0});
      keys.push_back(key);
    }
    std::uint64_t wait = 60'000, now = domain->clock();
    if (auto deadline = domain->next_deadline())
      wait = std::min(wait, *deadline > now ? *deadline - now : 0);
    if (poll(waits.data(), waits.size(), static_cast<int>(wait)) == 0)
      return domain->tick();
    for (std::size_t index = 0; index < waits.size(); ++index)
      if (waits[index].revents != 0 && agents_.count(keys[index]))
        hear(keys[index], *agents_.at(keys[index]));
  }

  void hear(const std::string &key, Agent &agent) {
    char bytes[4096];
    auto count = read(agent.out, bytes, sizeof bytes);
    if (count <= 0)
      return ended(key);
    agent.text.append(bytes, static_cast<std::size_t>(count));
    for (std::size_t end; (end = agent.text.find('\n')) != std::string::npos;) {
      auto line = agent.text.substr(0, end);
      agent.text.erase(0, end + 1);
      said(agent, Json::parse(line));
    }
  }

  // ---- what QM2 hands out ----

  void deliver(const Message &message) {
    auto colon = message.key.find(':');
    auto kind = message.key.substr(0, colon), key = message.key.substr(colon + 1);
    const auto &envelope = message.envelope;
    auto payload = std::get_if<std::string>(&envelope.payload);
    if (kind == "report") {
      std::cout << "report to " << envelope.target_session << ": " << envelope.step_id.value_or("the plan") << ": "
                << (payload ? *payload : form::write(envelope.outcome).dump()) << std::endl;
      domain->call(call::Acknowledge{OWNER, 0, {message.key}});
    } else if (kind == "escalation") {
      questions_.push_back(Json::parse(*payload));
    } else if (kind == "answer") {
      auto attempt = envelope.coordination_id + ":" + *envelope.step_id + ":" + std::to_string(*envelope.attempt);
      if (agents_.count(attempt))
        agents_.at(attempt)->tell({{"answer", payload ? *payload : "yes"}});
    } else if (kind == "cancel") {
      if (agents_.count(key))
        kill(agents_.at(key)->pid, SIGKILL);
    } else if (kind == "probe") {
      bool here = agents_.count(key);
      if (!here)
        wait_for_the_dead(key);
      domain->call(call::SayNotice{0, {{key, here ? NoticeKind::taken : NoticeKind::host_lost}}});
    } else if (!agents_.count(message.key)) {
      agents_[message.key] = std::make_unique<Agent>(message, lock(message.key));
      std::cout << envelope.target_session << " starts: " << message.key << std::endl;
      send(envelope, Intent::ack);
    }
  }

  std::string lock(std::string key) {
    std::replace(key.begin(), key.end(), ':', '_');
    return folder_ + "/locks/" + key;
  }

  // Of what an earlier run left behind.
  void wait_for_the_dead(const std::string &key) {
    int file = open(lock(key).c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    flock(file, LOCK_EX);
    close(file);
  }

  // ---- what agents say ----

  // An envelope of an agent to QM2.
  void send(const Envelope &to, Intent intent, const std::function<void(Envelope &)> &fill = [](auto &) {}) {
    Envelope envelope;
    envelope.coordination_id = to.coordination_id;
    envelope.step_id = to.step_id;
    envelope.attempt = to.attempt;
    envelope.source_session = to.target_session;
    envelope.target_session = to.source_session;
    envelope.intent = intent;
    envelope.created_at_ms = domain->clock();
    fill(envelope);
    auto answer = domain->call(call::Submit{{to.target_session, {}}, 0, {envelope}});
    if (auto refused = std::get_if<Rejection>(&answer.at(0)))
      std::cout << "refused: " << form::word(intent) << " of " << *to.step_id << ": " << refused->message << std::endl;
  }

  void said(Agent &agent, const Json &line) {
    if (line.contains("check")) {
      const auto &held = line.at("check");
      auto verdict = domain->call(
          call::Check{0, held.at("resource"), agent.envelope.target_session, held.at("token"), Access::write, {}, {}});
      agent.tell({{"allowed", verdict.allowed}, {"reason", verdict.reason}});
    } else if (line.contains("question")) {
      send(agent.envelope, Intent::escalate, [&](Envelope &e) { e.question = Question{1, line.at("question")}; });
    } else if (line.contains("report")) {
      agent.reported = true;
      send(agent.envelope, Intent::report, [&](Envelope &e) {
        e.outcome = Completed{};
        e.payload = line.at("report").get<std::string>();
      });
    }
  }

  void ended(const std::string &key) {
    auto agent = std::move(agents_.at(key));
    agents_.erase(key);
    int status = 0;
    waitpid(agent->pid, &status, 0);
    close(agent->in);
    close(agent->out);
    if (!agent->reported)
      send(agent->envelope, Intent::report, [&](Envelope &e) {
        e.outcome = Failure{FailureClass::retryable, "exit", "the agent ended with " + std::to_string(status)};
      });
  }

  // ---- a person ----

  void ask(const Json &question) {
    std::cout << "question to " << PERSON.session << ": " << question.at("question").get<std::string>() << std::endl;
    std::string word = "yes";
    if (!yes_) {
      if (!isatty(0))
        throw std::runtime_error("nobody is here to answer; start again on a terminal, or with --yes");
      std::cout << "yes or no? " << std::flush;
      std::getline(std::cin, word);
    }
    auto verdict = word == "yes" ? HumanVerdict::approve : HumanVerdict::deny;
    auto answer =
        domain->call(call::AnswerQuestion{PERSON, 0, question.at("escalationId"), question.at("digest"), verdict, word});
    if (auto refused = std::get_if<Rejection>(&answer))
      std::cout << "not taken: " << refused->message << std::endl;
    else
      std::cout << PERSON.session << " says " << form::word(verdict) << std::endl;
  }

  std::string folder_;
  bool yes_;
  std::vector<Message> early_;
  std::map<std::string, std::unique_ptr<Agent>> agents_;
  std::deque<Json> questions_;
};

} // namespace

int main(int count, char **values) try {
  if (count == 2 && std::string(values[1]) == "agent")
    return run_agent();
  std::map<std::string, std::string> options{{"--component", "qm2-coordination-0.1.0.wasm"}, {"--data", "qm2-example"}};
  bool yes = false;
  for (int at = 1; at < count; ++at) {
    std::string option = values[at];
    if (option == "--yes")
      yes = true;
    else if (at + 1 < count)
      options[option] = values[++at];
  }
  signal(SIGPIPE, SIG_IGN);
  auto folder = std::filesystem::absolute(options["--data"]).string();
  std::filesystem::create_directories(folder);
  auto door = options["--core"].empty() ? component_doors(options["--component"])[options["--door"] == "records" ? 0 : 1]
                                        : core_door(options["--core"]);
  Example example(folder, door, yes);
  auto terminal = example.run();
  auto head = example.domain->verify();
  std::vector<std::string> written, wanted;
  std::ifstream file(folder + "/notes.txt");
  for (std::string line; std::getline(file, line);)
    written.push_back(line);
  for (auto step : {"left", "right"})
    for (int number = 0; number < 5; ++number)
      wanted.push_back(step + (" " + std::to_string(number)));
  std::sort(written.begin(), written.end());
  bool kept = written == wanted;
  std::cout << terminal << "; " << written.size() << " lines in notes.txt, " << (kept ? "none lost" : "some LOST") << "\n"
            << "ledger: " << head.seq << " records, chain holds, head " << head.hash << std::endl;
  return terminal == "success" && kept ? 0 : 1;
} catch (const std::exception &error) {
  std::cerr << error.what() << "\n";
  return 1;
}
