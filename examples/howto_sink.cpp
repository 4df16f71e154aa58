// Sinks: one transaction a batch, and one connection a partition. See docs/howto/write-a-sink.md.
#include <chrono>
#include <cstddef>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <tidemill/tidemill.hpp>

using namespace std::chrono_literals;
using tidemill::Batch;
using tidemill::Time;

using Count = std::pair<std::string, long>;

// Stands for a database: rows under a key, and connections that can break.
class Database {
 public:
  using Key = std::pair<Time, std::string>;

  void upsert(const Key& key, long value) {
    const std::scoped_lock lock{mutex_};
    rows_[key] = value;
  }
  // Adds to the totals, and notes the batch, in one transaction. False when the batch is in there already.
  bool add_once(Time batch, const std::vector<Count>& counts) {
    const std::scoped_lock lock{mutex_};
    if (!batches_.insert(batch).second) return false;
    for (const auto& [word, count] : counts) totals_[word] += count;
    return true;
  }
  // The next `failures` connections will be refused.
  void refuse(int failures) { failures_ = failures; }
  [[nodiscard]] bool accepts() {
    const std::scoped_lock lock{mutex_};
    return failures_ == 0 || failures_-- == 0;
  }

  [[nodiscard]] const std::map<Key, long>& rows() const { return rows_; }
  [[nodiscard]] const std::map<std::string, long>& totals() const { return totals_; }

 private:
  std::mutex mutex_;  // guards what follows
  std::map<Key, long> rows_;
  std::set<Time> batches_;
  std::map<std::string, long> totals_;
  int failures_ = 0;
};

class Connection {
 public:
  explicit Connection(Database& database) : database_{database} {
    if (!database.accepts())
      throw tidemill::SinkError{"refused", "the database refused the connection", tidemill::Retry::may_help};
  }
  void upsert(const Database::Key& key, long value) { database_.upsert(key, value); }

 private:
  Database& database_;
};

// [retry]
// Whether the failure of a user function was the world's, and doing the same again may succeed.
bool is_transient(const tidemill::UserCodeError& error) {
  try {
    error.rethrow_nested();  // what the function threw
  } catch (const tidemill::SinkError& cause) {
    return cause.retry() == tidemill::Retry::may_help;
  } catch (...) {
    return false;
  }
}

// A batch never changes, so writing it may be tried again.
template <class Write>
void with_retries(int attempts, const Write& write) {
  for (int attempt = 1;; ++attempt) {
    try {
      return write();
    } catch (const tidemill::UserCodeError& error) {
      if (attempt == attempts || !is_transient(error)) throw;
    }
  }
}
// [/retry]

// [partitions]
// Rows under (batch time, word): writing them twice changes nothing.
void write_rows(Database& database, const tidemill::DStream<Count>& counts) {
  counts.foreach_batch(
      [&database](const Batch<Count>& batch, Time time) {
        with_retries(3, [&] {
          batch.foreach_partition([&](std::span<const Count> rows) {  // by several threads at a time
            if (rows.empty()) return;                                 // no connection for nothing
            Connection connection{database};
            for (const auto& [word, count] : rows) connection.upsert({time, word}, count);
          });
        });
      },
      "write_rows");
}
// [/partitions]

// [once]
// Sums cannot be added twice, so the batch time is stored along with them, in the same transaction.
void add_to_totals(Database& database, const tidemill::DStream<Count>& counts) {
  counts.foreach_batch([&database](const Batch<Count>& batch, Time time) { database.add_once(time, batch.collect()); },
                       "add_to_totals");
}
// [/once]

// [transactional]
// The writer of a store that keeps, for each id, who writes and which batch was committed last.
class Journal final : public tidemill::TransactionalSink {
 public:
  // What outlives the program.
  struct Store {
    struct Writer {
      int epoch = 0;  // which of those that were opened may write: the last
      std::optional<Time> last_committed;
    };
    std::map<std::string, Writer> writers;
    std::vector<Count> rows;
  };

  explicit Journal(Store& store) : store_{store} {}
  std::string name() const override { return "journal"; }
  void open(const tidemill::SinkSession& session) override {
    id_ = session.id;
    epoch_ = ++store_.writers[id_].epoch;
  }
  std::optional<Time> last_committed() override { return writer().last_committed; }
  void begin(Time) override { open_.clear(); }
  void write(std::span<const Count> rows) {  // by several threads at a time
    const std::scoped_lock lock{mutex_};
    open_.insert(open_.end(), rows.begin(), rows.end());
  }
  void commit(const tidemill::SinkCommit& commit) override {  // in a database: one transaction
    Store::Writer& writer = this->writer();
    store_.rows.insert(store_.rows.end(), open_.begin(), open_.end());
    writer.last_committed = commit.batch_time;
  }
  void roll_back() noexcept override { open_.clear(); }
  void close() noexcept override {}

 private:
  Store::Writer& writer() {
    Store::Writer& writer = store_.writers[id_];
    if (writer.epoch != epoch_)
      throw tidemill::SinkError{"fenced", "another program writes the journal of " + id_, tidemill::Retry::is_useless};
    return writer;
  }

  Store& store_;
  std::string id_;
  int epoch_ = 0;
  std::mutex mutex_;  // guards open_ while partitions are written
  std::vector<Count> open_;
};
// [/transactional]

void write_journals(Journal::Store& all, Journal::Store& frequent, const tidemill::DStream<Count>& counts,
                    tidemill::StreamingContext& ssc) {
  counts.save_to(std::make_shared<Journal>(all));
  // [transaction]
  auto journal = ssc.add_sink(std::make_shared<Journal>(frequent), "frequent");
  counts.foreach_batch([journal](const Batch<Count>& batch, Time time) {
    journal.write(batch.filter([](const Count& count) { return count.second > 1; }), time);
  });
  // [/transaction]
}

// [policy]
// What a failed batch means is the program's decision. This one reports it and goes on.
class ReportsFailures final : public tidemill::StreamingListener {
 public:
  void on_batch_completed(const tidemill::BatchInfo& batch) override {
    for (const tidemill::OutputOperationInfo& output : batch.outputs) {
      if (output.failure_reason) std::cout << output.name << " failed: " << *output.failure_reason << '\n';
    }
  }
};
// [/policy]

int main() {
  const auto clock = std::make_shared<tidemill::ManualClock>();
  tidemill::Context context{{.app_name = "sink", .parallelism = 1, .clock = clock}};
  tidemill::StreamingContext ssc{context, 1s};
  const auto words = std::make_shared<tidemill::BatchQueue<std::string>>();

  Database database;
  Journal::Store journal;
  Journal::Store frequent;
  tidemill::DStream<Count> counts = ssc.queue_stream(words)
                                        .map([](const std::string& word) {
                                          return Count{word, 1};
                                        })
                                        .reduce_by_key(std::plus<>{});
  write_rows(database, counts);
  add_to_totals(database, counts);
  write_journals(journal, frequent, counts, ssc);
  ssc.add_listener(std::make_shared<ReportsFailures>());

  ssc.start(tidemill::Drive::by_host);
  const auto run_batch = [&](std::vector<std::string> batch) {
    words->push(std::move(batch));
    clock->advance(1s);
    ssc.step();
  };
  run_batch({"ebb", "flow", "ebb"});
  database.refuse(2);  // two attempts fail, the third succeeds
  run_batch({"flow"});
  database.refuse(3);  // all three fail: the batch has failed, and the context runs on
  run_batch({"flow"});
  run_batch({"ebb"});
  ssc.stop();

  for (const auto& [key, count] : database.rows())
    std::cout << tidemill::to_string(key.first) << "  " << key.second << ' ' << count << '\n';
  for (const auto& [word, count] : database.totals()) std::cout << word << ' ' << count << " in all\n";
  std::cout << journal.rows.size() << " rows in the journal, " << frequent.rows.size() << " of them frequent\n";
}
