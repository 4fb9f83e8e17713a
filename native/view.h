// ArrayBuffers over mapped memory, and how long somebody may look at what they showed.
//
// Detaching an ArrayBuffer takes it away from JavaScript only. A thread of Node's pool may be writing there: fs.read and
// crypto.randomFill hold the object or its backing store until they are done. Therefore the addresses stay taken, and
// readable and writable, until the object was collected and V8 has let go of the backing store as well.
#ifndef KVM_BRIDGE_VIEW_H_
#define KVM_BRIDGE_VIEW_H_

#include <node_api.h>
#include <stddef.h>
#include <stdint.h>

#include "guarded_memory.h"

namespace kvm_bridge {

class ViewList;

// Who gets an ArrayBuffer.
enum class Audience : uint8_t {
  // Anybody: it may be handed to calls of Node's that work in other threads.
  everybody,
  // The typed layer, which uses it in JavaScript only.
  caller,
  // Anybody, and nobody else gets this one: it can be taken away by itself.
  one,
};

class View {
 public:
  // The ArrayBuffer over these bytes; nullptr when V8 makes none.
  static napi_value Make(napi_env env, ViewList& list, uint64_t start, size_t length, Audience audience,
                         const Ref<Reservation>& reservation);

 private:
  friend class ViewList;

  View(napi_env env, ViewList& list, uint64_t start, Audience audience, const Ref<Reservation>& reservation);
  View(const View&) = delete;
  View& operator=(const View&) = delete;
  ~View();

  static void OnStoreGone(napi_env env, void* data, void* view);
  static void OnObjectGone(napi_env env, void* data, void* view);
  static void OnCleanup(void* view);

  bool Watch(napi_value buffer);
  // The ArrayBuffer, or nullptr when it was collected, detached or transferred.
  napi_value Living() const;
  bool Detach();
  // Whether somebody may still read or write the memory, in whatever thread.
  bool IsInDoubt() const;
  void ForgetObject();
  void FreeWhenGone();

  const napi_env env_;
  // nullptr once the mapping is gone.
  ViewList* list_;
  View* next_ = nullptr;
  View* previous_ = nullptr;
  const uint64_t start_;
  const Audience audience_;
  // Weak.
  napi_ref object_ = nullptr;
  Ref<Reservation> reservation_;
  bool is_detached_by_us_ = false;
  bool is_object_gone_ = false;
  bool is_store_gone_ = false;
  // The backing store went to another environment, which may live longer than this one: nobody says when it is freed.
  bool is_forever_ = false;
};

// The views of a mapping.
class ViewList {
 public:
  // Called when the last view that was in doubt is gone.
  using Settled = void (*)(ViewList&);

  explicit ViewList(Settled settled) : settled_(settled) {}
  ViewList(const ViewList&) = delete;
  ViewList& operator=(const ViewList&) = delete;

  // The ArrayBuffer that somebody has already, or nullptr.
  napi_value Find(uint64_t start, Audience audience) const;
  // Whether memory that was looked at may still be in use by somebody whom we cannot stop.
  bool IsInDoubt() const;
  // Whether V8 has not let go of something.
  bool is_empty() const { return first_ == nullptr; }
  void DetachAll();
  // Detaches one of `Audience::one`; false when it is none of these views.
  bool Detach(napi_env env, uint64_t start, napi_value buffer);
  // The mapping goes; the views keep its addresses for as long as they are needed.
  void Disown();

 private:
  friend class View;
  void Add(View* view);
  void Remove(View* view);

  View* first_ = nullptr;
  const Settled settled_;
};

}  // namespace kvm_bridge

#endif
