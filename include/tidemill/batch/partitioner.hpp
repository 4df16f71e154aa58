// Which partition a key belongs to: by hash, by range, or by the user's own rule.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <typeinfo>
#include <utility>
#include <vector>

#include "tidemill/core/config.hpp"
#include "tidemill/core/error.hpp"
#include "tidemill/core/hash.hpp"

namespace tidemill {

/// Assigns keys to partitions. Two batches that were partitioned by equal partitioners have equal keys in partitions of
/// the same number, so joining or reducing them moves no record.
/// Threads: immutable.
class TIDEMILL_API AnyPartitioner {
 public:
  virtual ~AnyPartitioner();
  [[nodiscard]] virtual std::size_t partitions() const noexcept = 0;
  /// Whether both assign every key alike. Identity unless overridden.
  [[nodiscard]] virtual bool equals(const AnyPartitioner& other) const noexcept { return this == &other; }
};

/// Shared by all batches that were partitioned by it; null when it is not known how a batch was partitioned.
using PartitionerRef = std::shared_ptr<const AnyPartitioner>;

/// A partitioner of keys of type K. Derive from it for a rule of your own, or use `partition_by_function`.
template <class K>
class TIDEMILL_API Partitioner : public AnyPartitioner {
 public:
  /// A number below `partitions()`.
  [[nodiscard]] virtual std::size_t partition_of(const K& key) const = 0;
};

namespace detail {

/// Keys belong to one of 256 groups, and groups to partitions, so that state can move when the number of partitions
/// does.
inline constexpr std::size_t key_groups = 256;

/// The partition of a key with this tag (the low 32 bits of its hash, never 0). The top byte is the key group; more
/// than 256 partitions divide the groups further.
[[nodiscard]] TIDEMILL_INLINE constexpr std::size_t partition_of_tag(std::uint32_t tag,
                                                                     std::size_t partitions) noexcept {
  if (partitions <= key_groups) return ((tag >> 24) * partitions) >> 8;
  return static_cast<std::size_t>((std::uint64_t{tag} * partitions) >> 32);
}

/// Far more than are of use; above it somebody has miscounted.
inline constexpr std::size_t most_partitions = 1'000'000;

/// Errors: ConfigError unless 1 <= partitions <= most_partitions.
TIDEMILL_API void check_partitions(std::size_t partitions);
[[noreturn]] TIDEMILL_API void throw_partition_out_of_range(std::size_t partition, std::size_t partitions);
[[noreturn]] TIDEMILL_API void throw_wrong_partitioner(const char* op);

/// The partition of a key by a partitioner that may be the user's: what it throws is labelled, what it answers is
/// checked.
template <class P, class K>
[[nodiscard]] std::size_t ask_partitioner(const char* op, const P& partitioner, const K& key) {
  std::size_t partition = 0;
  try {
    partition = partitioner.partition_of(key);
  } catch (const Error&) {
    throw;
  } catch (...) {
    throw_user_failure(op);
  }
  if (partition >= partitioner.partitions()) throw_partition_out_of_range(partition, partitioner.partitions());
  return partition;
}

}  // namespace detail

/// How a result is to be cut into partitions: into so many, by the hash of the key, or as a partitioner says.
/// 0 leaves it to the operator: the partitioner that its input has already, or as many as the context's parallelism.
class Partitioning {
 public:
  Partitioning(std::size_t partitions = 0)
      : partitions_{partitions} {}  // NOLINT(google-explicit-constructor): a number
  template <class P>
    requires std::derived_from<P, AnyPartitioner>
  Partitioning(std::shared_ptr<P> partitioner)  // NOLINT(google-explicit-constructor): says the same in more words
      : partitioner_{std::move(partitioner)} {}

  [[nodiscard]] std::size_t partitions() const noexcept {
    return partitioner_ ? partitioner_->partitions() : partitions_;
  }
  /// Null when only a number was given.
  [[nodiscard]] const PartitionerRef& partitioner() const noexcept { return partitioner_; }

 private:
  std::size_t partitions_ = 0;
  PartitionerRef partitioner_;
};

/// By the hash of the key. All hash partitioners with the same number of partitions are equal.
/// Source: Spark `HashPartitioner`.
template <class K>
class TIDEMILL_API HashPartitioner final : public Partitioner<K> {
 public:
  /// Errors: ConfigError unless there is at least one, and at most a million.
  explicit HashPartitioner(std::size_t partitions) : partitions_{partitions} { detail::check_partitions(partitions); }
  [[nodiscard]] std::size_t partitions() const noexcept override { return partitions_; }
  [[nodiscard]] std::size_t partition_of(const K& key) const override {
    return detail::partition_of_tag(detail::tag_of_hash(hash_of(key)), partitions_);
  }
  [[nodiscard]] bool equals(const AnyPartitioner& other) const noexcept override {
    const auto* hash = dynamic_cast<const HashPartitioner*>(&other);
    return hash != nullptr && hash->partitions_ == partitions_;
  }

 private:
  std::size_t partitions_;
};

/// By ranges: keys up to `upper_bounds[i]`, inclusive, belong to partition i, greater ones to the last.
/// Source: Spark `RangePartitioner` (there the bounds come from a sample; `sort_by` makes them so here too).
template <class K, class Less = std::less<>>
class RangePartitioner final : public Partitioner<K> {
 public:
  explicit RangePartitioner(std::vector<K> upper_bounds, Less less = {})
      : bounds_{std::move(upper_bounds)}, less_{std::move(less)} {}
  [[nodiscard]] std::size_t partitions() const noexcept override { return bounds_.size() + 1; }
  [[nodiscard]] std::size_t partition_of(const K& key) const override {
    return static_cast<std::size_t>(std::lower_bound(bounds_.begin(), bounds_.end(), key, less_) - bounds_.begin());
  }

 private:
  std::vector<K> bounds_;
  Less less_;
};

/// By the user's function: `assign(key)` gives the number of the partition.
/// Errors: an answer of `partitions` or more fails the action with a PlanError that names it.
template <class K, class F>
[[nodiscard]] std::shared_ptr<const Partitioner<K>> partition_by_function(std::size_t partitions, F assign) {
  class Custom final : public Partitioner<K> {
   public:
    Custom(std::size_t n, F f) : partitions_{n}, assign_{std::move(f)} { detail::check_partitions(n); }
    [[nodiscard]] std::size_t partitions() const noexcept override { return partitions_; }
    [[nodiscard]] std::size_t partition_of(const K& key) const override {
      const auto p = static_cast<std::size_t>(assign_(key));
      if (p >= partitions_) detail::throw_partition_out_of_range(p, partitions_);
      return p;
    }

   private:
    std::size_t partitions_;
    F assign_;
  };
  return std::make_shared<Custom>(partitions, std::move(assign));
}

}  // namespace tidemill
