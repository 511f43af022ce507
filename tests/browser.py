"""A real headless browser, driven over WebDriver: Chromium and its chromedriver."""

import base64
import json
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from urllib.request import Request, urlopen

import pytest

from labo_fairseq.subprocesses import free_port

# nothing that Chromium does of its own accord may look like a request of the page
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)


class Browser:
    """One window."""

    def __init__(self, driver):
        self.driver = driver

    def call(self, method, path, **body):
        data = json.dumps(body).encode() if method == "POST" else None
        request = Request(f"{self.driver}{path}", data, {"Content-Type": "application/json"}, method=method)
        with urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def devtools(self, command, **parameters):
        return self.call("POST", "/goog/cdp/execute", cmd=command, params=parameters)

    def open(self, path, width=1280, height=900, dark=False):
        """Show a file in a window of so many CSS pixels."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])
        self.call("POST", "/url", url=path.resolve().as_uri())

    def run(self, script):
        """What a function body returns."""
        return self.call("POST", "/execute/sync", script=script, args=[])

    def requests(self, page):
        """Addresses that a file asked for since the last call, its own too; data: ones are shortened to that."""
        entries = (
            json.loads(entry["message"])["message"] for entry in self.call("POST", "/se/log", type="performance")
        )
        sent = [entry["params"] for entry in entries if entry["method"] == "Network.requestWillBeSent"]
        urls = [entry["request"]["url"] for entry in sent if entry["documentURL"] == page.resolve().as_uri()]
        return ["data:" if url.startswith("data:") else url for url in urls]

    def errors(self):
        """What the console says."""
        return [entry["message"] for entry in self.call("POST", "/se/log", type="browser")]

    def screenshot(self, path):
        """The whole page as PNG."""
        screenshot = self.devtools("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(screenshot["data"]))


@contextmanager
def browser():
    """A window of Chromium, or a skip that says what is missing."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no browser to look at the page with: apt-get install chromium chromium-driver")
    port, profile = free_port(), tempfile.mkdtemp(prefix="labo-browser-")
    process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    root = Browser(f"http://127.0.0.1:{port}")
    try:
        for _ in range(100):
            try:
                root.call("GET", "/status")
                break
            except OSError:
                time.sleep(0.1)
        options = {"binary": chromium, "args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"}}
        session = root.call("POST", "/session", capabilities={"alwaysMatch": wanted})["sessionId"]
        window = Browser(f"{root.driver}/session/{session}")
        try:
            yield window
        finally:
            window.call("DELETE", "")
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(profile, ignore_errors=True)
