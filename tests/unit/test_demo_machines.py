"""scripts/demo_vm, as far as it needs no machine: what a machine is given of this host's settings and of the tree."""

from __future__ import annotations

import configparser
import queue
import subprocess
from pathlib import Path

import pytest
from demo_machines.disks import DiskFailed, make_ext4, make_media
from demo_machines.host import as_pip_configuration, choose_apt_settings, proxies
from demo_machines.machine import MachineFailed, follow

_ROOT = Path(__file__).parent.parent.parent

APT = """Acquire "";
Acquire::AllowInsecureRepositories "0";
Acquire::cdrom::mount "/media/cdrom/";
Acquire::http "";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::Check-Date "false";
Acquire::IndexTargets::deb::Packages::Optional "0";
"""
PIP = """global.cert='/home/me/own-ca.pem'
global.index-url='https://packages.example/simple'
global.find-links='/opt/wheels'
:env:.index-url='https://other.example/simple'
:env:.extra-index-url='https://one.example/simple\\nhttps://two.example/simple'
:env:.default-timeout='180'
"""


def test_of_apts_settings_a_machine_is_given_those_about_fetching_that_say_something() -> None:
    assert list(choose_apt_settings(APT)) == [
        'Acquire::http::Proxy "http://proxy.example:3128";',
        'Acquire::Check-Date "false";',
    ]


def test_of_pips_settings_a_machine_is_given_those_that_do_not_speak_of_this_hosts_files() -> None:
    text = as_pip_configuration(PIP)
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    assert dict(parser["global"]) == {
        "cert": "/etc/ssl/certs/ca-certificates.crt",
        "index-url": "https://other.example/simple",
        "extra-index-url": "https://one.example/simple\nhttps://two.example/simple",
        "timeout": "180",
    }


def test_a_host_without_settings_of_pip_gives_none() -> None:
    assert as_pip_configuration("") == "[global]\n"


def test_a_machine_is_given_the_proxies_that_are_set() -> None:
    assert proxies({"https_proxy": "http://proxy.example", "no_proxy": "", "HOME": "/root"}) == {
        "https_proxy": "http://proxy.example"
    }


def test_a_machine_can_clone_the_tree_as_it_was_committed_last(tmp_path: Path) -> None:
    tree, media = tmp_path / "tree", tmp_path / "media.img"
    git = ("git", "-C", str(tree), "-c", "user.name=me", "-c", "user.email=me@example.org")
    subprocess.run(["git", "init", "--quiet", str(tree)], check=True)
    (tree / "file").write_text("committed")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "first"], check=True)
    (tree / "file").write_text("not committed")

    make_media(tree, media, log=tmp_path / "log")

    for name in ("bedrock.bundle", "run", "pip.conf", "environment"):
        subprocess.run(["debugfs", "-R", f"dump {name} {tmp_path / name}", str(media)], check=True, capture_output=True)
    subprocess.run(["git", "clone", "--quiet", str(tmp_path / "bedrock.bundle"), str(tmp_path / "clone")], check=True)
    assert (tmp_path / "clone" / "file").read_text() == "committed"
    assert (tmp_path / "run").read_bytes() == (_ROOT / "scripts/demo_machines/guest.sh").read_bytes()


def test_a_disk_that_cannot_be_made_says_what_the_tool_said(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "large").write_bytes(bytes(4 << 20) + b"x" * (4 << 20))
    with pytest.raises(DiskFailed, match=r"(?s)mke2fs ended with \d+ .*log.*Could not allocate block"):
        make_ext4(tmp_path / "root", tmp_path / "disk.img", 2, "label", tmp_path / "log.txt")


@pytest.mark.parametrize("is_silent", [True, False])
def test_a_machine_that_is_not_done_in_time_is_given_up_with_its_consoles_last_words(
    tmp_path: Path, is_silent: bool
) -> None:
    (tmp_path / "console").write_text("\x1b[1mbooting\x1b[0m\r\nKernel panic\r\n\r\n")
    lines: queue.Queue[str | None] = queue.Queue()

    def show(line: str) -> None:
        if not is_silent:
            lines.put(line)

    show("first")
    with pytest.raises(MachineFailed, match=r"(?s)not done after 0 s .*booting\n    Kernel panic$"):
        follow(lines, tmp_path / "console", 0.1, show)


def test_what_a_machine_prints_is_shown_until_it_stops(tmp_path: Path) -> None:
    lines: queue.Queue[str | None] = queue.Queue()
    for line in ("first", "second", None, "after"):
        lines.put(line)
    shown: list[str] = []
    follow(lines, tmp_path / "console", 60, shown.append)
    assert shown == ["first", "second"]
