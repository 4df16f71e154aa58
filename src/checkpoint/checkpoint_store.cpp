#include "tidemill/checkpoint/checkpoint_store.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <ctime>
#include <deque>
#include <exception>
#include <limits>
#include <mutex>
#include <pthread.h>
#include <set>
#include <span>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>
#include <utility>

#include "checkpoint/block_log.hpp"
#include "checkpoint/image.hpp"

namespace tidemill {

using namespace detail;

namespace {

[[noreturn]] void fail_call(const std::string& message) { throw PlanError("illegal_state", message); }

std::string holder_text() {
  char host[256] = {};
  if (::gethostname(host, sizeof host - 1) != 0) host[0] = '\0';
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char since[32];
  std::strftime(since, sizeof since, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return "process " + std::to_string(::getpid()) + " on " + host + " since " + since + "\n";
}

[[noreturn]] void fail_in_use(Fs& fs, const std::string& directory, const std::string& lock) {
  std::string holder;
  try {
    holder = fs.read_all(lock, 4096);
  } catch (const WorldError&) {  // it was there a moment ago
  }
  while (!holder.empty() && holder.back() == '\n') holder.pop_back();
  std::string message = directory + " is in use by " + (holder.empty() ? "another process" : holder);
  long pid = 0;
  if (std::sscanf(holder.c_str(), "process %ld on", &pid) == 1 && pid > 0) {
    if (pid == ::getpid()) {
      message += ", which is this one";
    } else if (::access(("/proc/" + std::to_string(pid)).c_str(), F_OK) != 0 && errno == ENOENT) {
      message += ", which has ended here: a process that it forked holds the lock, or it runs on another machine";
    }
  }
  ErrorContext context;
  context.op = directory;
  throw StateError("checkpoint_in_use", message + "; stop it first, or use another directory", Retry::may_help,
                   std::move(context));
}

void name_thread(const std::string& name) { ::pthread_setname_np(::pthread_self(), name.substr(0, 15).c_str()); }

// The extents up to a place in the last of them.
std::vector<Extent> clipped(std::vector<Extent> extents, const LogPosition& end) {
  while (!extents.empty() && extents.back().segment > end.segment) extents.pop_back();
  if (!extents.empty()) extents.back().to = end.offset;
  return extents;
}

std::uint64_t bytes_in(const std::vector<Extent>& extents) {
  std::uint64_t bytes = 0;
  for (const Extent& extent : extents) bytes += extent.to - extent.from;
  return bytes;
}

void check_options(const CheckpointOptions& options) {
  check_segment_bytes("plan_segment_bytes", options.plan_segment_bytes);
  check_segment_bytes("commit_segment_bytes", options.commit_segment_bytes);
  if (options.keep_snapshots < 2)
    throw ConfigError("keep_snapshots is " + std::to_string(options.keep_snapshots) + " and must be at least 2");
  if (options.max_commits_in_flight == 0) throw ConfigError("max_commits_in_flight is 0 and must be at least 1");
  if (!(options.snapshot_log_fraction >= 0))
    throw ConfigError("snapshot_log_fraction is " + std::to_string(options.snapshot_log_fraction) +
                      " and must not be negative");
  if (options.keep_for < Duration::zero())
    throw ConfigError("keep_for is " + to_string(options.keep_for) + " and must not be negative");
}

}  // namespace

struct CheckpointStore::Impl {
  Impl(std::string where, CheckpointOptions what)
      : directory{std::move(where)}, options{std::move(what)}, fs{options.fs ? options.fs : Fs::real()} {
    check_options(options);
    open();
  }
  ~Impl() { stop(); }

  // How many threads may read what there is.
  [[nodiscard]] unsigned threads() const {
    const bool alone = options.writer == CheckpointOptions::Writer::caller;
    return alone ? 1 : std::clamp(std::thread::hardware_concurrency(), 1U, 8U);
  }

  // --- Opening ---

  void open() {
    const bool there = fs->exists(directory);
    const FsKind kind = fs->kind(there ? directory : parent_path(directory));
    if (!kind.safe && !options.allow_unsafe_filesystem) fail_unsafe("it is on a file system of the kind " + kind.name);
    if (there) refuse_newer_format(*fs, directory);
    if (!there) fs->make_directory(directory);
    const std::string lock_path = join_path(directory, lock_name);
    lock = fs->lock(lock_path, holder_text());
    if (!lock) fail_in_use(*fs, directory, lock_path);
    if (!options.allow_unsafe_filesystem && fs->lock(lock_path, holder_text()))
      fail_unsafe("its locks keep nobody out (file system " + kind.name + ")");
    // Names that an earlier process gave may not be durable yet, and what follows relies on them.
    fs->sync_directory(directory);

    ImageOptions image_options;
    image_options.drop_damaged_plan = options.drop_damaged_plan;
    image_options.checks = options.checks;
    image_options.threads = threads();
    image = load_image(*fs, directory, image_options);
    probe();  // P7: from here on something is written
    if (image.is_new) {
      create();
      image = load_image(*fs, directory, image_options);
    }
    for (const std::string& path : image.temporaries) static_cast<void>(fs->remove(path));
    set_aside();

    plans.emplace(place(plan_place(*fs, directory, image.id, options.checks), options.plan_segment_bytes),
                  std::move(image.plan_scan));
    commits.emplace(place(commit_place(*fs, directory, image.id, options.checks), options.commit_segment_bytes),
                    std::move(image.commit_scan));
    commits->start();
    plans->start();
    take_over();
  }

  // Snapshots that cannot be used get another name; of those that have one, only the newest stays.
  void set_aside() {
    if (image.unusable.empty()) return;
    constexpr std::string_view mark = ".damaged";
    for (const std::string& path : image.unusable) fs->rename(path, path + std::string{mark});
    fs->sync_directory(directory);
    std::string newest;
    for (const std::string& name : fs->list(directory)) {  // ascending
      if (!name.ends_with(mark)) continue;
      if (!newest.empty()) static_cast<void>(fs->remove(join_path(directory, newest)));
      newest = name;
    }
  }

  [[noreturn]] void fail_unsafe(const std::string& why) {
    ErrorContext context;
    context.op = directory;
    throw StateError(
        "unsafe_filesystem",
        "the checkpoint " + directory + " would not be safe: " + why +
            "; use a local disk, or set allow_unsafe_filesystem if you know that locks and syncs work there",
        Retry::is_useless, std::move(context));
  }

  // Whether all that a run needs can be done here (F18).
  void probe() {
    const std::string path = join_path(directory, "probe");
    static_cast<void>(fs->remove(path + ".tmp"));
    {
      const auto file = fs->create(path + ".tmp");
      file->append(bytes_of("probe"));
      file->sync();
    }
    fs->rename(path + ".tmp", path);
    fs->sync_directory(directory);
    static_cast<void>(fs->remove(path));
  }

  static LogPlace place(LogPlace place, std::uint64_t segment_bytes) {
    place.segment_bytes = segment_bytes;
    return place;
  }

  // The file META comes last: without it there is no checkpoint.
  void create() {
    // The directory was made just now, or by a process that did not get further.
    fs->sync_directory(parent_path(directory));
    const CheckpointId id = fs->random_id();
    for (const std::string& name : fs->list(directory)) {
      if (number_of(name, "plan", ".log") || number_of(name, "commit", ".log"))
        static_cast<void>(fs->remove(join_path(directory, name)));
    }
    SegmentLog::create(place(plan_place(*fs, directory, id, options.checks), options.plan_segment_bytes));
    SegmentLog::create(place(commit_place(*fs, directory, id, options.checks), options.commit_segment_bytes));
    const std::string path = join_path(directory, meta_name);
    static_cast<void>(fs->remove(path + ".tmp"));
    {
      const auto file = fs->create(path + ".tmp");
      FileHeader header;
      header.kind = FileKind::meta;
      header.id = id;
      file->append(bytes_of(encode_header(header)));
      file->sync();
    }
    fs->rename(path + ".tmp", path);
    fs->sync_directory(directory);
  }

  // Makes what was found the state of this run.
  void take_over() {
    if (image.run) {
      found_run = image.run->run;
      run_number = image.run->number;
      plans->set_preamble(FrameType::run, stamp_of(found_run->zero_time), encode_run(*image.run));
    }
    for (const FoldIndex::State& state : image.index.states) found_states.push_back(state.state);
    durable = image.committed;
    durable_position = commits->position();
    snapshot = image.source.snapshot;
    older = std::move(image.older);
    newest_snapshot = image.newest_number;
    plan_places = std::move(image.plans);
    if (durable) last_time = durable->time;
    for (const BatchPlan& plan : image.uncommitted) {
      const auto place = std::find_if(plan_places.begin(), plan_places.end(),
                                      [&](const PlanPlace& p) { return p.time == stamp_of(plan.time); });
      pending.push_back(*place);
      last_time = place->time;
    }
    statistics.log_bytes = bytes_in(image.source.log);
    statistics.repairs = image.warnings.size();
    if (snapshot) statistics.snapshot_bytes = snapshot->size;
  }

  // --- Errors of the writer ---

  // Throws what the writer met, once, and lets it try again.
  void report_failure(std::unique_lock<std::mutex>&) {
    if (!failed) return;
    failed = false;
    const std::exception_ptr error = std::exchange(failure, nullptr);
    work.notify_all();
    std::rethrow_exception(error);
  }

  // --- Commits ---

  static constexpr std::size_t spare_bytes = 64 * 1024 * 1024;  // more is not kept

  struct Job {
    std::int64_t time = 0;
    std::uint32_t plan_chain = 0;
    std::vector<StateCommit> changes;
    std::size_t bytes = 0;
  };

  // Writes commits, durable when it returns; whoever calls is the only one that writes. Errors: nothing was written.
  void write(std::span<const Job> jobs) {
    std::deque<std::string> texts;
    std::vector<LogRecord> records;
    if (!run_written) records.push_back({FrameType::run, stamp_of(run.run.zero_time), {run_text}});
    for (const Job& job : jobs) {
      LogRecord& record = records.emplace_back();
      record.type = FrameType::commit;
      record.stamp = job.time;
      record.parts.push_back(texts.emplace_back(commit_head(job.plan_chain, job.changes.size())));
      for (const StateCommit& commit : job.changes) {
        record.parts.push_back(texts.emplace_back(commit_state(commit.state, commit.changes.size())));
        commit.changes.for_each_piece([&](std::string_view piece) { record.parts.push_back(piece); });
      }
    }
    std::vector<LogPosition> positions;
    commits->append(records, &positions);
    std::uint64_t bytes = 0;
    for (const LogRecord& record : records) {
      bytes += frame_header_bytes;
      for (const std::string_view part : record.parts) bytes += part.size();
    }
    const std::lock_guard guard{mutex};
    run_written = true;
    durable = Witness{jobs.back().time, positions.back().chain};
    durable_position = positions.back();
    statistics.commits += jobs.size();
    statistics.commit_bytes += bytes;
    statistics.log_bytes += bytes;
  }

  void write_loop() {
    name_thread(options.thread_name + "-w");
    std::unique_lock guard{mutex};
    for (;;) {
      work.wait(guard, [&] { return stopping || wants_segments || (!failed && !queue.empty()); });
      if (!failed && !queue.empty()) {
        std::vector<Job> jobs{std::make_move_iterator(queue.begin()), std::make_move_iterator(queue.end())};
        queue.clear();
        guard.unlock();
        std::exception_ptr error;
        try {
          with_state_errors([&] { write(jobs); });
        } catch (...) {
          error = std::current_exception();
        }
        guard.lock();
        if (error) {
          queue.insert(queue.begin(), std::make_move_iterator(jobs.begin()), std::make_move_iterator(jobs.end()));
          failure = error;
          failed = true;
        } else {
          jobs_in_flight -= jobs.size();
          for (Job& job : jobs) {
            bytes_in_flight -= job.bytes;
            if (job.bytes <= spare_bytes && spare.empty()) spare = std::move(job.changes);
          }
          wants_segments = wants_segments || commits->wants_segment();
          wake_snapshots();
        }
        room.notify_all();
      } else if (wants_segments) {
        wants_segments = false;
        guard.unlock();
        try {
          make_segments_ready();
        } catch (...) {  // whoever needs the segment will make it, and report it
        }
        guard.lock();
      } else {
        return;  // stopping, and what is left failed
      }
    }
  }

  void make_segments_ready() {
    if (plans->wants_segment()) plans->make_ready();
    if (commits->wants_segment()) commits->make_ready();
  }

  // --- Snapshots ---

  [[nodiscard]] bool snapshot_is_due() const {  // mutex is held
    const double fraction = options.snapshot_log_fraction * (snapshot ? static_cast<double>(snapshot->size) : 0.0);
    const std::uint64_t least = std::max(options.snapshot_min_log_bytes, next_attempt);
    return durable && statistics.log_bytes >= least && static_cast<double>(statistics.log_bytes) >= fraction;
  }

  void wake_snapshots() {  // mutex is held
    if (!snapshot_is_due()) return;
    if (!snapshotter.joinable() && !stopping) {
      try {
        snapshotter = std::thread{[this] { snapshot_loop(); }};
      } catch (const std::system_error&) {  // no thread now; the next commit asks again
        ++statistics.snapshot_failures;
        return;
      }
    }
    snapshot_work.notify_one();
  }

  void snapshot_loop() {
    name_thread(options.thread_name + "-s");
    // Only this thread becomes less urgent; not the least, since a log that nobody folds fills the disk.
    static_cast<void>(::setpriority(PRIO_PROCESS, static_cast<id_t>(::syscall(SYS_gettid)), 10));
    std::unique_lock guard{mutex};
    for (;;) {
      snapshot_work.wait(guard, [&] { return stopping || snapshot_is_due(); });
      if (stopping) return;
      guard.unlock();
      try {
        make_snapshot();
      } catch (...) {  // the log goes on as it is; noted, and tried again when it has grown
        note_snapshot_failure(std::current_exception());
      }
      guard.lock();
    }
  }

  void note_snapshot_failure(const std::exception_ptr& error) {
    std::string text;
    std::string code;
    try {
      code = "unknown";
      text = describe(error);
      std::rethrow_exception(error);
    } catch (const Error& known) {
      code = known.code();
    } catch (...) {  // no memory for the words, perhaps
    }
    const std::lock_guard guard{mutex};
    ++statistics.snapshot_failures;
    statistics.last_failure = std::move(text);
    statistics.last_failure_code = std::move(code);
    next_attempt = statistics.log_bytes + options.snapshot_min_log_bytes / 4 + 1;
  }

  // Returns whether there was anything new to put into one.
  bool make_snapshot() {
    const std::lock_guard one_at_a_time{snapshot_mutex};
    FoldSource source;
    source.fs = fs.get();
    source.checks = options.checks;
    SnapshotHead head;
    std::uint64_t number;
    std::uint64_t log_bytes;
    {
      const std::lock_guard guard{mutex};
      if (!durable || (snapshot && snapshot->head.position == durable_position)) return false;
      source.snapshot = snapshot;
      head.time = durable->time;
      head.position = durable_position;
      head.run = run_written || !image.run ? run : *image.run;
      const auto plan = std::find_if(plan_places.begin(), plan_places.end(),
                                     [&](const PlanPlace& place) { return place.time == head.time; });
      TIDEMILL_ASSERT(plan != plan_places.end(), "the plan of the newest commit is kept");
      head.plan_segment = plan->segment;
      number = newest_snapshot + 1;
      log_bytes = statistics.log_bytes;
    }
    source.log = clipped(commits->extents_from(snapshot ? snapshot->head.position : LogPosition{}), head.position);
    const FoldIndex index = index_log(source);
    for (const FoldIndex::State& state : index.states) head.states.push_back(state.state);
    SnapshotFile made = write_snapshot(source, index, head, directory, number, image.id, options.merge_bytes);
    {
      const std::lock_guard guard{mutex};
      if (snapshot) older.insert(older.begin(), std::move(*snapshot));
      ++statistics.snapshots;
      statistics.snapshot_bytes = made.size;
      statistics.log_bytes -= std::min(log_bytes, statistics.log_bytes);
      next_attempt = 0;
      newest_snapshot = number;
      snapshot = std::move(made);
      while (plan_places.front().time < head.time) plan_places.pop_front();
    }
    remove_old();
    return true;
  }

  // P6. The snapshot before the newest stays, and the logs since, in case the newest is found damaged.
  void remove_old() {
    const std::size_t keep = options.keep_snapshots - 1;
    std::size_t kept = 0;
    while (kept < older.size() &&
           (kept < keep || snapshot->head.time - older[kept].head.time <= options.keep_for.count()))
      ++kept;
    for (std::size_t i = older.size(); i > kept; --i) {
      static_cast<void>(fs->remove(older[i - 1].path));
      older.pop_back();
    }
    if (kept < keep) return;
    commits->remove_before(older.back().head.position.segment);
    plans->remove_before(older.back().head.plan_segment);
  }

  // --- The end ---

  void stop() noexcept {
    {
      const std::lock_guard guard{mutex};
      stopping = true;
    }
    work.notify_all();
    snapshot_work.notify_all();
    if (writer.joinable()) writer.join();
    if (snapshotter.joinable()) snapshotter.join();
  }

  const std::string directory;
  const CheckpointOptions options;
  const std::shared_ptr<Fs> fs;
  std::unique_ptr<FsLock> lock;
  CheckpointImage image;
  std::optional<SegmentLog> plans;
  std::optional<SegmentLog> commits;

  // Of the caller.
  std::optional<RunRecord> found_run;
  std::vector<NamedState> found_states;
  std::uint64_t run_number = 0;
  bool running = false;  // begin_run() was called
  bool closed = false;
  std::optional<std::int64_t> last_time;  // of a plan or a commit
  std::deque<PlanPlace> pending;          // plans that commit() was not called for

  // Written by begin_run(), before there are threads.
  NumberedRun run;
  std::string run_text;

  // Of whoever writes commits.
  bool run_written = false;

  std::mutex snapshot_mutex;        // held while a snapshot is made
  std::vector<SnapshotFile> older;  // guarded by it; newest first

  mutable std::mutex mutex;               // guards what follows
  std::condition_variable work;           // there is something to do for the writer
  std::condition_variable snapshot_work;  // a snapshot is due
  std::condition_variable room;           // something is durable, or failed
  std::deque<Job> queue;
  std::vector<StateCommit> spare;  // of a job that is done: fresh memory costs more than what is written to it
  std::size_t jobs_in_flight = 0;  // in the queue or being written
  std::size_t bytes_in_flight = 0;
  bool failed = false;  // the writer waits until somebody has heard of `failure`
  std::exception_ptr failure;
  bool wants_segments = false;
  bool stopping = false;
  std::optional<Witness> durable;
  LogPosition durable_position;
  std::deque<PlanPlace> plan_places;     // by time, from that of the newest snapshot on
  std::optional<SnapshotFile> snapshot;  // the newest
  std::uint64_t newest_snapshot = 0;
  std::uint64_t next_attempt = 0;  // at a snapshot: size of the log, after a failure
  Statistics statistics;

  std::thread writer;
  std::thread snapshotter;
};

CheckpointStore::CheckpointStore(std::string directory, CheckpointOptions options)
    : impl_{with_state_errors([&] { return std::make_unique<Impl>(std::move(directory), std::move(options)); })} {}

CheckpointStore::~CheckpointStore() {
  try {
    close();
  } catch (...) {  // what is not durable is run again
  }
}

const std::optional<RunRecord>& CheckpointStore::last_run() const noexcept { return impl_->found_run; }
const std::optional<BatchPlan>& CheckpointStore::last_committed() const noexcept { return impl_->image.last_committed; }
const std::vector<BatchPlan>& CheckpointStore::uncommitted() const noexcept { return impl_->image.uncommitted; }
const std::vector<NamedState>& CheckpointStore::states() const noexcept { return impl_->found_states; }
const std::vector<std::string>& CheckpointStore::warnings() const noexcept { return impl_->image.warnings; }
const std::string& CheckpointStore::directory() const noexcept { return impl_->directory; }

std::uint64_t CheckpointStore::expected_entries(std::string_view state) const noexcept {
  for (const FoldIndex::State& known : impl_->image.index.states) {
    if (known.state.name != state) continue;
    if (known.in_snapshot) return impl_->image.source.snapshot->states[*known.in_snapshot].entries;
    std::uint64_t changes = 0;
    for (const FoldIndex::Group& group : known.groups) changes += group.changes;
    return changes;
  }
  return 0;
}

void CheckpointStore::for_each_entry(std::string_view state,
                                     FunctionRef<void(KeyGroup, std::string_view, std::string_view)> visit,
                                     std::size_t parts) {
  if (impl_->running) fail_call("for_each_entry gives what an earlier run left: call it before begin_run");
  for (const FoldIndex::State& known : impl_->image.index.states) {
    if (known.state.name != state) continue;
    // In one pass over the log: the state is about to take more memory than its changes do.
    constexpr auto all = std::numeric_limits<std::size_t>::max();
    FoldSource source = impl_->image.source;
    source.checks.crc = false;  // that was done when it was opened
    const bool large = (source.snapshot ? source.snapshot->size : 0) + bytes_in(source.log) > 1024 * 1024;
    const std::size_t threads = large ? std::min<std::size_t>(impl_->threads(), parts) : 1;
    const auto first_group = [&](std::size_t thread) {
      const std::size_t part = thread * parts / threads;
      return static_cast<unsigned>((part * key_groups + parts - 1) / parts);
    };
    with_state_errors([&] {
      in_parallel(threads, [&](std::size_t thread) {
        fold_state(source, known, all, {first_group(thread), first_group(thread + 1)}, visit);
      });
    });
  }
}

void CheckpointStore::drop_uncommitted() {
  Impl& impl = *impl_;
  if (impl.running || impl.closed) fail_call("drop_uncommitted is for before begin_run");
  if (impl.pending.empty()) return;
  const std::int64_t first = impl.pending.front().time;
  const LogRecord record{FrameType::drop, first, {}};
  with_state_errors([&] { impl.plans->append({&record, 1}); });
  impl.pending.clear();
  impl.image.uncommitted.clear();
  std::erase_if(impl.plan_places, [&](const PlanPlace& place) { return place.time >= first; });
  impl.last_time = impl.durable ? std::optional{impl.durable->time} : std::nullopt;
}

void CheckpointStore::begin_run(RunRecord run) {
  Impl& impl = *impl_;
  if (impl.running || impl.closed) fail_call("begin_run is called once, before close");
  std::set<std::string_view> names;
  for (const NamedState& state : run.states) {
    if (!names.insert(state.name).second) throw ConfigError("two states have the name \"" + state.name + "\"");
  }
  names.clear();
  for (const NamedInput& input : run.inputs) {
    if (!names.insert(input.name).second) throw ConfigError("two inputs have the name \"" + input.name + "\"");
  }
  impl.run = {impl.run_number + 1, std::move(run)};
  impl.run_text = encode_run(impl.run);
  const std::int64_t stamp = stamp_of(impl.run.run.zero_time);
  impl.plans->set_preamble(FrameType::run, stamp, impl.run_text);
  const LogRecord record{FrameType::run, stamp, {impl.run_text}};
  with_state_errors([&] { impl.plans->append({&record, 1}); });
  impl.running = true;
}

void CheckpointStore::plan(const BatchPlan& plan) {
  Impl& impl = *impl_;
  if (!impl.running || impl.closed) fail_call("plan is for between begin_run and close");
  const std::int64_t time = stamp_of(plan.time);
  if (impl.last_time && time <= *impl.last_time)
    fail_call("a batch of " + to_string(plan.time) + " is planned after one of " + to_string(time_of(*impl.last_time)) +
              ", and times ascend");
  PlanRecord record;
  {
    std::unique_lock guard{impl.mutex};
    impl.report_failure(guard);
    record.witness = impl.durable;
  }
  with_state_errors([&] {
    if (impl.options.min_free_bytes > 0) {
      const std::uint64_t room = impl.fs->free_space(impl.directory);
      if (room < impl.options.min_free_bytes) {
        ErrorContext context;
        context.op = impl.directory;
        throw StateError("disk_full",
                         "the disk of the checkpoint " + impl.directory + " has " + std::to_string(room) +
                             " bytes left, and a batch is begun only with " +
                             std::to_string(impl.options.min_free_bytes) + ": free some space",
                         Retry::may_help, std::move(context));
      }
    }
    record.plan = plan;
    record.run = impl.run.number;
    const std::string text = encode_plan(record);
    const LogRecord written{FrameType::plan, time, {text}};
    const std::uint64_t before = impl.plans->position().segment;
    std::vector<LogPosition> at;
    impl.plans->append({&written, 1}, &at);
    impl.last_time = time;
    // It may begin in the segment before the one where it ends; an earlier one does no harm.
    impl.pending.push_back({time, at.front().chain, before != 0 ? before : at.front().segment});
    const std::lock_guard guard{impl.mutex};
    impl.plan_places.push_back(impl.pending.back());
    ++impl.statistics.plans;
    if (impl.writer.joinable() && impl.plans->wants_segment()) {
      impl.wants_segments = true;
      impl.work.notify_all();
    }
  });
}

void CheckpointStore::commit(Time time, std::vector<StateCommit>&& changes) {
  Impl& impl = *impl_;
  if (!impl.running || impl.closed) fail_call("commit is for between begin_run and close");
  if (impl.pending.empty() || impl.pending.front().time != stamp_of(time))
    fail_call("the batch of " + to_string(time) + " cannot be committed: " +
              (impl.pending.empty() ? std::string{"no batch is planned"}
                                    : "the next one is that of " + to_string(time_of(impl.pending.front().time))));
  Impl::Job job;
  job.time = stamp_of(time);
  job.plan_chain = impl.pending.front().chain;
  std::set<std::string_view> names;
  for (const StateCommit& commit : changes) {
    const auto& states = impl.run.run.states;
    if (std::none_of(states.begin(), states.end(), [&](const NamedState& s) { return s.name == commit.state; }))
      fail_call("the run has no state of the name \"" + commit.state + "\"");
    if (!names.insert(commit.state).second) fail_call("two changes of the state \"" + commit.state + "\"");
    job.bytes += commit.changes.size();
  }
  if (impl.options.writer == CheckpointOptions::Writer::caller) {
    job.changes = std::move(changes);
    try {
      with_state_errors([&] { impl.write({&job, 1}); });
    } catch (...) {
      changes = std::move(job.changes);
      throw;
    }
    changes = std::move(job.changes);
    impl.pending.pop_front();
    return;
  }
  std::unique_lock guard{impl.mutex};
  impl.report_failure(guard);
  if (!impl.writer.joinable()) impl.writer = std::thread{[&impl] { impl.write_loop(); }};
  impl.room.wait(guard, [&] {
    return impl.failed || impl.jobs_in_flight == 0 ||
           (impl.jobs_in_flight < impl.options.max_commits_in_flight &&
            impl.bytes_in_flight + job.bytes <= impl.options.max_bytes_in_flight);
  });
  impl.report_failure(guard);
  impl.queue.push_back(std::move(job));
  // Nothing fails from here on.
  impl.queue.back().changes = std::move(changes);
  changes = std::exchange(impl.spare, {});
  ++impl.jobs_in_flight;
  impl.bytes_in_flight += impl.queue.back().bytes;
  impl.pending.pop_front();
  guard.unlock();
  impl.work.notify_all();
}

std::optional<Time> CheckpointStore::durable_until() const {
  const std::lock_guard guard{impl_->mutex};
  if (!impl_->durable) return std::nullopt;
  return time_of(impl_->durable->time);
}

void CheckpointStore::sync() {
  Impl& impl = *impl_;
  std::unique_lock guard{impl.mutex};
  // Twice: the first failure may be that of an attempt that was under way before this call.
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (impl.failed) {
      impl.failed = false;
      impl.failure = nullptr;
      impl.work.notify_all();
    }
    impl.room.wait(guard, [&] { return impl.failed || impl.jobs_in_flight == 0; });
    if (!impl.failed) break;
  }
  impl.report_failure(guard);
}

bool CheckpointStore::maintain() {
  Impl& impl = *impl_;
  if (impl.closed) fail_call("maintain after close");
  return with_state_errors([&] {
    impl.make_segments_ready();
    {
      const std::lock_guard guard{impl.mutex};
      if (!impl.snapshot_is_due()) return false;
    }
    try {
      return impl.make_snapshot();
    } catch (...) {
      impl.note_snapshot_failure(std::current_exception());
      throw;
    }
  });
}

void CheckpointStore::take_snapshot() {
  if (impl_->closed) fail_call("take_snapshot after close");
  with_state_errors([&] { impl_->make_snapshot(); });
}

std::unique_ptr<BlockLog> CheckpointStore::open_block_log(std::string_view name, BlockLogOptions options) {
  Impl& impl = *impl_;
  if (impl.closed) fail_call("open_block_log after close");
  return with_state_errors([&] {
    return std::unique_ptr<BlockLog>(new BlockLog(std::make_unique<BlockLog::Impl>(
        impl.fs, block_log_directory(*impl.fs, impl.directory, name), impl.image.id, options, impl.options.checks)));
  });
}

void CheckpointStore::close() {
  Impl& impl = *impl_;
  if (impl.closed) return;
  std::exception_ptr error;
  try {
    sync();
  } catch (...) {
    error = std::current_exception();
  }
  impl.closed = true;
  impl.stop();
  impl.plans.reset();
  impl.commits.reset();
  impl.lock.reset();
  if (error) std::rethrow_exception(error);
}

CheckpointStore::Statistics CheckpointStore::statistics() const {
  const std::lock_guard guard{impl_->mutex};
  Statistics statistics = impl_->statistics;
  statistics.commits_in_flight = impl_->jobs_in_flight;
  statistics.bytes_in_flight = impl_->bytes_in_flight;
  return statistics;
}

}  // namespace tidemill
