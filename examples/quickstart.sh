#!/usr/bin/env bash
# Installs what is missing, builds the library and the word count, and runs it for some ten seconds: the program serves
# a text to itself over loopback TCP, 20 lines a second, and prints a result each second. With arguments it is run with
# those instead: bash examples/quickstart.sh --socket localhost:9999
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. .ci/setup.sh

if (($# == 0)); then
  set -- --replay LICENSE --rate 20 --interval 1s
fi

need g++ cmake ninja-build boost
step "Configuring" cmake --preset release
step "Building the library and the word count" cmake --build --preset release --target example_word_count
step "Counting words" build/release/examples/word_count "$@"
