"""What a kernel boots from: itself, the few modules that it needs, and an initramfs that is made of bytes."""

from __future__ import annotations

import gzip
import io
import lzma
import re
import stat
from collections.abc import Iterable
from pathlib import Path

import zstandard

_MODULES = ("virtio_pci", "virtio_mmio", "virtio_blk", "ext4", "overlay")
# What ext4 asks for by name and not as a dependency.
_ASKED_FOR = ("crc32c_generic", "crc32c_intel", "crc32c_cryptoapi", "crc32_cryptoapi")
_PACKED_SUFFIXES = {".xz": lzma.decompress, ".gz": gzip.decompress}
# Kernels for arm64 are EFI programs that unpack themselves, which an emulator without EFI can't start. From
# include/linux/pe.h and drivers/firmware/efi/libstub/zboot-header.S: offset, size, name of the method.
_ZBOOT_MAGIC, _ZBOOT_METHOD = b"zimg", slice(24, 56)


class BootError(Exception):
    """A package holds no kernel that can be started."""


def kernel_image(package: Path) -> bytes:
    """Return the kernel of an unpacked package, in a form that the emulator starts."""
    images = [*package.glob("boot/vmlinuz-*"), *package.glob("**/lib/modules/*/vmlinuz")]
    if not images:
        raise BootError(f"there is no kernel in {package.name}")
    content = images[0].read_bytes()
    if content[4:8] != _ZBOOT_MAGIC:
        return content
    start, size = int.from_bytes(content[8:12], "little"), int.from_bytes(content[12:16], "little")
    method = content[_ZBOOT_METHOD].split(b"\0")[0]
    packed = content[start : start + size]
    if method == b"gzip":
        return gzip.decompress(packed)
    if method == b"zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    if method in {b"lzma", b"xzkern"}:
        return lzma.decompress(packed)
    raise BootError(f"the kernel of {package.name} is packed with {method!r}")


def kernel_modules(package: Path) -> dict[str, bytes]:
    """The modules for the disk and for containers, unpacked, in the order in which they must be loaded."""
    paths = {_module_name(path): path for path in package.rglob("*.ko*") if path.is_file()}
    found: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in found or name not in paths:
            return
        content = paths[name].read_bytes()
        suffix = paths[name].suffix
        if suffix == ".zst":
            content = zstandard.ZstdDecompressor().decompressobj().decompress(content)
        elif suffix in _PACKED_SUFFIXES:
            content = _PACKED_SUFFIXES[suffix](content)
        needed = re.search(rb"\0depends=([^\0]*)\0", content)
        for other in needed[1].decode().split(",") if needed else []:
            add(other.replace("-", "_"))
        found[name] = content

    for name in (*_ASKED_FOR, *_MODULES):
        add(name)
    return found


def _module_name(path: Path) -> str:
    return path.name.partition(".ko")[0].replace("-", "_")


def initramfs(files: dict[str, bytes], modules: dict[str, bytes]) -> bytes:
    """An archive with ``files`` by path, ``modules`` below /modules, and the directories and the console of a root."""
    contents = files | {f"modules/{name}.ko": content for name, content in modules.items()}
    contents["modules/order"] = "".join(f"{name}.ko\n" for name in modules).encode()
    archive = _Cpio()
    empty = {"dev", "proc", "sys", "tmp", "new", "btf"}
    for directory in sorted(empty | set(_parents(contents))):
        archive.add(directory, mode=stat.S_IFDIR | 0o755)
    archive.add("dev/console", mode=stat.S_IFCHR | 0o600, device=(5, 1))
    for path, content in contents.items():
        archive.add(path, content, mode=stat.S_IFREG | 0o755)
    return archive.content()


def _parents(paths: Iterable[str]) -> Iterable[str]:
    return (str(parent) for path in paths for parent in Path(path).parents if str(parent) != ".")


class _Cpio:
    """An archive in the format newc, as Documentation/driver-api/early-userspace/buffer-format.rst describes it."""

    def __init__(self) -> None:
        self._out, self._count = io.BytesIO(), 0

    def add(self, path: str, content: bytes = b"", *, mode: int, device: tuple[int, int] = (0, 0)) -> None:
        self._count += 1
        name = path.encode() + b"\0"
        fields = (self._count, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name), 0)
        self._out.write(b"070701" + b"".join(b"%08X" % field for field in fields) + name)
        self._out.write(bytes(-(110 + len(name)) % 4) + content + bytes(-len(content) % 4))

    def content(self) -> bytes:
        self.add("TRAILER!!!", mode=0)
        return self._out.getvalue()
