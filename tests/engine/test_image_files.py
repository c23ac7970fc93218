"""Which files an image has: what we find in its layers is what the kernel shows of them."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bedrock.dockerd.image_files import list_layers


@contextmanager
def overlay(layers: list[Path], directory: Path) -> Iterator[Path]:
    """The kernel's own view of some layers, the topmost first, with a new one over them; it is the first to be kept."""
    upper, work, merged = (directory / name for name in ("upper", "work", "merged"))
    for path in (upper, work, merged):
        path.mkdir(parents=True)
    options = f"lowerdir={':'.join(map(str, layers))},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], check=True)
    try:
        yield merged
    finally:
        subprocess.run(["umount", str(merged)], check=True)


def disorder(root: Path, chance: random.Random) -> None:
    """Make, overwrite, remove and rename some files and directories below a root, with few names, so that they meet."""
    for _ in range(40):
        path = root.joinpath(*(chance.choice("abc") for _ in range(chance.randint(1, 4))))
        try:
            match chance.randrange(6):
                case 0 | 1:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(bytes(chance.randrange(100)))
                case 2:
                    path.unlink() if not path.is_dir() else shutil.rmtree(path)
                case 3:
                    path.mkdir(parents=True)
                case 4:
                    path.symlink_to("/a/b")
                case 5:
                    path.rename(path.with_name(chance.choice("abc")))
        except OSError:
            continue  # it is no directory, not empty, not there


def shown(root: Path) -> list[tuple[str, int]]:
    found = []
    for directory, _, names in os.walk(root):
        for path in (Path(directory, name) for name in names):
            if path.is_file() and not path.is_symlink():
                found.append(("/" + str(path.relative_to(root)), path.stat().st_size))
    return sorted(found)


@pytest.mark.parametrize("seed", range(40))
def test_the_files_of_a_stack_of_layers_are_those_that_the_kernel_shows(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    first = tmp_path / "0"
    first.mkdir()
    disorder(first, chance)
    layers = [first]
    for number in range(1, 5):
        directory = tmp_path / str(number)
        with overlay(layers, directory) as merged:
            disorder(merged, chance)
            expected = shown(merged)
        layers.insert(0, directory / "upper")
        assert sorted(list_layers(layers)) == expected


@pytest.mark.parametrize("seed", range(20))
def test_layers_that_were_unpacked_and_not_made_by_the_kernel_bear_no_marks(tmp_path: Path, seed: int) -> None:
    """A directory over a file over a directory: the kernel would have marked it as opaque, an archive does not."""
    chance = random.Random(seed)
    layers = [tmp_path / str(number) for number in range(4)]
    for layer in layers:
        layer.mkdir()
        disorder(layer, chance)
    with overlay(layers, tmp_path / "top") as merged:
        assert sorted(list_layers(layers)) == shown(merged)
