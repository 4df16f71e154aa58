#include "tidemill/core/error.hpp"

#include <new>

namespace tidemill {
namespace {

std::string place(const ErrorContext& context) {
  std::string text;
  const auto add = [&text](std::string_view label, std::string_view value) {
    text += text.empty() ? " [" : ", ";
    text += label;
    text += value;
  };
  if (!context.application.empty()) add("application ", context.application);
  if (!context.op.empty()) add("operator ", context.op);
  if (context.batch_time) add("batch ", to_string(*context.batch_time));
  if (context.partition) add("partition ", std::to_string(*context.partition));
  if (context.offset) add("offset ", std::to_string(*context.offset));
  if (!text.empty()) text += ']';
  return text;
}

std::string user_code_message(const std::exception_ptr& cause, const ErrorContext& context) {
  return "a user function threw in " + (context.op.empty() ? std::string{"an operator"} : context.op) + ": " +
         describe(cause);
}

}  // namespace

Error::Error(std::string code, const std::string& message, ErrorContext context)
    : std::runtime_error(message + place(context)), code_{std::move(code)}, context_{std::move(context)} {}

// Out of line, so that the type information of each lives in this library alone.
Error::~Error() = default;
ConfigError::~ConfigError() = default;
PlanError::~PlanError() = default;
WorldError::~WorldError() = default;
SourceError::~SourceError() = default;
SinkError::~SinkError() = default;
StateError::~StateError() = default;
UserCodeError::~UserCodeError() = default;
InternalError::~InternalError() = default;

namespace {

// std::nested_exception captures the exception being handled, so the cause has to be in flight while it is built.
std::nested_exception nest(const std::exception_ptr& cause) {
  try {
    std::rethrow_exception(cause);
  } catch (...) {
    return std::nested_exception{};
  }
}

}  // namespace

UserCodeError::UserCodeError(const std::exception_ptr& cause, ErrorContext context)
    : Error{"user_code", user_code_message(cause, context), std::move(context)},  // braces: from left to right
      std::nested_exception{nest(cause)} {}

InternalError::InternalError(std::string_view condition, std::string_view reason, std::string_view file, int line)
    : Error("internal", "a bug in Tidemill, please report it: " + std::string{condition} + " should hold at " +
                            std::string{file} + ':' + std::to_string(line) + ", because " + std::string{reason}) {}

std::string describe(const std::exception_ptr& error) {
  if (!error) return "no error";
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return e.what();
  } catch (const detail::UserFailure& failure) {
    return describe(failure.cause);
  } catch (...) {
    return "an exception that is not a std::exception";
  }
}

namespace detail {

void assertion_failed(const char* condition, const char* reason, const char* file, int line) {
  throw InternalError{condition, reason, file, line};
}

void throw_user_failure(const char* op) {
  try {
    throw;
  } catch (const UserFailure&) {
    throw;
  } catch (const UserCodeError&) {
    throw;
  } catch (...) {
    throw UserFailure{op, std::current_exception()};
  }
}

std::exception_ptr with_context(const ErrorContext& context) noexcept {
  try {
    throw;
  } catch (const UserFailure& failure) {
    try {
      ErrorContext full = context;
      full.op = failure.op;
      return std::make_exception_ptr(UserCodeError{failure.cause, std::move(full)});
    } catch (...) {
      return std::current_exception();  // no memory to say more
    }
  } catch (...) {
    return std::current_exception();
  }
}

}  // namespace detail
}  // namespace tidemill
