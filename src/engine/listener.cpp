#include "tidemill/engine/listener.hpp"

#include <algorithm>

#include "tidemill/core/error.hpp"

namespace tidemill {
namespace {

// "min 1 ms, p25 …": the quantiles that Spark's report has.
std::string distribution(std::vector<Duration> values) {
  std::sort(values.begin(), values.end());
  const auto at = [&values](double quantile) {
    return to_string(values[static_cast<std::size_t>(quantile * static_cast<double>(values.size() - 1) + 0.5)]);
  };
  return "min " + at(0) + ", p25 " + at(0.25) + ", p50 " + at(0.5) + ", p75 " + at(0.75) + ", p95 " + at(0.95) +
         ", max " + at(1);
}

[[nodiscard]] const char* words_for(RunningStage::Kind kind) noexcept {
  switch (kind) {
    case RunningStage::Kind::cut: return "the taking of what has arrived at the input";
    case RunningStage::Kind::plan: return "the writing of the plan";
    case RunningStage::Kind::generate: return "the generation of the job of the output operation";
    case RunningStage::Kind::output: return "the output operation";
    case RunningStage::Kind::settle: return "the catching up of the operator";
    case RunningStage::Kind::commit: return "the commit to the checkpoint";
    case RunningStage::Kind::listener: return "a listener";
    case RunningStage::Kind::input_task: return "a task of an input";
    case RunningStage::Kind::stop_input: return "the stop of the input";
    case RunningStage::Kind::close: return "the closing of sinks and checkpoint";
  }
  return "something";
}

}  // namespace

std::string to_string(const RunningStage& stage) {
  std::string text = words_for(stage.kind);
  if (!stage.name.empty()) text += " \"" + stage.name + '"';
  if (stage.batch_time) text += " of the batch of " + to_string(*stage.batch_time);
  return text;
}

StreamingListener::~StreamingListener() = default;

StatsReportListener::StatsReportListener(Logger log, std::size_t batches) : log_{std::move(log)}, batches_{batches} {
  if (!log_) throw ConfigError("StatsReportListener needs a function to log with");
  if (batches_ == 0) throw ConfigError("StatsReportListener needs at least one batch a report, and was given 0");
}

void StatsReportListener::on_batch_completed(const BatchInfo& batch) {
  processing_.push_back(batch.processing_delay().value_or(Duration::zero()));
  total_.push_back(batch.total_delay().value_or(Duration::zero()));
  if (processing_.size() < batches_) return;
  log_(LogLevel::info, "processing time of " + std::to_string(batches_) + " batches: " + distribution(processing_));
  log_(LogLevel::info, "total delay of " + std::to_string(batches_) + " batches: " + distribution(total_));
  processing_.clear();
  total_.clear();
}

}  // namespace tidemill
