// A reference to something callable, for parameters that are called before the function returns. Two pointers, no
// allocation; it owns nothing.
#pragma once

#include <memory>
#include <type_traits>
#include <utility>

namespace tidemill {

template <class Signature>
class FunctionRef;

/// Valid as long as the callable it was made from: use it as a parameter, never store it.
template <class R, class... Args>
class FunctionRef<R(Args...)> {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef> && std::is_invocable_r_v<R, F&, Args...>)
  FunctionRef(F&& f) noexcept  // NOLINT(google-explicit-constructor): it stands for the callable itself
      : object_{const_cast<void*>(static_cast<const void*>(std::addressof(f)))},
        call_{[](void* object, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(object))(std::forward<Args>(args)...);
        }} {}

  R operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

}  // namespace tidemill
