#include "engine/durability.hpp"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <utility>

#include "tidemill/core/error.hpp"
#include "tidemill/core/time.hpp"

namespace tidemill::detail {
namespace {

template <class Named>
[[nodiscard]] auto named(const std::vector<Named>& all, const std::string& name) {
  return std::find_if(all.begin(), all.end(), [&](const Named& one) { return one.name == name; });
}

// "its values are i64 and were string"; empty when nothing differs.
[[nodiscard]] std::string difference(const StateSchema& now, const StateSchema& before) {
  std::string text;
  const auto compare = [&text](const char* what, const std::string& a, const std::string& b) {
    if (a != b)
      text += (text.empty() ? "its " : ", its ") + std::string{what} + " is \"" + a + "\" and was \"" + b + '"';
  };
  compare("kind", now.kind, before.kind);
  compare("key type", now.key, before.key);
  compare("value type", now.value, before.value);
  compare("setting", now.parameters, before.parameters);
  return text;
}

[[nodiscard]] bool are_alike(const std::shared_ptr<DurableState>& a, const std::shared_ptr<DurableState>& b) {
  return a && b && a->schema() == b->schema();
}

[[noreturn]] void throw_ambiguous(const std::string& both, const std::string& name) {
  throw PlanError("ambiguous_name",
                  both + " called \"" + name +
                      "\", and in a checkpoint nothing but their order in the program would tell which is which; give "
                      "one of them a name of its own, as in stream.name(\"orders\")");
}

// The k-th of equal names becomes "name#k". That is refused where one would be taken for the other when their order changes:
// when `alike(one, other)`, and for names that were given.
template <class Named, class Alike, class Refuse>
void number_equal_names(std::vector<Named>& all, const Alike& alike, const Refuse& refuse) {
  std::vector<std::string> names;
  for (Named& one : all) {
    std::size_t equal = 1;
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (names[i] != one.name) continue;
      ++equal;
      if (one.is_pinned || all[i].is_pinned || alike(all[i], one)) refuse(all[i], one);
    }
    names.push_back(one.name);
    if (equal != 1) one.name += '#' + std::to_string(equal);
  }
}

}  // namespace

std::string fresh_id(Fs& fs) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (const std::byte b : fs.random_id()) {
    text += digits[std::to_integer<unsigned>(b) >> 4];
    text += digits[std::to_integer<unsigned>(b) & 15];
  }
  return text;
}

Durability::Durability(std::string directory, RecoveryOptions options, Existing existing)
    : directory_{std::move(directory)}, options_{std::move(options)}, existing_{existing} {
  if (directory_.empty()) throw ConfigError("the checkpoint directory is empty; name a directory");
}

Durability::Resumed Durability::open(std::vector<GraphState> states, std::vector<GraphInput> inputs, bool own_threads,
                                     const std::string& thread_name) {
  states_ = std::move(states);
  inputs_ = std::move(inputs);
  for (const GraphState& state : states_) {
    if (!state.state)
      throw PlanError("not_encodable", "the state of \"" + state.name + "\" cannot be kept in a checkpoint: " +
                                           state.why_not + ", or run without a checkpoint");
  }
  for (const GraphInput& input : inputs_) {
    if (options_.log_received) {
      if (input.input->logging() == Input::Logging::not_encodable)
        throw PlanError("not_encodable",
                        "what the input \"" + input.name +
                            "\" receives cannot be logged, since its records have no codec; specialise "
                            "tidemill::Codec for their type, or do without log_received");
      if (input.input->logging() == Input::Logging::possible) input.input->will_log();
    }
  }
  settle_names();
  for (const GraphInput& input : inputs_) {
    if (auto memory = input.input->durable_state())
      states_.push_back({input.name + ":input", input.is_pinned, false, std::move(memory), {}});
  }

  CheckpointOptions options = options_.store;
  by_caller_ = !own_threads;
  options.writer = own_threads ? CheckpointOptions::Writer::background : CheckpointOptions::Writer::caller;
  options.thread_name = thread_name;
  store_.emplace(directory_, std::move(options));
  std::vector<const BlockLog*> logs;
  try {
    Resumed resumed{.run = store_->last_run(),
                    .last_committed = {},
                    .unfinished = store_->uncommitted(),
                    .has_windows = false,
                    .warnings = store_->warnings()};
    if (store_->last_committed()) resumed.last_committed = store_->last_committed()->time;
    if (resumed.run) {
      if (existing_ == Existing::refuse)
        throw PlanError("checkpoint_exists", "\"" + directory_ + "\" holds the checkpoint of an earlier run of \"" +
                                                 resumed.run->app_name +
                                                 "\"; StreamingContext::get_or_create continues it; to begin anew, "
                                                 "name another directory or remove this one");
      check_fits(*resumed.run);
      earlier_inputs_ = resumed.run->inputs;
      id_ = resumed.run->engine;
      resumed.has_windows = std::any_of(states_.begin(), states_.end(), [&](const GraphState& state) {
        return state.is_windowed && named(resumed.run->states, state.name) != resumed.run->states.end();
      });
    }
    if (id_.empty()) id_ = fresh_id(*options_.store.fs);
    for (const GraphState& state : states_) state.state->track_changes();
    if (resumed.last_committed) {
      for (const GraphState& state : states_) {
        if (named(store_->states(), state.name) == store_->states().end())
          continue;  // it is new, and begins as in a first run
        state.state->restoring(store_->expected_entries(state.name));
        store_->for_each_entry(
            state.name,
            [&](KeyGroup group, std::string_view key, std::string_view value) {
              state.state->restore(group, key, value);
            },
            state.state->restore_parts());
        state.state->restored(*resumed.last_committed);
      }
    }
    if (options_.log_received) {
      for (const GraphInput& input : inputs_) {
        if (input.input->logging() != Input::Logging::possible) continue;
        std::string_view last_plan;
        if (!resumed.unfinished.empty()) {
          for (const BatchPlan::Input& planned : resumed.unfinished.back().inputs) {
            if (planned.name == input.name) last_plan = planned.bytes;
          }
        }
        auto log = store_->open_block_log(input.name, options_.received);
        logs.push_back(log.get());
        input.input->begin_log(std::move(log), last_plan);
      }
    }
    {
      const std::scoped_lock lock{metrics_mutex_};
      logs_ = std::move(logs);
      is_watched_ = true;
    }
    return resumed;
  } catch (...) {
    end_logs();
    store_.reset();
    throw;
  }
}

void Durability::settle_names() {
  number_equal_names(
      inputs_,
      [](const GraphInput& a, const GraphInput& b) {
        return are_alike(a.input->durable_state(), b.input->durable_state());
      },
      [](const GraphInput& a, const GraphInput& b) {
        throw_ambiguous("the inputs " + a.input->name() + " and " + b.input->name() + " are both", b.name);
      });
  number_equal_names(
      states_, [](const GraphState& a, const GraphState& b) { return are_alike(a.state, b.state); },
      [](const GraphState&, const GraphState& b) {
        throw_ambiguous("two states (" + b.state->schema().kind + ") are", b.name);
      });
}

void Durability::end_logs() noexcept {
  {
    const std::scoped_lock lock{metrics_mutex_};
    if (is_watched_) update_metrics();
    logs_.clear();
  }
  for (const GraphInput& input : inputs_) input.input->end_log();
}

// States may be added, and operators without state may come and go; what is kept must mean what it meant.
void Durability::check_fits(const RunRecord& before) const {
  std::string differences;
  const auto add = [&differences](const std::string& text) { differences += "\n  - " + text; };
  for (const NamedState& old : before.states) {
    const auto now = named(states_, old.name);
    if (now == states_.end() && old.schema.kind == "sink") continue;  // outputs may come and go
    if (now == states_.end() && old.schema.kind == "received") {
      add("an earlier run logged what the input of \"" + old.name +
          "\" received, and this one is to run without RecoveryOptions::log_received, or without the input");
    } else if (now == states_.end()) {
      add("the state \"" + old.name + "\" (" + old.schema.kind + " of " + old.schema.key + " to " + old.schema.value +
          ") is in the checkpoint, and the program has none of that name");
    } else if (const std::string text = difference(now->state->schema(), old.schema); !text.empty()) {
      add("the state \"" + old.name + "\" is another: " + text);
    }
  }
  for (const NamedInput& old : before.inputs) {
    const auto now = named(inputs_, old.name);
    if (now == inputs_.end()) {
      add("the input \"" + old.name + "\" (" + old.kind +
          ") is in the checkpoint, and the program has none of that name");
    } else if (now->kind != old.kind) {
      add("the input \"" + old.name + "\" is a " + now->kind + " and was a " + old.kind);
    }
  }
  if (differences.empty()) return;
  std::string has;
  for (const GraphState& state : states_) has += (has.empty() ? "" : ", ") + state.name;
  throw PlanError(
      "incompatible_checkpoint",
      "the checkpoint in \"" + directory_ + "\" is not one of this program:" + differences +
          "\nNothing was changed. Names follow from the operators between source and state, or from .name(\"...\"): "
          "pin "
          "the old name there, undo the change, or begin anew in another directory. The program's states are: " +
          (has.empty() ? "none" : has));
}

void Durability::begin_run(const std::string& app_name, Time now, Time zero, Duration interval) {
  RunRecord run{
      .app_name = app_name, .zero_time = zero, .batch_interval = interval, .states = {}, .inputs = {}, .engine = id_};
  for (const GraphState& state : states_) run.states.push_back({state.name, state.state->schema()});
  first_starts_.clear();
  for (const GraphInput& input : inputs_) {
    const auto earlier = named(earlier_inputs_, input.name);
    first_starts_.push_back(earlier == earlier_inputs_.end() ? now : earlier->first_start);
    run.inputs.push_back({input.name, input.kind, first_starts_.back()});
  }
  store_->begin_run(std::move(run));
}

void Durability::plan(Time t) {
  BatchPlan plan{.time = t, .inputs = {}, .engine = {}};
  plan.inputs.reserve(inputs_.size());
  for (const GraphInput& input : inputs_) plan.inputs.push_back({input.name, input.input->plan()});
  store_->plan(plan);
}

void Durability::replay(const BatchPlan& plan, std::vector<InputInfo>& infos) {
  for (const GraphInput& input : inputs_) {
    const auto planned = std::find_if(plan.inputs.begin(), plan.inputs.end(),
                                      [&](const BatchPlan::Input& one) { return one.name == input.name; });
    if (planned != plan.inputs.end()) {
      infos.push_back(input.input->replay(plan.time, planned->bytes));
    } else {
      infos.push_back({.stream_id = infos.size(), .name = input.name, .records = 0, .metadata = {}, .lost = 0});
    }
  }
}

void Durability::take_changes() {
  changes_.resize(states_.size());
  for (std::size_t i = 0; i < states_.size(); ++i) {
    changes_[i].state = states_[i].name;
    changes_[i].changes.clear();
    states_[i].state->take_changes(changes_[i].changes);
  }
}

void Durability::commit(Time t) { store_->commit(t, std::move(changes_)); }

void Durability::maintain() {
  if (by_caller_) {
    try {
      store_->maintain();
    } catch (const std::exception&) {  // as with threads of its own: counted, and tried again
    }
  }
  if (const std::optional<Time> durable = store_->durable_until()) {
    for (const GraphInput& input : inputs_) input.input->forget_until(*durable);
  }
}

// metrics_mutex_ is held. Logs that have gone keep their numbers.
void Durability::update_metrics() const noexcept {
  try {
    CheckpointStore::Statistics store = store_->statistics();
    CheckpointMetrics now;
    now.durable_until = store_->durable_until();
    now.plans = store.plans;
    now.commits = store.commits;
    now.commit_bytes = store.commit_bytes;
    now.commits_in_flight = store.commits_in_flight;
    now.bytes_in_flight = store.bytes_in_flight;
    now.commit_log_bytes = store.log_bytes;
    now.snapshots = store.snapshots;
    now.snapshot_failures = store.snapshot_failures;
    now.last_snapshot_failure = std::move(store.last_failure);
    now.snapshot_bytes = store.snapshot_bytes;
    now.state_repairs = store.repairs;
    if (logs_.empty() && metrics_) {
      now.received_log_bytes = metrics_->received_log_bytes;
      now.received_blocks_lost = metrics_->received_blocks_lost;
    }
    for (const BlockLog* log : logs_) {
      now.received_log_bytes += log->disk_bytes();
      now.received_blocks_lost += log->skipped();
    }
    metrics_ = std::move(now);
  } catch (const std::bad_alloc&) {  // the older ones stay
  }
}

std::optional<CheckpointMetrics> Durability::metrics() const {
  const std::scoped_lock lock{metrics_mutex_};
  if (is_watched_) update_metrics();
  return metrics_;
}

std::optional<std::string> Durability::take_snapshot_warning() {
  if (!store_) return std::nullopt;
  const CheckpointStore::Statistics now = store_->statistics();
  if (std::exchange(snapshots_seen_, now.snapshots) != now.snapshots) kinds_told_.clear();
  if (std::exchange(failures_seen_, now.snapshot_failures) == now.snapshot_failures) return std::nullopt;
  if (!kinds_told_.insert(now.last_failure_code).second) return std::nullopt;
  return "no snapshot of the states could be made: " + now.last_failure + "; the commit log, " +
         std::to_string(now.log_bytes) +
         " bytes since the last one, grows until one succeeds, and with it the time that the next start takes";
}

void Durability::close() {
  if (!store_) return;
  const auto end = [this] {
    const std::scoped_lock lock{metrics_mutex_};
    update_metrics();
    is_watched_ = false;
    store_.reset();
  };
  try {
    end_logs();
    store_->close();
  } catch (...) {
    end();
    throw;
  }
  end();
}

}  // namespace tidemill::detail
