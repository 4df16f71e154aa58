#include "tidemill/core/fs.hpp"

#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace {

using tidemill::Fs;
using tidemill::FsError;

class RealFs : public testing::Test {
 protected:
  RealFs() {
    std::string pattern = (std::filesystem::temp_directory_path() / "tidemill-fs-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary directory");
    directory_ = pattern;
  }
  ~RealFs() override { std::filesystem::remove_all(directory_); }
  std::string path(const std::string& name) const { return directory_ + "/" + name; }
  static std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span{text}); }

  std::string directory_;
  std::shared_ptr<Fs> fs_ = Fs::real();
};

TEST_F(RealFs, WritesReadsRenamesAndRemoves) {
  {
    const auto file = fs_->create(path("a.tmp"));
    file->append(bytes("hello"));
    file->write_at(7, bytes("world"));
    file->sync_data();
    file->sync();
  }
  fs_->rename(path("a.tmp"), path("a"));
  fs_->link(path("a"), path("b"));
  fs_->sync_directory(directory_);
  EXPECT_EQ(fs_->read_all(path("a")), std::string("hello\0\0world", 12));
  EXPECT_THAT(fs_->list(directory_), testing::ElementsAre("a", "b"));
  EXPECT_TRUE(fs_->remove(path("b")));
  EXPECT_FALSE(fs_->remove(path("b")));
  EXPECT_FALSE(fs_->exists(path("b")));
  EXPECT_TRUE(fs_->make_directory(path("d")));
  EXPECT_FALSE(fs_->make_directory(path("d")));
  EXPECT_GT(fs_->free_space(directory_), 0U);
  EXPECT_FALSE(fs_->kind(directory_).name.empty());
}

TEST_F(RealFs, AllocatedRoomReadsAsZeros) {
  const auto file = fs_->create(path("a"));
  file->append(bytes("x"));
  file->allocate(10'000);
  EXPECT_EQ(fs_->read(path("a"))->size(), 10'000U);
  EXPECT_EQ(fs_->read_all(path("a")), "x" + std::string(9'999, '\0'));
  file->truncate(1);
  EXPECT_EQ(fs_->read_all(path("a")), "x");
}

TEST_F(RealFs, SaysWhatAFileIsThroughLinksAndWithoutWaiting) {
  using Type = tidemill::FsStatus::Type;
  fs_->create(path("file"))->append(bytes("seven b"));
  std::filesystem::create_symlink(path("file"), path("link"));
  std::filesystem::create_symlink(path("nowhere"), path("broken"));
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  const auto file = fs_->status(path("file"));
  ASSERT_TRUE(file);
  EXPECT_EQ(file->type, Type::file);
  EXPECT_EQ(file->size, 7U);
  EXPECT_EQ(file->modified,
            std::filesystem::file_time_type::clock::to_sys(std::filesystem::last_write_time(path("file")))
                .time_since_epoch());
  EXPECT_EQ(fs_->status(path("link")), file);
  EXPECT_EQ(fs_->read(path("link"))->status(), *file);
  EXPECT_EQ(fs_->status(directory_)->type, Type::directory);
  EXPECT_EQ(fs_->status(path("pipe"))->type, Type::other);
  EXPECT_EQ(fs_->read(path("pipe"))->status().type, Type::other) << "nobody writes to it";
  EXPECT_EQ(fs_->status(path("broken")), std::nullopt);
  EXPECT_EQ(fs_->status(path("missing")), std::nullopt);
  EXPECT_THROW(static_cast<void>(fs_->status(path("file/below"))), FsError);
}

TEST_F(RealFs, ErrorsSayWhatAndWhere) {
  try {
    static_cast<void>(fs_->read(path("missing")));
    FAIL();
  } catch (const FsError& error) {
    EXPECT_EQ(error.error_number(), ENOENT);
    EXPECT_EQ(error.path(), path("missing"));
    EXPECT_EQ(error.code(), "not_found");
    EXPECT_EQ(error.retry(), tidemill::Retry::is_useless);
  }
  static_cast<void>(fs_->create(path("a")));
  EXPECT_THROW(static_cast<void>(fs_->create(path("a"))), FsError);
  EXPECT_THROW(fs_->link(path("a"), path("a")), FsError);
  EXPECT_THROW(fs_->make_directory(path("a")), FsError);
  EXPECT_THROW(static_cast<void>(fs_->list(path("a"))), FsError);
  EXPECT_THROW(static_cast<void>(fs_->read_all(path("a") + "/b")), FsError);
}

TEST_F(RealFs, DescriptorsAreNotInheritedByOtherPrograms) {
  const auto file = fs_->create(path("a"));
  int found = 0;
  for (int fd = 3; fd < 256; ++fd) {
    std::error_code error;
    const auto target = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd), error);
    if (error || target != path("a")) continue;
    ++found;
    EXPECT_NE(::fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
  }
  EXPECT_EQ(found, 1);
}

TEST_F(RealFs, ALockKeepsTheSameProcessOutToo) {
  auto lock = fs_->lock(path("LOCK"), "first\n");
  ASSERT_NE(lock, nullptr);
  EXPECT_EQ(fs_->lock(path("LOCK"), "second\n"), nullptr);
  EXPECT_TRUE(fs_->is_locked(path("LOCK")));
  EXPECT_EQ(fs_->read_all(path("LOCK")), "first\n");
  lock.reset();
  EXPECT_FALSE(fs_->is_locked(path("LOCK")));
  lock = fs_->lock(path("LOCK"), "third\n");
  EXPECT_EQ(fs_->read_all(path("LOCK")), "third\n");
}

TEST_F(RealFs, DirectoriesMoveExchangeAndGo) {
  for (const char* name : {"a", "b"}) {
    EXPECT_TRUE(fs_->make_directory(path(name)));
    static_cast<void>(fs_->create(path(name + std::string{"/in "} + name)));
  }
  EXPECT_TRUE(fs_->exchange(path("a"), path("b")));
  EXPECT_THAT(fs_->list(path("a")), testing::ElementsAre("in b"));
  EXPECT_THROW(fs_->rename(path("a"), path("b")), FsError) << "it is not empty";
  fs_->rename(path("a"), path("c"));
  EXPECT_TRUE(fs_->is_directory(path("c")));
  EXPECT_FALSE(fs_->is_directory(path("c/in b")));
  EXPECT_FALSE(fs_->is_directory(path("a")));
  EXPECT_THROW(fs_->remove_directory(path("c")), FsError);
  EXPECT_TRUE(fs_->remove(path("c/in b")));
  EXPECT_TRUE(fs_->remove_directory(path("c")));
  EXPECT_FALSE(fs_->remove_directory(path("c")));
}

TEST_F(RealFs, TheLockOfADirectoryGoesWithIt) {
  EXPECT_EQ(fs_->lock_directory(path("a")), nullptr) << "there is none";
  static_cast<void>(fs_->create(path("file")));
  EXPECT_EQ(fs_->lock_directory(path("file")), nullptr);
  fs_->make_directory(path("a"));
  auto lock = fs_->lock_directory(path("a"));
  ASSERT_NE(lock, nullptr);
  EXPECT_EQ(fs_->lock_directory(path("a")), nullptr);
  fs_->rename(path("a"), path("b"));
  EXPECT_EQ(fs_->lock_directory(path("b")), nullptr);
  lock.reset();
  EXPECT_NE(fs_->lock_directory(path("b")), nullptr);
}

TEST_F(RealFs, APathIsResolvedFromTheRootAndThroughALink) {
  EXPECT_EQ(fs_->resolve(path("not there")), path("not there"));
  EXPECT_EQ(fs_->resolve("relative"), (std::filesystem::current_path() / "relative").string());
  fs_->make_directory(path("a"));
  std::filesystem::create_directory_symlink(path("a"), path("link"));
  EXPECT_EQ(fs_->resolve(path("link")), std::filesystem::canonical(path("a")).string());
}

TEST(Paths, AreJoinedAndTakenApart) {
  using tidemill::detail::join_path;
  using tidemill::detail::parent_path;
  EXPECT_EQ(join_path("/a/b", "c"), "/a/b/c");
  EXPECT_EQ(join_path("/", "c"), "/c");
  EXPECT_EQ(parent_path("/a/b"), "/a");
  EXPECT_EQ(parent_path("/a"), "/");
  EXPECT_EQ(parent_path("a"), ".");
  EXPECT_EQ(parent_path("a/b/"), "a");
}

}  // namespace
