// Feeds arbitrary bytes to the reader of object files. Every outcome is a number of records and the end, or SourceError.
// A file that is read to its end without an error is one that the writer could have written: it holds the mark, the
// versions and the right checksums. Built and run like codec_fuzz.cpp.
#include <cstddef>
#include <cstdint>
#include <fcntl.h>
#include <optional>
#include <span>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "tidemill/core/codec.hpp"
#include "tidemill/core/crc32c.hpp"
#include "tidemill/core/error.hpp"
#include "tidemill/core/file_output.hpp"

namespace {

void append_checksum(std::string& bytes, std::size_t begin) {
  tidemill::encode_to(bytes, tidemill::crc32c(std::as_bytes(std::span{bytes}).subspan(begin)));
}

// A file around `records`, with right checksums, so that what lies behind them is reached too.
std::string file_around(const std::string& records, std::uint32_t count) {
  std::string bytes{"TMOBJ1\n\0\x01\0\x01\0", 12};
  append_checksum(bytes, 0);
  for (const auto& [chunk, chunk_records] :
       {std::pair{records, count}, std::pair{tidemill::encode(std::uint64_t{count}), std::uint32_t{0}}}) {
    std::string header = tidemill::encode(static_cast<std::uint32_t>(chunk.size()));
    tidemill::encode_to(header, chunk_records);
    const std::string covered = header + chunk;
    bytes += header + tidemill::encode(tidemill::crc32c(std::as_bytes(std::span{covered}))) + chunk;
  }
  return bytes;
}

template <class T>
void read_all(const std::string& path) {
  try {
    tidemill::ObjectFileReader reader{path};
    while (reader.next<T>()) {
    }
  } catch (const tidemill::SourceError&) {  // what damaged files are for
  }
}

// A file in memory, so that a run does not depend on a disk.
void check(const void* data, std::size_t size) {
  const int file = ::memfd_create("object_file_fuzz", MFD_CLOEXEC);
  if (file < 0) __builtin_trap();
  if (::write(file, data, size) != static_cast<ssize_t>(size)) __builtin_trap();
  const std::string path = "/proc/self/fd/" + std::to_string(file);
  read_all<std::string>(path);
  read_all<std::pair<std::uint8_t, std::vector<std::optional<std::string>>>>(path);
  ::close(file);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  check(data, size);
  const std::string records{reinterpret_cast<const char*>(data), size};
  const std::string file = file_around(records, size > 0 ? data[0] : 0);
  check(file.data(), file.size());
  return 0;
}

#ifndef TIDEMILL_LIBFUZZER
#include "random_inputs.hpp"

int main(int count, char** arguments) {
  const std::string good =
      file_around(tidemill::encode(std::string{"tide"}) + tidemill::encode(std::string{"mill"}), 2);
  return tidemill_fuzz::run_random_inputs(count, arguments, good, LLVMFuzzerTestOneInput);
}
#endif
