#include "tidemill/checkpoint/checkpoint_view.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "checkpoint/block_log.hpp"
#include "checkpoint/image.hpp"
#include "tidemill/core/codec_layout.hpp"

namespace tidemill {

using namespace detail;

namespace {

constexpr std::size_t merge_bytes = 64 * 1024 * 1024;

CheckpointImage load(Fs& fs, const std::string& directory) {
  CheckpointImage image = load_image(fs, directory, {});
  if (image.is_new) {
    ErrorContext context;
    context.op = directory;
    throw StateError("not_found", directory + " holds no checkpoint", Retry::is_useless, std::move(context));
  }
  return image;
}

// Bytes by a layout in words; as they are when the words are none, or not of these bytes.
class Printer {
 public:
  explicit Printer(const std::string& words) {
    try {
      layout_.emplace(words);
    } catch (const ConfigError&) {  // written by hand, or by a later version
    }
  }
  void append(std::string& out, std::string_view bytes) const {
    if (layout_) {
      try {
        layout_->append_json(out, bytes);
        return;
      } catch (const StateError&) {
      }
    }
    append_json_hex(out, bytes);
  }

 private:
  std::optional<CodecLayout> layout_;
};

void append_field(std::string& out, std::string_view name, std::string_view text) {
  out.append(out.empty() || out.back() == '{' ? "\"" : ",\"").append(name).append("\":");
  append_json_text(out, text);
}

void append_field(std::string& out, std::string_view name, std::int64_t number) {
  out.append(out.empty() || out.back() == '{' ? "\"" : ",\"").append(name).append("\":").append(std::to_string(number));
}

std::string run_json(const NumberedRun& run) {
  std::string out = "{";
  append_field(out, "type", "run");
  append_field(out, "run", static_cast<std::int64_t>(run.number));
  append_field(out, "app_name", run.run.app_name);
  append_field(out, "zero_time_us", stamp_of(run.run.zero_time));
  append_field(out, "batch_interval_us", std::int64_t{run.run.batch_interval.count()});
  out += ",\"states\":[";
  for (const NamedState& state : run.run.states) {
    if (out.back() != '[') out += ",";
    out += "{";
    append_field(out, "name", state.name);
    append_field(out, "kind", state.schema.kind);
    append_field(out, "key", state.schema.key);
    append_field(out, "value", state.schema.value);
    append_field(out, "parameters", state.schema.parameters);
    out += "}";
  }
  out += "],\"inputs\":[";
  for (const NamedInput& input : run.run.inputs) {
    if (out.back() != '[') out += ",";
    out += "{";
    append_field(out, "name", input.name);
    append_field(out, "kind", input.kind);
    append_field(out, "first_start_us", stamp_of(input.first_start));
    out += "}";
  }
  out += "]";
  append_field(out, "engine", run.run.engine);
  return out + "}";
}

std::string plan_json(const PlanRecord& record) {
  std::string out = "{";
  append_field(out, "type", "plan");
  append_field(out, "time_us", stamp_of(record.plan.time));
  append_field(out, "run", static_cast<std::int64_t>(record.run));
  out += ",\"inputs\":[";
  for (const BatchPlan::Input& input : record.plan.inputs) {
    if (out.back() != '[') out += ",";
    out += "{";
    append_field(out, "name", input.name);
    append_field(out, "bytes", input.bytes);
    out += "}";
  }
  out += "]";
  append_field(out, "engine", record.plan.engine);
  return out + "}";
}

// What is wrong with the log of a receiver; empty when nothing is.
std::string problem_of_blocks(Fs& fs, const std::string& directory, const CheckpointId& id) {
  try {
    const LogPlace place = block_log_place(fs, directory, id, {});
    if (!place.segments().empty()) static_cast<void>(scan_blocks(place, false));
    return "";
  } catch (const WorldError& error) {
    return error.what();
  }
}

}  // namespace

CheckpointView::CheckpointView(std::string directory, std::shared_ptr<Fs> fs)
    : directory_{std::move(directory)}, fs_{fs ? std::move(fs) : Fs::real()} {}
CheckpointView::~CheckpointView() = default;

std::optional<std::string> CheckpointView::holder() const {
  return with_state_errors([&]() -> std::optional<std::string> {
    const std::string path = join_path(directory_, lock_name);
    if (!fs_->exists(path) || !fs_->is_locked(path)) return std::nullopt;
    std::string text = fs_->read_all(path, 4096);
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
  });
}

std::vector<CheckpointView::File> CheckpointView::files() const {
  return with_state_errors([&] {
    std::vector<File> files;
    const std::vector<std::string> names = fs_->list(directory_);
    std::optional<CheckpointId> id;
    const auto look = [&](const std::string& path, std::string kind, const auto& check) {
      File file{path, std::move(kind), 0, ""};
      try {
        const auto reader = fs_->read(path);
        file.bytes = reader->size();
        check(*reader);
      } catch (const WorldError& error) {
        file.problem = error.what();
      }
      files.push_back(std::move(file));
    };
    const std::string meta = join_path(directory_, meta_name);
    if (std::binary_search(names.begin(), names.end(), meta_name)) {
      look(meta, "head", [&](const FsReader& file) {
        std::string bytes(file_header_bytes, '\0');
        bytes.resize(read_twice(file, 0, std::as_writable_bytes(std::span{bytes})));
        id = decode_header(bytes, meta, {}).id;
      });
    } else {
      files.push_back({meta, "head", 0, "the file is missing"});
    }
    const auto header = [&](const std::string& path, FileKind kind, std::uint64_t number) {
      return [&, kind, number](const FsReader& file) {
        FileHeader expected;
        expected.kind = kind;
        expected.number = number;
        if (id) expected.id = *id;
        check_header(file, path, expected, {});
      };
    };
    for (const std::string& name : names) {
      const std::string path = join_path(directory_, name);
      if (name == meta_name || name == lock_name || name == receivers_name) continue;
      if (const auto plan = number_of(name, "plan", ".log")) {
        look(path, "plan log", header(path, FileKind::plan_log, *plan));
      } else if (const auto commit = number_of(name, "commit", ".log")) {
        look(path, "commit log", header(path, FileKind::commit_log, *commit));
      } else if (const auto number = number_of(name, snapshot_prefix, snapshot_suffix)) {
        look(path, "snapshot", [&](const FsReader&) {
          if (id) static_cast<void>(verify_snapshot(*fs_, path, *number, *id, {}));
        });
      } else {
        look(path, name.ends_with(".tmp") ? "unfinished" : "other", [](const FsReader&) {});
      }
    }
    const std::string receivers = join_path(directory_, receivers_name);
    if (std::binary_search(names.begin(), names.end(), receivers_name)) {
      for (const std::string& receiver : fs_->list(receivers)) {
        const std::string directory = join_path(receivers, receiver);
        const std::size_t begin = files.size();
        for (const std::string& name : fs_->list(directory)) {
          const std::string path = join_path(directory, name);
          if (const auto number = number_of(name, "blocks", ".log")) {
            look(path, "receiver log", header(path, FileKind::block_log, *number));
          } else {
            look(path, name.ends_with(".tmp") ? "unfinished" : "other", [](const FsReader&) {});
          }
        }
        if (!id) continue;
        // Damage inside belongs to the file that it is in; a file that is missing is told of its directory.
        const std::string problem = problem_of_blocks(*fs_, directory, *id);
        if (problem.empty()) continue;
        const auto file = std::find_if(files.begin() + static_cast<std::ptrdiff_t>(begin), files.end(),
                                       [&](const File& one) { return problem.find(one.path) != std::string::npos; });
        if (file == files.end()) {
          files.push_back({directory, "receiver log", 0, problem});
        } else if (file->problem.empty()) {
          file->problem = problem;
        }
      }
    }
    return files;
  });
}

CheckpointView::Summary CheckpointView::summary() const {
  return with_state_errors([&] {
    CheckpointImage image = load(*fs_, directory_);
    Summary summary;
    summary.id = to_hex(image.id);
    if (image.run) {
      summary.run = image.run->number;
      summary.last_run = std::move(image.run->run);
    }
    if (image.committed) summary.committed = time_of(image.committed->time);
    summary.uncommitted = std::move(image.uncommitted);
    summary.warnings = std::move(image.warnings);
    for (const FoldIndex::State& state : image.index.states) {
      State& shown = summary.states.emplace_back();
      shown.state = state.state;
      fold_state(image.source, state, merge_bytes, {}, [&](KeyGroup, std::string_view key, std::string_view value) {
        ++shown.entries;
        shown.bytes += key.size() + value.size();
      });
    }
    return summary;
  });
}

void CheckpointView::dump_states(std::optional<std::string_view> only, FunctionRef<void(std::string_view)> line) const {
  with_state_errors([&] {
    const CheckpointImage image = load(*fs_, directory_);
    bool found = !only;
    for (const FoldIndex::State& state : image.index.states) {
      if (only && state.state.name != *only) continue;
      found = true;
      const Printer keys{state.state.schema.key};
      const Printer values{state.state.schema.value};
      std::string out;
      fold_state(image.source, state, merge_bytes, {},
                 [&](KeyGroup group, std::string_view key, std::string_view value) {
                   out = "{";
                   append_field(out, "state", state.state.name);
                   append_field(out, "group", std::int64_t{group});
                   out += ",\"key\":";
                   keys.append(out, key);
                   out += ",\"value\":";
                   values.append(out, value);
                   out += "}";
                   line(out);
                 });
    }
    if (!found)
      throw StateError("not_found", "the checkpoint has no state of the name \"" + std::string{*only} + "\"",
                       Retry::is_useless);
  });
}

void CheckpointView::dump_logs(FunctionRef<void(std::string_view)> line) const {
  with_state_errors([&] {
    const CheckpointImage image = load(*fs_, directory_);
    RecordReader plans{*fs_, image.plan_scan.extents, {}};
    std::uint64_t run = 0;
    while (plans.next()) {
      if (plans.type() == FrameType::plan) {
        line(plan_json(decode_plan(plans.stamp(), plans.take_rest())));
      } else if (plans.type() == FrameType::drop) {
        std::string out = "{";
        append_field(out, "type", "drop");
        append_field(out, "from_time_us", plans.stamp());
        line(out + "}");
      } else {
        const NumberedRun record = decode_run(plans.take_rest());
        // Every segment repeats the run that it belongs to.
        if (std::exchange(run, record.number) != record.number) line(run_json(record));
      }
    }
    std::map<std::string, NamedState, std::less<>> states;
    if (image.source.snapshot) {
      for (const NamedState& state : image.source.snapshot->head.states) states[state.name] = state;
    }
    RecordReader commits = image.source.log_reader();
    while (commits.next()) {
      if (commits.type() == FrameType::run) {
        for (const NamedState& state : decode_run(commits.take_rest()).run.states) states[state.name] = state;
        continue;
      }
      std::string out = "{";
      append_field(out, "type", "commit");
      append_field(out, "time_us", commits.stamp());
      static_cast<void>(commits.take_number<std::uint32_t>());
      out += ",\"changes\":[";
      for (auto left = commits.take_number<std::uint32_t>(); left > 0; --left) {
        const std::string name{commits.take_sized()};
        auto size = commits.take_number<std::uint64_t>();
        const auto state = states.find(name);
        const Printer keys{state == states.end() ? "" : state->second.schema.key};
        const Printer values{state == states.end() ? "" : state->second.schema.value};
        RecordReader::Entry entry;
        while (size > 0) {
          commits.take_entry(entry);
          const std::uint64_t taken = 6 + entry.key.size() + (entry.erased ? 0 : 4 + entry.value.size());
          if (taken > size) commits.fail("an entry is longer than the changes of its state");
          size -= taken;
          if (out.back() != '[') out += ",";
          out += "{";
          append_field(out, "state", name);
          append_field(out, "group", std::int64_t{entry.group});
          out += ",\"key\":";
          keys.append(out, entry.key);
          if (!entry.erased) {
            out += ",\"value\":";
            values.append(out, entry.value);
          }
          out += "}";
        }
      }
      line(out + "]}");
    }
    const std::string receivers = join_path(directory_, receivers_name);
    if (!fs_->exists(receivers)) return;
    for (const std::string& receiver : fs_->list(receivers)) {
      const LogPlace place = block_log_place(*fs_, join_path(receivers, receiver), image.id, {});
      if (place.segments().empty()) continue;
      RecordReader blocks{*fs_, scan_blocks(place, false).log.extents, {}};
      while (blocks.next()) {
        std::string out = "{";
        append_field(out, "type", "block");
        append_field(out, "receiver", receiver);
        append_field(out, "number", blocks.stamp());
        out += ",\"bytes\":";
        append_json_hex(out, blocks.take_rest());
        line(out + "}");
      }
    }
  });
}

}  // namespace tidemill
