// The log hook: the library prints nothing by itself; what it has to say goes through a function that the host gives.
#pragma once

#include <functional>
#include <string_view>

namespace tidemill {

enum class LogLevel { debug, info, warning, error };

/// Receives what the library has to say. An empty function (the default) says nothing.
/// Threads: called from any of the library's threads, also at the same time. What it throws is swallowed.
using Logger = std::function<void(LogLevel, std::string_view)>;

}  // namespace tidemill
