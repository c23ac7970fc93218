#!/bin/sh
# Compiles the tracer from what lies beside this script into out/: the loader, with the probes inside, and the gate.
# MACHINE and CC cross-compile; CLANG names another compiler of the probes.
set -eu
cd "$(dirname "$0")"
# Debian keeps bpftool where only root's PATH leads to.
PATH=$PATH:/usr/sbin:/sbin

machine=${MACHINE:-$(uname -m)}
case $machine in
x86_64) target=x86 ;;
aarch64) target=arm64 ;;
*) echo "the tracer knows x86_64 and aarch64, not $machine" >&2; exit 1 ;;
esac
cc=${CC:-gcc}
include="-I. -I/usr/include/$machine-linux-gnu"
warnings="-Wall -Wextra -Werror"
loader="bdtrace.c serve.c trace.c proof.c targets.c probes.c look.c load_log.c kernel.c gatekeeper.c status.c writer.c"
loader="$loader options.c syscalls.c syscalls32.c"
mkdir -p out

# The probes' debug information names their source files: without this directory, so that the same sources give the same
# programs.
for probes in bdtrace look; do
	"${CLANG:-clang}" -target bpf -O2 -g "-fdebug-prefix-map=$PWD=." "-D__TARGET_ARCH_$target" -Wall -Werror $include \
	    -c $probes.bpf.c -o $probes.bpf.o
done
bpftool gen skeleton bdtrace.bpf.o name bdtrace_bpf >bdtrace.skel.h
bpftool gen skeleton look.bpf.o name look_bpf >look.skel.h
$cc -Os -s $warnings -static -nostdlib -ffreestanding -fno-stack-protector -fno-builtin gate.c -o out/gate

make_loader() {
	$cc -std=gnu11 -O2 -s $warnings -Wno-format-truncation -static $include $loader "$@" -o out/bdtrace \
	    -lbpf -lelf -lz -lzstd
}
# The static libelf of elfutils 0.192 (Debian 13) lacks some functions of its own.
if ! make_loader 2>link.log; then
	grep -q 'undefined reference to .eu_' link.log || { cat link.log >&2; exit 1; }
	make_loader elfutils.c
fi
