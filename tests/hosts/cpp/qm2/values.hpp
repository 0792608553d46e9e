// The contract's values as component values: to and from the dynamic `Val` of wasmtime's C++ headers.
//
// Text is checked to be UTF-8 before it gets there, since the library ends the process at text that is not; integers are checked
// as well. What comes back is checked by kind and by name, so that a component of another contract is a `FormError`.
#pragma once

#include <wasmtime/component.hh>

#include "form.hpp"

namespace qm2::values {

using wasmtime::component::Val;
namespace wc = wasmtime::component;

bool is_utf8(std::string_view text);

inline std::string kebab(std::string_view word) {
  std::string name(word);
  for (auto &c : name)
    c = c == '_' ? '-' : c;
  return name;
}

// ---- to a component ----

template <class T> Val lower(const T &value);

struct Entries {
  std::vector<std::pair<std::string_view, Val>> entries;
  template <class T> void operator()(std::string_view name, const char *, const T &member, bool = false) {
    entries.emplace_back(name, lower(member));
  }
};

struct SoleVal {
  std::optional<Val> value;
  template <class T> void operator()(std::string_view, const char *, const T &member) { value = lower(member); }
};

// The arguments of a call.
struct Arguments {
  std::vector<Val> values;
  template <class T> void operator()(std::string_view, const char *, const T &member, bool = false) {
    values.push_back(lower(member));
  }
};

template <class T> Val lower(const T &value) {
  if constexpr (form::is_integer<T>)
    return Val(form::checked<T>(value));
  else if constexpr (std::is_same_v<T, bool>)
    return Val(value);
  else if constexpr (std::is_same_v<T, std::string>) {
    if (!is_utf8(value))
      throw FormError("a text is not UTF-8");
    return Val::string(value);
  } else if constexpr (std::is_enum_v<T>) {
    static const std::vector<std::string> names = [] {
      std::vector<std::string> all;
      for (auto word : Words<T>::all)
        all.push_back(kebab(word));
      return all;
    }();
    form::word(value); // is one of them
    return Val::enum_(names[static_cast<std::size_t>(value)]);
  } else if constexpr (form::is_optional<T>::value)
    return Val(wc::WitOption(value ? std::optional<Val>(lower(*value)) : std::nullopt));
  else if constexpr (form::is_vector<T>::value) {
    std::vector<Val> list;
    list.reserve(value.size());
    for (const auto &entry : value)
      list.push_back(lower(entry));
    return Val(wc::List(std::move(list)));
  } else if constexpr (std::is_same_v<T, Payload>) {
    if (auto text = std::get_if<std::string>(&value))
      return Val(wc::Variant("text", lower(*text)));
    if (auto reference = std::get_if<PayloadRef>(&value))
      return Val(wc::Variant("reference", lower(*reference)));
    return Val(wc::Variant("empty", std::nullopt));
  } else if constexpr (form::is_variant<T>::value) {
    return std::visit(
        [](const auto &held) {
          using C = Case<std::decay_t<decltype(held)>>;
          SoleVal sole;
          if constexpr (C::kind == CaseKind::record)
            sole.value = lower(held);
          else if constexpr (C::kind != CaseKind::word)
            held.fields(sole, held);
          return Val(wc::Variant(kebab(C::word), std::move(sole.value)));
        },
        value);
  } else {
    Entries entries;
    entries.entries.reserve(20);
    value.fields(entries, value);
    return Val(wc::Record(std::move(entries.entries)));
  }
}

// ---- from a component ----

template <class T> void lift(const Val &val, T &value);

inline void expect(bool is, const char *what) {
  if (!is)
    throw FormError(std::string("the component gave something else than ") + what);
}

struct Fields {
  const wc::RecordField *at, *end;
  template <class T> void operator()(std::string_view name, const char *, T &member, bool = false) {
    expect(at != end && at->name() == name, "the next member of a record");
    lift(at->value(), member);
    ++at;
  }
};

struct SoleLift {
  const Val &val;
  template <class T> void operator()(std::string_view, const char *, T &member) { lift(val, member); }
};

template <std::size_t I = 0, class V> void lift_case(const wc::Variant &variant, V &value) {
  if constexpr (I == std::variant_size_v<V>)
    throw FormError("the component gave a case that is not known: " + std::string(variant.discriminant()));
  else {
    using T = std::variant_alternative_t<I, V>;
    using C = Case<T>;
    if (variant.discriminant() != kebab(C::word))
      return lift_case<I + 1>(variant, value);
    auto &held = value.template emplace<I>();
    if constexpr (C::kind != CaseKind::word) {
      expect(variant.value() != nullptr, "a case with a value");
      if constexpr (C::kind == CaseKind::record)
        lift(*variant.value(), held);
      else {
        SoleLift sole{*variant.value()};
        T::fields(sole, held);
      }
    }
  }
}

template <class T> void lift(const Val &val, T &value) {
  if constexpr (std::is_same_v<T, std::uint64_t>) {
    expect(val.is_u64(), "a u64");
    value = val.get_u64();
  } else if constexpr (std::is_same_v<T, std::uint32_t>) {
    expect(val.is_u32(), "a u32");
    value = val.get_u32();
  } else if constexpr (std::is_same_v<T, bool>) {
    expect(val.is_bool(), "a bool");
    value = val.get_bool();
  } else if constexpr (std::is_same_v<T, std::string>) {
    expect(val.is_string(), "a string");
    value = val.get_string();
  } else if constexpr (std::is_enum_v<T>) {
    expect(val.is_enum(), "an enum");
    auto name = val.get_enum();
    std::size_t index = 0;
    for (auto word : Words<T>::all) {
      if (word.size() == name.size() && std::equal(word.begin(), word.end(), name.begin(), [](char a, char b) {
            return a == b || (a == '_' && b == '-');
          })) {
        value = static_cast<T>(index);
        return;
      }
      ++index;
    }
    throw FormError("the component gave a word that is not known: " + std::string(name));
  } else if constexpr (form::is_optional<T>::value) {
    expect(val.is_option(), "an option");
    value.reset();
    if (auto inner = val.get_option().value())
      lift(*inner, value.emplace());
  } else if constexpr (form::is_vector<T>::value) {
    expect(val.is_list(), "a list");
    const auto &list = val.get_list();
    value.clear();
    value.reserve(list.size());
    for (const auto &entry : list)
      lift(entry, value.emplace_back());
  } else if constexpr (form::is_result<T>::value) {
    expect(val.is_result() && val.get_result().payload(), "a result");
    if (val.get_result().is_ok())
      lift(*val.get_result().payload(), value.template emplace<0>());
    else
      lift(*val.get_result().payload(), value.template emplace<1>());
  } else if constexpr (std::is_same_v<T, Payload>) {
    expect(val.is_variant(), "a payload");
    const auto &variant = val.get_variant();
    if (variant.discriminant() == "text")
      lift(*variant.value(), value.template emplace<std::string>());
    else if (variant.discriminant() == "reference")
      lift(*variant.value(), value.template emplace<PayloadRef>());
    else
      value = std::monostate{};
  } else if constexpr (form::is_variant<T>::value) {
    expect(val.is_variant(), "a variant");
    lift_case(val.get_variant(), value);
  } else {
    expect(val.is_record(), "a record");
    const auto &record = val.get_record();
    Fields fields{record.begin(), record.end()};
    T::fields(fields, value);
    expect(fields.at == fields.end, "the last member of a record");
  }
}

CallError lift_error(const Val &val);

// The answer of a call; throws the `CallError` that it may be.
template <class C> typename C::Answer lift_answer(const Val &val) {
  expect(val.is_result(), "a result");
  const auto &result = val.get_result();
  if (!result.is_ok()) {
    expect(result.payload() != nullptr, "an error");
    throw lift_error(*result.payload());
  }
  typename C::Answer answer{};
  if constexpr (!std::is_same_v<typename C::Answer, call::Nothing>) {
    expect(result.payload() != nullptr, "an answer");
    lift(*result.payload(), answer);
  }
  return answer;
}

} // namespace qm2::values
