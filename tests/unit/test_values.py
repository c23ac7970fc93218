"""Durations, packets, settings, requests, ranges: bytes and text from outside."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock.api import requests
from bedrock.api.artifacts import check_filename
from bedrock.api.ranges import RangeNotSatisfiable, parse_range
from bedrock.api.scheduler import Candidate, choose_node
from bedrock.dockerd.engine import split_image_name
from bedrock.duration import MAX_NS, format_duration, parse_duration
from bedrock.errors import InvalidInput
from bedrock.model import NodeName, new_session_id, parse_node_name, parse_session_id
from bedrock.settings import all_settings, example_config, load_settings
from bedrock.wire import Event, Packet, PacketError, decode_packet, encode_packet

_ROOT = Path(__file__).parent.parent.parent


@given(st.integers(0, MAX_NS))
def test_a_duration_that_is_written_reads_as_itself(ns: int) -> None:
    assert parse_duration(format_duration(ns)) == ns


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("10s", 10**10),
        ("1h30m", 54 * 10**11),
        ("1.5h", 54 * 10**11),
        ("250ms", 25 * 10**7),
        ("0", 0),
        (".5s", 5 * 10**8),
        ("1us", 1000),
        ("1\u00b5s", 1000),
        ("+2s", 2 * 10**9),
    ],
)
def test_durations_read_as_go_reads_them(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize("text", ["", "10", "s", "1x", "-1s", "1s ", "1e3s", "1h-5m", "9999999h", "\u0661s", "1s2"])
def test_what_is_no_duration_is_refused_by_the_fields_name(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^ttl: "):
        parse_duration(text, field="ttl")


_TEXT = st.dictionaries(st.text(max_size=10).filter(lambda key: key not in {"event_type", "session_id"}), st.text())
_EVENTS = st.lists(st.builds(Event, st.text(), st.text(), st.binary(), _TEXT), max_size=4)


@given(_TEXT, _EVENTS)
def test_a_packet_that_is_written_reads_as_itself(headers: dict[str, str], events: list[Event]) -> None:
    packet = Packet(headers, events)
    assert decode_packet(encode_packet(packet)) == packet


@given(
    st.one_of(
        st.binary(),
        st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda value: repr(value).encode()),
    )
)
def test_bytes_that_are_no_packet_raise_nothing_else(data: bytes) -> None:
    with contextlib.suppress(PacketError):
        decode_packet(data)


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"{",
        b'{"events": 1}',
        b'{"headers": [1]}',
        b'{"events": [1]}',
        b'{"events": [{"payload": "%%"}]}',
        b'{"events": [{"payload": 5}]}',
        b'{"events": [{"headers": 5}]}',
        b"\xff\xfe",
    ],
)
def test_a_bad_packet_names_its_bad_part(data: bytes) -> None:
    with pytest.raises(PacketError):
        decode_packet(data)


def test_go_may_leave_out_or_null_what_is_empty() -> None:
    assert decode_packet(b'{"headers": null, "events": null}') == Packet()
    assert decode_packet(b'{"headers": {"n": 5}}').headers == {"n": "5"}


def test_the_example_file_shows_every_setting_and_is_the_one_in_conf() -> None:
    assert (_ROOT / "conf" / "bedrock.toml").read_text() == example_config()
    for info in all_settings():
        assert f"# {info.key} = " in example_config()


def test_every_setting_is_in_the_reference() -> None:
    reference = (_ROOT / "docs" / "reference" / "settings.md").read_text()
    for info in all_settings():
        assert info.flag in reference
        assert info.env in reference


def test_flags_win_over_variables_over_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "bedrock.toml"
    file.write_text('[api]\nhttp_port = 1\nsocket_port = 1\nhttp_host = "1.1.1.1"\n')
    environ = {"BEDROCK_API_HTTP_PORT": "2", "BEDROCK_API_SOCKET_PORT": "2"}
    api = load_settings({"--api-http-port": "3"}, environ, file).api
    assert (api.http_port, api.socket_port, api.http_host) == (3, 2, "1.1.1.1")
    assert load_settings({}, {}).api.http_port == 8080


def test_the_defaults_of_the_three_processes_fit_each_other() -> None:
    settings = load_settings({"--api-http-port": "5", "--api-socket-port": "6", "--data-dir": "/x"}, {})
    assert settings.filemd.api_url == "http://127.0.0.1:5"
    assert settings.dockerd.api_socket_port == 6
    assert settings.api.store_url == "sqlite:////x/api/bedrock.db"
    assert str(settings.volumes_dir) == "/x/volumes"


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"BEDROCK_API_HTTP_PORT": "x"}, "BEDROCK_API_HTTP_PORT"),
        ({"BEDROCK_API_HTPP_PORT": "1"}, "BEDROCK_API_HTPP_PORT"),
        ({"BEDROCK_DOCKERD_SLOTS": "0"}, "BEDROCK_DOCKERD_SLOTS"),
        ({"BEDROCK_DATA_DIR": "x"}, "BEDROCK_DATA_DIR"),
        ({"BEDROCK_FILEMD_API_URL": "ftp://x"}, "BEDROCK_FILEMD_API_URL"),
        ({"BEDROCK_LOG_LEVEL": "loud"}, "BEDROCK_LOG_LEVEL"),
        ({"BEDROCK_DOCKERD_NAME": "a/b"}, "BEDROCK_DOCKERD_NAME"),
        ({"BEDROCK_CONFIG": "/none"}, "--config"),
    ],
)
def test_a_bad_setting_names_itself(environ: dict[str, str], name: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        load_settings({}, environ)
    assert refusal.value.field == name


@pytest.mark.parametrize("text", ["[api]\nport = 1", "[apy]\nx = 1", "nonsense = 1", "[api]\nhttp_port = true", "x"])
def test_a_bad_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bedrock.toml"
    file.write_text(text)
    with pytest.raises(InvalidInput):
        load_settings({}, {}, file)


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        ("nginx -g 'daemon off;'", ["nginx", "-g", "daemon off;"]),
        ("", []),
        ([], []),
        (["a b", "'"], ["a b", "'"]),
        ('a "b c"\\ d', ["a", "b c d"]),
    ],
)
def test_a_command_is_split_as_a_shell_splits_words(command: str | list[str], argv: list[str]) -> None:
    assert requests.split_command(command) == argv


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b"{}", "image"),
        (b'{"image":"a"}', "ttl"),
        (b'{"image":5,"ttl":"1s"}', "image"),
        (b'{"image":"a","ttl":"1s","comand":""}', "comand"),
        (b'{"image":"a","ttl":"1s","command":["a",5]}', "command"),
        (b'{"image":"a","ttl":"1s","labels":{"a":1}}', "labels"),
    ],
)
def test_a_bad_body_names_the_field_at_fault(body: bytes, field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        requests.parse_body(body, requests.CreateRequest)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"image": ""}, "image"),
        ({"image": "A B"}, "image"),
        ({"image": "../x"}, "image"),
        ({"ttl": "0s"}, "ttl"),
        ({"ttl": "soon"}, "ttl"),
        ({"command": "a 'b"}, "command"),
        ({"command": ["a\0"]}, "command"),
        ({"labels": {"a b": "c"}}, "labels"),
        ({"labels": {"a": "x" * 64}}, "labels"),
    ],
)
def test_a_request_that_can_t_be_run_names_the_field_at_fault(wanted: dict[str, object], field: str) -> None:
    good: dict[str, object] = {"image": "nginx:stable", "ttl": "10s"}
    request = requests.CreateRequest(**{**good, **wanted})  # type: ignore[arg-type]
    with pytest.raises(InvalidInput) as refusal:
        requests.new_session(request)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    "image",
    [
        "nginx",
        "nginx:stable",
        "library/nginx",
        "ghcr.io/a/b_c/d-e:1.2",
        "localhost:5000/x:y",
        "a@sha256:" + "0" * 64,
        "sha256:" + "0" * 64,
        "127.0.0.1:5000/nosuch:1",
    ],
)
def test_references_that_the_engine_takes_are_taken(image: str) -> None:
    assert requests.new_session(requests.CreateRequest(image=image, ttl="1s")).image == image


def test_an_image_name_is_split_into_what_a_pull_wants() -> None:
    assert split_image_name("nginx") == ("nginx", "latest")
    assert split_image_name("localhost:5000/nginx") == ("localhost:5000/nginx", "latest")
    assert split_image_name("localhost:5000/nginx:1") == ("localhost:5000/nginx", "1")
    assert split_image_name("nginx@sha256:ab") == ("nginx", "sha256:ab")


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\\b", "a\nb", "\0", "x" * 201])
def test_names_that_could_leave_their_directory_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        check_filename(name)


@pytest.mark.parametrize("text", ["", "x", "../sessions", str(new_session_id()) + "/", "0" * 36])
def test_what_is_no_session_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_session_id(text)


@pytest.mark.parametrize("text", ["", "a/b", ".a", "a b", "x" * 129, "\u00e4"])
def test_what_is_no_node_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_node_name(text)


@given(st.integers(1, 10_000), st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_range_is_the_slice_that_it_names(size: int, start: int, end: int) -> None:
    content = bytes(size)
    try:
        found = parse_range(f"bytes={start}-{end}", size)
    except RangeNotSatisfiable:
        assert start >= size
        return
    if end < start:
        assert found is None
        return
    assert found is not None
    assert content[found[0] : found[1]] == content[start : end + 1]


def test_ranges_of_the_rfc() -> None:
    assert parse_range("bytes=-3", 10) == (7, 10)
    assert parse_range("bytes=-30", 10) == (0, 10)
    assert parse_range("bytes=4-", 10) == (4, 10)
    assert parse_range(None, 10) is parse_range("bytes=0-1,3-4", 10) is parse_range("lines=1-2", 10) is None
    with pytest.raises(RangeNotSatisfiable):
        parse_range("bytes=-0", 10)


@given(st.lists(st.sampled_from("abcdef"), unique=True, min_size=1), st.integers(1, 30))
def test_nodes_take_turns(names: list[str], rounds: int) -> None:
    candidates = [Candidate(NodeName(name), True, 1) for name in names]
    last, taken = None, []
    for _ in range(rounds):
        last = choose_node(candidates, after=last)
        taken.append(last)
    expected = sorted(names)
    assert taken == [expected[index % len(expected)] for index in range(rounds)]


def test_a_node_without_a_free_slot_or_that_is_away_is_passed_over() -> None:
    nodes = [Candidate(NodeName("a"), True, 0), Candidate(NodeName("b"), False, 1), Candidate(NodeName("c"), True, 1)]
    assert choose_node(nodes, after=None) == "c"
    assert choose_node(nodes[:2], after=None) is None


def test_ids_sort_by_the_time_at_which_they_were_made() -> None:
    ids = [new_session_id() for _ in range(1000)]
    assert ids == sorted(ids)
    assert os.path.basename(ids[0]) == ids[0]
