#!/bin/sh
# Runs in the machine, as root, once it is up: what a user of Bedrock would type. The exit code goes to another port.
set -u
finish() {
    echo "$1" >/dev/ttyS2
    systemctl poweroff
    exit 0
}
fail() {
    echo "error: $*"
    finish 1
}

stty -F /dev/ttyS1 cols 120 rows 40
[ ! -e /media/environment ] || . /media/environment
cp /media/pip.conf /etc/pip.conf
. /etc/os-release
echo "$PRETTY_NAME, Linux $(uname -r), $(python3 --version)"
engine=$(docker info --format '{{.ServerVersion}}: cgroup v{{.CgroupVersion}}, {{.CgroupDriver}} driver, {{.Driver}}, {{json .SecurityOptions}}') ||
    fail "the Docker Engine does not answer: $(journalctl -u docker --no-pager | tail -5)"
echo "Docker Engine $engine"
case $engine in
*"cgroup v2, systemd driver"*) ;;
*) fail "this is not the Docker Engine that users of Debian have, with cgroup v2 and the systemd driver" ;;
esac

cd /root || fail "there is no /root"
echo "# git clone bedrock"
# A bundle has no branch, about which git would have much to say.
git -c advice.detachedHead=false -c init.defaultBranch=main clone --quiet /media/bedrock.bundle bedrock || fail "git clone"
echo "# cd bedrock && scripts/demo"
(cd bedrock && exec scripts/demo)
code=$?
left=$(docker ps -aq; docker volume ls -q)
[ -z "$left" ] || fail "the demo, which ended with $code, has left this behind: $(docker ps -a; docker volume ls)"
finish $code
