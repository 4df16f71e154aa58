// A program with state, small enough to be simulated thousands of times, and what must be true of its checkpoint at any time.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tidemill/checkpoint/checkpoint_store.hpp"
#include "tidemill/testing/sim_fs.hpp"

namespace tidemill_test {

using tidemill::BatchPlan;
using tidemill::CheckpointOptions;
using tidemill::CheckpointStore;
using tidemill::KeyGroup;
using tidemill::Retry;
using tidemill::RunRecord;
using tidemill::StateChanges;
using tidemill::StateCommit;
using tidemill::StateError;
using tidemill::Time;
using tidemill::testing::SimCrash;
using tidemill::testing::SimFault;
using tidemill::testing::SimFs;

/// What a checkpoint promised and did not keep.
struct Violation : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline void require(bool condition, const std::string& what) {
  if (!condition) throw Violation(what);
}

using Entries = std::map<std::pair<int, std::string>, std::string>;  // by group and key
using States = std::map<std::string, Entries>;

inline Time time_at(int batch) { return Time{std::chrono::seconds{1'700'000'000 + batch}}; }
inline int batch_at(Time time) {
  return static_cast<int>(std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count() -
                          1'700'000'000);
}

/// What a batch does is a function of its number and of what its plan says, so that a batch that is run again with another
/// plan is noticed.
struct Change {
  std::string state;
  int group;
  std::string key;
  std::optional<std::string> value;
};

inline std::vector<Change> changes_of(int batch, const std::string& plan) {
  std::vector<Change> changes;
  unsigned random = static_cast<unsigned>(batch) * 2654435761U;
  const auto next = [&](unsigned n) {
    random = random * 1664525U + 1013904223U;
    return (random >> 16) % n;
  };
  for (int i = 0; i < 6; ++i) {
    const std::string state = next(2) == 0 ? "counts" : "sessions";
    const auto group = static_cast<int>(next(3) * 100);
    const std::string key = "key" + std::to_string(next(7));
    if (next(4) == 0) {
      changes.push_back({state, group, key, std::nullopt});
    } else {
      changes.push_back({state, group, key, plan + "/" + std::to_string(i) + std::string(next(3) * 30, 'v')});
    }
  }
  // Now and then more than a frame's remaining room, so that records are divided between segments.
  if (batch % 5 == 0) changes.push_back({"sessions", 7, "long", plan + std::string(2500, 'x')});
  return changes;
}

inline void apply_changes(States& states, const std::vector<Change>& changes) {
  for (const Change& change : changes) {
    Entries& entries = states[change.state];
    if (change.value) {
      entries[{change.group, change.key}] = *change.value;
    } else {
      entries.erase({change.group, change.key});
    }
  }
}

inline std::vector<StateCommit> commits_of(const std::vector<Change>& changes) {
  std::map<std::string, StateChanges> by_state;
  for (const Change& change : changes) {
    StateChanges& to = by_state[change.state];
    if (change.value) {
      to.put(static_cast<KeyGroup>(change.group), change.key, *change.value);
    } else {
      to.erase(static_cast<KeyGroup>(change.group), change.key);
    }
  }
  std::vector<StateCommit> commits;
  for (auto& [state, bytes] : by_state) commits.push_back({state, std::move(bytes)});
  return commits;
}

inline States states_in(CheckpointStore& store) {
  States states;
  for (const auto& state : store.states()) {
    std::optional<std::pair<int, std::string>> before;
    store.for_each_entry(state.name, [&](KeyGroup group, std::string_view key, std::string_view value) {
      std::pair<int, std::string> at{group, tidemill::decode<std::string>(key)};
      require(!before || before->first < at.first || (before->first == at.first && before->second != at.second),
              "entries are not in the order of groups, or twice there");
      before = at;
      require(states[state.name].emplace(std::move(at), tidemill::decode<std::string>(value)).second,
              "an entry is there twice");
    });
    if (states[state.name].empty()) states.erase(state.name);
  }
  return states;
}

inline std::string text_of(const States& states) {
  std::string text;
  for (const auto& [state, entries] : states) {
    for (const auto& [at, value] : entries) {
      text += state + "[" + std::to_string(at.first) + "," + at.second + "]=" + value.substr(0, 40) + " ";
    }
  }
  return text;
}

inline RunRecord run_record() {
  RunRecord run;
  run.app_name = "simulated";
  run.zero_time = time_at(0);
  run.batch_interval = std::chrono::seconds{1};
  run.states = {{"counts", {"update_state_by_key", "string", "string", ""}},
                {"sessions", {"map_with_state", "string", "string", "timeout 5 s"}}};
  run.inputs = {{"lines", "queue"}};
  return run;
}

inline CheckpointOptions small_options(std::shared_ptr<tidemill::Fs> fs) {
  CheckpointOptions options;
  options.writer = CheckpointOptions::Writer::caller;
  options.plan_segment_bytes = 4096;
  options.commit_segment_bytes = 4096;
  options.snapshot_min_log_bytes = 3000;
  options.snapshot_log_fraction = 0.5;
  options.merge_bytes = 400;  // so that a merge takes several parts
  options.fs = std::move(fs);
  return options;
}

/// The program, over all its lives.
class Program {
 public:
  /// What it did, and heard that it was done.
  struct Truth {
    int planned = 0;                                   // newest plan that was durable
    int committed = 0;                                 // newest commit that was
    int commit_tried = 0;                              // newest commit that may be
    std::map<int, std::set<std::string>> plans_tried;  // what plans of a batch may say
    std::map<int, std::string> plans;                  // what they do say
  };

  std::string directory = "checkpoint";
  std::function<void(CheckpointOptions&)> adjust = [](CheckpointOptions&) {};
  int batches = 12;           // in all
  int batches_of_a_life = 5;  // then it is closed and opened again
  int retries = 3;

  Truth truth;
  int attempts = 0;

  /// Runs until all batches are committed, or something is thrown.
  void run(const std::shared_ptr<tidemill::Fs>& fs) {
    do {
      live(fs);
    } while (truth.committed < batches);
    check(fs);
  }

  /// Opens, compares, and closes.
  void check(const std::shared_ptr<tidemill::Fs>& fs) {
    const auto store = open(fs);
    take_over(*store);
    store->close();
  }

  // What the store gives back must be what is known to be durable, and may be what was tried last. `lost`: so many of the last
  // commits may be gone, if their plans are there.
  static void compare(CheckpointStore& store, Truth& truth, int lost) {
    const int committed = store.last_committed() ? batch_at(store.last_committed()->time) : 0;
    require(committed >= truth.committed - lost, "the commit of batch " + std::to_string(truth.committed) +
                                                     " is lost; the last is " + std::to_string(committed));
    require(committed <= truth.commit_tried, "a commit that nobody made: " + std::to_string(committed));
    if (committed > 0) {
      require(store.durable_until() == time_at(committed), "durable_until is not the last commit");
      require(store.last_committed()->inputs.at(0).bytes == truth.plans.at(committed), "another plan was committed");
    }
    int planned = committed;
    for (const BatchPlan& plan : store.uncommitted()) {
      ++planned;
      require(batch_at(plan.time) == planned, "a plan is missing before " + std::to_string(planned));
      const std::string& text = plan.inputs.at(0).bytes;
      if (planned <= truth.planned) {
        require(text == truth.plans.at(planned), "another plan than the one that was durable: " + text);
      } else {
        require(truth.plans_tried[planned].contains(text), "a plan that nobody made: " + text);
        truth.plans[planned] = text;
      }
    }
    require(planned >= truth.planned, "the plan of batch " + std::to_string(truth.planned) + " is lost");
    truth.committed = committed;
    truth.planned = planned;
    States expected;
    for (int batch = 1; batch <= committed; ++batch) apply_changes(expected, changes_of(batch, truth.plans.at(batch)));
    std::erase_if(expected, [](const auto& state) { return state.second.empty(); });
    const States found = states_in(store);
    require(found == expected, "after batch " + std::to_string(committed) + " the states are\n  " + text_of(found) +
                                   "\nand should be\n  " + text_of(expected));
  }

  /// One life, with a plan at its end that is not committed.
  void leave_uncommitted(const std::shared_ptr<tidemill::Fs>& fs) {
    const auto store = open(fs);
    take_over(*store);
    store->begin_run(run_record());
    plan(*store, truth.planned + 1);
  }

 private:
  std::unique_ptr<CheckpointStore> open(const std::shared_ptr<tidemill::Fs>& fs) {
    CheckpointOptions options = small_options(fs);
    adjust(options);
    std::unique_ptr<CheckpointStore> store;
    again([&] { store = std::make_unique<CheckpointStore>(directory, options); });
    return store;
  }

  // Does it again if that may help, a few times.
  template <class Function>
  void again(Function function) {
    for (int attempt = 0;; ++attempt) {
      try {
        function();
        return;
      } catch (const StateError& error) {
        if (error.retry() == Retry::is_useless || attempt == retries) throw;
      }
    }
  }

  void take_over(CheckpointStore& store) {
    for (const std::string& warning : store.warnings()) require(false, "no crash explains this damage: " + warning);
    compare(store, truth, 0);
  }

  void plan(CheckpointStore& store, int batch) {
    again([&] {
      BatchPlan plan;
      plan.time = time_at(batch);
      plan.inputs = {{"lines", "batch " + std::to_string(batch) + " attempt " + std::to_string(++attempts)}};
      plan.engine = "engine";
      truth.plans_tried[batch].insert(plan.inputs[0].bytes);
      store.plan(plan);
      truth.planned = batch;
      truth.plans[batch] = plan.inputs[0].bytes;
    });
  }

  void commit(CheckpointStore& store, int batch) {
    truth.commit_tried = std::max(truth.commit_tried, batch);
    again([&] { store.commit(time_at(batch), commits_of(changes_of(batch, truth.plans.at(batch)))); });
    truth.committed = batch;
    try {
      store.maintain();
    } catch (const StateError&) {  // only snapshots fail, and the program goes on
    }
  }

  void live(const std::shared_ptr<tidemill::Fs>& fs) {
    const auto store = open(fs);
    take_over(*store);
    again([&] { store->begin_run(run_record()); });
    const int last = std::min(batches, truth.committed + batches_of_a_life);
    while (truth.committed < last) {
      // Every third batch is planned while the one before is still running.
      const int ahead = (truth.committed + 1) % 3 == 0 ? 2 : 1;
      while (truth.planned < std::min(last, truth.committed + ahead)) plan(*store, truth.planned + 1);
      commit(*store, truth.committed + 1);
    }
    store->close();
  }
};

}  // namespace tidemill_test
