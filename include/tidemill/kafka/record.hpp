// A record of Kafka, as a stream has it: a view into what was fetched.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <limits>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tidemill/core/config.hpp"
#include "tidemill/core/ownership.hpp"
#include "tidemill/core/time.hpp"

namespace tidemill {

struct KafkaHeader {
  std::string_view name;
  std::optional<std::string_view> value;  ///< absent: null
};

/// A record that depends on nothing: what `collect` gives, and what states and windows keep.
struct OwnedKafkaRecord {
  std::string topic;
  std::int32_t partition = 0;
  std::int64_t offset = 0;
  std::optional<Time> timestamp;
  std::optional<std::string> key;
  std::optional<std::string> value;
  std::vector<std::pair<std::string, std::optional<std::string>>> headers;
  friend bool operator==(const OwnedKafkaRecord&, const OwnedKafkaRecord&) = default;
};

namespace detail {

/// Where records come from: one for all records of a partition.
struct KafkaOrigin {
  std::string_view topic;
  std::int32_t partition = 0;
  std::mutex* headers_mutex = nullptr;  // librdkafka takes headers apart when they are first asked for
};

}  // namespace detail

/// What was fetched lives as long as the batch, and so does all that a record shows.
/// Threads: any.
class TIDEMILL_API KafkaRecord {
 public:
  [[nodiscard]] std::string_view topic() const noexcept { return origin_->topic; }
  [[nodiscard]] std::int32_t partition() const noexcept { return origin_->partition; }
  [[nodiscard]] std::int64_t offset() const noexcept { return offset_; }
  /// When it was produced, or appended, as the topic is set up; absent in very old topics.
  [[nodiscard]] std::optional<Time> timestamp() const noexcept {
    if (timestamp_ms_ < 0) return std::nullopt;
    return Time{std::chrono::milliseconds{timestamp_ms_}};
  }
  [[nodiscard]] std::optional<std::string_view> key() const noexcept {
    return key_.data() == nullptr ? std::nullopt : std::optional{key_};
  }
  /// Empty also when there is none.
  [[nodiscard]] std::string_view value() const noexcept { return value_; }
  /// Whether it has a value. One without says, in a compacted topic, that its key has gone.
  [[nodiscard]] bool has_value() const noexcept { return value_.data() != nullptr; }
  /// In their order; names may come more than once.
  [[nodiscard]] std::vector<KafkaHeader> headers() const;
  /// The value of the last header of that name; absent when there is none, or it is null.
  [[nodiscard]] std::optional<std::string_view> header(std::string_view name) const;

  // For those who make records.
  /// `message` is a rd_kafka_message_t.
  KafkaRecord(const detail::KafkaOrigin& origin, const void* message, std::string_view key, std::string_view value,
              std::int64_t offset, std::int64_t timestamp_ms) noexcept
      : value_{value}, key_{key}, offset_{offset}, timestamp_ms_{timestamp_ms}, origin_{&origin}, headers_{message} {}
  [[nodiscard]] KafkaRecord rehome(Arena& arena) const;

 private:
  static constexpr std::uint32_t in_message = std::numeric_limits<std::uint32_t>::max();
  std::string_view value_;
  std::string_view key_;
  std::int64_t offset_;
  std::int64_t timestamp_ms_;  // -1: none
  const detail::KafkaOrigin* origin_;
  const void* headers_;                      // a rd_kafka_message_t, or so many KafkaHeader:
  std::uint32_t header_count_ = in_message;  // unless it is that
};

/// "words[0]@17 key: value"
TIDEMILL_API std::ostream& operator<<(std::ostream& out, const KafkaRecord& record);
TIDEMILL_API std::ostream& operator<<(std::ostream& out, const OwnedKafkaRecord& record);

template <>
struct TIDEMILL_API Ownership<KafkaRecord> {
  using Owned = OwnedKafkaRecord;
  static constexpr bool borrows = true;
  static OwnedKafkaRecord to_owned(const KafkaRecord& record);
  static KafkaRecord rehome(const KafkaRecord& record, Arena& arena) { return record.rehome(arena); }
};

}  // namespace tidemill
