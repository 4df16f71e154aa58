#include "tidemill/core/error.hpp"

#include <new>
#include <typeinfo>

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

namespace {

// What `own` leaves open, from `outer`. An operator, its partition and its offset are one place: they are not mixed.
ErrorContext filled(ErrorContext own, const ErrorContext& outer) {
  if (own.application.empty()) own.application = outer.application;
  if (!own.batch_time) own.batch_time = outer.batch_time;
  if (!own.op.empty()) return own;
  own.op = outer.op;
  if (!own.partition) own.partition = outer.partition;
  if (!own.offset) own.offset = outer.offset;
  return own;
}

// `error`, which is the exception in flight, with what `outer` adds; itself when that is nothing, or when its type is not one
// of ours exactly, and so may say more than we could copy.
std::exception_ptr with_outer(const Error& error, const ErrorContext& outer) {
  ErrorContext full = filled(error.context(), outer);
  if (full == error.context()) return std::current_exception();
  std::string message = error.what();
  message.resize(message.size() - place(error.context()).size());
  const auto world = [&]<class E>(const E& e) {
    return std::make_exception_ptr(E{e.code(), message, e.retry(), std::move(full)});
  };
  const std::type_info& type = typeid(error);
  if (type == typeid(UserCodeError))
    return std::make_exception_ptr(
        UserCodeError{static_cast<const UserCodeError&>(error).nested_ptr(), std::move(full)});
  if (type == typeid(SourceError)) return world(static_cast<const SourceError&>(error));
  if (type == typeid(SinkError)) return world(static_cast<const SinkError&>(error));
  if (type == typeid(StateError)) return world(static_cast<const StateError&>(error));
  if (type == typeid(PlanError)) return std::make_exception_ptr(PlanError{error.code(), message, std::move(full)});
  if (type == typeid(ConfigError)) return std::make_exception_ptr(ConfigError{message, std::move(full)});
  return std::current_exception();
}

}  // namespace

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
  } catch (const Error& error) {
    try {
      return with_outer(error, context);
    } catch (...) {
      return std::current_exception();
    }
  } catch (...) {
    return std::current_exception();
  }
}

}  // namespace detail
}  // namespace tidemill
