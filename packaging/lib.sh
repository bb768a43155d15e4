# shellcheck shell=bash
# What the scripts under packaging/ share. Source it; it changes nothing by itself.

packaging=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(dirname "$packaging")
cache=${A3S_BOX_CACHE:-$HOME/.cache/a3s-box}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
# The pinned Rust, in folders too that rust-toolchain.toml does not reach. Only rustup looks at it.
RUSTUP_TOOLCHAIN=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$repository/rust-toolchain.toml")
export RUSTUP_TOOLCHAIN
# The caller's flags would end up in what is cached and shipped.
unset RUSTFLAGS CARGO_BUILD_TARGET MAKEFLAGS MAKELEVEL

# shellcheck disable=SC2034 # the sourcing scripts use it
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# Progress goes to the caller's stderr, also from within a build whose output goes to a log; stdout is for results.
exec {progress}>&2
step() { printf '==> %s\n' "$*" >&"$progress"; }

die() {
    printf 'error: %s\n' "$*" >&"$progress"
    exit 1
}

sha256() { sha256sum "$1" | cut -d' ' -f1; }

# content_hash FILE_OR_WORD...: one short hash over the files' contents and the words.
content_hash() {
    local item
    for item in "$@"; do
        if [[ -f $item ]]; then sha256 "$item"; else echo "$item"; fi
    done | sha256sum | cut -c1-16
}

# cached NAME HASH COMMAND...: prints the directory NAME/HASH of the cache. If it is not there yet, COMMAND makes it: it runs
# in an empty scratch directory and puts what is to be kept into $out. The directory appears whole or not at all; a second
# caller waits for the first. The four used last are kept.
cached() {
    local name=$1 hash=$2 dir scratch log started=$SECONDS
    shift 2
    dir=$cache/$name/$hash
    mkdir -p "$cache/$name"
    exec {lock}>"$cache/$name/lock"
    flock "$lock"
    if [[ -d $dir ]]; then
        step "$name: cached"
        touch "$dir"
    else
        scratch=$cache/$name/$hash.building
        log=$cache/$name/build.log
        step "$name: building (log: $log)"
        rm -rf "$scratch"
        out=$scratch/out
        mkdir -p "$scratch/work" "$out"
        # A subshell that `||` or `if` looks at ignores `set -e`; its status has to be asked for afterwards.
        set +e
        (
            set -e
            cd "$scratch/work"
            "$@"
        ) >"$log" 2>&1
        local status=$?
        set -e
        if ((status != 0)); then
            tail -n 40 "$log" >&2
            die "$name: the build failed; the whole log is $log"
        fi
        mv "$out" "$dir"
        rm -rf "$scratch"
        find "$cache/$name" -mindepth 1 -maxdepth 1 -type d -printf '%T@ %p\0' | sort -zrn | tail -zn +5 | cut -zd' ' -f2- | xargs -0r rm -rf
        step "$name: built in $((SECONDS - started)) s"
    fi
    exec {lock}>&-
    echo "$dir"
}

# The Debian release this machine runs, by name.
codename() { (. /etc/os-release && echo "$VERSION_CODENAME"); }

# The mirror from which this machine gets its Debian release: whoever sits behind a mirror is served by it here too.
mirror() {
    local suite
    suite=$(apt_suites | awk -v name="$(codename)" '$2 == name || $3 == name { print $1; exit }')
    [[ -n $suite ]] || die "apt knows no source for Debian $(codename): check its source list, and run apt-get update"
    echo "$suite"
}

# debian_source SUITE PACKAGE: unpacks a source package of a Debian release into the current directory. The machine's own
# package sources stay as they are.
debian_source() {
    local mirror
    mirror=$(mirror)
    mkdir -p apt/lists/partial apt/archives/partial
    cat >apt/sources.sources <<END
Types: deb-src
URIs: $mirror
Suites: $1
Components: main
Signed-By: $keyring
END
    cat >apt/conf <<END
Dir::Etc::sourcelist "$PWD/apt/sources.sources";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$PWD/apt/lists";
Dir::Cache "$PWD/apt";
APT::Sandbox::User "root";
END
    APT_CONFIG=$PWD/apt/conf apt-get -q update
    APT_CONFIG=$PWD/apt/conf apt-get -q source "$2"
}

# The installed version of a Debian package, or 0.
package_version() { dpkg-query -W -f '${Version}' "$1" 2>/dev/null || echo 0; }

# The version of a Debian package that apt would take.
candidate_version() {
    local version
    version=$(apt-cache show --no-all-versions "$1" 2>/dev/null | awk '$1 == "Version:" { print $2; exit }')
    [[ -n $version ]] || die "apt knows no package $1: run apt-get update, or look at its source list"
    echo "$version"
}

# One line for each package source of apt: URI, suite as written in the source list, code name.
# shellcheck disable=SC2016 # apt expands them
apt_suites() { apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(CODENAME)' 'Created-By: Packages' | sort -u; }
