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
inline bool IsBusy(const OwnFd& fd) { return fd.descriptor->vcpu && fd.descriptor->vcpu->is_busy(); }

// KVM_RUN on the calling thread; see KvmCalls.run.
int64_t RunVcpu(Environment& environment, OwnFd vcpu, double timeout_ms);

template <auto Function>
struct Entry;

template <typename Result, typename... Parameters, Result (*Function)(Environment&, Parameters...)>
struct Entry<Function> {
  static napi_value Call(napi_env env, napi_callback_info info) {
    return Call(env, info, std::index_sequence_for<Parameters...>{});
  }

 private:
  template <size_t... I>
  static napi_value Call(napi_env env, napi_callback_info info, std::index_sequence<I...>) {
    napi_value values[sizeof...(Parameters) + 1];
    size_t count = sizeof...(Parameters);
    void* data;
    if (napi_get_cb_info(env, info, &count, values, nullptr, &data) != napi_ok) return nullptr;
    const Binding& binding = *static_cast<Binding*>(data);
    std::tuple<std::decay_t<Parameters>...> arguments;
    if (!(IsRead(env, binding, I, values[I], std::get<I>(arguments)) && ...)) return nullptr;
    Environment& environment = *binding.environment;
    if (!(IsKnown(environment, std::get<I>(arguments)) && ...)) return ToValue(env, int64_t{-EBADF});
    return ToValue(env, Function(environment, std::get<I>(arguments)...));
  }

  template <typename T>
  static bool IsRead(napi_env env, const Binding& binding, size_t index, napi_value value, T& out) {
    const Fit fit = Read(env, value, out);
    if (fit == Fit::yes) return true;
    ThrowMisfit(env, binding.name, index, Expected(out), fit);
    return false;
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

void ExportSystem(Exports exports);
void ExportMemslot(Exports exports);
void ExportMapping(Exports exports);
void ExportEventfd(Exports exports);
void ExportVcpu(Exports exports);
// Loops over bytes, not calls of the kernel.
void ExportHtab(Exports exports);
// The group of the architecture's own calls, where it has some.
void ExportArchitecture(Exports exports);

}  // namespace kvm_bridge

#endif
