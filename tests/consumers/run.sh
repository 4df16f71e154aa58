#!/usr/bin/env bash
# run.sh install <kind>                  installs the library of the build tree, then moves what was installed
# run.sh find_package|pkg_config <kind>  builds and runs the outside project of that name against the moved package
# run.sh add_subdirectory                builds and runs a project that adds the source tree, for both kinds at once
# Called by CTest, which gives both trees, the compiler and the tools in the environment.
set -euo pipefail

here=$TIDEMILL_SOURCE_DIR/tests/consumers
work=$TIDEMILL_BUILD_DIR/tests/consumers
way=$1
kind=${2:-both}
prefix=$work/moved_$kind
folder=$work/${way}_$kind
ccache=$(command -v ccache || true)

fail() { echo "consumers: $*" >&2; exit 1; }

expect_output_of() {
  local said
  said=$("$1") || fail "$1 ended with status $?"
  [[ $said == $'a 2\nb 1' ]] || fail "$1 printed '$said'"
}

# check_exports <library>: it shows others what is declared for them, and nothing else of its own.
check_exports() {
  local all exported foreign internal='tidemill::detail::executor_of(tidemill::detail::IoService&)'
  local of_asio='boost::asio::detail::call_stack<boost::asio::detail::thread_context, boost::asio::detail::thread_info_base>::top_'
  all=$(nm -C "$1")
  exported=$(nm -DC --defined-only "$1")
  [[ $exported == *' T tidemill::StreamingContext::text_file_stream('* ]] || fail "$1 does not export StreamingContext::text_file_stream()"
  [[ $all == *" t $internal"* ]] || fail "$1 has no hidden function $internal"
  [[ $exported != *" T $internal"* ]] || fail "$1 exports $internal, which is internal"
  foreign=$(grep ' T ' <<< "$exported" | grep -v 'tidemill::' || true)
  [[ -z $foreign ]] || fail "$1 exports what is not Tidemill's: $foreign"
  # The sockets may be served by an io_context of the program: then both must share what Asio keeps for each thread.
  [[ $exported == *"$of_asio"* ]] || fail "$1 hides $of_asio from the program, which crashes one that runs its sockets"
}

with_cmake() {
  "$CMAKE" -S "$here/$way" -B "$folder" -G Ninja \
    -DCMAKE_CXX_COMPILER="$CXX" -DCMAKE_CXX_COMPILER_LAUNCHER="$ccache" "$@"
  "$CMAKE" --build "$folder"
}

rm -rf "$folder"
case $way in
  install)
    first=$work/first_$kind
    rm -rf "$first" "$prefix"
    "$CMAKE" --install "$TIDEMILL_BUILD_DIR" --component development --prefix "$first"
    "$CMAKE" --install "$TIDEMILL_BUILD_DIR" --component "$kind" --prefix "$first"
    "$CMAKE" --install "$TIDEMILL_BUILD_DIR" --component tools --prefix "$first"
    mv "$first" "$prefix"
    if grep -rIlF -e "$first" -e "$TIDEMILL_SOURCE_DIR" "$prefix"; then
      fail "the files above name the folder they were built in or installed to"
    fi
    if grep -q '^TIDEMILL_BUILD_TOOLS:BOOL=ON$' "$TIDEMILL_BUILD_DIR/CMakeCache.txt"; then
      tool=$prefix/bin/tidemill-checkpoint
      [[ -x $tool ]] || fail "there is no $tool"
      said=$("$tool" --version) || fail "$tool --version ended with status $?"
      [[ $said =~ ^tidemill-checkpoint\ [0-9]+\.[0-9]+\.[0-9]+$ ]] || fail "$tool --version printed '$said'"
    fi
    [[ $kind != shared ]] || check_exports "$(find "$prefix" -name libtidemill.so)"
    ;;
  find_package)
    with_cmake -DCMAKE_PREFIX_PATH="$prefix"
    expect_output_of "$folder/consumer"
    ;;
  pkg_config)
    PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name tidemill.pc)")
    export PKG_CONFIG_PATH
    make -C "$here/pkg_config" CXX="$ccache $CXX" PKG_CONFIG="$PKG_CONFIG" OUT="$folder"
    expect_output_of "$folder/consumer"
    ;;
  add_subdirectory)
    with_cmake -DTIDEMILL="$TIDEMILL_SOURCE_DIR" -DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=20  # a third of the time
    expect_output_of "$folder/consumer_static"
    expect_output_of "$folder/consumer_shared"
    ;;
  *) fail "no such way: $way" ;;
esac
