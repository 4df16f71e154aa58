// tidemill-checkpoint: looks at a checkpoint without the program that wrote it. Changes nothing, but for drop-uncommitted.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <tidemill/checkpoint/checkpoint_store.hpp>
#include <tidemill/checkpoint/checkpoint_view.hpp>

namespace {

constexpr int ok = 0;
constexpr int damaged = 1;  // or another error that the checkpoint is to blame for
constexpr int wrong_usage = 2;
constexpr int in_use = 3;

constexpr std::string_view usage =
    R"(Usage: tidemill-checkpoint <command> [options] DIRECTORY

Looks at the checkpoint in DIRECTORY, without the program that wrote it.

Commands:
  list                 what is in it: runs, batches, states, files
  verify               reads every byte that a program would rely on, and every file
  dump                 the entries of all states, one JSON object a line
  drop-uncommitted     gives up the batches that were planned and not committed; the only command that changes anything

Options:
  --state NAME         dump: of this state only
  --log                dump: plans and commits since the newest snapshot and what receivers have logged, instead of states
  --damaged-plan       drop-uncommitted: also when the last plan is damaged, which keeps a program from starting
  --yes                drop-uncommitted: do it; without this it only says what it would do
  --help               this text
  --version            the version of the library

Exit status: 0 all is well, 1 the checkpoint is damaged or cannot be read, 2 wrong usage, 3 it is in use.
A checkpoint that a program has open can be listed, verified and dumped; what is read may then be from different moments.
To tell whether one has, the lock is shared for an instant: a program that starts just then is refused, and can be started again.
)";

struct Arguments {
  std::string command;
  std::string directory;
  std::optional<std::string> state;
  bool log = false;
  bool damaged_plan = false;
  bool yes = false;
};

int misused(const std::string& what) {
  std::fprintf(stderr, "tidemill-checkpoint: %s\nTry: tidemill-checkpoint --help\n", what.c_str());
  return wrong_usage;
}

void warn_if_open(const tidemill::CheckpointView& view) {
  if (const auto holder = view.holder())
    std::fprintf(stderr, "warning: in use by %s: what is read may be from different moments\n", holder->c_str());
}

void print(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stdout); }

constexpr auto print_line = [](std::string_view text) {
  print(text);
  std::fputc('\n', stdout);
};

int list(const Arguments& arguments) {
  const tidemill::CheckpointView view{arguments.directory};
  warn_if_open(view);
  const auto summary = view.summary();
  print_line("checkpoint    " + arguments.directory);
  print_line("id            " + summary.id);
  if (summary.last_run) {
    const tidemill::RunRecord& run = *summary.last_run;
    print_line("application   " + run.app_name);
    print_line("runs          " + std::to_string(summary.run));
    print_line("zero time     " + tidemill::to_string(run.zero_time));
    print_line("interval      " + tidemill::to_string(run.batch_interval));
    for (const auto& input : run.inputs) print_line("input         " + input.name + ": " + input.kind);
  }
  print_line("committed     " + (summary.committed ? tidemill::to_string(*summary.committed) : std::string{"nothing"}));
  print_line("uncommitted   " + std::to_string(summary.uncommitted.size()));
  for (const auto& plan : summary.uncommitted) print_line("              batch " + tidemill::to_string(plan.time));
  for (const auto& state : summary.states) {
    const auto& schema = state.state.schema;
    print_line("state         " + state.state.name + ": " + schema.kind + ", " + schema.key + " -> " + schema.value +
               (schema.parameters.empty() ? "" : ", " + schema.parameters) + ", " + std::to_string(state.entries) +
               " entries, " + std::to_string(state.bytes) + " bytes");
  }
  for (const auto& file : view.files())
    print_line("file          " + file.path + ": " + file.kind + ", " + std::to_string(file.bytes) + " bytes");
  for (const std::string& warning : summary.warnings) print_line("warning       " + warning);
  return ok;
}

int verify(const Arguments& arguments) {
  const tidemill::CheckpointView view{arguments.directory};
  warn_if_open(view);
  int status = ok;
  for (const auto& file : view.files()) {
    if (file.problem.empty()) {
      print_line("ok       " + file.path);
    } else {
      print_line("damaged  " + file.path + ": " + file.problem);
      status = damaged;
    }
  }
  const auto summary = view.summary();
  for (const std::string& warning : summary.warnings) {
    print_line("warning  " + warning);
    status = damaged;
  }
  std::uint64_t entries = 0;
  for (const auto& state : summary.states) entries += state.entries;
  print_line((status == ok ? "whole: committed until " : "usable: committed until ") +
             (summary.committed ? tidemill::to_string(*summary.committed) : std::string{"nothing"}) + ", " +
             std::to_string(entries) + " entries, " + std::to_string(summary.uncommitted.size()) + " uncommitted");
  return status;
}

int dump(const Arguments& arguments) {
  const tidemill::CheckpointView view{arguments.directory};
  warn_if_open(view);
  if (arguments.log) {
    view.dump_logs(print_line);
  } else {
    view.dump_states(arguments.state, print_line);
  }
  return ok;
}

int drop_uncommitted(const Arguments& arguments) {
  if (!arguments.yes && !arguments.damaged_plan) {
    const auto summary = tidemill::CheckpointView{arguments.directory}.summary();
    for (const auto& plan : summary.uncommitted)
      print_line("would drop the batch of " + tidemill::to_string(plan.time));
    print_line(summary.uncommitted.empty() ? "nothing is uncommitted" : "nothing was changed: add --yes to do it");
    return ok;
  }
  if (!arguments.yes) return misused("--damaged-plan needs --yes too");
  // Opening would begin a checkpoint where there is none.
  if (!tidemill::Fs::real()->exists(arguments.directory + "/META")) {
    std::fprintf(stderr, "tidemill-checkpoint: %s holds no checkpoint\n", arguments.directory.c_str());
    return damaged;
  }
  tidemill::CheckpointOptions options;
  options.writer = tidemill::CheckpointOptions::Writer::caller;
  options.drop_damaged_plan = arguments.damaged_plan;
  tidemill::CheckpointStore store{arguments.directory, options};
  for (const std::string& warning : store.warnings()) print_line("warning  " + warning);
  for (const auto& plan : store.uncommitted()) print_line("dropped the batch of " + tidemill::to_string(plan.time));
  store.drop_uncommitted();
  store.close();
  return ok;
}

int run(const Arguments& arguments) {
  try {
    const int status = arguments.command == "list"     ? list(arguments)
                       : arguments.command == "verify" ? verify(arguments)
                       : arguments.command == "dump"   ? dump(arguments)
                                                       : drop_uncommitted(arguments);
    if (std::fflush(stdout) != 0) {
      std::fprintf(stderr, "tidemill-checkpoint: cannot write the output: %s\n", std::strerror(errno));
      return damaged;
    }
    return status;
  } catch (const tidemill::Error& error) {
    std::fflush(stdout);
    std::fprintf(stderr, "tidemill-checkpoint: %s\n", error.what());
    return error.code() == "checkpoint_in_use" ? in_use : damaged;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tidemill-checkpoint: %s\n", error.what());
    return damaged;
  }
}

}  // namespace

int main(int count, char** values) {
  Arguments arguments;
  std::vector<std::string> words;
  for (int i = 1; i < count; ++i) {
    const std::string_view word = values[i];
    if (word == "--help" || word == "-h") {
      print(usage);
      return ok;
    }
    if (word == "--version") {
      std::printf("tidemill-checkpoint %d.%d.%d\n", TIDEMILL_VERSION_MAJOR, TIDEMILL_VERSION_MINOR,
                  TIDEMILL_VERSION_PATCH);
      return ok;
    }
    if (word == "--log") {
      arguments.log = true;
    } else if (word == "--yes") {
      arguments.yes = true;
    } else if (word == "--damaged-plan") {
      arguments.damaged_plan = true;
    } else if (word == "--state") {
      if (++i == count) return misused("--state needs a name");
      arguments.state = values[i];
    } else if (word.starts_with("-")) {
      return misused("unknown option " + std::string{word});
    } else {
      words.emplace_back(word);
    }
  }
  if (words.empty()) return misused("a command is missing");
  arguments.command = words[0];
  if (arguments.command != "list" && arguments.command != "verify" && arguments.command != "dump" &&
      arguments.command != "drop-uncommitted")
    return misused("unknown command " + arguments.command);
  if (words.size() != 2) return misused("the command " + arguments.command + " needs one directory");
  arguments.directory = words[1];
  if (arguments.log && arguments.state) return misused("--log and --state exclude each other");
  return run(arguments);
}
