// Node-API as far as the argument readers and the HTAB loops use it, without Node: values are plain structures, so that a
// fuzzer can make any of them, and ends of arrays are where the sanitizer looks.
#ifndef KVM_BRIDGE_FAKE_NODE_API_H_
#define KVM_BRIDGE_FAKE_NODE_API_H_

#include <node_api.h>
#include <stddef.h>
#include <stdint.h>

#include <string>
#include <vector>

enum class Sort : uint8_t { undefined, null, number, bigint, text, array, typed_array, object };
constexpr uint8_t kSorts = 8;

struct FakeValue {
  Sort sort = Sort::undefined;
  double number = 0;
  // Of a bigint: its lowest 64 bits, and whether it has no others.
  uint64_t bits = 0;
  bool is_lossless = true;
  std::string text;
  std::vector<FakeValue*> elements;
  napi_typedarray_type type = napi_uint8_array;
  // In elements, not in bytes.
  size_t length = 0;
  size_t byte_offset = 0;
  void* data = nullptr;
};

inline napi_value ToNapi(FakeValue* value) { return reinterpret_cast<napi_value>(value); }
inline FakeValue* FromNapi(napi_value value) { return reinterpret_cast<FakeValue*>(value); }

// Every element of an array is got by a getter, which throws for this one.
constexpr Sort kThrows = Sort::object;

struct Thrown {
  bool is_pending = false;
  std::string code;
  std::string message;
};

// Takes back what was thrown.
Thrown TakeThrown();

// Calls what napi_create_function was given.
FakeValue* CallFunction(const char* name, const std::vector<FakeValue*>& arguments);

// Ends the program, which the fuzzer notes as a crash.
#define MUST(condition)                                                         \
  do {                                                                          \
    if (!(condition)) {                                                         \
      fprintf(stderr, "%s:%d: %s is not so\n", __FILE__, __LINE__, #condition); \
      abort();                                                                  \
    }                                                                           \
  } while (0)

#endif
