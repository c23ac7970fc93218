#!/bin/sh
# Compiles the tracer from what lies beside this script into out/. Run by `bedrock tracer build`, on the Docker host
# itself or in a builder container on it: both have the kernel that is to be traced. MACHINE and CC cross-compile.
set -eu
cd "$(dirname "$0")"

machine=${MACHINE:-$(uname -m)}
case $machine in
x86_64) target=x86 ;;
aarch64) target=arm64 ;;
*) echo "the tracer knows x86_64 and aarch64, not $machine" >&2; exit 1 ;;
esac
cc=${CC:-gcc}
include="-I. -I/usr/include/$machine-linux-gnu"
warnings="-Wall -Wextra -Werror"
mkdir -p out/btf

clang -target bpf -O2 -g "-D__TARGET_ARCH_$target" -Wall -Werror $include -c bdtrace.bpf.c -o bdtrace.bpf.o
bpftool gen skeleton bdtrace.bpf.o name bdtrace_bpf >bdtrace.skel.h
$cc -std=gnu11 -O2 -s $warnings -Wno-format-truncation -static $include bdtrace.c serve.c trace.c proof.c targets.c probes.c kernel.c gatekeeper.c status.c writer.c options.c syscalls.c syscalls32.c -o out/bdtrace \
    -lbpf -lelf -lz -lzstd
$cc -Os -s $warnings -static -nostdlib -ffreestanding -fno-stack-protector -fno-builtin gate.c -o out/gate

# The few types of this kernel that the probes need: reading them all takes most of the time to attach.
types=/sys/kernel/btf/vmlinux
[ ! -e $types ] || [ "$machine" != "$(uname -m)" ] || bpftool gen min_core_btf $types "out/btf/$(uname -r).btf" bdtrace.bpf.o
