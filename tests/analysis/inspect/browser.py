"""A headless Chromium for tests, driven over pipes by the DevTools protocol; no library needed."""

import base64
import contextlib
import fcntl
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from queue import Empty, Queue
from typing import Any

import pytest

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
SECONDS = 120


def executable() -> str:
    """The one that `make test` fetched beside the environment, or the system's."""
    fetched = pathlib.Path(sys.prefix) / "browser" / "chromium"
    found = [str(fetched)] if fetched.exists() else [p for n in NAMES if (p := shutil.which(n))]
    if found:
        return found[0]
    if _is_debian() and platform.machine() == "x86_64":
        pytest.fail(f"no {fetched}: `make test` fetches it")
    pytest.skip("no Chromium: put one on the PATH")


def _is_debian() -> bool:
    try:
        return platform.freedesktop_os_release()["ID"] == "debian"
    except OSError:
        return False


class Browser:
    """One page. Events are kept as they come.

    Attributes:
        events: (method, parameters) of all that the page told of, in order.
    """

    def __init__(self, send: Any, answers: Queue):
        self._send, self._answers, self._count = send, answers, 0
        self.events: list[tuple[str, dict]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    _session: str | None = None

    def call(self, method: str, **params: Any) -> dict:
        """One command and its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._send(message)
        while (answer := self._next()).get("id") != self._count:
            pass
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _next(self) -> dict:
        try:
            message = self._answers.get(timeout=SECONDS)
        except Empty:
            raise TimeoutError(f"Chromium has said nothing for {SECONDS} seconds") from None
        if "method" in message:
            self.events.append((message["method"], message.get("params", {})))
        return message

    def open(self, path: pathlib.Path) -> None:
        """A file, when all of it has loaded; what was told before is forgotten."""
        self.events.clear()
        self.call("Page.navigate", url=path.absolute().as_uri())
        while not any(method == "Page.loadEventFired" for method, _ in self.events):
            self._next()

    def run(self, code: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def point(self, selector: str) -> None:
        """Move the mouse onto an element."""
        x, y = self._middle(selector)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector: str) -> None:
        """Click on an element."""
        self.click_at(*self._middle(selector))

    def click_at(self, x: float, y: float) -> None:
        """Click on a place in the window."""
        for kind in ("mousePressed", "mouseReleased"):
            button = {"button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def press(self, key: str) -> None:
        """Press a key such as ArrowRight."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def _middle(self, selector: str) -> tuple[float, float]:
        box = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'});"
            "const b = e.getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        return box[0], box[1]

    def look(self, width: int = 1280, height: int = 900, dark: bool = False) -> bytes:
        """A screenshot of a window of this size, PNG."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def complaints(self) -> list[str]:
        """What the page wrote to its console, and the errors that it met."""
        heard = {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"}
        return [json.dumps(params) for method, params in self.events if method in heard]

    def requests(self) -> list[str]:
        """The addresses that were asked for."""
        sent = [p for method, p in self.events if method == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent]


@contextlib.contextmanager
def opened(folder: pathlib.Path) -> Iterator[Browser]:
    """A browser whose files lie in a folder; it ends with the block."""
    command = [
        executable(), "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
        "--hide-scrollbars", "--no-first-run", f"--user-data-dir={folder}", "about:blank",
    ]  # fmt: skip
    # Chromium reads its commands from 3 and answers on 4, which both have to be free for that.
    to_browser, ours, from_browser, theirs = map(_high, (*os.pipe(), *os.pipe()))
    shell = ["bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{theirs}', "browser", *command]
    process = subprocess.Popen(
        shell, pass_fds=(to_browser, theirs), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    os.close(to_browser)
    os.close(theirs)
    answers: Queue = Queue()

    def read() -> None:
        rest = b""
        while found := os.read(from_browser, 1 << 16):
            *whole, rest = (rest + found).split(b"\0")
            for message in whole:
                answers.put(json.loads(message))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield Browser(lambda message: _write(ours, message), answers)
    finally:
        os.close(ours)  # which ends it
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(10)
        os.close(from_browser)


def _high(pipe: int) -> int:
    copy = fcntl.fcntl(pipe, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(pipe)
    return copy


def _write(pipe: int, message: dict) -> None:
    rest = json.dumps(message).encode() + b"\0"
    while rest:
        rest = rest[os.write(pipe, rest) :]
