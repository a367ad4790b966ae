"""As much of the W3C WebDriver protocol as the tests of the page need: chromedriver on the loopback device, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.request import ProxyHandler, Request, build_opener

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["DOWN", "END", "HOME", "LEFT", "RIGHT", "TAB", "UP", "Browser", "browser", "programs"]

# Key codes of the protocol.
TAB, END, HOME, LEFT, UP, RIGHT, DOWN = "\ue004", "\ue010", "\ue011", "\ue012", "\ue013", "\ue014", "\ue015"

_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root inside containers
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)


def programs() -> tuple[str, str] | None:
    """Chromium and its driver; None if either is missing."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    return (chromium, driver) if chromium and driver else None


class Browser:
    """One window."""

    def __init__(self, base: str, capabilities: dict[str, Any]) -> None:
        self._opener = build_opener(ProxyHandler({}))  # loopback needs no proxy, whatever the environment says
        self._base = base
        made = self._call("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self._base = f"{base}/session/{made['sessionId']}"

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self._base + path, data, {"Content-Type": "application/json"}, method=method)  # noqa: S310
        with self._opener.open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, path: Path) -> None:
        self._call("POST", "/url", {"url": path.as_uri()})

    def run(self, script: str) -> Any:
        """The value of a script that says `return`."""
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def press(self, *keys: str) -> None:
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def devtools(self, command: str, **parameters: Any) -> Any:
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def window(self, width: int, height: int = 800) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)

    def scheme(self, value: str) -> None:
        """Prefer "light" or "dark"."""
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def messages(self) -> list[str]:
        """What the console said since the last time."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"})]

    def close(self) -> None:
        self._call("DELETE", "")


@contextmanager
def browser(chromium: str, driver: str, profile: Path) -> Iterator[Browser]:
    """A headless browser with an empty profile."""
    with subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True) as process:
        try:
            window = Browser(f"http://127.0.0.1:{_port(process)}", _capabilities(chromium, profile))
            try:
                yield window
            finally:
                window.close()
        finally:
            process.terminate()


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"started successfully on port (\d+)", line)
        if found:
            return int(found[1])
    raise AssertionError("chromedriver ended without a word about its port")


def _capabilities(chromium: str, profile: Path) -> dict[str, Any]:
    options = {"binary": chromium, "args": [*_ARGUMENTS, f"--user-data-dir={profile}"]}
    return {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
