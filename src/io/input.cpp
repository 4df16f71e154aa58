#include "tidemill/io/input.hpp"

#include "tidemill/core/codec.hpp"
#include "tidemill/io/queue.hpp"

namespace tidemill::detail {

InputHost::~InputHost() = default;
Input::~Input() = default;

std::string plan_of_records(std::size_t records) { return encode(std::uint64_t{records}); }
std::size_t records_of_plan(std::string_view plan) { return static_cast<std::size_t>(decode<std::uint64_t>(plan)); }

std::string plan_of_range(const ReceivedRange& range) { return encode(range); }
ReceivedRange range_of_plan(std::string_view plan) { return decode<ReceivedRange>(plan); }

void throw_queue_is_gone(Time t, std::size_t records) {
  throw SourceError(
      "not_replayable",
      "the batch of " + to_string(t) + " was not finished and had " + std::to_string(records) +
          " records of a queue_stream, which went with the process that queued them; feed a program that must "
          "survive a crash from files or from a receiver with a log",
      Retry::is_useless, {.application = {}, .op = "queue_stream", .batch_time = t, .partition = {}, .offset = {}});
}

}  // namespace tidemill::detail
