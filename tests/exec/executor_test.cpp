// The worker pool, and spreading partitions over it.
#include "tidemill/exec/executor.hpp"

#include <atomic>
#include <latch>
#include <mutex>
#include <pthread.h>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tidemill/core/error.hpp"

namespace tidemill {
namespace {

TEST(ForEachPartition, CallsEachIndexOnce) {
  for (const std::size_t threads : {1u, 2u, 4u, 9u}) {
    WorkerPool pool{"test", threads};
    for (const std::size_t count : {0u, 1u, 2u, 5u, 1000u}) {
      std::vector<std::atomic<int>> calls(count);
      for_each_partition(pool, count, Spread::over_workers, [&](std::size_t i) { ++calls[i]; });
      for (const auto& c : calls) EXPECT_EQ(c, 1);
    }
  }
}

TEST(ForEachPartition, StaysOnTheCallingThreadAndInOrderWhenAskedTo) {
  WorkerPool pool{"test", 4};
  std::vector<std::size_t> order;
  const auto me = std::this_thread::get_id();
  for_each_partition(pool, 5, Spread::inline_only, [&](std::size_t i) {
    EXPECT_EQ(std::this_thread::get_id(), me);
    order.push_back(i);
  });
  EXPECT_EQ(order, (std::vector<std::size_t>{0, 1, 2, 3, 4}));
}

TEST(ForEachPartition, RethrowsWhatTheLowestIndexThrewAfterAllHaveEnded) {
  WorkerPool pool{"test", 4};
  for (const Spread spread : {Spread::inline_only, Spread::over_workers}) {
    for (int round = 0; round < 50; ++round) {
      std::atomic<int> ended = 0;
      try {
        for_each_partition(pool, 20, spread, [&](std::size_t i) {
          ++ended;
          if (i % 3 == 2) throw std::runtime_error{std::to_string(i)};
        });
        ADD_FAILURE() << "nothing was thrown";
      } catch (const std::runtime_error& error) {
        EXPECT_STREQ(error.what(), "2");
      }
      EXPECT_EQ(ended, 20);
    }
  }
}

TEST(ForEachPartition, MayBeNested) {
  WorkerPool pool{"test", 3};
  std::atomic<int> calls = 0;
  for_each_partition(pool, 8, Spread::over_workers, [&](std::size_t) {
    for_each_partition(pool, 8, Spread::over_workers, [&](std::size_t) { ++calls; });
  });
  EXPECT_EQ(calls, 64);
}

TEST(ForEachPartition, ServesSeveralCallersAtOnce) {
  WorkerPool pool{"test", 4};
  std::atomic<long> sum = 0;
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        for_each_partition(pool, 6, Spread::over_workers, [&](std::size_t i) { sum += static_cast<long>(i); });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sum, 4 * 200 * 15);
}

// Takes offers and never runs them, as a host's executor that has stopped.
struct Stopped final : Executor {
  [[nodiscard]] std::size_t parallelism() const noexcept override { return 4; }
  void offer(std::function<void()> task) override { never.push_back(std::move(task)); }
  std::vector<std::function<void()>> never;
};

TEST(ForEachPartition, DoesTheWorkItselfWhenNobodyHelps) {
  Stopped stopped;
  int calls = 0;
  for_each_partition(stopped, 10, Spread::over_workers, [&](std::size_t) { ++calls; });
  EXPECT_EQ(calls, 10);
  for (const auto& late : stopped.never) late();  // helpers that come too late find nothing to do
  EXPECT_EQ(calls, 10);
}

// Has no memory to take an offer.
struct Exhausted final : Executor {
  explicit Exhausted(std::size_t offers) : left{offers} {}
  [[nodiscard]] std::size_t parallelism() const noexcept override { return 4; }
  void offer(std::function<void()> task) override {
    if (left == 0) throw std::bad_alloc{};
    --left;
    pool.offer(std::move(task));
  }
  std::size_t left;
  WorkerPool pool{"test", 3};
};

TEST(ForEachPartition, LetsNoTaskOutliveItsCallWhenAnOfferFails) {
  for (std::size_t offers = 0; offers < 3; ++offers) {
    Exhausted executor{offers};
    const auto calls = std::make_unique<std::atomic<int>>(0);
    for_each_partition(executor, 64, Spread::over_workers, [&](std::size_t) { ++*calls; });
    EXPECT_EQ(*calls, 64);
  }
}

TEST(WorkerPool, StartsItsThreadsAgainAfterRelease) {
  WorkerPool pool{"test", 3};
  for (int round = 0; round < 20; ++round) {
    pool.retain();
    std::atomic<int> calls = 0;
    for_each_partition(pool, 16, Spread::over_workers, [&](std::size_t) { ++calls; });
    EXPECT_EQ(calls, 16);
    pool.release();
  }
}

TEST(WorkerPool, NamesItsThreadsAfterThePoolAndCountsThem) {
  const auto names_of = [](const std::string& pool_name) {
    std::mutex mutex;
    std::set<std::string> names;
    std::latch both{2};  // so that neither thread takes both tasks
    std::latch done{2};
    WorkerPool pool{pool_name, 3};  // ends before what its tasks use
    for (int i = 0; i < 2; ++i) {
      pool.offer([&] {
        both.arrive_and_wait();
        char name[16] = {};
        pthread_getname_np(pthread_self(), name, sizeof name);
        {
          const std::scoped_lock lock{mutex};
          names.insert(name);
        }
        done.count_down();
      });
    }
    done.wait();
    return names;
  };
  EXPECT_EQ(names_of("orders"), (std::set<std::string>{"orders-1", "orders-2"}));
  EXPECT_EQ(names_of("a name that is long"), (std::set<std::string>{"a name that i-1", "a name that i-2"}))
      << "the kernel keeps 15 bytes: the number has to be among them";
}

TEST(WorkerPool, RefusesAnImpossibleParallelism) {
  EXPECT_THROW((WorkerPool{"test", 0}), ConfigError);
  EXPECT_THROW((WorkerPool{"test", 1025}), ConfigError);
  EXPECT_EQ((WorkerPool{"test", 1}).parallelism(), 1u);
}

}  // namespace
}  // namespace tidemill
