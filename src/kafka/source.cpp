#include "tidemill/kafka/source.hpp"

#include <array>
#include <span>
#include <utility>

#include "kafka/input.hpp"

namespace tidemill {
namespace detail {
namespace {

class KafkaNode final : public BatchNode<KafkaRecord> {
 public:
  KafkaNode(std::shared_ptr<const Scope> scope, std::shared_ptr<KafkaClient> client, std::vector<KafkaSlice> slices)
      : BatchNode{std::move(scope)}, client_{std::move(client)}, slices_{std::move(slices)} {
    ranges_.reserve(slices_.size());
    for (const KafkaSlice& slice : slices_) {
      ranges_.push_back(slice.range);
      records_ += slice.messages.size();
    }
  }
  [[nodiscard]] const std::vector<KafkaOffsetRange>& ranges() const noexcept { return ranges_; }

  [[nodiscard]] std::size_t partitions() const override { return std::max<std::size_t>(1, slices_.size()); }
  void prepare() const override {}
  [[nodiscard]] std::size_t size_hint() const override { return records_; }

  void run(std::size_t partition, ChunkSink<KafkaRecord> sink) const override {
    if (slices_.empty()) return;
    const KafkaSlice& slice = slices_[partition];
    constexpr std::size_t at_once = 256;
    std::vector<KafkaRecord> chunk;
    chunk.reserve(std::min(at_once, slice.messages.size()));
    for (std::size_t i = 0; i < slice.messages.size(); ++i) {
      const rd_kafka_message_t& message = slice.messages[i];
      chunk.emplace_back(slice.origin->origin, &message,
                         std::string_view{static_cast<const char*>(message.key), message.key_len},
                         std::string_view{static_cast<const char*>(message.payload), message.len}, message.offset,
                         rd_kafka_message_timestamp(&message, nullptr));
      if (chunk.size() < at_once) continue;
      if (!sink(chunk)) return;
      chunk.clear();
    }
    if (!chunk.empty()) sink(chunk);
  }

 private:
  const std::shared_ptr<KafkaClient> client_;  // shared with the input; goes after the messages
  const std::vector<KafkaSlice> slices_;
  std::vector<KafkaOffsetRange> ranges_;
  std::size_t records_ = 0;
};

}  // namespace

Batch<KafkaRecord> make_kafka_batch(std::shared_ptr<const Scope> scope, std::shared_ptr<KafkaClient> client,
                                    std::vector<KafkaSlice> slices) {
  return Batch<KafkaRecord>{std::make_shared<const KafkaNode>(std::move(scope), std::move(client), std::move(slices))};
}

DStream<KafkaRecord> make_kafka_stream(StreamingContext& ssc, const std::shared_ptr<KafkaInput>& input) {
  const auto& engine = ssc.engine();
  input->check_gate(engine->batch_interval());
  const std::size_t id = engine->add_input(input);
  const auto make = [engine = engine.get(), input](Time t) { return input->take_cut(engine->scope_of(t)); };
  using Node = SourceNode<KafkaRecord, std::remove_const_t<decltype(make)>>;
  auto node = add_node<Node>(engine, "kafka", engine->batch_interval(), make);
  engine->name_input(id, node);
  return DStream<KafkaRecord>{std::move(node)};
}

}  // namespace detail

DStream<KafkaRecord> kafka_direct_stream(StreamingContext& ssc, KafkaSource source) {
  return detail::make_kafka_stream(ssc,
                                   std::make_shared<detail::KafkaInput>(ssc.context().app_name(), std::move(source)));
}

const std::vector<KafkaOffsetRange>& offset_ranges(const Batch<KafkaRecord>& batch) {
  if (const auto* const node = dynamic_cast<const detail::KafkaNode*>(&batch.node())) return node->ranges();
  throw PlanError(
      "no_offset_ranges",
      "offset_ranges() was asked of a batch that no Kafka stream gave directly; ask that of the stream itself, in "
      "its own foreach_batch or transform");
}

}  // namespace tidemill
