#include "tidemill/kafka/record.hpp"

#include <librdkafka/rdkafka.h>
#include <memory>
#include <new>
#include <ostream>
#include <type_traits>

#include "kafka/client.hpp"

namespace tidemill {

std::vector<KafkaHeader> KafkaRecord::headers() const {
  if (header_count_ != in_message) {
    const auto* const first = static_cast<const KafkaHeader*>(headers_);
    return {first, first + header_count_};
  }
  std::vector<KafkaHeader> all;
  const std::scoped_lock lock{*origin_->headers_mutex};
  rd_kafka_headers_t* list = nullptr;
  const rd_kafka_resp_err_t error = rd_kafka_message_headers(static_cast<const rd_kafka_message_t*>(headers_), &list);
  if (error == RD_KAFKA_RESP_ERR__NOENT) return all;
  if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
    throw SourceError("kafka_headers",
                      "the headers of " + std::string{topic()} + '[' + std::to_string(partition()) + "]@" +
                          std::to_string(offset_) + " cannot be read: " + detail::describe(error),
                      Retry::is_useless);
  const char* name = nullptr;
  const void* value = nullptr;
  std::size_t size = 0;
  for (std::size_t i = 0; rd_kafka_header_get_all(list, i, &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR; ++i) {
    KafkaHeader& header = all.emplace_back();
    header.name = name;
    if (value != nullptr) header.value = std::string_view{static_cast<const char*>(value), size};
  }
  return all;
}

std::optional<std::string_view> KafkaRecord::header(std::string_view name) const {
  const std::vector<KafkaHeader> all = headers();
  for (auto header = all.rbegin(); header != all.rend(); ++header) {
    if (header->name == name) return header->value;
  }
  return std::nullopt;
}

KafkaRecord KafkaRecord::rehome(Arena& arena) const {
  // What is there and empty stays so.
  const auto copy = [&arena](std::string_view bytes) -> std::string_view {
    if (bytes.data() == nullptr) return {};
    return bytes.empty() ? std::string_view{""} : arena.copy(bytes);
  };
  const std::vector<KafkaHeader> all = headers();
  static_assert(std::is_trivially_destructible_v<KafkaHeader> && std::is_trivially_destructible_v<detail::KafkaOrigin>);
  auto* const origin = new (arena.allocate(sizeof(detail::KafkaOrigin), alignof(detail::KafkaOrigin)))
      detail::KafkaOrigin{copy(topic()), partition(), nullptr};
  KafkaRecord moved{*origin, nullptr, copy(key_), copy(value_), offset_, timestamp_ms_};
  moved.header_count_ = static_cast<std::uint32_t>(all.size());
  if (all.empty()) return moved;
  auto* const first =
      reinterpret_cast<KafkaHeader*>(arena.allocate(sizeof(KafkaHeader) * all.size(), alignof(KafkaHeader)));
  for (std::size_t i = 0; i < all.size(); ++i) {
    auto* const header = new (first + i) KafkaHeader{copy(all[i].name), std::nullopt};
    if (all[i].value) header->value = copy(*all[i].value);
  }
  moved.headers_ = first;
  return moved;
}

OwnedKafkaRecord Ownership<KafkaRecord>::to_owned(const KafkaRecord& record) {
  OwnedKafkaRecord owned{.topic = std::string{record.topic()},
                         .partition = record.partition(),
                         .offset = record.offset(),
                         .timestamp = record.timestamp(),
                         .key = {},
                         .value = {},
                         .headers = {}};
  if (const auto key = record.key()) owned.key.emplace(*key);
  if (record.has_value()) owned.value.emplace(record.value());
  for (const KafkaHeader& header : record.headers()) {
    auto& copy = owned.headers.emplace_back(std::string{header.name}, std::nullopt);
    if (header.value) copy.second.emplace(*header.value);
  }
  return owned;
}

namespace {

template <class Record>
std::ostream& show(std::ostream& out, const Record& record, std::string_view topic, std::int32_t partition,
                   std::int64_t offset) {
  out << topic << '[' << partition << "]@" << offset << ' ';
  if (record.first) out << *record.first << ": ";
  return record.second ? out << *record.second : out << "(no value)";
}
using Shown = std::pair<std::optional<std::string_view>, std::optional<std::string_view>>;

}  // namespace

std::ostream& operator<<(std::ostream& out, const KafkaRecord& record) {
  return show(out, Shown{record.key(), record.has_value() ? std::optional{record.value()} : std::nullopt},
              record.topic(), record.partition(), record.offset());
}
std::ostream& operator<<(std::ostream& out, const OwnedKafkaRecord& record) {
  return show(out, Shown{record.key, record.value}, record.topic, record.partition, record.offset);
}

}  // namespace tidemill
