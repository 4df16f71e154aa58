// Batches over files. A file is read when an action first needs it, and held in memory as long as the batch, because the
// records are views into it; it is not mapped, since a mapped file that somebody cuts short kills the process that reads it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tidemill/batch/batch.hpp"
#include "tidemill/core/config.hpp"

namespace tidemill::detail {

inline constexpr std::size_t unlimited_line_bytes = std::numeric_limits<std::size_t>::max();

/// Hears of each file with lines that were left out, once a batch however often that is computed: a sentence about the file, and
/// how many lines those are. It is called by the thread that runs the first action of the batch.
using LinesLeftOut = std::function<void(const std::string& complaint, std::size_t lines)>;

/// The lines of `paths`, one file after the other, in `partitions` partitions (0: as many as the context has threads) cut at
/// line ends; large files are read by several threads. CRLF and LF end a line; the last line of a file needs no end.
/// A path may be a directory: then its regular files are meant, in order of name, without those that begin with "." or "_".
/// A line of more than `max_line_bytes` bytes, its end not counted, is left out, and `left_out` hears of it unless it is null.
/// Errors: SourceError from the action, naming the path: "not_found", "permission_denied", "not_a_file", "file_changed" (cut
///         short while it was read), "io".
[[nodiscard]] TIDEMILL_API Batch<std::string_view> text_files_batch(std::shared_ptr<const Scope> scope,
                                                                    std::vector<std::filesystem::path> paths,
                                                                    std::size_t partitions = 0,
                                                                    std::size_t max_line_bytes = unlimited_line_bytes,
                                                                    LinesLeftOut left_out = nullptr);

/// The contents of `paths` in records of `record_length` bytes; otherwise as above.
/// Errors: ConfigError when `record_length` is 0; from the action those above, and SourceError "record_length" for a file
///         whose size is no multiple of it, naming file, size and length.
[[nodiscard]] TIDEMILL_API Batch<std::span<const std::byte>> binary_records_batch(
    std::shared_ptr<const Scope> scope, std::vector<std::filesystem::path> paths, std::size_t record_length,
    std::size_t partitions = 0);

}  // namespace tidemill::detail
