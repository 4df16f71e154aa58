// Checkpoints as text, for the tests of those that an earlier version of the library has written.
#pragma once

#include <sstream>
#include <string>

#include "tidemill/testing/sim_fs.hpp"

namespace tidemill_test {

/// What is in checkpoint/ but for the lock: "path size", then "offset hex" for every stretch that is not zeros.
inline std::string golden_text(const tidemill::testing::SimFs& disk) {
  static constexpr std::size_t step = 32;
  std::ostringstream text;
  for (const std::string& file : disk.files()) {
    if (!file.starts_with("checkpoint/") || file.ends_with("/LOCK")) continue;
    const std::string bytes = disk.contents(file);
    text << file << ' ' << bytes.size() << '\n';
    for (std::size_t at = 0; at < bytes.size(); at += step) {
      const std::string part = bytes.substr(at, step);
      if (part.find_first_not_of('\0') == std::string::npos) continue;
      text << at << ' ';
      for (const char c : part)
        text << "0123456789abcdef"[static_cast<unsigned char>(c) >> 4] << "0123456789abcdef"[c & 15];
      text << '\n';
    }
  }
  return text.str();
}

/// Puts on a disk what golden_text says.
inline void put_golden(tidemill::testing::SimFs& disk, const std::string& text) {
  std::string path;
  std::string bytes;
  const auto finish = [&] {
    for (std::size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1))
      disk.make_directory(path.substr(0, slash));
    if (!path.empty()) disk.set_contents(path, bytes);
  };
  std::istringstream lines{text};
  for (std::string first, second; lines >> first >> second;) {
    if (first.starts_with("checkpoint/")) {
      finish();
      path = first;
      bytes.assign(std::stoul(second), '\0');
      continue;
    }
    for (std::size_t i = 0; i < second.size(); i += 2)
      bytes.at(std::stoul(first) + i / 2) = static_cast<char>(std::stoul(second.substr(i, 2), nullptr, 16));
  }
  finish();
}

}  // namespace tidemill_test
