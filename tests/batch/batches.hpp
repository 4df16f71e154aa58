// What the tests of batches share: contexts, seeded records, and a look at the error of a user function.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tidemill/batch/batch.hpp"

namespace tidemill::testing_batches {

/// A context whose batches are worked on by four threads, when they are large enough.
inline Context four_threads() { return Context{{.app_name = "batch-test", .parallelism = 4}}; }

/// The numbers of partitions that every operator has to give the same answer with.
inline constexpr std::size_t partition_counts[] = {1, 2, 3, 8};

/// More records than the calling thread would work on alone.
inline constexpr std::size_t many = 10000;

template <class T>
std::vector<T> sorted(std::vector<T> records) {
  std::sort(records.begin(), records.end());
  return records;
}

/// `count` pairs with keys from 0 to `keys - 1`.
inline std::vector<std::pair<int, int>> random_pairs(std::size_t count, int keys, std::uint32_t seed) {
  std::mt19937 random{seed};
  std::vector<std::pair<int, int>> pairs;
  for (std::size_t i = 0; i < count; ++i) {
    const int key = static_cast<int>(random() % static_cast<std::uint32_t>(keys));
    pairs.emplace_back(key, static_cast<int>(random() % 1000));
  }
  return pairs;
}

inline std::vector<int> numbers(std::size_t count) {
  std::vector<int> all(count);
  for (std::size_t i = 0; i < count; ++i) all[i] = static_cast<int>(i);
  return all;
}

/// Runs `action`, which must fail with a UserCodeError that names the operator, the application and, when one is given,
/// the partition, and that nests what the function threw: a std::runtime_error "boom".
inline void expect_user_error(const std::function<void()>& action, const std::string& op, int partition = -1) {
  try {
    action();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const UserCodeError& error) {
    EXPECT_EQ(error.context().op, op);
    EXPECT_EQ(error.context().application, "batch-test");
    if (partition >= 0) {
      EXPECT_EQ(error.context().partition, static_cast<std::size_t>(partition));
    }
    try {
      std::rethrow_if_nested(error);
      ADD_FAILURE() << "the cause is missing";
    } catch (const std::runtime_error& cause) {
      EXPECT_STREQ(cause.what(), "boom");
    }
  }
}

/// Throws when it meets `n`.
struct BoomAt {
  int n;
  int operator()(int x) const {
    if (x == n) throw std::runtime_error{"boom"};
    return x;
  }
};

}  // namespace tidemill::testing_batches
