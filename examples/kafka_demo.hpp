// What the examples of Kafka need to run without a broker: a cluster inside the program that holds a few lines, and an end.
#pragma once

#include <cstddef>
#include <string>

#include <tidemill/kafka/mock_kafka.hpp>
#include <tidemill/tidemill.hpp>

namespace kafka_demo {

inline constexpr std::size_t line_count = 5;

/// Fills the topic "lines" of the cluster, and makes "totals", which is empty.
inline void fill(tidemill::testing::MockKafka& kafka) {
  kafka.create_topic("lines", 2);
  kafka.create_topic("totals", 1);
  kafka.produce("lines", 0, {{.value = "the tide comes"}, {.value = "the tide goes"}, {.value = "the mill turns"}});
  kafka.produce("lines", 1, {{.value = "tide and mill"}, {.value = "mill and tide"}});
}

/// Stops the stream once all these lines have been worked on.
class EndOfLines final : public tidemill::StreamingListener {
 public:
  explicit EndOfLines(tidemill::StreamingContext& ssc) : ssc_{ssc} {}
  void on_batch_completed(const tidemill::BatchInfo& batch) override {
    lines_ += batch.num_records();
    if (lines_ >= line_count) ssc_.request_stop();
  }

 private:
  tidemill::StreamingContext& ssc_;
  std::size_t lines_ = 0;
};

}  // namespace kafka_demo
