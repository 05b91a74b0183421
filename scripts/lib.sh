# shellcheck shell=bash
# What the scripts share: finding and installing tools, a throwaway PostgreSQL, scratch space that is always
# removed. To be sourced, after `set -euo pipefail`; does nothing by itself but go to the repository's root.
#
# Invariant: whatever a script starts or creates is registered in the moment it comes to be, and is gone when
# the script ends, however it ends (but for SIGKILL).

# Runs under any umask: what is private says so itself.
umask 022
# Messages of tools are parsed and read in one language.
export LC_ALL=C.UTF-8

repository=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$repository" || exit

# Servers live where an ordinary user's PATH does not look.
PATH=$PATH:/usr/sbin:/sbin

# Words that every script uses: progress goes to standard error, so that results can be piped.
say() { printf '%s\n' "$*" >&2; }
# Exit status 2: something is missing or misspelt, as in the program itself. 1: something failed.
usage_error() { say "${0##*/}: $*"; exit 2; }
fail() { say "${0##*/}: $*"; exit 1; }

# --- scratch space and children --------------------------------------------------------------------------

scratch=
children=()

# Makes the directory $scratch. A server run as another user must be able to pass through it, and its path is
# part of a Unix socket's name (107 bytes at most), so an odd TMPDIR is passed over.
make_scratch() {
    local base=${TMPDIR:-/tmp}
    if [[ ${#base} -gt 60 || $base == *[[:space:]]* ]] || ! as_server_user test -x "$base" 2>/dev/null; then
        base=/tmp
    fi
    scratch=$(mktemp -d "$base/ringprobe.XXXXXX")
    chmod 711 "$scratch"
}

# Runs a command in the background and remembers it: `start NAME command…`; its output goes to
# $scratch/NAME.log, its process id to $started.
start() {
    local name=$1
    shift
    "$@" >"$scratch/$name.log" 2>&1 </dev/null &
    started=$!
    children+=("$started")
}

# Ends one process that `start` began, and waits for it.
stop() {
    kill -TERM "$1" 2>/dev/null || return 0
    wait "$1" 2>/dev/null || true
}

# Everything that `start` began and that has not been stopped.
stop_children() {
    local pid
    for pid in ${children[@]+"${children[@]}"}; do
        stop "$pid"
    done
    children=()
}

# What `trap clean_up EXIT` calls. KEEP=1 leaves the scratch directory, and says where.
clean_up() {
    local status=$?
    trap - EXIT
    # A second Ctrl-C must not leave half of it behind.
    trap '' INT TERM HUP
    stop_children
    postgres_stop
    if [[ -n $scratch && -d $scratch ]]; then
        if [[ ${KEEP:-} == 1 ]]; then
            say "kept: $scratch"
        else
            rm -rf -- "$scratch"
        fi
    fi
    exit "$status"
}

clean_up_always() {
    trap clean_up EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# --- tools -----------------------------------------------------------------------------------------------

# have NAME: is the program there?
have() { command -v -- "$1" >/dev/null 2>&1; }

missing_packages=()

# need PROGRAM PACKAGE…: notes the Debian packages that bring the program, if it is not there.
need() {
    have "$1" || missing_packages+=("${@:2}")
}

# Installs what `need` noted: through apt-get as root; otherwise says the exact command and exits 2.
install_missing() {
    [[ ${#missing_packages[@]} -gt 0 ]] || return 0
    if ! have apt-get; then
        usage_error "install these first (names as in Debian): ${missing_packages[*]}"
    fi
    if [[ $EUID -ne 0 ]]; then
        say "${0##*/}: not everything that is needed is installed, and only root can install it:"
        say "    sudo apt-get install --yes --no-install-recommends ${missing_packages[*]}"
        exit 2
    fi
    say "installing: ${missing_packages[*]}"
    local options=(--yes --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -qq)
    export DEBIAN_FRONTEND=noninteractive
    # An image's package lists are often absent or old; their update may fail where packages are cached.
    apt-get update -qq </dev/null >&2 || say "apt-get update failed; going on with the lists there are"
    apt-get install "${options[@]}" "${missing_packages[@]}" </dev/null >&2 ||
        fail "apt-get could not install: ${missing_packages[*]}"
    missing_packages=()
    hash -r
}

# The toolchain: cargo of at least the version that Cargo.toml asks for, a C compiler for the bundled SQLite,
# mimalloc and liburing, and git, which glommio's build calls.
need_toolchain() {
    need cc gcc libc6-dev
    need git git
    find_cargo
    if ! have cargo; then
        # Debian 13 packages rustup; Debian 12's own cargo (1.63) is too old for this project.
        if have apt-cache && [[ -n $(apt-cache --quiet show rustup 2>/dev/null) ]]; then
            missing_packages+=(rustup)
        else
            say "${0##*/}: no cargo on PATH, and this Debian's own is too old (Cargo.toml: rust-version)."
            say "Install Rust for this user, then run this again:"
            say "    sudo apt-get install --yes curl   # unless it is there"
            say "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile default"
            exit 2
        fi
    fi
}

# cargo may be installed and yet not on the PATH of a login-less shell.
find_cargo() {
    have cargo && return 0
    local directory
    for directory in "${CARGO_HOME:-}/bin" "${HOME:-}/.cargo/bin" /usr/local/cargo/bin /opt/cargo/bin; do
        if [[ -x $directory/cargo ]]; then
            PATH=$directory:$PATH
            export PATH
            return 0
        fi
    done
}

# After `install_missing`: is the compiler there, and new enough, with the components named in the arguments?
check_toolchain() {
    if ! cargo --version >/dev/null 2>&1 && have rustup; then
        say "installing the stable Rust toolchain"
        rustup default stable >&2 </dev/null || fail "rustup could not install a toolchain"
    fi
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\([0-9.]*\)".*/\1/p' Cargo.toml)
    found=$(rustc --version | cut -d' ' -f2)
    if [[ $(printf '%s\n%s\n' "$wanted" "$found" | sort --version-sort | head -n 1) != "$wanted" ]]; then
        usage_error "rustc is $found, but this project needs $wanted: run \`rustup update stable\`"
    fi
    local component
    for component in "$@"; do
        if ! cargo "$component" --version >/dev/null 2>&1; then
            have rustup || usage_error "cargo $component is missing: install rustup, https://rustup.rs"
            rustup component add "${component/fmt/rustfmt}" >&2 </dev/null ||
                usage_error "cargo $component is missing: run \`rustup component add ${component/fmt/rustfmt}\`"
        fi
    done
}

# --- a throwaway PostgreSQL --------------------------------------------------------------------------------

postgres_bin=
postgres_data=
postgres_port=
postgres_dsn=

# The directory with initdb, pg_ctl and postgres, newest version first, in $postgres_bin. Debian keeps them
# off the PATH.
find_postgres() {
    local directory
    while read -r directory; do
        if [[ -x $directory/initdb && -x $directory/pg_ctl && -x $directory/postgres ]]; then
            postgres_bin=$directory
            return 0
        fi
    done < <(
        printf '%s\n' /usr/lib/postgresql/*/bin | sort --version-sort --reverse
        if have initdb; then dirname -- "$(readlink -f -- "$(command -v initdb)")"; fi
        if have pg_config; then pg_config --bindir; fi
        printf '%s\n' /usr/local/bin /usr/local/pgsql/bin
    )
    return 1
}

need_postgres() {
    find_postgres || missing_packages+=(postgresql)
}

# PostgreSQL refuses to run as root.
server_user() {
    if id postgres >/dev/null 2>&1; then echo postgres; else echo nobody; fi
}

as_server_user() {
    if [[ $EUID -eq 0 ]]; then
        (cd / && exec runuser -u "$(server_user)" -- "$@")
    else
        "$@"
    fi
}

# Starts a cluster in $scratch on a free loopback port; sets $postgres_dsn, $postgres_port, $postgres_bin.
# Nothing of it has to outlive the machine, so it never syncs; but what was committed outlives its processes.
postgres_start() {
    find_postgres || fail "no PostgreSQL server (initdb, pg_ctl, postgres) was found"
    local home=$scratch/postgres
    install -d -m 0700 "$home"
    if [[ $EUID -eq 0 ]]; then
        chown "$(server_user)" "$home"
    fi
    as_server_user "$postgres_bin/initdb" --pgdata="$home/data" --username=ringprobe --auth=trust \
        --encoding=UTF8 --locale=C --no-sync >"$scratch/initdb.log" 2>&1 ||
        { cat "$scratch/initdb.log" >&2; fail "initdb failed"; }
    as_server_user tee -a "$home/data/postgresql.conf" >/dev/null <<SETTINGS
listen_addresses = '127.0.0.1'
unix_socket_directories = '$home'
fsync = off
full_page_writes = off
max_connections = 60
max_wal_size = 4GB
log_min_messages = warning
SETTINGS
    local attempt
    for attempt in 1 2 3 4 5 6 7 8 9 10; do
        # Below the kernel's ephemeral range, where the prober's own connections take their ports.
        postgres_port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
        as_server_user tee "$home/data/port.conf" >/dev/null <<<"port = $postgres_port"
        if [[ $attempt -eq 1 ]]; then
            as_server_user tee -a "$home/data/postgresql.conf" >/dev/null <<<"include = 'port.conf'"
        fi
        postgres_data=$home/data
        if postgres_up; then
            postgres_dsn=postgres://ringprobe@127.0.0.1:$postgres_port/postgres
            return 0
        fi
    done
    as_server_user tail -n 20 "$home/log" >&2 || true
    fail "PostgreSQL did not start; its log is above"
}

# Starts, or starts again, the cluster that `postgres_start` made.
postgres_up() {
    as_server_user "$postgres_bin/pg_ctl" --pgdata="$postgres_data" --log="$scratch/postgres/log" \
        --timeout=60 --wait start >/dev/null 2>&1 </dev/null
}

# Stops it, as a crash of the server would look to its clients.
postgres_down() {
    as_server_user "$postgres_bin/pg_ctl" --pgdata="$postgres_data" --mode="${1:-fast}" \
        --timeout=60 --wait stop >/dev/null 2>&1 </dev/null || true
}

postgres_stop() {
    [[ -n $postgres_data ]] || return 0
    postgres_down immediate
    postgres_data=
}

# Runs one query, rows on standard output, columns separated by '|'.
postgres_query() {
    PGOPTIONS='' psql --no-psqlrc --quiet --tuples-only --no-align --dbname="$postgres_dsn" --command="$1"
}

# --- the program itself ------------------------------------------------------------------------------------

# Builds the release binary; its path is in $ringprobe.
build_release() {
    cargo build --release --bin ringprobe --locked >&2 </dev/null || fail "the build failed"
    # shellcheck disable=SC2034 # for the scripts that source this
    ringprobe=$(target_directory)/release/ringprobe
}

# Where cargo puts what it builds: CARGO_TARGET_DIR and config files respected.
target_directory() {
    cargo metadata --format-version 1 --no-deps --offline 2>/dev/null </dev/null |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# A port of 127.0.0.1 that nobody listens on at this moment, below the ephemeral range.
free_port() {
    local port
    while :; do
        port=$((10000 + (RANDOM * 32768 + RANDOM) % 10000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return 0
        fi
    done
}

# await_port PORT PID: until something accepts connections there, 10 s at most, or the process has ended.
await_port() {
    local turn
    for ((turn = 0; turn < 100; turn++)); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return 0; fi
        kill -0 "$2" 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}
