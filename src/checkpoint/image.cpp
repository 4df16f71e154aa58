#include "checkpoint/image.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace tidemill::detail {
namespace {

struct CommitPlace {
  std::int64_t time = 0;
  std::uint32_t plan_chain = 0;
  std::uint32_t chain = 0;
};

std::string text_of(std::int64_t stamp) { return to_string(time_of(stamp)); }

FileHeader read_head(Fs& fs, const std::string& path, const CheckpointChecks& checks) {
  std::string bytes(file_header_bytes + 1, '\0');
  bytes.resize(read_twice(*fs.read(path), 0, std::as_writable_bytes(std::span{bytes})));
  const FileHeader header = decode_header(bytes, path, checks);
  if (header.kind != FileKind::meta || bytes.size() != file_header_bytes)
    fail_damaged(path, 0, "it is a file of another kind");
  return header;
}

class Loader {
 public:
  Loader(Fs& fs, const std::string& directory, const ImageOptions& options)
      : fs_{fs}, directory_{directory}, options_{options} {}

  CheckpointImage load() {
    names_ = fs_.list(directory_);
    for (const std::string& name : names_) {
      if (name.ends_with(".tmp")) image_.temporaries.push_back(join_path(directory_, name));
    }
    if (!read_meta()) return std::move(image_);
    image_.is_new = false;
    image_.source.fs = &fs_;
    image_.source.checks = options_.checks;
    find_base();
    read_plans();
    compare();
    FoldSource verified = image_.source;
    verified.checks.crc = false;  // that was done just now
    image_.index = index_log(verified);
    for (const LogScan* scan : {&image_.plan_scan, &image_.commit_scan})
      image_.warnings.insert(image_.warnings.end(), scan->warnings.begin(), scan->warnings.end());
    return std::move(image_);
  }

 private:
  bool read_meta() {
    const std::string path = join_path(directory_, meta_name);
    if (std::binary_search(names_.begin(), names_.end(), meta_name)) {
      image_.id = read_head(fs_, path, options_.checks).id;
      return true;
    }
    // It is written last when a checkpoint is made. So without it there is nothing but unused segments.
    for (const std::string& name : names_) {
      const auto number = number_of(name, "plan", ".log");
      const auto commit_number = number_of(name, "commit", ".log");
      const bool segment = number || commit_number;
      if (number_of(name, snapshot_prefix, snapshot_suffix)) fail_damaged(path, 0, "the file is missing");
      if (!segment) continue;
      const auto file = fs_.read(join_path(directory_, name));
      char first[sector_bytes - file_header_bytes] = {};
      const std::size_t size = read_twice(*file, file_header_bytes, std::as_writable_bytes(std::span{first}));
      if (number.value_or(0) > 2 || commit_number.value_or(0) > 2 ||
          std::any_of(first, first + size, [](char byte) { return byte != 0; }))
        fail_damaged(path, 0, "the file is missing");
    }
    return false;
  }

  // Finds the newest snapshot that is good and continued by the commit log.
  void find_base() {
    std::vector<std::uint64_t> numbers;
    for (const std::string& name : names_) {
      if (const auto number = number_of(name, snapshot_prefix, snapshot_suffix)) numbers.push_back(*number);
    }
    std::sort(numbers.begin(), numbers.end(), std::greater<>{});
    if (!numbers.empty()) image_.newest_number = numbers.front();
    std::optional<StateError> first_error;
    std::size_t next = 0;
    for (bool found = false; !found && next < numbers.size(); ++next) {
      const std::string path = snapshot_path(numbers[next]);
      std::optional<SnapshotFile> snapshot;
      try {
        snapshot = verify_snapshot(fs_, path, numbers[next], image_.id, options_.checks, options_.threads);
      } catch (const StateError& error) {
        if (error.code() == "newer_format") throw;
        image_.warnings.push_back(error.what());
        if (!first_error) first_error = error;
      } catch (const FsError& error) {
        image_.warnings.push_back(error.what());
      }
      if (snapshot) {
        found = read_commits(&*snapshot);
        if (found) {
          image_.source.snapshot = std::move(snapshot);
          continue;
        }
        if (!image_.commit_scan.end_was_cut)
          fail_damaged(path, 0, "the snapshot holds batches that the commit log does not have");
        image_.warnings.push_back(path + ": the snapshot holds the commit that is left out; it is not used");
      }
      image_.unusable.push_back(path);
    }
    if (!image_.source.snapshot) {
      // Only what was never cut off at its beginning can do without a snapshot.
      if (first_error && !std::binary_search(names_.begin(), names_.end(), numbered_name("commit", 1, ".log")))
        throw StateError{*first_error};
      read_commits(nullptr);
    }
    for (; next < numbers.size(); ++next) {
      SnapshotFile older;
      older.number = numbers[next];
      older.path = snapshot_path(numbers[next]);
      try {
        older.size = fs_.read(older.path)->size();
        FoldSource source = image_.source;
        source.snapshot = older;
        RecordReader reader = source.snapshot_reader();
        if (!reader.next() || reader.type() != FrameType::snapshot) reader.fail("it has no head");
        older.head = decode_snapshot_head(reader.take_rest());
        image_.older.push_back(std::move(older));
      } catch (const WorldError& error) {
        image_.warnings.push_back(error.what());
        image_.unusable.push_back(older.path);
      }
    }
  }

  std::string snapshot_path(std::uint64_t number) const {
    return join_path(directory_, numbered_name(snapshot_prefix, number, snapshot_suffix));
  }

  // Returns whether the log goes on where the snapshot ends.
  bool read_commits(const SnapshotFile* snapshot) {
    commits_.clear();
    ScanOptions options;
    options.base = snapshot != nullptr ? snapshot->head.position.segment : 1;
    options.damaged_end = DamagedEnd::cut;
    if (snapshot != nullptr) options.landmark = snapshot->head.position;
    std::uint32_t plan_chain = 0;
    const LogPlace place = commit_place(fs_, directory_, image_.id, options_.checks);
    LogScan scan = scan_log(
        place, options,
        [&](std::uint64_t segment, const Frame& frame) {
          if (frame.type != FrameType::commit) return;
          if (frame.first) {
            if (frame.payload.size() < 4) fail_damaged(place.path(segment), frame.offset, "a commit without a head");
            Decoder from{bytes_of(frame.payload)};
            plan_chain = from.fixed<std::uint32_t>();
          }
          if (!frame.last) return;
          if (!commits_.empty() && commits_.back().time >= frame.stamp)
            fail_damaged(place.path(segment), frame.offset, "the times of batches go back");
          commits_.push_back({frame.stamp, plan_chain, frame.chain});
        },
        [] {});
    image_.commit_scan = std::move(scan);
    if (snapshot != nullptr && !image_.commit_scan.found_landmark) return false;
    image_.source.log = image_.commit_scan.extents;
    if (snapshot != nullptr) {
      const SnapshotHead& head = snapshot->head;
      image_.source.log = extents_behind(image_.source.log, head.position);
      image_.committed = Witness{head.time, head.position.chain};
    }
    if (!commits_.empty()) image_.committed = Witness{commits_.back().time, commits_.back().chain};
    return true;
  }

  void read_plans() {
    ScanOptions options;
    options.base = image_.source.snapshot ? image_.source.snapshot->head.plan_segment : 1;
    options.damaged_end = options_.drop_damaged_plan ? DamagedEnd::cut : DamagedEnd::refuse;
    options.allow_gaps = true;
    const LogPlace place = plan_place(fs_, directory_, image_.id, options_.checks);
    const std::int64_t committed = image_.committed ? image_.committed->time : std::numeric_limits<std::int64_t>::min();
    bool gap = false;
    std::string record;
    std::uint64_t record_segment = 0;
    std::uint64_t record_offset = 0;
    image_.plan_scan = scan_log(
        place, options,
        [&](std::uint64_t segment, const Frame& frame) {
          if (frame.first) {
            record.clear();
            record_segment = segment;
            record_offset = frame.offset;
          }
          record.append(frame.payload);
          if (!frame.last) return;
          const auto fail = [&](std::string_view what) {
            fail_damaged(place.path(record_segment), record_offset, what);
          };
          try {
            switch (frame.type) {
              case FrameType::run: image_.run = decode_run(record); break;
              case FrameType::drop:
                while (!image_.plans.empty() && image_.plans.back().time >= frame.stamp) image_.plans.pop_back();
                std::erase_if(recent_, [&](const PlanRecord& plan) { return stamp_of(plan.plan.time) >= frame.stamp; });
                break;
              case FrameType::plan: {
                PlanRecord plan = decode_plan(frame.stamp, record);
                if (!image_.run || plan.run != image_.run->number) fail("a plan of a run that is not there");
                if (!image_.plans.empty() && image_.plans.back().time >= frame.stamp)
                  fail("the times of batches go back");
                if (std::exchange(gap, false) && frame.stamp > committed)
                  fail("plans before this one are lost, and their batches are not committed");
                image_.plans.push_back({frame.stamp, frame.chain, record_segment});
                if (plan.witness) witnesses_.push_back(*plan.witness);
                if (frame.stamp >= committed) recent_.push_back(std::move(plan));
                break;
              }
              default: fail("a record that does not belong into this log");
            }
          } catch (const StateError& error) {
            if (error.code() == "malformed_data") fail(error.what());
            throw;
          }
        },
        [&] {
          gap = true;
          image_.plans.clear();
          image_.run.reset();
          recent_.clear();
        });
    if (gap) fail_damaged(place.path(image_.plan_scan.end.segment), 0, "plans are lost, and nothing follows them");
  }

  // Neither log may be older than the other one says (P3).
  void compare() {
    const std::string commits = commit_place(fs_, directory_, image_.id, options_.checks)
                                    .path(std::max<std::uint64_t>(image_.commit_scan.end.segment, 1));
    const std::string plans = plan_place(fs_, directory_, image_.id, options_.checks)
                                  .path(std::max<std::uint64_t>(image_.plan_scan.end.segment, 1));
    const auto plan_of = [&](std::int64_t time) -> const PlanPlace* {
      const auto plan = std::lower_bound(image_.plans.begin(), image_.plans.end(), time,
                                         [](const PlanPlace& place, std::int64_t t) { return place.time < t; });
      return plan != image_.plans.end() && plan->time == time ? &*plan : nullptr;
    };
    const std::int64_t committed = image_.committed ? image_.committed->time : std::numeric_limits<std::int64_t>::min();
    for (const CommitPlace& commit : commits_) {
      const PlanPlace* const plan = plan_of(commit.time);
      if (plan == nullptr && !image_.plans.empty() && commit.time < image_.plans.front().time) continue;  // removed
      if (plan == nullptr)
        fail_damaged(plans, 0, "the plan of the batch of " + text_of(commit.time) + ", which is committed, is missing");
      if (options_.checks.chain && plan->chain != commit.plan_chain)
        fail_damaged(plans, 0, "the batch of " + text_of(commit.time) + " was committed by another plan");
    }
    if (image_.committed && plan_of(committed) == nullptr)
      fail_damaged(plans, 0, "the plan of the batch of " + text_of(committed) + ", which is committed, is missing");

    for (PlanRecord& plan : recent_) {
      if (stamp_of(plan.plan.time) == committed && image_.committed) {
        image_.last_committed = std::move(plan.plan);
      } else {
        image_.uncommitted.push_back(std::move(plan.plan));
      }
    }
    for (const Witness& witness : witnesses_) {
      const auto commit = std::lower_bound(commits_.begin(), commits_.end(), witness.time,
                                           [](const CommitPlace& place, std::int64_t t) { return place.time < t; });
      if (commit != commits_.end() && commit->time == witness.time) {
        if (options_.checks.chain && commit->chain != witness.chain)
          fail_damaged(commits, 0,
                       "the commit of the batch of " + text_of(witness.time) + " is not the one of which a plan knows");
      } else if (witness.time > committed) {
        // One commit that was found damaged at the end is made up for by running the batch again.
        const bool made_up_for = image_.commit_scan.end_was_cut && !image_.uncommitted.empty() &&
                                 stamp_of(image_.uncommitted.front().time) == witness.time;
        if (!made_up_for)
          fail_damaged(commits, image_.commit_scan.end.offset,
                       "the commit of the batch of " + text_of(witness.time) + ", of which a plan knows, is missing");
      }
    }
  }

  Fs& fs_;
  const std::string& directory_;
  const ImageOptions options_;
  std::vector<std::string> names_;
  CheckpointImage image_;
  std::vector<CommitPlace> commits_;  // that are in the log, by time
  std::vector<Witness> witnesses_;    // that plans name, by time
  std::vector<PlanRecord> recent_;    // the plan of the newest commit, and those after it
};

LogPlace log_place(Fs& fs, const std::string& directory, const CheckpointId& id, const CheckpointChecks& checks,
                   FileKind kind, std::string prefix) {
  LogPlace place;
  place.fs = &fs;
  place.directory = directory;
  place.prefix = std::move(prefix);
  place.kind = kind;
  place.id = id;
  place.checks = checks;
  return place;
}

}  // namespace

LogPlace plan_place(Fs& fs, const std::string& directory, const CheckpointId& id, const CheckpointChecks& checks) {
  LogPlace place = log_place(fs, directory, id, checks, FileKind::plan_log, "plan");
  place.filled = true;  // every batch waits for it
  return place;
}

LogPlace commit_place(Fs& fs, const std::string& directory, const CheckpointId& id, const CheckpointChecks& checks) {
  return log_place(fs, directory, id, checks, FileKind::commit_log, "commit");
}

void refuse_newer_format(Fs& fs, const std::string& directory) {
  const std::string path = join_path(directory, meta_name);
  try {
    if (fs.exists(path)) static_cast<void>(read_head(fs, path, {}));
  } catch (const WorldError& error) {
    if (error.code() == "newer_format") throw;
  }
}

CheckpointImage load_image(Fs& fs, const std::string& directory, const ImageOptions& options) {
  return Loader{fs, directory, options}.load();
}

}  // namespace tidemill::detail
