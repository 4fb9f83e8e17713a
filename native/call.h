// How a C++ function becomes a method of KvmCalls: `int64_t Name(Environment&, parameters...)`, exported under a name.
#ifndef KVM_BRIDGE_CALL_H_
#define KVM_BRIDGE_CALL_H_

#include <errno.h>
#include <node_api.h>

#include <tuple>
#include <utility>

#include "arguments.h"
#include "environment.h"

namespace kvm_bridge {

inline napi_value ToValue(napi_env env, int64_t number) {
  napi_value value = nullptr;
  if (number >= INT32_MIN && number <= INT32_MAX) {
    napi_create_int32(env, static_cast<int32_t>(number), &value);
  } else {
    napi_create_int64(env, number, &value);
  }
  return value;
}

inline napi_value ToValue(napi_env, napi_value value) { return value; }

// Everything but a descriptor stands for itself.
template <typename T>
bool IsKnown(Environment&, T&) {
  return true;
}

inline bool IsKnown(Environment& environment, OwnFd& fd) {
  fd.descriptor = environment.descriptors.Find(fd.number);
  return fd.descriptor != nullptr;
}

// The kernel makes every ioctl on a vCPU wait until its run ends. This thread must not: it is the one that could end it.
inline bool IsBusy(const OwnFd& fd) { return fd.descriptor->vcpu && fd.descriptor->vcpu->IsBusy(fd.number); }

// KVM_RUN on the calling thread; see KvmCalls.run.
int64_t RunVcpu(Environment& environment, OwnFd vcpu, double timeout_ms);

// The arguments of one call.
template <typename... Parameters>
struct Arguments {
  Binding* binding = nullptr;
  std::tuple<std::decay_t<Parameters>...> values;

  // False when an exception is on its way.
  bool AreRead(napi_env env, napi_callback_info info) { return AreRead(env, info, Indices()); }
  bool AreKnown() { return AreKnown(Indices()); }

 private:
  using Indices = std::index_sequence_for<Parameters...>;

  template <size_t... I>
  bool AreRead(napi_env env, napi_callback_info info, std::index_sequence<I...>) {
    napi_value given[sizeof...(Parameters) + 1];
    size_t count = sizeof...(Parameters);
    void* data;
    if (napi_get_cb_info(env, info, &count, given, nullptr, &data) != napi_ok) return false;
    binding = static_cast<Binding*>(data);
    return (IsRead(env, I, given[I], std::get<I>(values)) && ...);
  }

  template <typename T>
  bool IsRead(napi_env env, size_t index, napi_value value, T& out) {
    const Fit fit = Read(env, value, out);
    if (fit == Fit::yes) return true;
    ThrowMisfit(env, binding->name, index, Expected(out), fit);
    return false;
  }

  template <size_t... I>
  bool AreKnown(std::index_sequence<I...>) {
    return (IsKnown(*binding->environment, std::get<I>(values)) && ...);
  }
};

template <auto Function>
struct Entry;

template <typename Result, typename... Parameters, Result (*Function)(Environment&, Parameters...)>
struct Entry<Function> {
  static napi_value Call(napi_env env, napi_callback_info info) {
    Arguments<Parameters...> arguments;
    if (!arguments.AreRead(env, info)) return nullptr;
    if (!arguments.AreKnown()) return ToValue(env, int64_t{-EBADF});
    return std::apply(
        [&](auto&... values) { return ToValue(env, Function(*arguments.binding->environment, values...)); },
        arguments.values);
  }
};

// What a function returns whose promise is settled later.
constexpr int64_t kLater = INT64_MIN;

// `int64_t Name(Environment&, napi_deferred, parameters...)`, whose result comes as a promise.
template <auto Function>
struct AsyncEntry;

template <typename... Parameters, int64_t (*Function)(Environment&, napi_deferred, Parameters...)>
struct AsyncEntry<Function> {
  static napi_value Call(napi_env env, napi_callback_info info) {
    Arguments<Parameters...> arguments;
    napi_deferred deferred;
    napi_value promise;
    if (!arguments.AreRead(env, info)) return nullptr;
    if (napi_create_promise(env, &deferred, &promise) != napi_ok) return nullptr;
    int64_t result = -EBADF;
    if (arguments.AreKnown()) {
      result = std::apply(
          [&](auto&... values) { return Function(*arguments.binding->environment, deferred, values...); },
          arguments.values);
    }
    if (result != kLater) napi_resolve_deferred(env, deferred, ToValue(env, result));
    return promise;
  }
};

// The object that gets the functions: the exports, or the group of an architecture.
class Exports {
 public:
  Exports(Environment& environment, napi_value object) : environment_(environment), object_(object) {}

  template <auto Function>
  void Add(const char* name) {
    AddCallback(name, Entry<Function>::Call);
  }

  template <auto Function>
  void AddAsync(const char* name) {
    AddCallback(name, AsyncEntry<Function>::Call);
  }

  void AddCallback(const char* name, napi_callback callback) {
    napi_value function;
    Binding* binding = environment_.NewBinding(name);
    if (napi_create_function(environment_.env(), name, NAPI_AUTO_LENGTH, callback, binding, &function) == napi_ok) {
      napi_set_named_property(environment_.env(), object_, name, function);
    }
  }

  Exports Group(const char* name) {
    napi_value group = nullptr;
    napi_create_object(environment_.env(), &group);
    napi_set_named_property(environment_.env(), object_, name, group);
    return Exports(environment_, group);
  }

 private:
  Environment& environment_;
  napi_value object_;
};

void ExportStorageKeys(Exports exports);
void ExportSystem(Exports exports);
void ExportMemslot(Exports exports);
void ExportMapping(Exports exports);
void ExportEventfd(Exports exports);
void ExportVcpu(Exports exports);
// Loops over bytes, not calls of the kernel.
void ExportHtab(Exports exports);
void ExportAddresses(Exports exports);
void ExportBitmaps(Exports exports);
// What is shared with other processes: sockets, and whose descriptors are ours.
void ExportSharing(Exports exports);
// Who brings pages, and which were written.
void ExportUserfaultfd(Exports exports);

// From the file of the architecture, the only one of these that isn't empty here: its name, and the group of the calls
// that only it has.
extern const char* const kArch;
void ExportArchitecture(Exports exports);

}  // namespace kvm_bridge

#endif
