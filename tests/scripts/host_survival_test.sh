#!/usr/bin/env bash
# Nothing in the library ends the process or writes to its streams: no object of it refers to a function that does, and no
# source of it names one. The programs in src/tools are no part of it. (What the compiler puts in by itself, std::terminate for
# a noexcept function that throws all the same, cannot be told from a call by looking at objects; test_engine drives those.)
set -euo pipefail
source_dir=${TIDEMILL_SOURCE_DIR:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
build_dir=${TIDEMILL_BUILD_DIR:?the build tree}
wrong=0

mapfile -t objects < <(find "$build_dir"/src/CMakeFiles -name '*.o' -path '*tidemill_*.dir/*')
if ((${#objects[@]} < 10)); then
  echo "only ${#objects[@]} objects below $build_dir/src; is the library built?"
  exit 1
fi

ends='exit|_exit|_Exit|quick_exit|abort|_ZSt10unexpectedv|raise|kill|pthread_kill|pthread_exit|longjmp|signal|sigaction'
writes='puts|putchar|fputs|fputc|fwrite|printf|vprintf|fprintf|vfprintf|__printf_chk|__fprintf_chk|perror|stdout|stderr'
streams='_ZSt4cerr|_ZSt4clog|_ZSt5wcout|_ZSt5wcerr|_ZSt5wclog'
for object in "${objects[@]}"; do
  found=$(nm --undefined-only --format=posix "$object" | awk '{print $1}' | sed 's/@.*//' | grep -xE "$ends|$writes|$streams" || true)
  if [[ -n $found ]]; then
    echo "${object#"$build_dir"/} refers to: ${found//$'\n'/ }"
    wrong=1
  fi
  # Boost.Asio has assertions of its own, which builds without NDEBUG keep. Only the module io knows Asio.
  if [[ $object != *tidemill_io.dir/* ]] && nm --undefined-only --format=posix "$object" | grep -q '^__assert_fail '; then
    echo "${object#"$build_dir"/} refers to assert()"
    wrong=1
  fi
  # print() is an output that the user asks for; nobody else may know the standard output.
  if nm --undefined-only --format=posix "$object" | grep -q '^_ZSt4cout ' && [[ $object != *tidemill_engine.dir/engine/engine.cpp.o ]]; then
    echo "${object#"$build_dir"/} refers to std::cout"
    wrong=1
  fi
done

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
