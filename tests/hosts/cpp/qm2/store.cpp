// The store over SQLite's C interface.

#include "store.hpp"

#include <sqlite3.h>

namespace qm2 {

namespace {

class Statement {
public:
  Statement(sqlite3 *db, const char *sql) : db_(db) {
    if (sqlite3_prepare_v2(db, sql, -1, &statement_, nullptr) != SQLITE_OK)
      throw StoreError(sqlite3_errmsg(db));
  }
  Statement(const Statement &) = delete;
  ~Statement() { sqlite3_finalize(statement_); }

  Statement &bind(int at, const std::string &text) {
    return checked(sqlite3_bind_text(statement_, at, text.data(), static_cast<int>(text.size()), SQLITE_TRANSIENT));
  }
  Statement &bind(int at, std::int64_t number) { return checked(sqlite3_bind_int64(statement_, at, number)); }

  // True while there is a row.
  bool step() {
    int code = sqlite3_step(statement_);
    if (code != SQLITE_ROW && code != SQLITE_DONE)
      throw StoreError(sqlite3_errmsg(db_));
    return code == SQLITE_ROW;
  }
  void once() {
    step();
    checked(sqlite3_reset(statement_));
  }

  std::string text(int column) {
    auto data = reinterpret_cast<const char *>(sqlite3_column_text(statement_, column));
    return {data, static_cast<std::size_t>(sqlite3_column_bytes(statement_, column))};
  }
  std::int64_t number(int column) { return sqlite3_column_int64(statement_, column); }

private:
  Statement &checked(int code) {
    if (code != SQLITE_OK)
      throw StoreError(sqlite3_errmsg(db_));
    return *this;
  }
  sqlite3 *db_;
  sqlite3_stmt *statement_ = nullptr;
};

constexpr const char *SCHEMA =
    "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
    "CREATE TABLE IF NOT EXISTS ledger (seq INTEGER PRIMARY KEY, line TEXT NOT NULL) STRICT;"
    "CREATE TABLE IF NOT EXISTS queue (place INTEGER PRIMARY KEY, key TEXT NOT NULL, delivery INTEGER NOT NULL,"
    " message TEXT NOT NULL, UNIQUE (key, delivery)) STRICT;";

} // namespace

Store::Store(const std::string &path) {
  if (sqlite3_open(path.c_str(), &db_) != SQLITE_OK) {
    std::string message = sqlite3_errmsg(db_);
    sqlite3_close(db_);
    throw StoreError(path + ": " + message);
  }
  run(SCHEMA);
}

Store::~Store() { sqlite3_close(db_); }

void Store::run(const char *sql) {
  if (sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) != SQLITE_OK)
    throw StoreError(sqlite3_errmsg(db_));
}

void Store::commit(const Staged &staged) {
  if (staged.lines.empty() && staged.messages.empty() && staged.withdrawn.empty())
    return;
  run("BEGIN IMMEDIATE");
  try {
    Statement line(db_, "INSERT INTO ledger (line) VALUES (?)");
    for (const auto &text : staged.lines)
      line.bind(1, text).once();
    // A redelivery replaces the one before, if that was not delivered yet; the same pair is the same message.
    Statement before(db_, "DELETE FROM queue WHERE key = ? AND delivery < ?");
    Statement message(db_, "INSERT OR IGNORE INTO queue (key, delivery, message) VALUES (?, ?, ?)");
    for (const auto &queued : staged.messages) {
      before.bind(1, queued.key).bind(2, queued.delivery).once();
      message.bind(1, queued.key).bind(2, queued.delivery).bind(3, form::write(queued).dump()).once();
    }
    Statement withdrawn(db_, "DELETE FROM queue WHERE key = ?");
    for (const auto &key : staged.withdrawn)
      withdrawn.bind(1, key).once();
    run("COMMIT");
  } catch (...) {
    if (!sqlite3_get_autocommit(db_))
      sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
    throw;
  }
}

std::vector<std::string> Store::lines(std::uint64_t after, std::uint64_t limit) {
  Statement select(db_, "SELECT line FROM ledger WHERE seq > ? ORDER BY seq LIMIT ?");
  select.bind(1, static_cast<std::int64_t>(after)).bind(2, static_cast<std::int64_t>(limit));
  std::vector<std::string> lines;
  while (select.step())
    lines.push_back(select.text(0));
  return lines;
}

std::optional<std::pair<std::int64_t, Message>> Store::queued(std::int64_t place) {
  Statement select(db_, "SELECT place, message FROM queue WHERE place > ? ORDER BY place LIMIT 1");
  if (!select.bind(1, place).step())
    return std::nullopt;
  Message message;
  form::read(Json::parse(select.text(1)), message);
  return std::pair(select.number(0), std::move(message));
}

void Store::delivered(const Message &message) {
  Statement(db_, "DELETE FROM queue WHERE key = ? AND delivery = ?").bind(1, message.key).bind(2, message.delivery).once();
}

} // namespace qm2
