#include "arguments.h"

#include <stdio.h>
#include <string.h>

#include <limits>

namespace kvm_bridge {
namespace {

constexpr double kMaxSafeInteger = 9007199254740991.0;

// Of a number that 64 bits can hold. Not by trunc(), which is a call into libm.
bool IsWhole(double number) { return static_cast<double>(static_cast<int64_t>(number)) == number; }

Fit ReadInteger(napi_env env, napi_value value, double least, double most, double& out) {
  if (napi_get_value_double(env, value, &out) != napi_ok) return Fit::wrong_type;
  // NaN compares false with everything.
  if (!(out >= least && out <= most) || !IsWhole(out)) return Fit::out_of_range;
  return Fit::yes;
}

template <typename Integer>
Fit ReadWhole(napi_env env, napi_value value, Integer& out) {
  double number;
  const Fit fit =
      ReadInteger(env, value, std::numeric_limits<Integer>::min(), std::numeric_limits<Integer>::max(), number);
  if (fit == Fit::yes) out = static_cast<Integer>(number);
  return fit;
}

Fit ReadTypedArray(napi_env env, napi_value value, napi_typedarray_type wanted, void** data, size_t* length) {
  napi_typedarray_type type;
  if (napi_get_typedarray_info(env, value, &type, length, data, nullptr, nullptr) != napi_ok || type != wanted) {
    return Fit::wrong_type;
  }
  return Fit::yes;
}

template <typename Element>
Fit ReadArray(napi_env env, napi_value value, napi_typedarray_type wanted, Array<Element>& out) {
  void* data = nullptr;
  const Fit fit = ReadTypedArray(env, value, wanted, &data, &out.length);
  out.data = static_cast<Element*>(data);
  return fit;
}

bool HasType(napi_env env, napi_value value, napi_valuetype wanted) {
  napi_valuetype type;
  return napi_typeof(env, value, &type) == napi_ok && type == wanted;
}

}  // namespace

Fit Read(napi_env env, napi_value value, OwnFd& out) { return ReadWhole(env, value, out.number); }

Fit Read(napi_env env, napi_value value, uint8_t& out) { return ReadWhole(env, value, out); }

Fit Read(napi_env env, napi_value value, int32_t& out) { return ReadWhole(env, value, out); }

Fit Read(napi_env env, napi_value value, uint32_t& out) { return ReadWhole(env, value, out); }

Fit Read(napi_env env, napi_value value, Word32& out) {
  double number;
  const Fit fit = ReadInteger(env, value, INT32_MIN, UINT32_MAX, number);
  if (fit == Fit::yes) out.bits = static_cast<uint32_t>(static_cast<int64_t>(number));
  return fit;
}

Fit Read(napi_env env, napi_value value, uint64_t& out) {
  double number;
  const Fit fit = ReadInteger(env, value, 0, kMaxSafeInteger, number);
  if (fit == Fit::yes) out = static_cast<uint64_t>(number);
  if (fit != Fit::wrong_type) return fit;
  bool lossless;
  if (napi_get_value_bigint_uint64(env, value, &out, &lossless) != napi_ok) return Fit::wrong_type;
  return lossless ? Fit::yes : Fit::out_of_range;
}

Fit Read(napi_env env, napi_value value, Bytes& out) {
  void* data = nullptr;
  if (ReadTypedArray(env, value, napi_uint8_array, &data, &out.length) == Fit::yes) {
    out.data = static_cast<uint8_t*>(data);
    return Fit::yes;
  }
  out.is_null = HasType(env, value, napi_null);
  out.length = 0;
  return out.is_null ? Fit::yes : Fit::wrong_type;
}

Fit Read(napi_env env, napi_value value, Array<uint8_t>& out) {
  return ReadArray(env, value, napi_uint8_array, out);
}

Fit Read(napi_env env, napi_value value, Array<int32_t>& out) {
  return ReadArray(env, value, napi_int32_array, out);
}

Fit Read(napi_env env, napi_value value, Array<uint32_t>& out) {
  return ReadArray(env, value, napi_uint32_array, out);
}

Fit Read(napi_env env, napi_value value, Array<double>& out) {
  return ReadArray(env, value, napi_float64_array, out);
}

Fit Read(napi_env env, napi_value value, Array<uint64_t>& out) {
  return ReadArray(env, value, napi_biguint64_array, out);
}

Fit Read(napi_env env, napi_value value, Shown& out) {
  napi_typedarray_type type;
  void* data;
  size_t offset;
  bool is_array;
  if (napi_is_typedarray(env, value, &is_array) != napi_ok || !is_array) return Fit::wrong_type;
  if (napi_get_typedarray_info(env, value, &type, nullptr, &data, &out.buffer, &offset) != napi_ok) {
    return Fit::wrong_type;
  }
  out.start = static_cast<uint8_t*>(data) - offset;
  return type == napi_uint8_array ? Fit::yes : Fit::wrong_type;
}

Fit Read(napi_env env, napi_value value, CapArguments& out) {
  bool is_array;
  uint32_t length;
  if (napi_is_array(env, value, &is_array) != napi_ok || !is_array) return Fit::wrong_type;
  if (napi_get_array_length(env, value, &length) != napi_ok) return Fit::wrong_type;
  if (length > 4) return Fit::out_of_range;
  for (uint32_t i = 0; i < length; i++) {
    napi_value element;
    if (napi_get_element(env, value, i, &element) != napi_ok) return Fit::wrong_type;
    const Fit fit = Read(env, element, out.values[i]);
    if (fit != Fit::yes) return fit;
  }
  return Fit::yes;
}

Fit Read(napi_env env, napi_value value, ValueOrStructure& out) {
  void* data = nullptr;
  if (ReadTypedArray(env, value, napi_uint8_array, &data, &out.structure.length) == Fit::yes) {
    out.structure.data = static_cast<uint8_t*>(data);
    return Fit::yes;
  }
  out.is_value = true;
  return Read(env, value, out.value);
}

Fit Read(napi_env env, napi_value value, Milliseconds& out) {
  if (napi_get_value_double(env, value, &out.value) != napi_ok) return Fit::wrong_type;
  return out.value >= 0 ? Fit::yes : Fit::out_of_range;
}

Fit Read(napi_env env, napi_value value, Name& out) {
  size_t length;
  if (napi_get_value_string_utf8(env, value, out.text, sizeof out.text, &length) != napi_ok) return Fit::wrong_type;
  return strlen(out.text) == length ? Fit::yes : Fit::out_of_range;
}

void ThrowMisfit(napi_env env, const char* call, size_t index, const char* expected, Fit fit) {
  bool pending = false;
  if (napi_is_exception_pending(env, &pending) != napi_ok || pending) return;
  char message[192];
  snprintf(message, sizeof message, "%s: argument %zu must be %s", call, index + 1, expected);
  if (fit == Fit::wrong_type) {
    napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", message);
  } else {
    napi_throw_range_error(env, "ERR_OUT_OF_RANGE", message);
  }
}

}  // namespace kvm_bridge
