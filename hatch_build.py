"""The build backend: hatchling, with a hook that compiles the tracer into each wheel."""

from __future__ import annotations

import os
import platform
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from hatchling import build as hatchling_build
from hatchling.build import (  # noqa: F401 (they are the rest of the backend)
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
)
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Static programs need no libc: any manylinux or musllinux will do, and these are the oldest that Python 3.11 knows.
_PLATFORMS = "manylinux_2_17_{0}.musllinux_1_1_{0}"
# What bedrock.tracer.header imports. An editable installation, which compiles nothing, does not wait for them.
_NEEDED = {"numpy", "msgspec", "uuid-utils"}


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    dependencies = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    needed = [item for item in dependencies if re.split(r"[^\w-]", item, maxsplit=1)[0] in _NEEDED]
    return [*hatchling_build.get_requires_for_build_wheel(config_settings), *needed]


class TracerHook(BuildHookInterface[Any]):
    """MACHINE and CC in the environment compile for another machine.

    The programs stay in the source tree, in bedrock/tracer/bin. Where they can't be compiled the wheel has none and is
    for every machine, so that Bedrock can be installed from its sources without a compiler; scripts/wheel, which makes
    the wheels that are published, refuses such a wheel.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        from bedrock.tracer.compile import BuildFailed, compile_here, missing_tools
        from bedrock.tracer.programs import SOURCES_FILE, source_digest

        machine = os.environ.get("MACHINE") or platform.machine()
        try:
            if missing := missing_tools():
                raise BuildFailed(f"this host lacks {', '.join(missing)}")
            programs = compile_here()
        except BuildFailed as error:
            self.app.display_warning(f"the wheel carries no tracer: {error}")
            return
        inside = f"bedrock/tracer/bin/{machine}"
        directory = Path(self.root, inside)
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in {**programs, SOURCES_FILE: source_digest(machine).encode()}.items():
            path = directory / name
            path.unlink(missing_ok=True)
            path.write_bytes(content)
            path.chmod(0o755 if name in programs else 0o644)
            build_data["force_include"][str(path)] = f"{inside}/{name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_PLATFORMS.format(machine)}"
