// Everything the library throws. A caller's mistake, a failure of the world and a failure of the user's own function are
// different types, because the right answer to each is different. Bugs of the library itself are a type of their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "tidemill/core/config.hpp"
#include "tidemill/core/time.hpp"

namespace tidemill {

/// Where an error happened, as far as it is known there.
struct ErrorContext {
  std::string application;  ///< Context::Options::app_name
  std::string op;           ///< operator, source or sink: "reduce_by_key", "socket localhost:9999"
  std::optional<Time> batch_time;
  std::optional<std::size_t> partition;
  std::optional<std::uint64_t> offset;  ///< byte or record position in the input

  friend bool operator==(const ErrorContext&, const ErrorContext&) = default;
};

/// Base of all errors of the library.
/// `what()` is a sentence or two: the value seen, the values allowed, the way out. `code()` is stable across releases and
/// meant for programs: "config", "illegal_state", "file_changed", …
class TIDEMILL_API Error : public std::runtime_error {
 public:
  Error(std::string code, const std::string& message, ErrorContext context = {});
  ~Error() override;
  [[nodiscard]] const std::string& code() const noexcept { return code_; }
  [[nodiscard]] const ErrorContext& context() const noexcept { return context_; }

 private:
  std::string code_;
  ErrorContext context_;
};

/// A setting that cannot be: thrown where it is given, before anything runs.
class TIDEMILL_API ConfigError : public Error {
 public:
  explicit ConfigError(const std::string& message, ErrorContext context = {})
      : Error("config", message, std::move(context)) {}
  ~ConfigError() override;
};

/// A program that cannot run as it is written, or a call at the wrong moment of a context's life.
class TIDEMILL_API PlanError : public Error {
 public:
  PlanError(std::string code, const std::string& message, ErrorContext context = {})
      : Error(std::move(code), message, std::move(context)) {}
  ~PlanError() override;
};

/// Whether doing the same again may succeed.
enum class Retry { may_help, is_useless };

/// The world failed us: a file, a socket, a disk.
class TIDEMILL_API WorldError : public Error {
 public:
  WorldError(std::string code, const std::string& message, Retry retry, ErrorContext context = {})
      : Error(std::move(code), message, std::move(context)), retry_{retry} {}
  ~WorldError() override;
  [[nodiscard]] Retry retry() const noexcept { return retry_; }

 private:
  Retry retry_;
};

/// An input could not be read.
class TIDEMILL_API SourceError : public WorldError {
 public:
  using WorldError::WorldError;
  ~SourceError() override;
};

/// An output could not be written.
class TIDEMILL_API SinkError : public WorldError {
 public:
  using WorldError::WorldError;
  ~SinkError() override;
};

/// State or serialised data could not be read or kept.
class TIDEMILL_API StateError : public WorldError {
 public:
  using WorldError::WorldError;
  ~StateError() override;
};

/// A function of the user threw. The original exception is nested: `std::rethrow_if_nested(error)` gives it back.
/// From a streaming context it names application, operator and batch time, whoever made the batch.
class TIDEMILL_API UserCodeError : public Error, public std::nested_exception {
 public:
  /// `cause` must not be null.
  UserCodeError(const std::exception_ptr& cause, ErrorContext context);
  ~UserCodeError() override;
};

/// A bug in the library: an invariant that we rely on did not hold.
class TIDEMILL_API InternalError : public Error {
 public:
  InternalError(std::string_view condition, std::string_view reason, std::string_view file, int line);
  ~InternalError() override;
};

/// The text of any exception, nested ones included, without ever throwing anything but std::bad_alloc.
[[nodiscard]] TIDEMILL_API std::string describe(const std::exception_ptr& error);

namespace detail {

[[noreturn]] TIDEMILL_API void assertion_failed(const char* condition, const char* reason, const char* file, int line);

/// What a throwing user function turns into on its way up to the partition task, which knows the rest of the context. It
/// is not a std::exception, so that no `catch (const std::exception&)` of the user's can swallow it half way.
struct TIDEMILL_API UserFailure {
  const char* op;
  std::exception_ptr cause;
};

/// Rethrows the exception in flight as UserFailure, unless it already says where it comes from.
[[noreturn]] TIDEMILL_API void throw_user_failure(const char* op);

/// The exception in flight as one that says where it happened: a UserFailure as a UserCodeError; another error of the library
/// with those parts of `context` that it leaves open, as when the batch was made outside of any interval. Others as they are.
[[nodiscard]] TIDEMILL_API std::exception_ptr with_context(const ErrorContext& context) noexcept;

}  // namespace detail
}  // namespace tidemill

/// Checks an invariant of ours; throws InternalError. User input never reaches it.
#define TIDEMILL_ASSERT(condition, reason)                                          \
  do {                                                                              \
    if (!(condition)) [[unlikely]]                                                  \
      ::tidemill::detail::assertion_failed(#condition, reason, __FILE__, __LINE__); \
  } while (false)
