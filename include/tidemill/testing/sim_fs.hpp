// A file system in memory that fails as told: for tests of what survives what. It keeps apart what a program wrote and what
// would still be there after the power went, and it is deterministic: the same seed, calls and faults give the same bytes.
//
//     auto disk = std::make_shared<tidemill::testing::SimFs>(seed);
//     disk->fail_at(17, SimFault::power_loss);                    // at the 17th durable call from now
//     try { run_program(disk); } catch (const tidemill::testing::SimCrash&) {}
//     disk->restart();                                            // what is left is what a disk would have
//     run_program(disk);                                          // recovers, or there is a bug
//
// What it models, all of it against the program:
//   - Bytes are durable after sync() or sync_data() of the file. Of what is not, a loss of power keeps a random part: whole
//     sectors of 512 bytes, or blocks of 4096, in any order; the others keep what they had before.
//   - A name is durable after sync_directory(). Of names that were given or taken since, a loss of power undoes some. A
//     rename or an exchange happens whole or not at all.
//   - A process that is killed loses nothing that it wrote. If that happens during a write, some first part was written.
//   - A sync that fails loses the bytes for good, though they can still be read until the power goes, and the next sync of the
//     same file succeeds (what Linux does).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tidemill/core/config.hpp"
#include "tidemill/core/fs.hpp"
#include "tidemill/core/time.hpp"

namespace tidemill::testing {

/// Thrown out of the call at which the simulated process or machine stops, and out of all later ones until restart(). It is no
/// std::exception, so that nothing that handles errors takes it for one.
struct TIDEMILL_API SimCrash {};

enum class SimFault {
  none,
  kill,        // the process ends before the call, or in the middle of a write
  power_loss,  // the same, and the power goes
  io_error,    // EIO; nothing was done, of a write perhaps a part
  disk_full,   // ENOSPC, from calls that may need room
  sync_lost,   // EIO from a sync, which drops the bytes; other calls are not affected
};

/// Threads: any number at once; deterministic with one.
class TIDEMILL_API SimFs final : public Fs {
 public:
  explicit SimFs(std::uint64_t seed = 0);
  ~SimFs() override;

  /// Another disk with the same contents, durable or not, without faults and locks. Chance goes on from `seed`.
  [[nodiscard]] std::shared_ptr<SimFs> copy(std::uint64_t seed) const;

  // --- Faults ---

  /// At the `call`th durable call from now (1 is the next), or at the first one after it that can fail so; once, or from then on.
  void fail_at(std::uint64_t call, SimFault fault, bool for_ever = false);
  /// At the `call`th read from now: EIO.
  void fail_read_at(std::uint64_t call, bool for_ever = false);
  void clear_faults();
  /// Whether the fault of fail_at has happened.
  [[nodiscard]] bool fault_happened() const;

  /// Ends the process now; calls throw SimCrash until restart().
  void kill();
  void lose_power();
  /// The machine or the process starts again: locks are free, files that were open stay dead, the faults are cleared.
  void restart();

  /// Calls so far that change something or make it durable.
  [[nodiscard]] std::uint64_t durable_calls() const;
  /// A checksum over all calls, with their arguments, since the beginning: equal for equal runs.
  [[nodiscard]] std::uint64_t trace() const;
  /// What the durable calls were, in words: "sync_data checkpoint/plan-0000000001.log".
  void record_calls(bool on);
  [[nodiscard]] const std::vector<std::string>& calls() const;

  /// Calls the first at the beginning of each call of the program and the second at its end: for tests that let allocations of
  /// the program fail, but not those of a disk. Neither may use the disk, or throw.
  void on_calls(std::function<void()> begin, std::function<void()> end);

  void set_free_space(std::uint64_t bytes);
  void set_kind(FsKind kind);
  /// When files are modified from now on; the epoch until the first call.
  void set_time(Time now);

  // --- The disk from outside, for damage ---

  /// All files, by path.
  [[nodiscard]] std::vector<std::string> files() const;
  [[nodiscard]] std::string contents(const std::string& path) const;
  /// Replaces or makes a file, durably.
  void set_contents(const std::string& path, std::string bytes);
  void erase(const std::string& path);

  // --- Fs ---

  std::unique_ptr<FsFile> create(const std::string& path) override;
  std::unique_ptr<FsFile> open(const std::string& path) override;
  std::unique_ptr<FsReader> read(const std::string& path) override;
  void rename(const std::string& from, const std::string& to) override;
  bool exchange(const std::string& one, const std::string& other) override;
  void link(const std::string& from, const std::string& to) override;
  bool remove(const std::string& path) override;
  bool make_directory(const std::string& path) override;
  bool remove_directory(const std::string& path) override;
  void sync_directory(const std::string& path) override;
  bool exists(const std::string& path) override;
  bool is_directory(const std::string& path) override;
  std::optional<FsStatus> status(const std::string& path) override;
  std::vector<std::string> list(const std::string& path) override;
  std::unique_ptr<FsLock> lock(const std::string& path, std::string_view holder) override;
  std::unique_ptr<FsLock> lock_directory(const std::string& path) override;
  bool is_locked(const std::string& path) override;
  std::string resolve(const std::string& path) override;
  FsKind kind(const std::string& path) override;
  std::uint64_t free_space(const std::string& path) override;
  std::array<std::byte, 16> random_id() override;

  struct Impl;  // shared with the files, which may outlive it

 private:
  explicit SimFs(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace tidemill::testing
