"""scripts/kernels, as far as it needs no machine: which kernel a name means, and what a kernel boots from."""

from __future__ import annotations

import gzip
import lzma
import subprocess
from pathlib import Path

import pytest
from kernel_matrix.boot import initramfs, kernel_image, kernel_modules
from kernel_matrix.kernels import Kernel, NoSuchKernel, candidates, full_matrix, kernels_of

PACKAGES = [
    "linux-image-5.10.0-46-cloud-amd64",
    "linux-image-6.1.0-9-cloud-amd64",
    "linux-image-6.1.0-56-cloud-amd64",
    "linux-image-6.1.0-58-cloud-amd64-unsigned",
    "linux-image-6.1.0-57-rt-amd64",
    "linux-image-6.1.0-0.deb11.99-cloud-amd64",
    "linux-image-6.12.9+deb13-cloud-arm64",
    "linux-image-6.12.90+deb13.1-cloud-arm64:arm64",
    "linux-image-6.12.90+deb13-arm64-16k",
    "linux-image-6.17.8+deb13-cloud-amd64",
    "linux-image-6.16.12+deb13-cloud-amd64",
    "linux-binary-7.3.4+deb13-cloud-amd64",
    "linux-image-7.3.4+deb13-cloud-amd64",
    "linux-modules-7.3.4+deb13-cloud-amd64",
    "linux-image-amd64",
]


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("6.1-amd64", "6.1.0-56-cloud-amd64"),
        ("6.12-arm64", "6.12.90+deb13.1-cloud-arm64"),
        ("6.12-arm64-16k", "6.12.90+deb13-arm64-16k"),
        ("newest-amd64", "7.3.4+deb13-cloud-amd64"),
    ],
)
def test_a_name_means_the_newest_kernel_of_its_series_that_is_signed_and_made_for_its_release(
    name: str, release: str
) -> None:
    assert candidates(kernels_of(PACKAGES), name)[0].release == release


def test_older_kernels_come_after_the_newest() -> None:
    found = candidates(kernels_of(PACKAGES), "6.1-amd64")
    assert [kernel.version[3] for kernel in found] == [56, 9]


@pytest.mark.parametrize("name", ["6.1", "6.1-i386", "6.99-amd64", "6.1-amd64-16k", "newest-arm64-16K"])
def test_a_name_that_means_no_kernel_is_refused(name: str) -> None:
    with pytest.raises(NoSuchKernel):
        candidates(kernels_of(PACKAGES), name)


def test_a_whole_run_takes_the_oldest_kernel_from_6_16_on_beside_the_newest() -> None:
    names = full_matrix(kernels_of(PACKAGES))
    assert names[:5] == ["5.10-amd64", "6.1-amd64", "6.12-amd64", "6.16-amd64", "newest-amd64"]


def test_a_kernel_is_asked_for_in_all_the_packages_that_it_may_be_spread_over() -> None:
    kernel = Kernel((7, 3, 4, 13), "7.3.4+deb13-cloud-amd64", "amd64", False)
    assert {*kernel.packages} <= {*PACKAGES}
    assert kernel.name == "7.3-amd64"


def _module(needs: str = "") -> bytes:
    return b"\x7fELF\0depends=" + needs.encode() + b"\0name=x\0"


def test_modules_are_unpacked_and_come_after_what_they_depend_on(tmp_path: Path) -> None:
    tree = tmp_path / "usr/lib/modules/1/kernel"
    tree.mkdir(parents=True)
    (tree / "virtio_pci.ko.xz").write_bytes(lzma.compress(_module("virtio-ring,virtio")))
    (tree / "virtio-ring.ko").write_bytes(_module("virtio"))
    (tree / "virtio.ko.gz").write_bytes(gzip.compress(_module()))
    (tree / "nouveau.ko").write_bytes(_module())
    found = kernel_modules(tmp_path)
    assert [*found] == ["virtio", "virtio_ring", "virtio_pci"]
    assert set(found.values()) == {_module(), _module("virtio"), _module("virtio-ring,virtio")}


def test_a_kernel_that_would_unpack_itself_is_unpacked(tmp_path: Path) -> None:
    packed = gzip.compress(b"the kernel")
    start = 64
    header = b"MZ\0\0zimg" + start.to_bytes(4, "little") + len(packed).to_bytes(4, "little") + bytes(8) + b"gzip"
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/vmlinuz-1").write_bytes(header.ljust(start, b"\0") + packed + b"rest")
    assert kernel_image(tmp_path) == b"the kernel"
    (tmp_path / "boot/vmlinuz-1").write_bytes(b"as it is")
    assert kernel_image(tmp_path) == b"as it is"


def test_an_initramfs_is_what_cpio_reads(tmp_path: Path) -> None:
    content = initramfs({"init": b"#!/bin/sh\n", "bin/session": b"x" * 5}, {"overlay": b"module"})
    wanted = ["init", "bin/session", "modules/order"]
    subprocess.run(["busybox", "cpio", "-id", *wanted], input=content, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "init").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "bin/session").read_bytes() == b"x" * 5
    assert (tmp_path / "bin/session").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "modules/order").read_text() == "overlay.ko\n"
    listed = subprocess.run(["busybox", "cpio", "-tv"], input=content, check=True, capture_output=True).stdout.decode()
    kinds = {line.split()[-1]: line[0] for line in listed.splitlines()}
    assert (kinds["dev/console"], kinds["proc"], kinds["modules/overlay.ko"]) == ("c", "d", "-")
