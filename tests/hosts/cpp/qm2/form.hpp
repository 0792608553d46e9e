// The JSON form of the contract's values (`tests/vectors/README.md`), to and from what the JSON library reads and writes.
//
// Strict both ways: a member that is not known, one that is missing, or a value of another type is a `FormError`. Knows no
// WebAssembly.
#pragma once

#include <nlohmann/json.hpp>

#include "calls.hpp"

namespace qm2 {

using Json = nlohmann::json;
constexpr std::uint64_t INT_MAX_ = std::uint64_t{1} << 53;

namespace form {

template <class T> struct is_optional : std::false_type {};
template <class T> struct is_optional<std::optional<T>> : std::true_type {};
template <class T> struct is_vector : std::false_type {};
template <class T> struct is_vector<std::vector<T>> : std::true_type {};
template <class T> struct is_variant : std::false_type {};
template <class... T> struct is_variant<std::variant<T...>> : std::true_type {};
template <class T> struct is_result : std::false_type {};
template <class T> struct is_result<std::variant<T, Rejection>> : std::true_type {};
template <class T> constexpr bool is_integer = std::is_same_v<T, std::uint64_t> || std::is_same_v<T, std::uint32_t>;

// Nothing may wrap, and every language must read it exactly.
template <class T> T checked(std::uint64_t value) {
  if (value > INT_MAX_ || value > std::numeric_limits<T>::max())
    throw FormError(std::to_string(value) + " is too large");
  return static_cast<T>(value);
}

template <class E> E word_of(std::string_view word) {
  std::size_t index = 0;
  for (auto known : Words<E>::all) {
    if (known == word)
      return static_cast<E>(index);
    ++index;
  }
  throw FormError("there is no such word: " + std::string(word));
}

template <class E> std::string_view word(E value) {
  auto index = static_cast<std::size_t>(value);
  if (index >= std::size(Words<E>::all))
    throw FormError("an enumeration holds none of its words");
  return Words<E>::all[index];
}

// ---- to JSON ----

template <class T> Json write(const T &value);

struct Writer {
  Json object = Json::object();

  template <class T> void operator()(std::string_view, const char *name, const T &member, bool omit = false) {
    if constexpr (is_optional<T>::value) {
      if (member)
        object.emplace(name, write(*member));
    } else if constexpr (std::is_same_v<T, Payload>) {
      if (auto text = std::get_if<std::string>(&member))
        object.emplace("payload", *text);
      else if (auto reference = std::get_if<PayloadRef>(&member))
        object.emplace("payloadRef", write(*reference));
    } else {
      if constexpr (is_vector<T>::value || std::is_same_v<T, Trace>) {
        if (omit && member.empty())
          return;
      } else if constexpr (std::is_same_v<T, bool>) {
        if (omit && !member)
          return;
      }
      object.emplace(name, write(member));
    }
  }
};

// The one member of a case.
struct Sole {
  Json value;
  template <class T> void operator()(std::string_view, const char *, const T &member) { value = write(member); }
};

template <class T> Json write(const T &value) {
  if constexpr (is_integer<T>)
    return checked<T>(value);
  else if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, std::string>)
    return value;
  else if constexpr (std::is_enum_v<T>)
    return word(value);
  else if constexpr (is_optional<T>::value)
    return value ? write(*value) : Json(nullptr);
  else if constexpr (is_vector<T>::value) {
    Json list = Json::array();
    for (const auto &entry : value)
      list.push_back(write(entry));
    return list;
  } else if constexpr (is_result<T>::value) {
    if (auto refused = std::get_if<Rejection>(&value))
      return Json{{"error", write(*refused)}};
    return Json{{"ok", write(std::get<0>(value))}};
  } else if constexpr (is_variant<T>::value) {
    return std::visit(
        [](const auto &held) -> Json {
          using C = Case<std::decay_t<decltype(held)>>;
          if constexpr (C::kind == CaseKind::word)
            return C::word;
          else if constexpr (C::kind == CaseKind::bare) {
            Sole sole;
            held.fields(sole, held);
            return Json{{C::word, sole.value}};
          } else {
            Writer writer;
            held.fields(writer, held);
            return Json{{C::word, std::move(writer.object)}};
          }
        },
        value);
  } else {
    Writer writer;
    value.fields(writer, value);
    return std::move(writer.object);
  }
}

// ---- from JSON ----

template <class T> void read(const Json &json, T &value);

inline const Json::object_t &object_of(const Json &json) {
  if (!json.is_object())
    throw FormError("this is no object: " + json.dump());
  return json.get_ref<const Json::object_t &>();
}

// The name and the value of an object of one member.
inline std::pair<std::string, const Json &> one_member(const Json &json) {
  const auto &object = object_of(json);
  if (object.size() != 1)
    throw FormError("this is no object of one member: " + json.dump());
  return {object.begin()->first, object.begin()->second};
}

struct Reader {
  const Json::object_t &object;
  std::size_t taken = 0;

  template <class T> void operator()(std::string_view, const char *name, T &member, bool omit = false) {
    if constexpr (std::is_same_v<T, Payload>) {
      std::string text;
      PayloadRef reference;
      if (take("payload", text))
        member = std::move(text);
      else if (take("payloadRef", reference))
        member = std::move(reference);
      else
        member = std::monostate{};
    } else if constexpr (is_optional<T>::value) {
      typename T::value_type inner{};
      if (take(name, inner))
        member = std::move(inner);
      else
        member.reset();
    } else if (!take(name, member)) {
      if (!omit)
        throw FormError(std::string(name) + " is missing");
      member = T{};
    }
  }

  template <class T> bool take(const char *name, T &member) {
    auto found = object.find(name);
    if (found == object.end())
      return false;
    ++taken;
    try {
      read(found->second, member);
    } catch (const FormError &error) {
      throw FormError(std::string(name) + ": " + error.what());
    }
    return true;
  }

  void end() const {
    if (taken != object.size())
      throw FormError("there is a member that is not known");
  }
};

struct SoleReader {
  const Json &json;
  template <class T> void operator()(std::string_view, const char *, T &member) { read(json, member); }
};

template <std::size_t I = 0, class V> void read_case(const Json &json, V &value) {
  if constexpr (I == std::variant_size_v<V>)
    throw FormError("there is no such case: " + json.dump());
  else {
    using T = std::variant_alternative_t<I, V>;
    using C = Case<T>;
    if constexpr (C::kind == CaseKind::word) {
      if (json.is_string() && json.get_ref<const std::string &>() == C::word) {
        value = T{};
        return;
      }
    } else if (!json.is_string()) {
      auto [name, inner] = one_member(json);
      if (name == C::word) {
        T held;
        if constexpr (C::kind == CaseKind::bare) {
          SoleReader reader{inner};
          T::fields(reader, held);
        } else
          read(inner, held);
        value = std::move(held);
        return;
      }
    }
    read_case<I + 1>(json, value);
  }
}

template <class T> void read(const Json &json, T &value) {
  if constexpr (is_integer<T>) {
    if (!json.is_number_unsigned())
      throw FormError("this is no integer from 0: " + json.dump());
    value = checked<T>(json.get<std::uint64_t>());
  } else if constexpr (std::is_same_v<T, bool>) {
    if (!json.is_boolean())
      throw FormError("this is neither true nor false: " + json.dump());
    value = json.get<bool>();
  } else if constexpr (std::is_same_v<T, std::string> || std::is_enum_v<T>) {
    if (!json.is_string())
      throw FormError("this is no text: " + json.dump());
    const auto &text = json.get_ref<const std::string &>();
    if constexpr (std::is_enum_v<T>)
      value = word_of<T>(text);
    else
      value = text;
  } else if constexpr (is_optional<T>::value) { // only a whole answer; in an object what is absent is no member
    value.reset();
    if (!json.is_null())
      read(json, value.emplace());
  } else if constexpr (is_vector<T>::value) {
    if (!json.is_array())
      throw FormError("this is no list: " + json.dump());
    value.clear();
    value.reserve(json.size());
    for (const auto &entry : json)
      read(entry, value.emplace_back());
  } else if constexpr (is_result<T>::value) {
    auto [side, inner] = one_member(json);
    if (side == "error")
      read(inner, value.template emplace<1>());
    else if (side == "ok")
      read(inner, value.template emplace<0>());
    else
      throw FormError("this is neither ok nor error: " + side);
  } else if constexpr (is_variant<T>::value) {
    read_case(json, value);
  } else {
    Reader reader{object_of(json)};
    T::fields(reader, value);
    reader.end();
  }
}

// ---- calls and answers ----

// The object of a call without its name.
template <class C> Json write_call(const C &call) { return write(call); }

// From the object of a call; its name may stand in it.
template <class C> C read_call(const Json &json) {
  C call;
  Reader reader{object_of(json), json.count("call")};
  C::fields(reader, call);
  reader.end();
  return call;
}

template <class C> Json write_answer(const typename C::Answer &answer) {
  if constexpr (std::is_same_v<typename C::Answer, call::Nothing>)
    return C::name;
  else
    return Json{{C::name, write(answer)}};
}

inline Json write_error(const CallError &error) {
  Json json{{"code", error.code}, {"message", error.message}, {"field", error.field}};
  if (error.seq)
    json["seq"] = *error.seq;
  if (error.kind)
    json["kind"] = word(*error.kind);
  return json;
}

struct ErrorForm {
  std::string code, message, field;
  Number seq;
  std::optional<LedgerFaultKind> kind;
  QM2_FIELDS {
    v("code", "code", self.code);
    v("message", "message", self.message);
    v("field", "field", self.field);
    v("seq", "seq", self.seq);
    v("kind", "kind", self.kind);
  }
};

// The answer of a call; throws the `CallError` that it may be.
template <class C> typename C::Answer read_answer(const Json &json) {
  typename C::Answer answer{};
  if constexpr (std::is_same_v<typename C::Answer, call::Nothing>) {
    if (json.is_string() && json.get_ref<const std::string &>() == C::name)
      return answer;
  }
  auto [name, inner] = one_member(json);
  if (name == "error") {
    ErrorForm form;
    read(inner, form);
    CallError error(form.code, form.message, form.field);
    error.seq = form.seq;
    error.kind = form.kind;
    throw error;
  }
  if constexpr (!std::is_same_v<typename C::Answer, call::Nothing>) {
    if (name == C::name) {
      read(inner, answer);
      return answer;
    }
  }
  throw FormError(name + " is not the answer to " + std::string(C::name));
}

} // namespace form
} // namespace qm2
