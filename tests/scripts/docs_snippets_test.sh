#!/usr/bin/env bash
# Every code block in README.md and docs/ that is marked as a snippet equals the marked region of a file that is compiled.
#
#     in a page                                            in the source
#     <!-- snippet: examples/word_count.cpp split -->      // [split]
#     ```cpp                                               …
#     …                                                    // [/split]
#     ```
#     <!-- end snippet -->
#
# Without a region's name the whole file is meant, but for its leading comment and markers. `--fix` rewrites the pages.
set -euo pipefail
cd "${TIDEMILL_SOURCE_DIR:-$(dirname "${BASH_SOURCE[0]}")/../..}"

# expand <page>: the page with every snippet as its source has it. Fails when a region is missing.
expand() {
  awk '
    function fail(why) { print FILENAME ":" FNR ": " why > "/dev/stderr"; failed = 1; exit 1 }
    function language(file) {
      if (file ~ /\.(cpp|hpp|ipp)$/) return "cpp"
      if (file ~ /(CMakeLists\.txt|\.cmake)$/) return "cmake"
      if (file ~ /Makefile$/) return "make"
      return "text"
    }
    # Prints a region of a file, or all of it, without markers and with the indentation of its first line taken off.
    function region(file, name,    line, inside, seen, indent, started, blank) {
      inside = name == ""
      started = 0
      blank = 0
      while ((got = (getline line < file)) > 0) {
        if (line ~ /^[ \t]*\/\/ \[\/?[a-z0-9-]+\]$/) {
          if (name != "" && index(line, "// [" name "]")) { inside = 1; seen = 1 }
          if (name != "" && index(line, "// [/" name "]")) inside = 0
          continue
        }
        if (!inside) continue
        if (!started && (line == "" || (name == "" && line ~ /^\/\//))) continue
        if (!started) { match(line, /^ */); indent = RLENGTH; started = 1 }
        if (line == "") { ++blank; continue }
        for (; blank > 0; --blank) print ""
        print (substr(line, 1, indent) ~ /^ *$/ ? substr(line, indent + 1) : line)
      }
      close(file)
      if (got < 0) fail("there is no file " file)
      if (!started) fail(file " has no lines between // [" name "] and // [/" name "]")
      if (name != "" && inside) fail(file " does not end [" name "]")
    }
    in_snippet && /^<!-- end snippet -->$/ { in_snippet = 0; print; next }
    in_snippet { next }
    /^<!-- snippet: / {
      if (split($0, word, " ") < 4) fail("the marker names no file")
      print
      print "```" language(word[3])
      region(word[3], word[4] == "-->" ? "" : word[4])
      print "```"
      in_snippet = 1
      next
    }
    { print }
    END { if (!failed && in_snippet) fail("the last snippet has no <!-- end snippet -->") }
  ' "$1"
}

mapfile -t pages < <(find README.md docs -name '*.md' | sort)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
wrong=0
for page in "${pages[@]}"; do
  expand "$page" > "$scratch/page" || { wrong=1; continue; }
  if [[ ${1:-} == --fix ]]; then
    cmp -s "$page" "$scratch/page" || cp "$scratch/page" "$page"
  else
    diff -u --label "$page" --label "what its sources say" "$page" "$scratch/page" || wrong=1
  fi
done

# The comparison itself: a page whose snippet differs, or names nothing, must be noticed.
if [[ ${1:-} != --fix ]]; then
  printf '// [a]\nint a;\n// [/a]\n' > "$scratch/a.cpp"
  printf '%s\n' "<!-- snippet: $scratch/a.cpp a -->" '```cpp' 'int b;' '```' '<!-- end snippet -->' > "$scratch/a.md"
  [[ $(expand "$scratch/a.md") == *'int a;'* ]] || { echo "a changed snippet was not noticed"; wrong=1; }
  printf '%s\n' "<!-- snippet: $scratch/a.cpp b -->" '<!-- end snippet -->' > "$scratch/b.md"
  ! expand "$scratch/b.md" > "$scratch/page" 2>&1 || { echo "a missing region was not noticed"; wrong=1; }
fi

if ((wrong)); then
  echo "If the sources are right: bash tests/scripts/docs_snippets_test.sh --fix"
  exit 1
fi
echo "${#pages[@]} pages, $(cat "${pages[@]}" | grep -c '^<!-- snippet: ') snippets"
