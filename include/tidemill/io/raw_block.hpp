// Raw blocks: records that their sender has serialised (core/codec.hpp) travel and wait as bytes, and are decoded when a
// batch runs. Nothing is decoded for a batch that asks for less.
//
// A block on the wire, version 1; the two numbers are big-endian.
//
//     u32 length       of what follows: 4 + the size of the payload
//     u32 records      how many; each takes at least one byte of the payload
//     payload          the records one after the other, as by `encode`
//
// A block without records is allowed (a sign of life) and gives nothing. Nothing says of what type the records are: sender
// and receiver must agree.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <ranges>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "tidemill/batch/batch.hpp"
#include "tidemill/core/codec.hpp"
#include "tidemill/core/config.hpp"
#include "tidemill/core/error.hpp"
#include "tidemill/io/inbox.hpp"

namespace tidemill {

namespace detail {

inline constexpr std::size_t raw_block_header_bytes = 8;

/// Writes the two numbers over the first 8 bytes of `block`. Errors: ConfigError when one of them is too large.
TIDEMILL_API void finish_raw_block(std::string& block, std::size_t records);

}  // namespace detail

/// A block as it goes over the wire: for senders. Errors: ConfigError when it does not fit into 4 GiB, those of Encoder.
template <std::ranges::sized_range Range>
  requires Encodable<std::remove_cvref_t<std::ranges::range_value_t<Range>>>
[[nodiscard]] std::string encode_raw_block(Range&& records) {
  std::string block(detail::raw_block_header_bytes, '\0');
  for (const auto& record : records) encode_to(block, record);
  detail::finish_raw_block(block, static_cast<std::size_t>(std::ranges::size(records)));
  return block;
}

namespace detail {

/// Where records begin in the payload of a block that has been cut: as far as it is known. Shared by the pieces.
class TIDEMILL_API RecordMarks {
 public:
  struct Mark {
    std::size_t record = 0;
    std::size_t offset = 0;
  };
  /// The last mark at or before `record`.
  [[nodiscard]] Mark before(std::size_t record) const;
  void add(Mark mark);

 private:
  mutable std::mutex mutex_;
  std::map<std::size_t, std::size_t> offsets_;  // by record
};

/// Records `first` … `first + records - 1` of a payload, undecoded.
struct RawBlock {
  std::span<const std::byte> payload;
  std::size_t records = 0;
  std::size_t first = 0;
  bool ends_payload = true;            ///< no record follows them
  std::size_t charged_bytes = 0;       ///< its share of the payload
  std::uint64_t position = 0;          ///< of the block in the bytes of its connection
  std::shared_ptr<const void> owner;   ///< keeps the payload alive; shared by all blocks of a buffer
  std::shared_ptr<RecordMarks> marks;  ///< shared by the pieces of a block; null when it was not cut
};

template <>
struct BlockTraits<RawBlock> {
  static std::size_t records(const RawBlock& block) noexcept { return block.records; }
  static std::size_t bytes(const RawBlock& block) noexcept { return block.charged_bytes + sizeof(RawBlock); }
  [[nodiscard]] TIDEMILL_API static std::vector<RawBlock> pieces(RawBlock block, std::size_t first, std::size_t each);

  static constexpr bool can_be_logged = true;
  TIDEMILL_API static void encode(const RawBlock& block, std::string& out);
  [[nodiscard]] TIDEMILL_API static RawBlock decode(const std::string& bytes);
  /// For a block whose records nobody has named: BlockInput::records_are.
  [[nodiscard]] static std::string layout() { return "bytes"; }
};

/// Blocks in at most `partitions` runs of about the same size, in order.
[[nodiscard]] TIDEMILL_API std::vector<std::vector<RawBlock>> spread_raw_blocks(std::vector<RawBlock> blocks,
                                                                                std::size_t partitions);

/// Rethrows the exception in flight, a StateError of the codec, as SourceError "malformed_block".
[[noreturn]] TIDEMILL_API void fail_raw_block(const Scope& scope, const std::string& source, const RawBlock& block,
                                              const StateError& error);

/// Decodes anew in each run, and keeps nothing but the bytes.
template <class T>
class RawBlocksNode final : public BatchNode<T> {
 public:
  RawBlocksNode(std::shared_ptr<const Scope> scope, std::vector<RawBlock> blocks, std::size_t partitions,
                std::string source)
      : BatchNode<T>{std::move(scope)}, source_{std::move(source)} {
    for (const RawBlock& block : blocks) records_ += block.records;
    parts_ = spread_raw_blocks(std::move(blocks), partitions);
  }
  [[nodiscard]] std::size_t partitions() const override { return parts_.size(); }
  void prepare() const override {}
  [[nodiscard]] std::size_t size_hint() const override { return records_; }

  void run(std::size_t partition, ChunkSink<T> sink) const override {
    std::vector<T> chunk;
    chunk.reserve(chunk_records);
    for (const RawBlock& block : parts_[partition]) {
      Walk walk{block};
      for (std::size_t i = 0; i < block.records; ++i) {
        try {
          chunk.push_back(walk.next());
        } catch (const StateError& error) {
          fail_raw_block(*this->scope(), source_, block, error);
        }
        if (chunk.size() < chunk_records) continue;
        if (!sink(chunk)) return;
        chunk.clear();
      }
      try {
        walk.end();
      } catch (const StateError& error) {
        fail_raw_block(*this->scope(), source_, block, error);
      }
    }
    if (!chunk.empty()) sink(chunk);
  }

 private:
  // The records of one block.
  class Walk {
   public:
    explicit Walk(const RawBlock& block)
        : block_{block}, mark_{block.marks ? block.marks->before(block.first) : RecordMarks::Mark{}} {}
    [[nodiscard]] T next() {
      for (; mark_.record < block_.first; ++mark_.record) static_cast<void>(from_.template value<T>());
      return from_.template value<T>();
    }
    void end() const {
      if (block_.ends_payload) {
        from_.expect_end();
      } else {
        block_.marks->add({block_.first + block_.records, mark_.offset + from_.offset()});
      }
    }

   private:
    const RawBlock& block_;
    RecordMarks::Mark mark_;
    Decoder from_{block_.payload.subspan(mark_.offset)};
  };

  std::string source_;
  std::size_t records_ = 0;
  std::vector<std::vector<RawBlock>> parts_;
};

/// The records of `blocks`, in order, in at most `partitions` partitions (0: as many as the context has threads). `source`
/// names where they came from, for errors.
/// Errors: SourceError "malformed_block" from the action, naming source, block, offset, expected and found.
template <class T>
[[nodiscard]] Batch<T> raw_blocks_batch(std::shared_ptr<const Scope> scope, std::vector<RawBlock> blocks,
                                        std::size_t partitions = 0, std::string source = "raw socket") {
  if (partitions == 0) partitions = scope->runtime->executor->parallelism();
  return Batch<T>{
      std::make_shared<const RawBlocksNode<T>>(std::move(scope), std::move(blocks), partitions, std::move(source))};
}

}  // namespace detail
}  // namespace tidemill
