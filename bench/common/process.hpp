// What this process uses, as the kernel counts it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <time.h>
#include <unistd.h>

namespace tidemill::bench {

/// Seconds of processor time that all threads of this process have used.
inline double cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

/// Resident memory of this process in KiB.
inline std::int64_t resident_kib() {
  std::ifstream statm("/proc/self/statm");
  std::int64_t size = 0;
  std::int64_t resident = 0;
  statm >> size >> resident;
  return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/// Seconds of processor time of each living thread, by thread id.
inline std::map<std::string, double> cpu_seconds_by_thread() {
  std::map<std::string, double> seconds;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream schedstat(task.path() / "schedstat");
    std::int64_t nanoseconds = 0;
    if (schedstat >> nanoseconds) {
      seconds[task.path().filename().string()] = static_cast<double>(nanoseconds) / 1e9;
    }
  }
  return seconds;
}

}  // namespace tidemill::bench
