#!/usr/bin/env bash
# Nothing in the library ends the process or writes to its streams: no object of it refers to a function that does, and no
# source of it names one. The programs in src/tools are no part of it. (What the compiler puts in by itself, std::terminate for
# a noexcept function that throws all the same, cannot be told from a call by looking at objects; test_engine drives those.)
set -euo pipefail
source_dir=${TIDEMILL_SOURCE_DIR:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
build_dir=${TIDEMILL_BUILD_DIR:?the build tree}
wrong=0

ends='exit|_exit|_Exit|quick_exit|abort|_ZSt10unexpectedv|raise|kill|pthread_kill|pthread_exit|longjmp|signal|sigaction'
writes='puts|putchar|fputs|fputc|fwrite|printf|vprintf|fprintf|vfprintf|__printf_chk|__fprintf_chk|perror|stdout|stderr'
streams='_ZSt4cout|_ZSt4cerr|_ZSt4clog|_ZSt5wcout|_ZSt5wcerr|_ZSt5wclog'

# found_in <object>: what it refers to of that, a name on each line. Its path says what it is allowed.
found_in() {
  local object=$1 forbidden="$ends|$writes|$streams|__assert_fail" names
  case $object in
    # Boost.Asio has assertions of its own, which builds without NDEBUG keep. Only the module io knows Asio.
    */tidemill_io.dir/*) forbidden="$ends|$writes|$streams" ;;
    # print() is an output that the user asks for; nobody else may know the standard output. In a unity build the file is one of
    # its module.
    */tidemill_engine.dir/engine/engine.cpp.o | */tidemill_engine.dir/Unity/*) forbidden=${forbidden/_ZSt4cout|/} ;;
  esac
  names=$(nm --undefined-only --format=posix "$object") || return 1
  sed 's/[ @].*//' <<< "$names" | { grep -xE "$forbidden" || (($? == 1)); }
}

# Each module that has sources has objects: a file each, or one of all in a unity build.
objects=()
for module in "$source_dir"/src/*/; do
  module=$(basename "$module")
  [[ $module != tools ]] || continue
  folder=$build_dir/src/CMakeFiles/tidemill_$module.dir
  mapfile -t -O "${#objects[@]}" objects < <(find "$folder" -name '*.o')
  [[ ${objects[-1]:-} == "$folder"/* ]] || { echo "no object below $folder; is the library built?"; exit 1; }
done
for object in "${objects[@]}"; do
  found=$(found_in "$object")
  if [[ -n $found ]]; then
    echo "${object#"$build_dir"/} refers to: ${found//$'\n'/ }"
    wrong=1
  fi
done

# The check itself, on an object that does it all, in the places where it is and is not allowed.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cat > "$scratch/bad.cpp" << 'EOF'
#undef NDEBUG
#include <cassert>
#include <cstdio>
#include <cstdlib>
#include <iostream>
void ends(int i) {
  assert(i != 0);
  if (i == 1) std::abort();
  std::cout << i;
  std::cerr << i;
  std::puts("");
}
EOF
"${CXX:-c++}" -c "$scratch/bad.cpp" -o "$scratch/bad.o"
# expect <path of the object> <name>...: what is found in it there.
expect() {
  local at=$scratch/$1 found
  shift
  mkdir -p "$(dirname "$at")"
  cp "$scratch/bad.o" "$at"
  found=$(found_in "$at" | sort | xargs)
  [[ $found == "$*" ]] || { echo "of ${at#"$scratch"/}, which is made to be bad, is found: '$found', not '$*'"; wrong=1; }
}
export LC_ALL=C
expect tidemill_core.dir/core/time.cpp.o _ZSt4cerr _ZSt4cout __assert_fail abort puts
expect tidemill_engine.dir/engine/rate.cpp.o _ZSt4cerr _ZSt4cout __assert_fail abort puts
expect tidemill_engine.dir/engine/engine.cpp.o _ZSt4cerr __assert_fail abort puts
expect tidemill_engine.dir/Unity/unity_0_cxx.cxx.o _ZSt4cerr __assert_fail abort puts
expect tidemill_io.dir/io/socket.cpp.o _ZSt4cerr _ZSt4cout abort puts

# The headers are compiled into the user's program, so their objects are not here: they are read instead, comments left out.
forbidden='\b(std::)?(terminate|abort|quick_exit|_Exit|exit|_exit|set_terminate|assert)\s*\(|\bstd::(cerr|clog|printf|puts|signal|raise)\b'
while read -r file; do
  if sed -E 's@//.*$@@' "$file" | grep -nE "$forbidden"; then
    echo "  is in ${file#"$source_dir"/}"
    wrong=1
  fi
done < <(find "$source_dir"/include "$source_dir"/src -name tools -prune -o \( -name '*.hpp' -o -name '*.ipp' -o -name '*.cpp' \) -print | sort)

((wrong == 0)) && echo "${#objects[@]} objects and all headers: nothing ends or writes to the host."
exit "$wrong"
