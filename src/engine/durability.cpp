#include "engine/durability.hpp"

#include <algorithm>
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

}  // namespace

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
    if (auto memory = input.input->durable_state()) states_.push_back({input.name + ":input", std::move(memory), {}});
  }

  CheckpointOptions options = options_.store;
  by_caller_ = !own_threads;
  options.writer = own_threads ? CheckpointOptions::Writer::background : CheckpointOptions::Writer::caller;
  options.thread_name = thread_name;
  store_.emplace(directory_, std::move(options));
  try {
    Resumed resumed{.run = store_->last_run(),
                    .last_committed = {},
                    .unfinished = store_->uncommitted(),
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
    }
    for (const GraphState& state : states_) state.state->track_changes();
    if (resumed.last_committed) {
      for (const GraphState& state : states_) {
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
        input.input->begin_log(store_->open_block_log(input.name, options_.received), last_plan);
      }
    }
    return resumed;
  } catch (...) {
    end_logs();
    store_.reset();
    throw;
  }
}

void Durability::end_logs() noexcept {
  for (const GraphInput& input : inputs_) input.input->end_log();
}

// States may be added, and operators without state may come and go; what is kept must mean what it meant.
void Durability::check_fits(const RunRecord& before) const {
  std::string differences;
  const auto add = [&differences](const std::string& text) { differences += "\n  - " + text; };
  for (const NamedState& old : before.states) {
    const auto now = named(states_, old.name);
    if (now == states_.end()) {
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
      .app_name = app_name, .zero_time = zero, .batch_interval = interval, .states = {}, .inputs = {}, .engine = {}};
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

void Durability::commit(Time t) {
  changes_.resize(states_.size());
  for (std::size_t i = 0; i < states_.size(); ++i) {
    changes_[i].state = states_[i].name;
    changes_[i].changes.clear();
    states_[i].state->take_changes(changes_[i].changes);
  }
  store_->commit(t, std::move(changes_));
  if (by_caller_) store_->maintain();
  if (const std::optional<Time> durable = store_->durable_until()) {
    for (const GraphInput& input : inputs_) input.input->forget_until(*durable);
  }
}

void Durability::close() {
  if (!store_) return;
  try {
    end_logs();
    store_->close();
  } catch (...) {
    store_.reset();
    throw;
  }
  store_.reset();
}

}  // namespace tidemill::detail
