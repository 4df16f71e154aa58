// A benchmark whose contenders disagree has no figures, and its program ends with status 1.
#pragma once

#include <string>

#include <benchmark/benchmark.h>

namespace tidemill::bench {

/// Withdraws the figures of this benchmark and lets the program return 1.
void fail(benchmark::State& state, const std::string& why);

/// Whether fail() was called by any benchmark of this program.
bool has_failed();

}  // namespace tidemill::bench
