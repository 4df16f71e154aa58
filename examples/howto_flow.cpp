// The program of docs/howto/control-the-flow.md: a source that is faster than what is done with its records.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <iostream>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include <tidemill/tidemill.hpp>

using namespace std::chrono_literals;

// [receiver]
/// Fetches from upstream what may go in, and never more.
class Fetcher final : public tidemill::Receiver<long> {
 public:
  void fetch(long upstream) {
    std::vector<long> page(std::min<std::size_t>(allowance(), static_cast<std::size_t>(upstream - next_)));
    std::iota(page.begin(), page.end(), next_);
    next_ += static_cast<long>(page.size());
    store(std::move(page));
  }
  [[nodiscard]] long fetched() const { return next_; }

 protected:
  void on_start() override {}
  void on_stop() override {}

 private:
  long next_ = 0;
};
// [/receiver]

// [log]
class RateLog final : public tidemill::StreamingListener {
 public:
  explicit RateLog(const tidemill::StreamingContext& ssc) : ssc_{ssc} {}
  void on_batch_completed(const tidemill::BatchInfo& batch) override {
    std::cout << batch.num_records() << " records, waited " << batch.scheduling_delay()->count() / 1000 << " ms";
    for (const tidemill::InputRate& rate : ssc_.metrics().input_rates)
      std::cout << "; " << rate.name << " may take in " << static_cast<long>(rate.limit) << " a second";
    if (batch.merged_ticks != 0) std::cout << "; for " << batch.merged_ticks << " earlier ticks, too";
    std::cout << '\n';
  }

 private:
  const tidemill::StreamingContext& ssc_;
};
// [/log]

int main() {
  // A clock that stands still until it is told to move, so that this program says the same every time.
  const auto clock = std::make_shared<tidemill::ManualClock>();
  tidemill::Context context{{.app_name = "flow", .parallelism = 1, .executor = nullptr, .clock = clock}};

  // [options]
  tidemill::StreamingContext ssc{
      context, 1s, {.backpressure = tidemill::Backpressure{.initial_rate = 2000}, .max_pending_batches = 60}};
  auto fetcher = std::make_shared<Fetcher>();
  auto records = ssc.receiver_stream(fetcher, {.name = "fetcher", .max_rate = 5000});
  // [/options]

  // A slow sink: it has time for 1000 records a second.
  records.foreach_batch([&](const auto& batch) { clock->advance(std::chrono::milliseconds{batch.count()}); });
  ssc.add_listener(std::make_shared<RateLog>(ssc));
  ssc.start(tidemill::Drive::by_host);
  for (int batch = 0; batch < 8;) {
    fetcher->fetch(1'000'000);
    if (ssc.step()) {
      ++batch;
    } else {
      clock->advance(100ms);
    }
  }
  ssc.stop(tidemill::StopMode::graceful);
}
