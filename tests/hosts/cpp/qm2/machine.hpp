// An instance that never stays dead: stages what a call hands out, keeps it in one transaction before the answer is given, and
// after any fault makes a new instance from the ledger and the call once more.
//
// Has no clock, no configuration and delivers nothing; that is the work of `domain.hpp`.
#pragma once

#include "door.hpp"
#include "store.hpp"

namespace qm2 {

// The imports as plain functions: each only notes what it is handed. True says that it was taken.
struct Stage : Imports {
  Staged staged;

  bool append(std::vector<std::string> lines) override { return noted(staged.lines, std::move(lines)); }
  bool enqueue(std::vector<Message> messages) override { return noted(staged.messages, std::move(messages)); }
  bool withdraw(std::vector<std::string> keys) override { return noted(staged.withdrawn, std::move(keys)); }
  bool cancel(std::vector<std::string> keys) override { return noted(staged.lane_cancelled, std::move(keys)); }
  bool enqueue_in_lane(std::string lane, Priority priority, Message message) override {
    staged.lane_messages.push_back({std::move(lane), priority, std::move(message)});
    return true;
  }
  bool ask(std::string hook_id, HookKind kind, std::string subject) override {
    staged.asks.push_back({std::move(hook_id), kind, std::move(subject)});
    return true;
  }
  bool notify(HookNotice kind, std::string subject) override {
    staged.notifications.push_back({kind, std::move(subject)});
    return true;
  }

private:
  template <class T> static bool noted(std::vector<T> &list, std::vector<T> more) {
    list.insert(list.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
    return true;
  }
};

// One domain: an instance, and the store that it is rebuilt from. Not to be used by two threads at once.
class Machine {
public:
  Machine(Door door, const std::string &path, std::function<std::unique_ptr<Stage>()> stage = std::make_unique<Stage>)
      : store(path), door_(std::move(door)), make_stage_(std::move(stage)) {}

  // The answer; what was handed out with it is in `staged`, and durable by now. Throws `CallError` where the whole call was refused;
  // where it could not be made twice, what kept it from that: nothing of it is kept then.
  template <class C> typename C::Answer call(const C &call, Staged &staged) {
    if (calling_)
      throw std::logic_error(std::string(C::name) + " was called from inside a host function; a component cannot be entered twice");
    Calling calling(calling_);
    try {
      return once(call, staged);
    } catch (const InstanceLost &) {
      lose();
    } catch (const StoreError &) {
      lose();
    }
    try {
      return once(call, staged);
    } catch (const CallError &) {
      throw;
    } catch (...) {
      lose();
      throw;
    }
  }

  // Throws the instance away; the next call makes one from the ledger.
  void drop() { instance_.reset(); }
  // The instance, if there is one.
  Instance *instance() { return instance_.get(); }

  Store store;
  std::uint64_t rebuilds = 0;

private:
  struct Calling {
    bool &flag;
    explicit Calling(bool &flag_) : flag(flag_) { flag = true; }
    ~Calling() { flag = false; }
  };

  template <class C> typename C::Answer once(const C &call, Staged &staged) {
    if (!instance_)
      rebuild();
    stage_->staged = {};
    try {
      auto answer = instance_->call(call);
      store.commit(stage_->staged);
      staged = std::move(stage_->staged);
      return answer;
    } catch (const CallError &error) {
      if (error.code == "ledger-unavailable" || error.code == "rebuild")
        throw InstanceLost(error.what());
      throw;
    }
  }

  void lose() {
    ++rebuilds;
    drop();
  }
  void rebuild();

  Door door_;
  std::function<std::unique_ptr<Stage>()> make_stage_;
  std::unique_ptr<Stage> stage_;
  std::unique_ptr<Instance> instance_;
  bool calling_ = false;
};

} // namespace qm2
