#!/usr/bin/env bash
# Every relative link in README.md, CHANGELOG.md, docs/ and bench/README.md leads to a file that is there, and every
# #heading to a heading of its page. What stands in code blocks is no link.
set -euo pipefail
cd "${TIDEMILL_SOURCE_DIR:-$(dirname "${BASH_SOURCE[0]}")/../..}"

# The anchors of a page, as they are made of its headings: lower case, blanks to "-", punctuation dropped.
anchors() {
  sed -n 's/^##* *//p' "$1" | tr '[:upper:]' '[:lower:]' | sed -e 's/`//g' -e 's/[^a-z0-9 _-]//g' -e 's/ /-/g'
}

wrong=0
links=0
mapfile -t pages < <(find README.md CHANGELOG.md bench/README.md docs -name '*.md' | sort)
for page in "${pages[@]}"; do
  while read -r link; do
    [[ $link =~ ^[a-z]+: ]] && continue
    links=$((links + 1))
    file=${link%%#*}
    target=$page
    [[ -z $file ]] || target=$(dirname "$page")/$file
    if [[ ! -e $target ]]; then
      echo "$page: $link leads nowhere"
      wrong=1
    elif [[ $link == *#* ]] && ! anchors "$target" | grep -qxF -- "${link#*#}"; then
      echo "$page: $target has no heading for #${link#*#}"
      wrong=1
    fi
  done < <(sed '/^ *```/,/^ *```$/d' "$page" | grep -oE '\]\([^) ]+\)|(src|href)="[^"]+"' | sed -E 's/^\]\(//; s/\)$//; s/^(src|href)="//; s/"$//')
done
((links > 0)) || { echo "no link was found at all"; exit 1; }
echo "${#pages[@]} pages, $links links"
exit "$wrong"
