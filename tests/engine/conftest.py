"""Images to trace, and a running Bedrock, on the real engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from engine_facts import IMAGE, NOBODYS_IMAGE, SCRATCH_IMAGE, VERSE, compiled, containers_of
from make_image import make_image, remove_image
from oracle import oracle_image
from processes import Fleet

from bedrock.client import Client, open_client


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.engine)


@pytest.fixture(scope="session")
def known_io(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A static program that does I/O which it also writes down."""
    return compiled("known_io", tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="session")
def pitfalls(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A static program that does what tracers get wrong."""
    return compiled("pitfalls", tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="session")
def image(known_io: bytes, pitfalls: bytes) -> Iterator[str]:
    """busybox, a file to read, and the program of known I/O."""
    extra = {
        "srv/verse.txt": VERSE,
        "bin/known_io": known_io,
        "bin/pitfalls": pitfalls,
        "srv/not-a-program": b"\x00\x01",
        "srv/big.bin": bytes(256 * 4096),
    }
    make_image(IMAGE, extra, ["ENV PATH=/bin", 'CMD ["/bin/sh"]'])
    yield IMAGE
    remove_image(IMAGE)


@pytest.fixture(scope="session")
def scratch_image(known_io: bytes) -> Iterator[str]:
    """Nothing but one static program, with an entrypoint and no shell, libc or PATH."""
    make_image(SCRATCH_IMAGE, {"known_io": known_io}, ['ENTRYPOINT ["/known_io"]'], with_busybox=False)
    yield SCRATCH_IMAGE
    remove_image(SCRATCH_IMAGE)


@pytest.fixture(scope="session")
def nobodys_image() -> Iterator[str]:
    """busybox whose commands run as a user who may do nothing."""
    make_image(NOBODYS_IMAGE, {"srv/verse.txt": VERSE}, ["ENV PATH=/nowhere:/bin", "USER nobody", "WORKDIR /srv"])
    yield NOBODYS_IMAGE
    remove_image(NOBODYS_IMAGE)


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory, pitfalls: bytes) -> str:
    """Debian with the programs whose traces are compared with strace's, and with what compiles the tracer."""
    directory = tmp_path_factory.mktemp("debian")
    return oracle_image({"pitfalls": pitfalls, "threads": compiled("threads", directory)}, directory)


@pytest.fixture(scope="session")
def running_fleet(tmp_path_factory: pytest.TempPathFactory, image: str) -> Iterator[Fleet]:
    """One of everything, for all tests that don't kill anything."""
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        fleet.api().start()
        fleet.dockerd("alpha").start()
        fleet.filemd().start()
        yield fleet
    assert containers_of("alpha") == []


@pytest.fixture
def fleet(tmp_path: Path, image: str) -> Iterator[Fleet]:
    """A fleet of which nothing runs yet."""
    with Fleet(tmp_path) as made:
        yield made


@pytest.fixture
async def client(running_fleet: Fleet) -> AsyncIterator[Client]:
    async with open_client(running_fleet.url) as opened:
        yield opened
