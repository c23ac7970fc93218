# What the scripts beside this file share: everything a fresh Debian machine lacks, installed at most once.
# To be sourced by bash, with the repository's root as the current directory.

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# install_packages PACKAGE...: those that are missing, from Debian. Its lists are fetched once in a run: that takes longer
# than a small package does.
HAS_LISTS=
install_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    command -v apt-get >/dev/null || die "this is no Debian: install ${missing[*]} (or what they are called here) by hand"
    say "installing ${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive HAS_LISTS="$HAS_LISTS" sh -c '
        { [ -n "$HAS_LISTS" ] || apt-get update -qq; } && apt-get install -y -qq --no-install-recommends "$@"' \
        sh "${missing[@]}" >/dev/null || die "apt-get could not install ${missing[*]}; its message is above"
    HAS_LISTS=yes
}

# ensure_environment [EXTRA]: the environment in .venv with an extra of pyproject.toml, which is [dev] where none is given
# and may be empty. It is made anew when that file has changed.
ensure_environment() {
    local python=${PYTHON:-python3} extra=${1-[dev]} stamp=.venv/bedrock-stamp wanted
    command -v "$python" >/dev/null || install_packages python3 python3-venv
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "Python 3.11 or newer is needed; PYTHON=/path/to/python names another one"
    wanted=$(sha256sum pyproject.toml | cut -d' ' -f1)
    if [[ $(cat "$stamp" 2>/dev/null) != "$wanted"*"$extra" ]]; then
        "$python" -c 'import ensurepip, venv' 2>/dev/null || install_packages python3-venv
        say "making the environment in .venv"
        "$python" -m venv .venv
        # Two thirds of pip's time would go into compiling all modules; Python compiles those that are used.
        .venv/bin/pip install --quiet --disable-pip-version-check --no-compile --editable ".$extra" ||
            die "pip could not install the dependencies; its message is above"
        printf '%s' "$wanted$extra" >"$stamp"
    fi
}

engine_answers() {
    .venv/bin/python -c 'import docker; docker.from_env(timeout=5).ping()' 2>/dev/null
}

# Use the engine that runs; otherwise install and start one, which stop_engine ends again.
ENGINE_PID=
ensure_engine() {
    local log=${TMPDIR:-/tmp}/bedrock-dockerd.log
    engine_answers && return
    [ -z "${DOCKER_HOST:-}" ] || die "no Docker Engine answers at DOCKER_HOST=$DOCKER_HOST"
    [ "$(id -u)" -eq 0 ] || die "no Docker Engine answers; start it, or run this as root, which installs and starts one"
    install_packages docker.io iptables
    if ! engine_answers; then
        say "starting the Docker Engine (log: $log)"
        setsid dockerd >"$log" 2>&1 </dev/null &
        ENGINE_PID=$!
        for _ in $(seq 150); do
            engine_answers && return
            kill -0 "$ENGINE_PID" 2>/dev/null || break
            sleep 0.2
        done
        tail -n 5 "$log" >&2
        die "the Docker Engine does not start; the whole log is $log"
    fi
}

stop_engine() {
    [ -n "$ENGINE_PID" ] || return 0
    kill "$ENGINE_PID" 2>/dev/null || return 0
    wait "$ENGINE_PID" 2>/dev/null || true
}

# What compiling the tracer needs.
ensure_tools() {
    install_packages clang libbpf-dev bpftool libelf-dev zlib1g-dev libzstd-dev libc6-dev gcc
}

# The tracer's image. The tools are installed only where it has to be compiled.
ensure_tracer() {
    .venv/bin/python -c '
import sys
from bedrock.settings import load_settings
from bedrock.tracer.build import needs_compiler
own = load_settings().dockerd
sys.exit(needs_compiler(own.bedrock_tracer_image, own.docker_host))' 2>/dev/null || ensure_tools
    .venv/bin/bedrock tracer build >&2
}
