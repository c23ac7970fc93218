"""Pages of other sites, in a real browser on the API's machine, can neither make a session nor read one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from browser import open_site
from werkzeug.datastructures import Headers

from bedrock.api.origins import why_foreign
from bedrock.api.service import Api
from bedrock.client import Client

# What a page can send without the API's leave: a fetch that waives its answer, and a form, whose one field is JSON.
_PAGE = """<!doctype html><body>
<form id="form" method="post" enctype="text/plain" target="frame" action="API/api/sessions">
<input name='{"image":"busybox","command":"id","ttl":"1m","labels":{"a":"' value='b"}}'></form>
<iframe name="frame" id="frame"></iframe>
<script>
(async () => {
  const body = JSON.stringify({ image: "busybox", command: "id", ttl: "1m" });
  await fetch("API/api/sessions", { method: "POST", mode: "no-cors", body }).catch(() => 0);
  const sent = new Promise(done => { document.getElementById("frame").onload = done; });
  form.submit();
  await sent;
  window.read = await fetch("API/api/sessions").then(answer => answer.text(), () => "refused");
  document.body.dataset.drawn = "yes";
})();
</script>"""


@contextmanager
def _served(page: str) -> Iterator[int]:
    """Serve one page on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_a_page_on_another_origin_neither_makes_a_session_nor_reads_one(
    api: Api, client: Client, tmp_path: Path, name: str
) -> None:
    with _served(_PAGE.replace("API", api.url)) as port:
        async with open_site(f"http://{name}:{port}/", tmp_path / "profile") as browser:
            assert await browser.evaluate("window.read") == "refused"
            # Both have got there.
            assert len([item for item in browser.left if item.endswith("/api/sessions")]) >= 3
    assert [session.id async for session in client.list()] == []


@pytest.mark.parametrize(
    ("method", "headers", "is_foreign"),
    [
        ("POST", {}, False),  # a program
        ("POST", {"Origin": "http://api:8080", "Sec-Fetch-Site": "same-origin"}, False),
        ("POST", {"Origin": "http://API:8080"}, False),
        ("GET", {"Sec-Fetch-Site": "none"}, False),  # typed by the user
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, False),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, True),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}, True),
        ("GET", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, True),
        ("POST", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, True),
        ("POST", {"Origin": "null"}, True),
        ("POST", {"Origin": "http://api:8081"}, True),
        ("POST", {"Origin": "http://api"}, True),
        ("PUT", {"Origin": "https://api.example"}, True),
        ("POST", {"Origin": "http://api:99999"}, True),
        ("POST", {"Origin": "http://[::1"}, True),
    ],
)
def test_a_request_is_judged_by_what_browsers_say_of_it(method: str, headers: dict[str, str], is_foreign: bool) -> None:
    assert bool(why_foreign(method, "api:8080", Headers(headers))) == is_foreign
