#include "fake_node_api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <deque>
#include <map>

namespace {

struct Function {
  napi_callback callback;
  void* data;
};

std::map<std::string, Function>& Functions() {
  static std::map<std::string, Function> functions;
  return functions;
}

struct Call {
  const std::vector<FakeValue*>* arguments;
  void* data;
};

Thrown thrown;
FakeValue undefined;

// Results of one call; JavaScript's collector would take them.
std::deque<FakeValue>& Results() {
  static std::deque<FakeValue> results;
  return results;
}

napi_status Number(double number, napi_value* result) {
  Results().emplace_back();
  FakeValue& value = Results().back();
  value.sort = Sort::number;
  value.number = number;
  *result = ToNapi(&value);
  return napi_ok;
}

napi_status Throw(const char* code, const char* message) {
  MUST(!thrown.is_pending);
  thrown = {true, code, message};
  return napi_ok;
}

}  // namespace

Thrown TakeThrown() {
  const Thrown taken = thrown;
  thrown = Thrown();
  return taken;
}

FakeValue* CallFunction(const char* name, const std::vector<FakeValue*>& arguments) {
  Results().clear();
  const Function& function = Functions().at(name);
  Call call = {&arguments, function.data};
  return FromNapi(function.callback(nullptr, reinterpret_cast<napi_callback_info>(&call)));
}

extern "C" {

napi_status napi_get_cb_info(napi_env, napi_callback_info info, size_t* count, napi_value* values, napi_value*,
                             void** data) {
  const Call* call = reinterpret_cast<Call*>(info);
  for (size_t i = 0; i < *count; i++) {
    values[i] = ToNapi(i < call->arguments->size() ? (*call->arguments)[i] : &undefined);
  }
  *count = call->arguments->size();
  *data = call->data;
  return napi_ok;
}

napi_status napi_create_function(napi_env, const char* name, size_t, napi_callback callback, void* data,
                                 napi_value* result) {
  Functions()[name] = {callback, data};
  *result = ToNapi(&undefined);
  return napi_ok;
}

napi_status napi_set_named_property(napi_env, napi_value, const char*, napi_value) { return napi_ok; }

napi_status napi_create_object(napi_env, napi_value* result) {
  *result = ToNapi(&undefined);
  return napi_ok;
}

napi_status napi_create_int32(napi_env, int32_t number, napi_value* result) { return Number(number, result); }

napi_status napi_create_int64(napi_env, int64_t number, napi_value* result) {
  return Number(static_cast<double>(number), result);
}

napi_status napi_get_value_double(napi_env, napi_value of, double* result) {
  const FakeValue* value = FromNapi(of);
  if (value->sort != Sort::number) return napi_number_expected;
  *result = value->number;
  return napi_ok;
}

napi_status napi_get_value_bigint_uint64(napi_env, napi_value of, uint64_t* result, bool* is_lossless) {
  const FakeValue* value = FromNapi(of);
  if (value->sort != Sort::bigint) return napi_bigint_expected;
  *result = value->bits;
  *is_lossless = value->is_lossless;
  return napi_ok;
}

napi_status napi_get_typedarray_info(napi_env, napi_value of, napi_typedarray_type* type, size_t* length, void** data,
                                     napi_value* buffer, size_t* byte_offset) {
  FakeValue* value = FromNapi(of);
  if (value->sort != Sort::typed_array) return napi_invalid_arg;
  if (type != nullptr) *type = value->type;
  if (length != nullptr) *length = value->length;
  if (data != nullptr) *data = value->data;
  if (buffer != nullptr) *buffer = of;
  if (byte_offset != nullptr) *byte_offset = value->byte_offset;
  return napi_ok;
}

napi_status napi_is_typedarray(napi_env, napi_value of, bool* result) {
  *result = FromNapi(of)->sort == Sort::typed_array;
  return napi_ok;
}

napi_status napi_is_array(napi_env, napi_value of, bool* result) {
  *result = FromNapi(of)->sort == Sort::array;
  return napi_ok;
}

napi_status napi_get_array_length(napi_env, napi_value of, uint32_t* result) {
  const FakeValue* value = FromNapi(of);
  if (value->sort != Sort::array) return napi_array_expected;
  *result = static_cast<uint32_t>(value->elements.size());
  return napi_ok;
}

napi_status napi_get_element(napi_env, napi_value of, uint32_t index, napi_value* result) {
  FakeValue* value = FromNapi(of);
  if (index >= value->elements.size()) {
    *result = ToNapi(&undefined);
    return napi_ok;
  }
  FakeValue* element = value->elements[index];
  if (element->sort == kThrows) {
    thrown = {true, "", "thrown by a getter"};
    return napi_pending_exception;
  }
  *result = ToNapi(element);
  return napi_ok;
}

napi_status napi_get_value_string_utf8(napi_env, napi_value of, char* text, size_t size, size_t* length) {
  const FakeValue* value = FromNapi(of);
  if (value->sort != Sort::text) return napi_string_expected;
  *length = std::min(size - 1, value->text.size());
  memcpy(text, value->text.data(), *length);
  text[*length] = 0;
  return napi_ok;
}

napi_status napi_typeof(napi_env, napi_value of, napi_valuetype* result) {
  switch (FromNapi(of)->sort) {
    case Sort::undefined:
      *result = napi_undefined;
      break;
    case Sort::null:
      *result = napi_null;
      break;
    case Sort::number:
      *result = napi_number;
      break;
    case Sort::bigint:
      *result = napi_bigint;
      break;
    case Sort::text:
      *result = napi_string;
      break;
    default:
      *result = napi_object;
  }
  return napi_ok;
}

napi_status napi_is_exception_pending(napi_env, bool* result) {
  *result = thrown.is_pending;
  return napi_ok;
}

napi_status napi_throw_type_error(napi_env, const char* code, const char* message) { return Throw(code, message); }
napi_status napi_throw_range_error(napi_env, const char* code, const char* message) { return Throw(code, message); }

}  // extern "C"
