"""The disks of a machine: Debian as it is installed, kept for the next run, and what one run brings along."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.archive import mirrors

from demo_machines import host

_GUEST = Path(__file__).parent / "guest.sh"
_DISK_MIB, _MEDIA_MIB = 12 * 1024, 256
_ROOT_LABEL, _MEDIA_LABEL = "bedrock-root", "bedrock-media"
# What a user has who runs containers on Debian, with the packages that docker.io recommends.
_PACKAGES = (
    "linux-image-cloud-amd64", "systemd-sysv", "dbus", "udev", "iproute2", "procps",
    "docker.io", "apparmor", "iptables", "xz-utils",
    "python3", "python3-venv", "git", "ca-certificates",
)  # fmt: skip
# A part of docker.io in Debian 12, and recommended by it in Debian 13.
_MORE_PACKAGES = {"trixie": ("docker-cli",)}

_NETWORK = """[Match]
Name=en* eth*
[Network]
DHCP=yes
"""
# The emulator's own name server, see "Using the user mode network stack" in qemu's manual.
_RESOLVER = "nameserver 10.0.2.3\n"
_FSTAB = f"LABEL={_ROOT_LABEL} / ext4 defaults 0 1\nLABEL={_MEDIA_LABEL} /media ext4 ro 0 0\n"
_SERVICE = """[Unit]
Description=What the machine was started for
RequiresMountsFor=/media
Wants=network-online.target
After=network-online.target docker.service
[Service]
Type=oneshot
User=root
WorkingDirectory=~
ExecStart=/bin/sh /media/run
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS1
[Install]
WantedBy=multi-user.target
"""
_FILES = {
    "etc/systemd/network/20-wired.network": _NETWORK,
    "etc/systemd/system/media-run.service": _SERVICE,
    "etc/resolv.conf": _RESOLVER,
    "etc/fstab": _FSTAB,
    "etc/hostname": "debian\n",
    "etc/default/locale": "LANG=C.UTF-8\n",
}


class DiskFailed(Exception):
    """A disk could not be made; the text is the tool's own."""


@dataclass(frozen=True)
class System:
    """An installed Debian: a disk, and from it the kernel and the initramfs that it boots from."""

    directory: Path

    @property
    def disk(self) -> Path:
        return self.directory / "disk.img"

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        return self.directory / "initrd.img"

    @property
    def kernel_arguments(self) -> str:
        return f"root=LABEL={_ROOT_LABEL} ro console=ttyS0"


def installed(suite: str, cache: Path) -> System | None:
    """Return a release of Debian from the cache; None when there is none of today's recipe."""
    system = System(cache / f"{suite}-{_digest(suite)}")
    return system if system.directory.is_dir() else None


def install(suite: str, cache: Path, *, log: Path) -> System:
    """Install a release of Debian into the cache, in place of an older one. Raises :class:`DiskFailed`."""
    system = System(cache / f"{suite}-{_digest(suite)}")
    for old in cache.glob(f"{suite}-*"):
        shutil.rmtree(old)
    with tempfile.TemporaryDirectory(dir=cache, prefix="installing-") as name:
        root, made = Path(name, "root"), System(Path(name, "made"))
        made.directory.mkdir()
        options = [word for line in host.apt_settings() for word in ("--aptopt", line)]
        _run(
            [
                "mmdebstrap", "--mode=root", "--variant=important", f"--include={','.join(_packages(suite))}", *options,
                *(f"--customize-hook={hook}" for hook in _hooks()), suite, str(root), *_sources(suite),
            ],
            log,
        )  # fmt: skip
        for link, copy in ((root / "vmlinuz", made.kernel), (root / "initrd.img", made.initramfs)):
            shutil.copy(root / os.readlink(link), copy)
        make_ext4(root, made.disk, _DISK_MIB, _ROOT_LABEL, log)
        made.directory.rename(system.directory)
    return system


def make_media(tree: Path, disk: Path, *, log: Path) -> None:
    """Make the disk that one run brings along: the tree as it was committed last, the host's settings, what to run."""
    with tempfile.TemporaryDirectory(dir=disk.parent) as name:
        root = Path(name)
        _run(["git", "-C", str(tree), "bundle", "create", str(root / "bedrock.bundle"), "HEAD"], log)
        shutil.copy(_GUEST, root / "run")
        (root / "pip.conf").write_text(host.pip_configuration())
        lines = (f"export {key}={shlex.quote(value)}\n" for key, value in host.proxies().items())
        (root / "environment").write_text("".join(lines))
        make_ext4(root, disk, _MEDIA_MIB, _MEDIA_LABEL, log)


def make_ext4(root: Path, disk: Path, size_mib: int, label: str, log: Path) -> None:
    """Make an ext4 with the content of a directory."""
    _run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", label, "-d", str(root), str(disk), f"{size_mib}M"], log)


def _sources(suite: str) -> list[str]:
    mirror, security = mirrors()
    return [
        f"deb {mirror} {suite} main",
        f"deb {mirror} {suite}-updates main",
        f"deb {security} {suite}-security main",
    ]


def _packages(suite: str) -> tuple[str, ...]:
    return _PACKAGES + _MORE_PACKAGES.get(suite, ())


def _hooks() -> Iterable[str]:
    """Shell commands that finish an installation, whose directory they get as $1."""
    yield 'rm -f "$1/etc/resolv.conf"'
    for path, content in _FILES.items():
        yield f'printf %s {shlex.quote(content)} >"$1/{path}"'
    yield 'chroot "$1" systemctl enable --quiet systemd-networkd media-run'
    for certificate in sorted(host.CERTIFICATES.glob("*.crt")):
        yield f'install -D -m 644 {shlex.quote(str(certificate))} -t "$1{host.CERTIFICATES}"'
    yield 'chroot "$1" update-ca-certificates'


def _digest(suite: str) -> str:
    """Of everything that decides what a disk holds, save the versions of the packages."""
    parts = [*_sources(suite), *_packages(suite), *_hooks(), *host.apt_settings(), str(_DISK_MIB)]
    parts += [path.read_text() for path in sorted(host.CERTIFICATES.glob("*.crt"))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _run(command: list[str], log: Path) -> None:
    with log.open("a") as out:
        done = subprocess.run(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        last = "\n    ".join(log.read_text(errors="replace").splitlines()[-12:])
        raise DiskFailed(f"{command[0]} ended with {done.returncode} (log: {log}):\n    {last}")
