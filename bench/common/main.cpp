// The entry point of every benchmark program: Google Benchmark's, which also says what machine and build the figures
// come from, and which returns 1 when the contenders of a benchmark disagreed.
#include <atomic>
#include <exception>
#include <fstream>
#include <iostream>
#include <string>

#include <benchmark/benchmark.h>

#include "common/outcome.hpp"
#include "common/settings.hpp"

namespace tidemill::bench {
namespace {

std::atomic<bool> failed{false};

std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) {
      return line.substr(line.find(": ") + 2);
    }
  }
  return "unknown";
}

std::string compiler() {
#ifdef __clang__
  return __VERSION__;
#else
  return std::string("GCC ") + __VERSION__;
#endif
}

int run(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
    return 2;
  }
  benchmark::AddCustomContext("cpu", cpu_model());
  benchmark::AddCustomContext("compiler", compiler());
  benchmark::AddCustomContext("smoke", smoke() ? "yes" : "no");
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return has_failed() ? 1 : 0;
}

}  // namespace

void fail(benchmark::State& state, const std::string& why) {
  failed = true;
  state.SkipWithError(why.c_str());
}

bool has_failed() { return failed; }

}  // namespace tidemill::bench

int main(int argc, char** argv) {
  try {
    return tidemill::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << argv[0] << ": " << error.what() << '\n';
    return 2;
  }
}
