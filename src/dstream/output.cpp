#include "tidemill/dstream/output.hpp"

#include <ostream>

#include "tidemill/core/error.hpp"

namespace tidemill::detail {

std::string printed_batch(Time t, const std::string& lines, bool more) {
  static constexpr const char* rule = "-------------------------------------------\n";
  return std::string{rule} + "Time: " + to_string(t) + '\n' + rule + lines + (more ? "...\n\n" : "\n");
}

void write_print(std::ostream& out, const std::string& text) {
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
  out.flush();
  if (out) return;
  out.clear();  // the next batch may have better luck
  throw SinkError("print_failed", "print() could not write to its output stream; is it closed, or its disk full?",
                  Retry::may_help);
}

std::string output_path(const std::string& prefix, const std::string& part, const std::string& suffix, Time t) {
  std::string path = prefix + '-' + (part.empty() ? "" : part + '-') + std::to_string(millis(t));
  if (const auto micros = (t - std::chrono::floor<std::chrono::milliseconds>(t)).count(); micros != 0) {
    const std::string digits = std::to_string(micros);
    path += '_' + std::string(3 - digits.size(), '0') + digits;
  }
  if (!suffix.empty()) path += '.' + suffix;
  return path;
}

}  // namespace tidemill::detail
