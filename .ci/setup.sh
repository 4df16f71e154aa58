# shellcheck shell=bash
# Sourced by examples/quickstart.sh, tests/run.sh and .ci/run, with the checkout as the current folder: messages, and the
# installation of what is missing on Debian 12, Debian 13 and Ubuntu 24.04. Nothing here asks a question.

say() { printf '\n== %s\n' "$*"; }
die() { printf '\n%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# step "<what is done>" <command>...: says it, does it, and ends the script with one sentence if it fails.
step() {
  local what=$1
  shift
  say "$what"
  printf '   %s\n' "$*"
  "$@" || die "\"$what\" failed; the lines above say why."
}

export CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}

# Whether a version a.b.c is at least another.
at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

have_boost() {
  local header version
  for header in /usr/local/include/boost/version.hpp /usr/include/boost/version.hpp; do
    if [[ -r $header ]]; then
      version=$(sed -n 's/^#define BOOST_VERSION \([0-9]*\).*/\1/p' "$header")
      ((version >= 108100))
      return
    fi
  done
  [[ -n ${Boost_DIR:-} ]]
}

# Whether what a package is for is there already, from whatever source.
have() {
  case $1 in
    boost) have_boost ;;
    g++) command -v "${CXX:-g++}" > /dev/null ;;
    ninja-build) command -v ninja > /dev/null ;;
    graphviz) command -v dot > /dev/null ;;
    pkgconf) command -v pkg-config > /dev/null ;;
    openjdk-*) command -v java > /dev/null ;;
    maven) command -v mvn > /dev/null ;;
    cmake | make | ccache | doxygen | clang-*) command -v "$1" > /dev/null ;;
    *) [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2> /dev/null) == installed ]] ;;
  esac
}

# The package with Boost >= 1.81: libboost-dev where that is new enough, the newest libboost1.x-dev where not.
boost_package() {
  local version
  version=$(apt-cache policy libboost-dev | sed -n 's/^ *Candidate: *\([0-9.]*\).*/\1/p')
  if [[ -n $version ]] && at_least "$version" 1.81; then
    echo libboost-dev
  else
    apt-cache search --names-only '^libboost1\.[0-9]+-dev$' | sed 's/ .*//' | sort -V | tail -n 1
  fi
}

# need <package>...: installs those that are missing, `boost` standing for the right Boost package.
need() {
  local package boost
  local -a missing=() as_root=()
  for package in "$@"; do
    have "$package" || missing+=("$package")
  done
  if ((${#missing[@]} > 0)); then
    command -v apt-get > /dev/null ||
      die "this system has no apt-get; please install ${missing[*]} (boost: the Boost headers, 1.81 or later) and run me again."
    if ((EUID != 0)); then
      sudo -n true 2> /dev/null ||
        die "${missing[*]} must be installed, which takes root: please run me as root or as \"sudo bash $0\"."
      as_root=(sudo -n)
    fi
    as_root+=(env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3
      -o Dpkg::Use-Pty=0)
    step "Missing: ${missing[*]}; reading the list of packages" "${as_root[@]}" update < /dev/null
    if [[ " ${missing[*]} " == *" boost "* ]]; then
      boost=$(boost_package)
      [[ -n $boost ]] || die "no package with Boost 1.81 or later is to be had here; please install the Boost headers by hand."
      missing=("${missing[@]/#boost/$boost}")
    fi
    step "Installing ${missing[*]}" "${as_root[@]}" install -y --no-install-recommends --no-remove "${missing[@]}" < /dev/null
  fi
  for package in "$@"; do
    if [[ $package == cmake ]]; then
      at_least "$(cmake --version | sed -n 's/^cmake version //p')" 3.25 ||
        die "CMake 3.25 or later is needed, and this is $(cmake --version | head -n 1)."
    fi
  done
}
