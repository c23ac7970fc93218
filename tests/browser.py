"""A real browser on a page: what it shows, what it can be clicked on, and what it asks the world for.

It runs without a network where its page is a file, and is spoken to by the DevTools protocol on two pipes.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from bedrock.concurrency.nursery import open_hidden_nursery

_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,5200"),
    # What a browser asks for on its own account is not the page's doing.
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # A page behind the window that it has opened goes on at full speed.
    *("--disable-background-timer-throttling", "--disable-renderer-backgrounding"),
    "--remote-debugging-pipe",
)
# Every attribute that makes a browser ask for something, or go somewhere, with an address that is not in the page.
_ADDRESSES = """
[...document.querySelectorAll("*")].flatMap(element => [...element.attributes]
  .filter(({ name }) => /^(href|xlink:href|src|srcset|action|formaction|poster|data|ping|background|style)$/.test(name))
  .filter(({ name, value }) => name === "style"
    ? /url[(]\\s*['"]?(?!#|data:)/.test(value)
    : !/^(#|data:|blob:)/.test(value))
  .map(({ name, value }) => element.localName + " " + name + "=" + value))
"""
_CONTROLS = "a, button, input, select, form, summary, [onclick], [data-title], [role=button]"


class Browser:
    """One page. ``left`` has what it has asked of the world since it was opened, its own file not counted."""

    def __init__(self, receive: trio.lowlevel.FdStream, send: trio.lowlevel.FdStream, url: str) -> None:
        self._receive = receive
        self._send = send
        self._url = url
        self._number = 0
        self._answers: dict[int, Any] = {}
        self._news = trio.Event()
        self._session = ""
        self.left: list[str] = []

    async def read(self) -> None:
        """Take what the browser says until cancelled."""
        rest = b""
        async for chunk in self._receive:
            *messages, rest = (rest + chunk).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self._answers[message["id"]] = message
                else:
                    self._note(message["method"], message["params"])
            self._news.set()
            self._news = trio.Event()

    def _note(self, method: str, params: Any) -> None:
        if method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if url != self._url and not url.startswith(("data:", "blob:")):
                self.left.append(f"request {url}")
        elif method == "Network.webSocketCreated":
            self.left.append(f"socket {params['url']}")
        elif method == "Target.targetCreated" and params["targetInfo"].get("openerId"):
            self.left.append(f"window {params['targetInfo']['url']}")

    async def call(self, method: str, **params: Any) -> Any:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        await self._send.send_all(json.dumps(message).encode() + b"\0")
        while number not in self._answers:
            await self._news.wait()
        answer = self._answers.pop(number)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    async def open(self) -> None:
        """Load the page, and return when it has been drawn."""
        await self.call("Target.setDiscoverTargets", discover=True)
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        self._session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        await self.call("Network.enable")
        await self.call("Page.navigate", url=self._url)
        await self.wait_until("document.body && document.body.dataset.drawn === 'yes'")

    async def evaluate(self, expression: str) -> Any:
        result = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def wait_until(self, condition: str) -> None:
        while not await self.evaluate(condition):
            await trio.sleep(0.05)

    async def dom(self) -> str:
        return str(await self.evaluate("document.documentElement.outerHTML"))

    async def addresses(self) -> list[str]:
        """Whatever in the markup has the form of an address, with where it stands."""
        found: list[str] = await self.evaluate(_ADDRESSES)
        return found

    async def click_everything(self) -> list[str]:
        """Click each control there is, and each that this brings up; return what they are called."""
        return list(
            await self.evaluate(f"""(async () => {{
          const clicked = new Map();
          for (;;) {{
            const next = [...document.querySelectorAll({json.dumps(_CONTROLS)})].findLast(item => !clicked.has(item));
            if (!next) return [...clicked.values()];
            clicked.set(next, next.dataset.title || next.getAttribute("aria-label") || next.textContent.trim());
            next.dispatchEvent(new MouseEvent("click", {{ bubbles: true, cancelable: true }}));
            await new Promise(done => setTimeout(done, 20));
          }}
        }})()""")
        )


@asynccontextmanager
async def open_browser(page: Path, *, limit_s: float = 90) -> AsyncIterator[Browser]:
    """Open the file ``page`` without a network and yield once its script has come to its end."""
    command = ["unshare", "--net", "chromium"]
    async with _open(command, page.as_uri(), page.parent / "profile", limit_s) as browser:
        yield browser


@asynccontextmanager
async def open_site(url: str, profile: Path, *, limit_s: float = 90) -> AsyncIterator[Browser]:
    """Open the page at ``url`` and yield once its script has come to its end."""
    async with _open(["chromium"], url, profile, limit_s) as browser:
        yield browser


@asynccontextmanager
async def _open(command: list[str], url: str, profile: Path, limit_s: float) -> AsyncIterator[Browser]:
    to_browser, ours_out = os.pipe()
    ours_in, from_browser = os.pipe()
    # The browser's ends are descriptors 3 and 4, by definition of --remote-debugging-pipe.
    shell = ["bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "bash"]
    # It makes sockets in there, whose names may not be long, and leaves them when it is killed.
    room = tempfile.TemporaryDirectory(prefix="bedrock-browser-", ignore_cleanup_errors=True)
    process = await trio.lowlevel.open_process(
        [*shell, *command, *_OPTIONS, f"--user-data-dir={profile}"],
        env={**os.environ, "TMPDIR": room.name},
        pass_fds=(to_browser, from_browser),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser)
    os.close(from_browser)
    async with trio.lowlevel.FdStream(ours_in) as receive, trio.lowlevel.FdStream(ours_out) as send:
        try:
            with trio.fail_after(limit_s):
                async with open_hidden_nursery() as nursery:
                    browser = Browser(receive, send, url)
                    nursery.start_soon(browser.read)
                    await browser.open()
                    yield browser
                    nursery.cancel_scope.cancel()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            room.cleanup()
