#!/bin/busybox sh
# The first process of a virtual machine of scripts/kernels: loads modules, mounts the disk, and then runs what the
# host sends it over the console. The reply to each request, the content of /reply, goes to the second disk as a tar.

if [ "$1" != stage2 ]; then
    # A container can't be given a root of its own where / is the initramfs itself, so that is left first.
    /bin/busybox mount -t tmpfs -o size=512m,mode=755 new /new
    /bin/busybox cp -a /bin /dev /modules /tracer /btf /init /new
    exec /bin/busybox switch_root /new /init stage2
fi

/bin/busybox mkdir -p /proc /sys /dev /tmp /disk /reply
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
export PATH=/bin
stty raw -echo

say() { printf '\n@@%s\n' "$*"; }

for module in $(cat /modules/order); do
    insmod "/modules/$module" || say "failed: insmod $module"
done
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
tries=0
while [ ! -b /dev/vdb ] && [ $tries -lt 100 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
mount -t ext4 /dev/vda /disk || { say "failed: there is no disk"; poweroff -f; }
say "ready"

while read -r number request; do
    rm -rf /reply
    mkdir /reply
    echo "$request" | base64 -d >/tmp/request
    sh /tmp/request </dev/null >/reply/said 2>&1
    status=$?
    tar -C /reply -cf - . | dd of=/dev/vdb bs=1M conv=fsync 2>/dev/null
    say "done $number $status"
done
poweroff -f
