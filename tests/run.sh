#!/usr/bin/env bash
# Installs what is missing, builds everything, and runs every test. Arguments go to ctest: bash tests/run.sh -R core
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. .ci/setup.sh

need g++ cmake make ninja-build ccache pkgconf boost librdkafka-dev libgtest-dev libgmock-dev
step "Configuring" cmake --preset dev
step "Building the library, the examples and the tests" cmake --build --preset dev
step "Running every test" ctest --preset dev "$@"
