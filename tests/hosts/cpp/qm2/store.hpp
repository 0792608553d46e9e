// What must survive: the ledger, and messages that were not delivered yet. SQLite, one transaction for a call.
//
// One process owns the file. Knows no component; `machine.hpp` says what to keep, `domain.hpp` what was delivered.
#pragma once

#include "form.hpp"
#include "handed_out.hpp"

struct sqlite3;

namespace qm2 {

// What one call handed out, in the order in which it was said.
struct Staged {
  std::vector<std::string> lines;
  std::vector<Message> messages;
  std::vector<std::string> withdrawn;
  std::vector<LaneMessage> lane_messages;
  std::vector<std::string> lane_cancelled;
  std::vector<HookAsk> asks;
  std::vector<HookTold> notifications;
};

struct StoreError : std::runtime_error {
  using runtime_error::runtime_error;
};

class Store {
public:
  // A file, or `:memory:`.
  explicit Store(const std::string &path);
  Store(const Store &) = delete;
  ~Store();

  // Keeps all of it or, when this throws `StoreError`, nothing.
  void commit(const Staged &staged);
  // So many lines of the ledger after this seq.
  std::vector<std::string> lines(std::uint64_t after, std::uint64_t limit);
  // The oldest message after this place that was not delivered yet, and its own place.
  std::optional<std::pair<std::int64_t, Message>> queued(std::int64_t place);
  void delivered(const Message &message);

private:
  void run(const char *sql);
  sqlite3 *db_ = nullptr;
};

} // namespace qm2
