"""The report's page in a real browser: nothing that it shows can leave the machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from browser import open_browser
from traces import WITH_OFFSET, call, end, file, process, start

from bedrock.trace.page import page_of
from bedrock.trace.report import report_of
from bedrock.tracer.operations import Op


async def test_no_request_and_no_control_of_the_page_leads_off_the_machine(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    reads = [
        call(Op.PREAD64, 1_000_000 * n, inode=9, device=4, flags=WITH_OFFSET, fd=3, result=10, requested=10, offset=n)
        for n in range(1, 50)
    ]
    records = [start(), process(), file("/data", inode=9, time_ns=3), *reads, end()]
    page = tmp_path / "report.html"
    page.write_text(page_of(report_of(write(records), None, None)))
    async with open_browser(page) as browser:
        assert await browser.addresses() == []
        controls = await browser.click_everything()
        assert "Zoom in" in controls
        assert not [name for name in controls if "share" in name.lower() or "cloud" in name.lower()]
        assert await browser.addresses() == []
        assert browser.left == []
        # Whatever the library might still want to ask for is refused by the page itself, wherever it is opened from.
        refused = await browser.evaluate("""new Promise(done => {
          addEventListener("securitypolicyviolation", event => done(event.effectiveDirective));
          fetch("https://example.org/").catch(() => 0);
        })""")
        assert refused == "connect-src"
