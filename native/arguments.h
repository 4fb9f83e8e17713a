// JavaScript arguments as plain C++ values. Nothing is rounded, and nothing is believed: a value of the wrong type or out
// of range makes a JavaScript exception, never a wrong number. Node-API's C functions are used because this is the hot path.
#ifndef KVM_BRIDGE_ARGUMENTS_H_
#define KVM_BRIDGE_ARGUMENTS_H_

#include <node_api.h>
#include <stddef.h>
#include <stdint.h>

namespace kvm_bridge {

struct Descriptor;

// A file descriptor that must be one of the environment's own.
struct OwnFd {
  int number = -1;
  Descriptor* descriptor = nullptr;
};

// A 32-bit field whose sign is the kernel's business: a descriptor inside a structure.
struct Word32 {
  uint32_t bits = 0;
  int AsSigned() const { return static_cast<int>(bits); }
};

// A Uint8Array, or null for the null pointer.
struct Bytes {
  uint8_t* data = nullptr;
  size_t length = 0;
  bool is_null = false;
};

// A typed array that must be there.
template <typename Element>
struct Array {
  Element* data = nullptr;
  size_t length = 0;
};

// A Uint8Array, and the ArrayBuffer that it is a part of.
struct Shown {
  napi_value buffer = nullptr;
  uint8_t* start = nullptr;
};

// The arguments of KVM_ENABLE_CAP; absent ones are 0.
struct CapArguments {
  uint64_t values[4] = {};
};

// An ioctl argument: a number passed by value, or a structure.
struct ValueOrStructure {
  bool is_value = false;
  uint64_t value = 0;
  Bytes structure;
};

struct Milliseconds {
  double value = 0;
};

// The name of a memfd: the kernel refuses more than 249 bytes, so no more than this is kept.
struct Name {
  char text[256] = {};
};

// What lies in memory that another thread may change, read once: what is checked is what is used.
template <typename T>
T ReadOnce(const T* from) {
  return *static_cast<const volatile T*>(from);
}

enum class Fit { yes, wrong_type, out_of_range };

Fit Read(napi_env env, napi_value value, OwnFd& out);
Fit Read(napi_env env, napi_value value, uint8_t& out);
Fit Read(napi_env env, napi_value value, int32_t& out);
Fit Read(napi_env env, napi_value value, uint32_t& out);
Fit Read(napi_env env, napi_value value, Word32& out);
Fit Read(napi_env env, napi_value value, uint64_t& out);
Fit Read(napi_env env, napi_value value, Bytes& out);
Fit Read(napi_env env, napi_value value, Array<uint8_t>& out);
Fit Read(napi_env env, napi_value value, Array<int32_t>& out);
Fit Read(napi_env env, napi_value value, Array<uint32_t>& out);
Fit Read(napi_env env, napi_value value, Array<double>& out);
Fit Read(napi_env env, napi_value value, Array<uint64_t>& out);
Fit Read(napi_env env, napi_value value, Shown& out);
Fit Read(napi_env env, napi_value value, CapArguments& out);
Fit Read(napi_env env, napi_value value, ValueOrStructure& out);
Fit Read(napi_env env, napi_value value, Milliseconds& out);
Fit Read(napi_env env, napi_value value, Name& out);

inline const char* Expected(const OwnFd&) { return "a file descriptor"; }
inline const char* Expected(uint8_t) { return "an integer from 0 to 255"; }
inline const char* Expected(int32_t) { return "an integer from -2147483648 to 2147483647"; }
inline const char* Expected(uint32_t) { return "an integer from 0 to 4294967295"; }
inline const char* Expected(const Word32&) { return "an integer of 32 bits"; }
inline const char* Expected(uint64_t) { return "a safe integer >= 0 or a bigint of 64 bits"; }
inline const char* Expected(const Bytes&) { return "a Uint8Array or null"; }
inline const char* Expected(const Array<uint8_t>&) { return "a Uint8Array"; }
inline const char* Expected(const Array<int32_t>&) { return "an Int32Array"; }
inline const char* Expected(const Array<uint32_t>&) { return "a Uint32Array"; }
inline const char* Expected(const Array<double>&) { return "a Float64Array"; }
inline const char* Expected(const Array<uint64_t>&) { return "a BigUint64Array"; }
inline const char* Expected(const Shown&) { return "a Uint8Array"; }
inline const char* Expected(const CapArguments&) { return "an array of at most four 64-bit values"; }
inline const char* Expected(const ValueOrStructure&) { return "a 64-bit value or a Uint8Array"; }
inline const char* Expected(const Milliseconds&) { return "a number of milliseconds >= 0"; }
inline const char* Expected(const Name&) { return "a string without NUL"; }

// Throws the TypeError or RangeError that says so, unless a getter's own exception is already on its way.
void ThrowMisfit(napi_env env, const char* call, size_t index, const char* expected, Fit fit);

}  // namespace kvm_bridge

#endif
