// The component and the core module in wasmtime.

#include "door.hpp"
#include "handed_out.hpp"

#include <fstream>
#include <map>

#include <wasmtime.hh>

namespace qm2 {

namespace wc = wasmtime::component;
using values::Val;

namespace {

std::vector<std::uint8_t> bytes_of(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  if (!file)
    throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

template <class R> auto ok(R &&result, const std::string &what) {
  if (!result)
    throw std::runtime_error(what + ": " + std::string(result.err().message()));
  return std::forward<R>(result).ok();
}

// Calls imports so that nothing they throw unwinds through the component.
struct Guarded {
  Imports &imports;
  std::string threw;

  template <class F> bool call(F &&f) {
    try {
      return f(imports);
    } catch (const std::exception &error) {
      threw = threw.empty() ? error.what() : threw;
    } catch (...) {
      threw = threw.empty() ? "something that is no std::exception" : threw;
    }
    return false;
  }

  // After a call: what an import threw is told now.
  void check() {
    if (!threw.empty())
      throw InstanceLost("a host function threw: " + std::exchange(threw, ""));
  }

  [[noreturn]] void trapped(const std::string &message) {
    auto cause = std::exchange(threw, "");
    throw InstanceLost(cause.empty() ? message : message + "; a host function threw: " + cause);
  }
};

struct Compiled {
  wasmtime::Engine engine;
  wc::Component component;
  explicit Compiled(const std::string &path) : component(compile(engine, path)) {}
  static wc::Component compile(wasmtime::Engine &engine, const std::string &path) {
    auto bytes = bytes_of(path);
    return ok(wc::Component::compile(engine, wasmtime::Span<std::uint8_t>(bytes)), path);
  }
};

// ---- the component ----

class ComponentInstance final : public Instance {
public:
  ComponentInstance(std::shared_ptr<Compiled> compiled, Imports &imports, bool text)
      : Instance(text), compiled_(std::move(compiled)), guarded_{imports, {}}, linker_(compiled_->engine),
        store_(compiled_->engine) { // a store of its own, since a trap poisons the whole store
    define();
    instance_.emplace(ok(linker_.instantiate(store_, compiled_->component), "instantiate"));
  }

protected:
  std::string text(std::string_view name, const std::string &request) override {
    auto answer = invoke("qm2:coordination/json@0.1.0", name, {Val::string(request)});
    values::expect(answer.is_string(), "a string");
    return std::string(answer.get_string());
  }

  Val invoke(std::string_view interface, std::string_view name, const std::vector<Val> &arguments) override {
    Val result(false);
    auto called = function(interface, name).call(store_, wasmtime::Span<const Val>(arguments.data(), arguments.size()),
                                                 wasmtime::Span<Val>(&result, 1));
    if (!called)
      guarded_.trapped(std::string(called.err().message()));
    guarded_.check();
    return result;
  }

private:
  const wc::Func &function(std::string_view interface, std::string_view name) {
    auto found = functions_.find(name);
    if (found == functions_.end()) {
      auto outer = instance_->get_export_index(store_, nullptr, interface);
      auto index = outer ? instance_->get_export_index(store_, &*outer, name) : std::nullopt;
      auto func = index ? instance_->get_func(store_, *index) : std::nullopt;
      if (!func)
        throw std::runtime_error("the component has no " + std::string(interface) + "#" + std::string(name));
      found = functions_.emplace(std::string(name), *func).first;
    }
    return found->second;
  }

  // `F` gets the imports and the arguments.
  template <class F> void add(wc::LinkerInstance &instance, std::string_view name, const char *refusal, F f) {
    auto callback = [this, refusal, f](auto, const wc::FuncType &, wasmtime::Span<Val> arguments,
                                       wasmtime::Span<Val> results) -> wasmtime::Result<std::monostate> {
      bool taken = guarded_.call([&](Imports &imports) { return f(imports, arguments); });
      results[0] = taken ? wc::WitResult::ok(std::nullopt) : wc::WitResult::err(Val::enum_(refusal));
      return std::monostate();
    };
    ok(instance.add_func(name, callback), "link");
  }

  template <class T> static T lifted(const Val &val) {
    T value{};
    values::lift(val, value);
    return value;
  }

  void define() {
    using Texts = std::vector<std::string>;
    auto root = linker_.root();
    {
      auto stream = ok(root.add_instance("qm2:coordination/event-stream@0.1.0"), "link");
      add(stream, "append", "unavailable", [](Imports &i, auto &a) { return i.append(lifted<Texts>(a[0])); });
    }
    {
      auto queue = ok(root.add_instance("qm2:coordination/queue@0.1.0"), "link");
      add(queue, "enqueue", "busy", [](Imports &i, auto &a) { return i.enqueue(lifted<std::vector<Message>>(a[0])); });
      add(queue, "withdraw", "busy", [](Imports &i, auto &a) { return i.withdraw(lifted<Texts>(a[0])); });
    }
    {
      auto lanes = ok(root.add_instance("qm2:coordination/lanes@0.1.0"), "link");
      add(lanes, "enqueue-in-lane", "busy", [](Imports &i, auto &a) {
        return i.enqueue_in_lane(lifted<std::string>(a[0]), lifted<Priority>(a[1]), lifted<Message>(a[2]));
      });
      add(lanes, "cancel", "busy", [](Imports &i, auto &a) { return i.cancel(lifted<Texts>(a[0])); });
    }
    auto hooks = ok(root.add_instance("qm2:coordination/hooks@0.1.0"), "link");
    add(hooks, "ask", "busy", [](Imports &i, auto &a) {
      return i.ask(lifted<std::string>(a[0]), lifted<HookKind>(a[1]), lifted<std::string>(a[2]));
    });
    add(hooks, "notify", "busy",
        [](Imports &i, auto &a) { return i.notify(lifted<HookNotice>(a[0]), lifted<std::string>(a[1])); });
  }

  std::shared_ptr<Compiled> compiled_;
  Guarded guarded_;
  wc::Linker linker_;
  wasmtime::Store store_;
  std::optional<wc::Instance> instance_;
  std::map<std::string, wc::Func, std::less<>> functions_;
};

// ---- the core module ----

struct CompiledModule {
  wasmtime::Engine engine;
  wasmtime::Module module;
  explicit CompiledModule(const std::string &path) : module(compile(engine, path)) {}
  static wasmtime::Module compile(wasmtime::Engine &engine, const std::string &path) {
    auto bytes = bytes_of(path);
    return ok(wasmtime::Module::compile(engine, wasmtime::Span<std::uint8_t>(bytes)), path);
  }
};

// What an import is handed, in the JSON form.
struct SaidLines {
  std::vector<std::string> lines;
  QM2_FIELDS { v("lines", "lines", self.lines); }
};
struct SaidMessages {
  std::vector<Message> messages;
  QM2_FIELDS { v("messages", "messages", self.messages); }
};
struct SaidKeys {
  std::vector<std::string> keys;
  QM2_FIELDS { v("keys", "keys", self.keys); }
};

bool handed_out(Imports &imports, const Json &json) {
  auto name = json.at("call").get<std::string>();
  if (name == "append")
    return imports.append(form::read_call<SaidLines>(json).lines);
  if (name == "enqueue")
    return imports.enqueue(form::read_call<SaidMessages>(json).messages);
  if (name == "withdraw")
    return imports.withdraw(form::read_call<SaidKeys>(json).keys);
  if (name == "cancel")
    return imports.cancel(form::read_call<SaidKeys>(json).keys);
  if (name == "enqueue-in-lane") {
    auto said = form::read_call<LaneMessage>(json);
    return imports.enqueue_in_lane(std::move(said.lane), said.priority, std::move(said.message));
  }
  if (name == "ask") {
    auto said = form::read_call<HookAsk>(json);
    return imports.ask(std::move(said.hook_id), said.kind, std::move(said.subject));
  }
  if (name == "notify") {
    auto said = form::read_call<HookTold>(json);
    return imports.notify(said.kind, std::move(said.subject));
  }
  throw FormError("the module calls something that is not known: " + name);
}

class CoreInstance final : public Instance {
public:
  CoreInstance(std::shared_ptr<CompiledModule> compiled, Imports &imports)
      : Instance(true), compiled_(std::move(compiled)), guarded_{imports, {}}, store_(compiled_->engine) {
    auto import = wasmtime::Func::wrap(store_, [this](std::int32_t at, std::int32_t size) -> std::int32_t {
      bool taken = guarded_.call([&](Imports &imports) { return handed_out(imports, Json::parse(read(at, size))); });
      return taken ? 0 : 1;
    });
    auto instance = ok(wasmtime::Instance::create(store_, compiled_->module, {import}), "instantiate");
    auto func = [&](const char *name) { return std::get<wasmtime::Func>(instance.get(store_, name).value()); };
    memory_.emplace(std::get<wasmtime::Memory>(instance.get(store_, "memory").value()));
    alloc_.emplace(ok(func("alloc").typed<std::int32_t, std::int32_t>(store_), "alloc"));
    call_.emplace(ok(func("call").typed<std::tuple<std::int32_t, std::int32_t>, std::int64_t>(store_), "call"));
    free_.emplace(ok(func("free").typed<std::tuple<std::int32_t, std::int32_t>, std::monostate>(store_), "free"));
  }

  template <class R> auto returned(R &&result) {
    if (!result)
      guarded_.trapped(std::string(result.err().message()));
    return std::forward<R>(result).ok();
  }

  std::optional<std::uint64_t> memory_bytes() override { return memory_->data(store_).size(); }

protected:
  std::string text(std::string_view, const std::string &request) override {
    auto size = static_cast<std::int32_t>(request.size());
    auto at = returned(alloc_->call(store_, size));
    auto place = static_cast<std::uint32_t>(at);
    auto memory = memory_->data(store_);
    if (place > memory.size() || request.size() > memory.size() - place)
      throw InstanceLost("the module gave a buffer outside its memory");
    std::copy(request.begin(), request.end(), memory.data() + place);
    auto both = static_cast<std::uint64_t>(returned(call_->call(store_, std::tuple(at, size))));
    guarded_.check();
    auto from = static_cast<std::int32_t>(both >> 32), count = static_cast<std::int32_t>(both);
    auto answer = read(from, count);
    returned(free_->call(store_, std::tuple(from, count)));
    return answer;
  }

  Val invoke(std::string_view, std::string_view, const std::vector<Val> &) override {
    throw std::logic_error("a core module has no typed interfaces");
  }

private:
  std::string read(std::int32_t at, std::int32_t size) {
    auto memory = memory_->data(store_);
    auto from = static_cast<std::uint32_t>(at), count = static_cast<std::uint32_t>(size);
    if (from > memory.size() || count > memory.size() - from)
      throw InstanceLost("the module gave a text outside its memory");
    return {reinterpret_cast<const char *>(memory.data()) + from, count};
  }

  std::shared_ptr<CompiledModule> compiled_;
  Guarded guarded_;
  wasmtime::Store store_;
  std::optional<wasmtime::Memory> memory_;
  std::optional<wasmtime::TypedFunc<std::int32_t, std::int32_t>> alloc_;
  std::optional<wasmtime::TypedFunc<std::tuple<std::int32_t, std::int32_t>, std::int64_t>> call_;
  std::optional<wasmtime::TypedFunc<std::tuple<std::int32_t, std::int32_t>, std::monostate>> free_;
};

} // namespace

template <class C> typename C::Answer Instance::call(const C &call) {
  if (text_door) {
    Json request = form::write_call(call);
    request.emplace("call", C::name);
    return form::read_answer<C>(Json::parse(text(C::name, dumped(request))));
  }
  values::Arguments arguments;
  C::fields(arguments, call);
  return values::lift_answer<C>(invoke(C::interface, C::name, arguments.values));
}

#define QM2_COMPILED(C) template call::C::Answer Instance::call(const call::C &);
QM2_EACH_CALL(QM2_COMPILED)
#undef QM2_COMPILED

std::string Instance::dumped(const Json &json) {
  try {
    return json.dump();
  } catch (const Json::type_error &error) {
    throw FormError(error.what()); // a text is not UTF-8
  }
}

std::vector<Door> component_doors(const std::string &path) {
  auto compiled = std::make_shared<Compiled>(path);
  auto door = [&](const char *name, bool text) {
    return Door{name, [compiled, text](Imports &imports) { return std::make_unique<ComponentInstance>(compiled, imports, text); }};
  };
  return {door("records", false), door("json", true)};
}

Door core_door(const std::string &path) {
  auto compiled = std::make_shared<CompiledModule>(path);
  return {"core", [compiled](Imports &imports) { return std::make_unique<CoreInstance>(compiled, imports); }};
}

// ---- values ----

bool values::is_utf8(std::string_view text) {
  auto at = reinterpret_cast<const unsigned char *>(text.data()), end = at + text.size();
  while (at != end) {
    unsigned char first = *at++;
    if (first < 0x80)
      continue;
    int more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    if (first < 0xc2 || first > 0xf4 || end - at < more)
      return false;
    // What may follow the first byte: no overlong form, no surrogate, nothing past U+10FFFF.
    unsigned char low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    unsigned char high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (*at < low || *at > high)
      return false;
    for (++at, --more; more > 0; ++at, --more)
      if ((*at & 0xc0) != 0x80)
        return false;
  }
  return true;
}

CallError values::lift_error(const Val &val) {
  static const std::map<std::string, const char *, std::less<>> texts{
      {"disabled", "the domain is not configured or coordination.phase1.enabled is off"},
      {"busy", "more timers are due than one call may fire; advance until there are no more"},
      {"ledger-unavailable", "the host did not take the records"},
      {"rebuild", "the instance is spent; make a new one and replay the ledger"},
  };
  expect(val.is_variant(), "a call error");
  const auto &variant = val.get_variant();
  std::string code(variant.discriminant());
  auto held = variant.value();
  if (!held) {
    auto text = texts.find(code);
    expect(text != texts.end(), "a call error that is known");
    return {code, text->second};
  }
  if (code == "read-only") {
    LedgerFault fault;
    lift(*held, fault);
    CallError error(code, fault.message);
    error.seq = fault.seq;
    error.kind = fault.kind;
    return error;
  }
  if (code == "unknown") {
    std::string message;
    lift(*held, message);
    return {code, message};
  }
  Blame blame;
  lift(*held, blame);
  return {code, blame.message, blame.field};
}

} // namespace qm2
