"""How this host reaches package registries, in the form in which a machine without any settings is given it.

None of it is part of the tree: it is looked up when a machine is made or started.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

CERTIFICATES = Path("/usr/local/share/ca-certificates")
# All that is trusted, in one file, on Debian.
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
# What says where packages are and how to get them; pip's other settings are about the host itself.
_PIP_NAMES = {"index-url", "extra-index-url", "trusted-host", "proxy", "retries", "timeout", "default-timeout"}
_APT_GROUPS = ("http", "https", "Retries", "Check-Date", "Check-Valid-Until")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def apt_settings() -> list[str]:
    """The lines of this host's apt configuration that are about how packages are fetched."""
    said = subprocess.run(["apt-config", "dump", "Acquire"], check=True, capture_output=True, text=True).stdout
    return list(choose_apt_settings(said))


def choose_apt_settings(dump: str) -> Iterator[str]:
    for line in dump.splitlines():
        name, _, value = line.partition(" ")
        if name.startswith("Acquire::") and name.split("::")[1] in _APT_GROUPS and value != '"";':
            yield line


def pip_configuration() -> str:
    """This host's settings of pip as the text of a pip.conf."""
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    return as_pip_configuration(done.stdout)


def as_pip_configuration(listed: str) -> str:
    """Turn what `pip config list` printed into a pip.conf. Later lines are stronger, the environment being the last."""
    chosen: dict[str, str] = {}
    for line in listed.splitlines():
        name, is_setting, value = line.partition("=")
        name = name.rpartition(".")[2]
        if not is_setting:
            continue
        if name == "cert":
            chosen[name] = _BUNDLE
        elif name in _PIP_NAMES:
            chosen[name.removeprefix("default-")] = str(ast.literal_eval(value)).replace("\n", "\n    ")
    return "\n".join(["[global]", *(f"{name} = {value}" for name, value in chosen.items()), ""])


def proxies(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    return {name: environment[name] for name in _PROXIES if environment.get(name)}
