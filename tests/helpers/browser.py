"""A real browser, headless: Debian's chromium, kept off the network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TRIES = 3
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def _started(start: Callable[[], Any]) -> Any:
    """Start a browser, again if it took longer than the driver waits, as on a busy machine."""
    from selenium.common.exceptions import WebDriverException

    for _ in range(TRIES - 1):
        try:
            return start()
        except WebDriverException:
            continue
    return start()


class Browser:
    """A driven browser and what happened in it."""

    def __init__(self, profile: Path) -> None:
        webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
        chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
        if chromium is None or driver is None:
            pytest.skip("Debian's chromium and chromium-driver are not installed")
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver: Any = _started(
            lambda: webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        )

    def open(self, page: Path, width: int = 1280) -> None:
        """Load a page in a window of some width, with the logs emptied first."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get("about:blank")
        self.requests()
        self.errors()
        self.driver.get(page.as_uri())

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the last call."""
        messages = [
            json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")
        ]
        return [
            m["params"]["request"]["url"]
            for m in messages
            if m["method"] == "Network.requestWillBeSent"
        ]

    def errors(self) -> list[str]:
        """Return what the console said since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def find(self, selector: str) -> Any:
        """Return the first element, scrolled into the middle of the window."""
        element = self.all(selector)[0]
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        return element

    def all(self, selector: str) -> list[Any]:
        """Return all elements."""
        return list(self.driver.find_elements("css selector", selector))

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page."""
        return self.driver.execute_script(script, *arguments)

    def point(self, element: Any) -> None:
        """Move the mouse over an element."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver, duration=20).move_to_element(element).perform()

    @property
    def tip(self) -> list[str]:
        """The lines of the tooltip; none when it is hidden."""
        return [line for line in self.driver.find_element("id", "tip").text.split("\n") if line]
