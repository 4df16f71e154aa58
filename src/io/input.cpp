#include "tidemill/io/input.hpp"

#include "tidemill/core/codec.hpp"
#include "tidemill/io/queue.hpp"

namespace tidemill::detail {

InputHost::~InputHost() = default;
Input::~Input() = default;

std::string plan_of_records(std::size_t records) { return encode(std::uint64_t{records}); }
std::size_t records_of_plan(std::string_view plan) { return static_cast<std::size_t>(decode<std::uint64_t>(plan)); }

std::string plan_of_range(const ReceivedRange& range) { return encode(range); }
ReceivedRange range_of_plan(std::string_view plan) {
  const auto range = decode<ReceivedRange>(plan);
  if (range.end < range.first)
    throw StateError(
        "malformed_data",
        "a plan takes the records from " + std::to_string(range.first) + " to " + std::to_string(range.end),
        Retry::is_useless);
  return range;
}

void throw_wrong_count(const LoggedBlock& block, std::size_t found) {
  throw StateError("malformed_data",
                   "the block of a receiver's log with the records from number " + std::to_string(block.first) +
                       " on says that it holds " + std::to_string(block.records) + " of them, and " +
                       std::to_string(found) + " are in it",
                   Retry::is_useless);
}

void throw_queue_is_gone(Time t, std::size_t records) {
  throw SourceError(
      "not_replayable",
      "the batch of " + to_string(t) + " was not finished and had " + std::to_string(records) +
          " records of a queue_stream, which went with the process that queued them; give the batch up by "
          "tidemill-checkpoint drop-uncommitted --yes and the checkpoint's directory, and feed a program that must "
          "survive a crash from files or from a receiver with a log",
      Retry::is_useless, {.application = {}, .op = "queue_stream", .batch_time = t, .partition = {}, .offset = {}});
}

}  // namespace tidemill::detail
