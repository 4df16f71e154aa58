// A file system that leaves out what it is told to: a fault planted into a program, seen from below.
#pragma once

#include <cerrno>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tidemill/core/fs.hpp"
#include "tidemill/testing/sim_fs.hpp"

namespace tidemill_test {

using PathTest = std::function<bool(const std::string& path)>;
inline PathTest names_with(std::string part) {
  return [part = std::move(part)](const std::string& path) { return path.find(part) != std::string::npos; };
}

struct Sabotage {
  PathTest no_sync_of = nullptr;                                          // these files are never synchronised
  PathTest no_sync_directory_of = nullptr;                                // nor these directories
  std::function<void(const std::string& path)> before_sync_of = nullptr;  // is called
  std::function<void(const std::string& path)> before_read_of = nullptr;
  PathTest full_for = nullptr;  // the disk has no room for these
  PathTest delays = nullptr;    // what is moved there is moved later, when one of these was synchronised:
  PathTest until_sync_of = nullptr;
};

class SabotagedFs final : public tidemill::Fs {
 public:
  SabotagedFs(std::shared_ptr<tidemill::testing::SimFs> disk, Sabotage sabotage)
      : disk_{std::move(disk)}, sabotage_{std::move(sabotage)} {}

  std::unique_ptr<tidemill::FsFile> create(const std::string& path) override {
    if (says(sabotage_.full_for, path)) throw tidemill::FsError("create", path, ENOSPC);
    return wrap(path, disk_->create(path));
  }
  std::unique_ptr<tidemill::FsFile> open(const std::string& path) override { return wrap(path, disk_->open(path)); }
  std::unique_ptr<tidemill::FsReader> read(const std::string& path) override {
    if (sabotage_.before_read_of) sabotage_.before_read_of(path);
    return disk_->read(path);
  }
  void rename(const std::string& from, const std::string& to) override {
    if (says(sabotage_.delays, to)) {
      delayed_.emplace_back(from, to);
    } else {
      disk_->rename(from, to);
    }
  }
  bool exchange(const std::string& one, const std::string& other) override { return disk_->exchange(one, other); }
  void link(const std::string& from, const std::string& to) override { disk_->link(from, to); }
  bool remove(const std::string& path) override { return disk_->remove(path); }
  bool make_directory(const std::string& path) override { return disk_->make_directory(path); }
  bool remove_directory(const std::string& path) override { return disk_->remove_directory(path); }
  void sync_directory(const std::string& path) override {
    if (!says(sabotage_.no_sync_directory_of, path)) disk_->sync_directory(path);
  }
  bool exists(const std::string& path) override { return disk_->exists(path); }
  bool is_directory(const std::string& path) override { return disk_->is_directory(path); }
  std::optional<tidemill::FsStatus> status(const std::string& path) override { return disk_->status(path); }
  std::vector<std::string> list(const std::string& path) override { return disk_->list(path); }
  std::unique_ptr<tidemill::FsLock> lock(const std::string& path, std::string_view holder) override {
    return disk_->lock(path, holder);
  }
  std::unique_ptr<tidemill::FsLock> lock_directory(const std::string& path) override {
    return disk_->lock_directory(path);
  }
  bool is_locked(const std::string& path) override { return disk_->is_locked(path); }
  std::string resolve(const std::string& path) override { return disk_->resolve(path); }
  tidemill::FsKind kind(const std::string& path) override { return disk_->kind(path); }
  std::uint64_t free_space(const std::string& path) override { return disk_->free_space(path); }
  std::array<std::byte, 16> random_id() override { return disk_->random_id(); }

 private:
  class File final : public tidemill::FsFile {
   public:
    File(SabotagedFs& fs, std::string path, std::unique_ptr<tidemill::FsFile> file)
        : fs_{fs}, path_{std::move(path)}, file_{std::move(file)} {}
    void write_at(std::uint64_t offset, std::span<const std::byte> bytes) override { file_->write_at(offset, bytes); }
    void append(std::span<const std::byte> bytes) override { file_->append(bytes); }
    void allocate(std::uint64_t size) override { file_->allocate(size); }
    void truncate(std::uint64_t size) override { file_->truncate(size); }
    void sync_data() override {
      if (fs_.sabotage_.before_sync_of) fs_.sabotage_.before_sync_of(path_);
      if (!says(fs_.sabotage_.no_sync_of, path_)) file_->sync_data();
      fs_.synchronised(path_);
    }
    void sync() override {
      if (fs_.sabotage_.before_sync_of) fs_.sabotage_.before_sync_of(path_);
      if (!says(fs_.sabotage_.no_sync_of, path_)) file_->sync();
      fs_.synchronised(path_);
    }

   private:
    SabotagedFs& fs_;
    std::string path_;
    std::unique_ptr<tidemill::FsFile> file_;
  };

  static bool says(const PathTest& test, const std::string& path) { return test && test(path); }
  std::unique_ptr<tidemill::FsFile> wrap(const std::string& path, std::unique_ptr<tidemill::FsFile> file) {
    return std::make_unique<File>(*this, path, std::move(file));
  }
  void synchronised(const std::string& path) {
    if (!says(sabotage_.until_sync_of, path)) return;
    for (const auto& [from, to] : std::exchange(delayed_, {})) {
      disk_->rename(from, to);
      disk_->sync_directory(tidemill::detail::parent_path(to));
    }
  }

  std::shared_ptr<tidemill::testing::SimFs> disk_;
  Sabotage sabotage_;
  std::vector<std::pair<std::string, std::string>> delayed_;  // from, to
};

}  // namespace tidemill_test
