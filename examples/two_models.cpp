// Two models of stream processing, and what each costs. The same job, spotting stolen cards in a stream of payments, is
// run
//
//   on arrival        record at a time: a payment is judged as soon as it comes; a burst is judged together
//   in micro-batches  of 1 ms, 10 ms, 100 ms and 1 s: payments wait for the end of their interval
//
// at rising rates, and the program prints how long a payment waited for its verdict, and how many payments a second of
// work was enough for. Nothing but the gate of the StreamingContext differs, and all five give the same alerts: that is
// checked.
//
//     two_models [--seconds S] [--rates N,N,…]
#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/prctl.h>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include <tidemill/tidemill.hpp>

namespace {

using namespace std::chrono_literals;
using SteadyClock = std::chrono::steady_clock;

// ---- the job --------------------------------------------------------------------------------------------------------

struct Payment {
  std::uint32_t id = 0;
  std::uint32_t card = 0;
  std::int64_t cents = 0;
  SteadyClock::time_point due;  // when it was scheduled to arrive: waits are counted from here
};

// A card is suspicious when its last three payments come to more than 2 000.00. The rule looks back over records, not
// over batches, so that the verdicts do not depend on where batches end.
class FraudDetector {
 public:
  bool is_suspicious(const Payment& payment) {
    std::array<std::int64_t, 3>& last = last_by_card_[payment.card];
    last = {last[1], last[2], payment.cents};
    return last[0] + last[1] + last[2] > 2'000'00;
  }

 private:
  std::unordered_map<std::uint32_t, std::array<std::int64_t, 3>> last_by_card_;
};

// ---- the load -------------------------------------------------------------------------------------------------------

// The same payments in every run: 10 000 cards, and one payment in fifty is made with one of five stolen ones.
std::vector<Payment> make_payments(std::size_t count) {
  std::uint64_t state = 1;
  const auto below = [&state](std::uint64_t n) {  // a linear congruential generator; good enough for this
    state = state * 6364136223846793005U + 1442695040888963407U;
    return (state >> 33) % n;
  };
  std::vector<Payment> payments(count);
  for (std::uint32_t id = 0; id < count; ++id) {
    const bool stolen = below(50) == 0;
    payments[id].id = id;
    payments[id].card = static_cast<std::uint32_t>(stolen ? 10'000 + below(5) : below(10'000));
    payments[id].cents = static_cast<std::int64_t>(stolen ? 500'00 + below(1'000'00) : below(600'00));
  }
  return payments;
}

// Open loop: payments come when they are due, whether or not the earlier ones have been judged. A model that falls
// behind shows it in its waits; it does not slow the load down.
class Load final : public tidemill::Receiver<Payment> {
 public:
  Load(const std::vector<Payment>& payments, double rate) : payments_{payments}, rate_{rate} {}
  void wait_until_all_have_come() const { all_have_come_.wait(false); }

 private:
  void on_start() override {
    thread_ = std::jthread{[this](const std::stop_token& stop) { run(stop); }};
  }
  void on_stop() override { thread_ = {}; }

  void run(const std::stop_token& stop) {
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);  // wake up on time, not up to 50 us late
    const SteadyClock::time_point begin = SteadyClock::now();
    const auto due = [&](std::size_t i) {
      return begin + std::chrono::duration_cast<SteadyClock::duration>(
                         std::chrono::duration<double>{static_cast<double>(i) / rate_});
    };
    for (std::size_t i = 0; i < payments_.size() && !stop.stop_requested();) {
      std::this_thread::sleep_until(due(i));
      const SteadyClock::time_point now = SteadyClock::now();
      std::vector<Payment> arrived;
      for (; i < payments_.size() && due(i) <= now; ++i) {
        arrived.push_back(payments_[i]);
        arrived.back().due = due(i);
      }
      if (!store(std::move(arrived))) break;
    }
    all_have_come_ = true;
    all_have_come_.notify_all();
  }

  const std::vector<Payment>& payments_;
  const double rate_;
  std::atomic<bool> all_have_come_ = false;
  std::jthread thread_;
};

// ---- a run ----------------------------------------------------------------------------------------------------------

struct Model {
  std::string_view name;
  tidemill::Duration interval;  // 0: on arrival
};

constexpr std::array models{Model{"on arrival", 0s}, Model{"1 ms", 1ms}, Model{"10 ms", 10ms}, Model{"100 ms", 100ms},
                            Model{"1 s", 1s}};

struct Result {
  std::vector<std::uint32_t> alerts;         // ids of the payments
  std::vector<SteadyClock::duration> waits;  // of every payment, from its scheduled arrival to its verdict
  tidemill::Duration work{0};                // what all batches took
};

class WorkMeter final : public tidemill::StreamingListener {
 public:
  explicit WorkMeter(Result& result) : result_{result} {}
  void on_batch_completed(const tidemill::BatchInfo& batch) override {
    if (batch.num_records() != 0) result_.work += batch.processing_delay().value_or(tidemill::Duration{0});
  }

 private:
  Result& result_;
};

Result run(const Model& model, const std::vector<Payment>& payments, double rate) {
  Result result;
  result.waits.reserve(payments.size());
  FraudDetector detector;

  tidemill::Context context{{.app_name = "two_models", .parallelism = 1}};
  const tidemill::StreamingOptions patient{.graceful_stop_timeout = 1min};  // with models that have fallen behind
  // The one line in which the models differ.
  const auto ssc = model.interval == 0s
                       ? std::make_unique<tidemill::StreamingContext>(context, tidemill::on_arrival, patient)
                       : std::make_unique<tidemill::StreamingContext>(context, model.interval, patient);
  const auto load = std::make_shared<Load>(payments, rate);
  ssc->receiver_stream(load)
      .filter([](const Payment& payment) { return payment.cents > 0; })
      .foreach_batch([&](const auto& batch) {
        for (const Payment& payment : batch.collect()) {  // in order of arrival, as the rule needs it
          if (detector.is_suspicious(payment)) result.alerts.push_back(payment.id);
          result.waits.push_back(SteadyClock::now() - payment.due);
        }
      });
  ssc->add_listener(std::make_shared<WorkMeter>(result));
  ssc->start();
  load->wait_until_all_have_come();
  if (!ssc->stop(tidemill::StopMode::graceful))
    throw std::runtime_error{"not all payments were judged before the end."};
  ssc->await_termination();  // throws if a batch has failed
  return result;
}

// What must come out, found without streams.
Result judge_directly(const std::vector<Payment>& payments) {
  Result result;
  FraudDetector detector;
  for (const Payment& payment : payments) {
    if (payment.cents > 0 && detector.is_suspicious(payment)) result.alerts.push_back(payment.id);
  }
  return result;
}

// ---- the tables -----------------------------------------------------------------------------------------------------

std::string short_time(SteadyClock::duration time) {
  const double micros = std::chrono::duration<double, std::micro>{time}.count();
  std::array<char, 32> text{};
  if (micros < 1'000)
    std::snprintf(text.data(), text.size(), "%.0f us", micros);
  else if (micros < 1'000'000)
    std::snprintf(text.data(), text.size(), "%.1f ms", micros / 1'000);
  else
    std::snprintf(text.data(), text.size(), "%.2f s", micros / 1'000'000);
  return text.data();
}

std::string quantile(std::vector<SteadyClock::duration>& waits, double q) {
  if (waits.empty()) return "-";
  const auto place = waits.begin() + static_cast<std::ptrdiff_t>(q * static_cast<double>(waits.size() - 1));
  std::nth_element(waits.begin(), place, waits.end());
  return short_time(*place);
}

std::string short_count(double count) {
  std::array<char, 32> text{};
  if (count < 1'000)
    std::snprintf(text.data(), text.size(), "%.0f", count);
  else if (count < 1'000'000)
    std::snprintf(text.data(), text.size(), "%.1f k", count / 1'000);
  else
    std::snprintf(text.data(), text.size(), "%.1f M", count / 1'000'000);
  return text.data();
}

std::string line(std::string_view first, const std::vector<std::string>& cells) {
  const auto padded = [](std::string_view text, std::size_t width) {
    return std::string(width - std::min(width, text.size()), ' ').append(text);
  };
  std::string text = padded(first, 12);
  for (const std::string& cell : cells) text += padded(cell, 20);
  return text + '\n';
}

void compare(double seconds, const std::vector<double>& rates) {
  std::vector<std::string> names;
  for (const Model& model : models) names.emplace_back(model.name);
  std::string throughput = "\nPayments that a second of work was enough for, and share of the time spent working\n" +
                           line("payments/s", names);
  std::cout << "Wait of a payment from its scheduled arrival to its verdict: median / 99th percentile\n"
            << line("payments/s", names) << std::flush;
  std::size_t alerts = 0;
  for (const double rate : rates) {
    const std::vector<Payment> payments = make_payments(static_cast<std::size_t>(rate * seconds));
    const Result expected = judge_directly(payments);
    std::vector<std::string> waits;
    std::vector<std::string> counts;
    for (const Model& model : models) {
      Result result = run(model, payments, rate);
      if (result.alerts != expected.alerts)
        throw std::runtime_error{"the alerts of the model \"" + std::string{model.name} +
                                 "\" are not the expected ones."};
      waits.push_back(quantile(result.waits, 0.5) + " / " + quantile(result.waits, 0.99));
      const double work = std::max(1e-6, std::chrono::duration<double>{result.work}.count());
      counts.push_back(short_count(static_cast<double>(result.waits.size()) / work) + " " +
                       short_count(100 * work / seconds) + "%");
    }
    alerts += expected.alerts.size();
    std::cout << line(short_count(rate), waits) << std::flush;
    throughput += line(short_count(rate), counts);
  }
  std::cout << throughput << "\nAll models gave the same " << alerts << " alerts.\n";
}

double parse_number(std::string_view option, std::string_view text) {
  double number = 0;
  const auto [stopped_at, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || stopped_at != text.data() + text.size() || !(number > 0 && number <= 1e9))
    throw std::invalid_argument{std::string{option} + " needs numbers above 0, and was given \"" + std::string{text} +
                                "\"."};
  return number;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    double seconds = 2;
    std::vector<double> rates{1'000, 10'000, 100'000, 1'000'000};
    for (int i = 1; i < argc; i += 2) {
      const std::string_view option = argv[i];
      if (option == "--help") {
        std::cout
            << "two_models [--seconds S] [--rates N,N,…]: the length of a run (default 2), and payments per second\n"
               "(default 1000,10000,100000,1000000). Each rate is run through five models.\n";
        return 0;
      }
      if (i + 1 == argc) throw std::invalid_argument{std::string{option} + " needs a value."};
      if (option == "--seconds") {
        seconds = parse_number(option, argv[i + 1]);
      } else if (option == "--rates") {
        rates.clear();
        for (std::string_view rest = argv[i + 1]; !rest.empty();) {
          const std::string_view number = rest.substr(0, rest.find(','));
          rates.push_back(parse_number(option, number));
          rest.remove_prefix(std::min(rest.size(), number.size() + 1));
        }
      } else {
        throw std::invalid_argument{"There is no option \"" + std::string{option} + "\"; see --help."};
      }
    }
    compare(seconds, rates);
    return 0;
  } catch (const std::invalid_argument& error) {
    std::cerr << "two_models: " << error.what() << '\n';
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "two_models: " << error.what() << '\n';
    return 1;
  }
}
