// QM2 behind its three doors: `records` (the typed interfaces of the component), `json` (its text interface), `core` (the same
// engine as a plain core module).
//
// An instance is called with C++ values and answers with them; what it hands out meanwhile goes to `Imports`. Rebuilding an instance
// that is spent, and keeping what was handed out, is the work of `machine.hpp`.
#pragma once

#include <functional>
#include <memory>

#include "values.hpp"

namespace qm2 {

// What an instance is given. False says unavailable or busy. An exception counts as that, and is told when the call has come back.
struct Imports {
  virtual ~Imports() = default;
  virtual bool append(std::vector<std::string> lines) = 0;
  virtual bool enqueue(std::vector<Message> messages) = 0;
  virtual bool withdraw(std::vector<std::string> keys) = 0;
  virtual bool enqueue_in_lane(std::string lane, Priority priority, Message message) = 0;
  virtual bool cancel(std::vector<std::string> keys) = 0;
  virtual bool ask(std::string hook_id, HookKind kind, std::string subject) = 0;
  virtual bool notify(HookNotice kind, std::string subject) = 0;
};

class Instance {
public:
  virtual ~Instance() = default;

  // The answer. Throws `CallError` where the whole call was refused, `InstanceLost`, and before the call `FormError`.
  template <class C> typename C::Answer call(const C &call);

  // Size of the linear memory, where the door can see it.
  virtual std::optional<std::uint64_t> memory_bytes() { return std::nullopt; }

protected:
  explicit Instance(bool text) : text_door(text) {}
  virtual std::string text(std::string_view name, const std::string &request) = 0;
  virtual values::Val invoke(std::string_view interface, std::string_view name, const std::vector<values::Val> &arguments) = 0;

private:
  static std::string dumped(const Json &json);
  bool text_door;
};

// Compiled once, with the adapter, and not with every file that makes a call.
#define QM2_COMPILED(C) extern template call::C::Answer Instance::call(const call::C &);
QM2_EACH_CALL(QM2_COMPILED)
#undef QM2_COMPILED

// Makes instances; compiling was done before.
struct Door {
  std::string name;
  std::function<std::unique_ptr<Instance>(Imports &)> instance;
};

// `records` and `json`, in this order.
std::vector<Door> component_doors(const std::string &path);
Door core_door(const std::string &path);

} // namespace qm2
