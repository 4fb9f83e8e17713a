#include "view.h"

namespace kvm_bridge {
namespace {

bool IsDetached(napi_env env, napi_value buffer) {
  bool is_detached = false;
  return napi_is_detached_arraybuffer(env, buffer, &is_detached) != napi_ok || is_detached;
}

}  // namespace

View::View(napi_env env, ViewList& list, uint64_t start, Audience audience, const Ref<Reservation>& reservation)
    : env_(env), list_(&list), start_(start), audience_(audience), reservation_(reservation) {
  list.Add(this);
}

View::~View() {
  ForgetObject();
  if (list_ != nullptr) list_->Remove(this);
}

napi_value View::Make(napi_env env, ViewList& list, uint64_t start, size_t length, Audience audience,
                      const Ref<Reservation>& reservation) {
  auto* view = new (std::nothrow) View(env, list, start, audience, reservation);
  if (view == nullptr) return nullptr;
  void* data = reinterpret_cast<void*>(static_cast<uintptr_t>(start));
  napi_value buffer;
  if (napi_create_external_arraybuffer(env, data, length, OnStoreGone, view, &buffer) != napi_ok) {
    delete view;
    return nullptr;
  }
  if (view->Watch(buffer)) return buffer;
  // Nobody has seen it, and V8 lets go of it later.
  napi_detach_arraybuffer(env, buffer);
  view->is_object_gone_ = true;
  return nullptr;
}

bool View::Watch(napi_value buffer) {
  if (napi_create_reference(env_, buffer, 0, &object_) != napi_ok) return false;
  if (napi_add_finalizer(env_, buffer, this, OnObjectGone, this, nullptr) != napi_ok) return false;
  // Hooks run in reverse order: this one before Node lets go of the view's memory.
  napi_add_env_cleanup_hook(env_, OnCleanup, this);
  return true;
}

napi_value View::Living() const {
  napi_value buffer = nullptr;
  if (object_ == nullptr || napi_get_reference_value(env_, object_, &buffer) != napi_ok) return nullptr;
  return buffer == nullptr || IsDetached(env_, buffer) ? nullptr : buffer;
}

bool View::Detach() {
  const napi_value buffer = Living();
  if (buffer == nullptr || napi_detach_arraybuffer(env_, buffer) != napi_ok) return false;
  is_detached_by_us_ = true;
  return true;
}

bool View::IsInDoubt() const {
  if (audience_ != Audience::caller) return true;
  // What only JavaScript looks at can be detached, unless JavaScript has moved it away.
  return !is_detached_by_us_ && Living() == nullptr;
}

void View::ForgetObject() {
  if (object_ != nullptr) napi_delete_reference(env_, object_);
  object_ = nullptr;
}

void View::OnStoreGone(napi_env, void*, void* data) {
  auto* view = static_cast<View*>(data);
  view->is_store_gone_ = true;
  view->FreeWhenGone();
}

void View::OnObjectGone(napi_env, void*, void* data) {
  auto* view = static_cast<View*>(data);
  view->is_object_gone_ = true;
  view->ForgetObject();
  view->FreeWhenGone();
}

void View::FreeWhenGone() {
  if (!is_object_gone_ || !is_store_gone_ || is_forever_) return;
  napi_remove_env_cleanup_hook(env_, OnCleanup, this);
  ViewList* const list = list_;
  delete this;
  if (list != nullptr && !list->IsInDoubt()) list->settled_(*list);
}

// The environment ends, and Node has waited for the threads of its pool.
void View::OnCleanup(void* data) {
  auto* view = static_cast<View*>(data);
  napi_handle_scope scope;
  if (napi_open_handle_scope(view->env_, &scope) != napi_ok) return;
  view->is_forever_ = !view->is_detached_by_us_ && !view->Detach() && !view->is_store_gone_;
  napi_close_handle_scope(view->env_, scope);
}

void ViewList::Add(View* view) {
  view->next_ = first_;
  if (first_ != nullptr) first_->previous_ = view;
  first_ = view;
}

void ViewList::Remove(View* view) {
  (view->previous_ != nullptr ? view->previous_->next_ : first_) = view->next_;
  if (view->next_ != nullptr) view->next_->previous_ = view->previous_;
}

napi_value ViewList::Find(uint64_t start, Audience audience) const {
  for (const View* view = first_; view != nullptr; view = view->next_) {
    if (view->start_ != start || view->audience_ != audience) continue;
    const napi_value buffer = view->Living();
    if (buffer != nullptr) return buffer;
  }
  return nullptr;
}

bool ViewList::IsInDoubt() const {
  for (const View* view = first_; view != nullptr; view = view->next_) {
    if (view->IsInDoubt()) return true;
  }
  return false;
}

void ViewList::DetachAll() {
  for (View* view = first_; view != nullptr; view = view->next_) view->Detach();
}

bool ViewList::Detach(napi_env env, uint64_t start, napi_value buffer) {
  for (View* view = first_; view != nullptr; view = view->next_) {
    if (view->start_ != start || view->audience_ != Audience::one) continue;
    const napi_value living = view->Living();
    bool is_same = false;
    if (living == nullptr || napi_strict_equals(env, living, buffer, &is_same) != napi_ok || !is_same) continue;
    return view->Detach();
  }
  return false;
}

void ViewList::Disown() {
  for (View* view = first_; view != nullptr; view = view->next_) view->list_ = nullptr;
  first_ = nullptr;
}

}  // namespace kvm_bridge
