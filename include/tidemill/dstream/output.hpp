// The parts of the output operations that do not depend on the type of the records.
#pragma once

#include <cstddef>
#include <iosfwd>
#include <string>

#include "tidemill/core/config.hpp"
#include "tidemill/core/time.hpp"

namespace tidemill::detail {

/// Spark's form of a printed batch: a header with the time, the lines, "..." when there were more, an empty line.
[[nodiscard]] TIDEMILL_API std::string printed_batch(Time t, const std::string& lines, bool more);

/// Writes it in one piece and flushes. Errors: SinkError when the stream fails.
TIDEMILL_API void write_print(std::ostream& out, const std::string& text);

/// `prefix-[<part>-]<milliseconds>[.suffix]`; a time between two milliseconds adds "_<microseconds>", three digits. `part`: of
/// the input, which the program sees; others write beside it.
[[nodiscard]] TIDEMILL_API std::string output_path(const std::string& prefix, const std::string& part,
                                                   const std::string& suffix, Time t);

}  // namespace tidemill::detail
