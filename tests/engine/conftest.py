"""Images to trace, and a running Bedrock, on the real engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from engine_facts import (
    IMAGE,
    IMAGE_FILES,
    NOBODYS_IMAGE,
    SCRATCH_IMAGE,
    VERSE,
    compiled,
    compiled_programs,
    leftovers_of,
    programs_of_other_languages,
    remove_tracers_of,
)
from make_image import make_image, remove_image
from oracle.image import oracle_image
from processes import Fleet
from sessions import Traced, events_of, finished

from bedrock.client import Client, open_client
from bedrock.model import TraceState
from bedrock.trace.events import Event


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.engine)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Static programs, by name, that do what the tests know the traces of."""
    return compiled_programs(tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="session")
def image(programs: dict[str, bytes]) -> Iterator[str]:
    """busybox, files to read, and our programs."""
    extra = {**IMAGE_FILES, **{f"bin/{name}": program for name, program in programs.items()}}
    make_image(IMAGE, extra, ["ENV PATH=/bin", 'CMD ["/bin/sh"]'])
    yield IMAGE
    remove_image(IMAGE)


@pytest.fixture(scope="session")
def scratch_image(programs: dict[str, bytes]) -> Iterator[str]:
    """Nothing but one static program, with an entrypoint and no shell, libc or PATH."""
    make_image(SCRATCH_IMAGE, {"known_io": programs["known_io"]}, ['ENTRYPOINT ["/known_io"]'], with_busybox=False)
    yield SCRATCH_IMAGE
    remove_image(SCRATCH_IMAGE)


@pytest.fixture(scope="session")
def nobodys_image() -> Iterator[str]:
    """busybox whose commands run as a user who may do nothing."""
    make_image(NOBODYS_IMAGE, {"srv/verse.txt": VERSE}, ["ENV PATH=/nowhere:/bin", "USER nobody", "WORKDIR /srv"])
    yield NOBODYS_IMAGE
    remove_image(NOBODYS_IMAGE)


@pytest.fixture(scope="session")
def oracle_programs(tmp_path_factory: pytest.TempPathFactory, programs: dict[str, bytes]) -> dict[str, bytes]:
    """The programs whose traces are compared with strace's, and what keeps strace's account."""
    directory = tmp_path_factory.mktemp("oracle")
    own = {name: compiled(name, directory, "-pthread") for name in ("witness", "corners")}
    return programs | own | programs_of_other_languages(directory)


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory, oracle_programs: dict[str, bytes]) -> str:
    """Debian with the programs whose traces are compared with strace's, and with what compiles the tracer."""
    return oracle_image(oracle_programs, tmp_path_factory.mktemp("debian"))


@pytest.fixture(scope="session")
def running_fleet(tmp_path_factory: pytest.TempPathFactory, image: str) -> Iterator[Fleet]:
    """One of everything, for all tests that don't kill anything."""
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        fleet.start()
        yield fleet
    assert leftovers_of("alpha", fleet.data_dir) == []


@pytest.fixture
def fleet(tmp_path: Path, image: str) -> Iterator[Fleet]:
    """A fleet of which nothing runs yet."""
    with Fleet(tmp_path) as made:
        yield made
    remove_tracers_of(made.data_dir)


@pytest.fixture
async def client(running_fleet: Fleet) -> AsyncIterator[Client]:
    async with open_client(running_fleet.url) as opened:
        yield opened


@pytest.fixture
def traced(client: Client, image: str, tmp_path: Path) -> Traced:
    """Run a command; return its calls, after having made sure that nothing is missing."""

    async def run(*command: str, exit_code: int = 0) -> list[Event]:
        session = await finished(client, await client.create(image, list(command), ttl="60s"))
        assert session.exit_code == exit_code, session.message
        assert session.trace is not None
        assert session.trace.state is TraceState.COMPLETE, session.trace
        return await events_of(client, session, tmp_path)

    return run
