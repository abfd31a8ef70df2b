"""The console in a real Chromium: a whole withdrawal, refused access, and pages that fit a telephone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service as Driver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.ui import WebDriverWait

from tests.cli.console.console_at_work import PASSWORD, carry_out, entries, make_state, serving, start
from unlearning.certificate.signed import countersign
from unlearning.signing import SigningKey

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
]

WIDTHS = (1280, 390)
PAGES = ("/", "/withdrawals", "/withdrawals/new", "/certificates", "/models", "/quality", "/ledger", "/keys")

# Contrast as WCAG defines it, of every element that has text of its own.
CONTRAST = """
const found = [];
function rgb(text) {
  const m = text.match(/[\\d.]+/g).map(Number); return m.length > 3 && m[3] === 0 ? null : m; }
function light(c) { const [r, g, b] = c.slice(0, 3).map(v => { v /= 255;
  return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126*r + 0.7152*g + 0.0722*b; }
for (const e of document.body.querySelectorAll("*")) {
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || !e.checkVisibility()) continue;
  if (e.closest("svg") || e.closest(".skip")) continue;
  let back = null;
  for (let p = e; p && !back; p = p.parentElement) back = rgb(getComputedStyle(p).backgroundColor);
  const a = light(rgb(getComputedStyle(e).color)), b = light(back || [255, 255, 255]);
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) found.push(e.tagName + "." + e.className + " " + ratio.toFixed(2));
}
return found;
"""
# Every field and button has a name that is read out.
UNNAMED = """
const wanted = "input:not([type=hidden]), select, textarea, button, a, summary";
return [...document.querySelectorAll(wanted)].filter(e => !(e.labels && e.labels.length) &&
  !e.getAttribute("aria-label") && !e.textContent.trim()).map(e => e.outerHTML);
"""


class Browser:
    """A person at a real browser."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver, self.url = driver, url

    def open(self, path: str) -> str:
        """Go to a page; returns its text."""
        self.driver.get(self.url + path)
        return self.text

    @property
    def text(self) -> str:
        """What is to be read on the page."""
        return self.driver.find_element(By.TAG_NAME, "body").text

    def find(self, css: str) -> WebElement:
        """The first element."""
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def press(self, label: str) -> None:
        """Press the button with that label, and wait for the next page."""
        old = self.find("html")
        xpath = f"//button[normalize-space()='{label}'] | //a[normalize-space()='{label}']"
        self.driver.find_element(By.XPATH, xpath).click()
        self.wait(lambda: self.find("html") != old)

    def wait(self, until: object) -> None:
        """Wait until something holds; what it looks at may be replaced while it looks."""
        stale = [StaleElementReferenceException]
        WebDriverWait(self.driver, 60, ignored_exceptions=stale).until(lambda _: until())  # type: ignore[operator]

    def log_in(self, name: str) -> None:
        """Log in, by the keyboard."""
        self.driver.delete_all_cookies()
        self.open("/login")
        self.find("#name").send_keys(name)
        self.find("#password").send_keys(PASSWORD)
        old = self.find("html")
        self.find("#password").send_keys(Keys.ENTER)
        self.wait(lambda: self.find("html") != old)

    def look(self, page: str) -> None:
        """A page fits a desktop and a telephone, has names and contrast, and breaks no rule of its own."""
        for width in WIDTHS:
            self.driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500},
            )
            self.open(page)
            wide = self.driver.execute_script("return document.documentElement.scrollWidth")
            assert wide <= width, f"{page} is {wide} wide at {width}"
            assert self.driver.execute_script(CONTRAST) == [], page
            assert self.driver.execute_script(UNNAMED) == [], page
            assert len(self.driver.find_elements(By.TAG_NAME, "h1")) >= 1
        errors = [entry for entry in self.driver.get_log("browser") if "favicon" not in entry["message"]]
        assert errors == [], page


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A consortium that trained two rounds."""
    path = tmp_path_factory.mktemp("browser")
    make_state(path)
    return path


@pytest.fixture(scope="module")
def browser(place: Path) -> Iterator[Browser]:
    """A headless Chromium before the console."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for switch in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-dev-shm-usage",
        "disable-background-networking", "disable-component-update", "disable-sync",
        f"user-data-dir={place / 'chromium'}",
    ):  # fmt: skip
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "SEVERE"})
    options.add_experimental_option("prefs", {"download.default_directory": str(place / "downloads")})
    with serving(start(place / "state")) as url:
        driver = webdriver.Chrome(options, Driver(str(DRIVER)))
        try:
            yield Browser(driver, url)
        finally:
            driver.quit()


def test_a_withdrawal_from_request_to_verified_certificate(browser: Browser, place: Path) -> None:
    """Filed, carried out by the real service, certified by two people, and verified, all in the browser."""
    browser.log_in("officer")
    key = SigningKey.generate()
    (place / "officer.pub").write_bytes(key.public.pem())
    browser.open("/keys")
    browser.find("#key").send_keys(str(place / "officer.pub"))
    browser.press("Keep it")
    assert key.key_id in browser.text

    browser.open("/withdrawals/new")
    browser.find("input[name=site][value=delta]").click()
    Select(browser.find("#ground")).select_by_value("contract-ended")
    browser.find("#reason").send_keys("the contract ended")
    browser.find("#requested_by").send_keys("dpo@delta.example")
    browser.press("Check")
    assert "Nothing has been filed yet" in browser.text
    browser.press("File the withdrawal")
    id_ = browser.driver.current_url.rpartition("/")[2]
    assert id_.startswith("W-")
    assert "delta is barred from now on" in browser.text
    step = browser.find("[aria-current=step]").text
    assert step == "restricted"

    carry_out(place, "unlearn")
    # The page has not been touched: it finds out by itself.
    browser.wait(lambda: "Closed on" in browser.find("#progress").text)
    assert "Nothing is left to decide" in browser.text

    browser.log_in("operator")
    browser.open(f"/withdrawals/{id_}")
    browser.press("Issue a certificate, as the operator")
    where = browser.driver.current_url.removeprefix(browser.url)
    assert "Not valid yet" in browser.text

    browser.log_in("officer")
    browser.open(where)
    cookies = {cookie["name"]: cookie["value"] for cookie in browser.driver.get_cookies()}
    signed = httpx.get(f"{browser.url}{where}/signed", cookies=cookies, trust_env=False).content
    (place / "signed.json").write_bytes(countersign(signed, key).content)
    browser.open("/certificates")
    browser.find("#counter").send_keys(str(place / "signed.json"))
    browser.press("Take it")
    assert "Both signatures hold" in browser.text
    browser.press("Verify")
    assert "✓ Verified" in browser.text
    browser.press("Read the whole certificate")
    assert "Participation ended" in browser.text
    assert "operator" in browser.text.lower()

    altered = bytearray((place / "signed.json").read_bytes())
    altered[200] ^= 1
    (place / "altered.json").write_bytes(altered)
    browser.open("/certificates")
    browser.find("#any").send_keys(str(place / "altered.json"))
    browser.press("Verify")
    assert "✗ Not verified" in browser.text
    browser.open("/ledger")
    browser.press("Check every entry")
    assert "Every entry is as it was written" in browser.text

    for page in (*PAGES, f"/withdrawals/{id_}", where):
        browser.look(page)


def test_access_is_refused_where_it_should_be(browser: Browser, place: Path) -> None:
    """Nobody, a viewer, and a form with a wrong token get nothing done, and are told so."""
    browser.driver.delete_all_cookies()
    browser.open("/withdrawals")
    assert browser.driver.current_url.endswith("/login")
    browser.look("/login")
    browser.log_in("viewer")
    assert "File a withdrawal" not in browser.text
    assert "As viewer you may not" in browser.open("/withdrawals/new")
    before = len(entries(place / "state", "withdrawal"))
    browser.log_in("officer")
    browser.open("/withdrawals/new")
    browser.find("input[name=site][value=gamma]").click()
    browser.find("#reason").send_keys("asked")
    browser.find("#requested_by").send_keys("dpo")
    script = "document.querySelectorAll('main input[name=csrf]').forEach(e => e.value = 'x')"
    browser.driver.execute_script(script)
    browser.press("Check")
    assert "did not come from a page of this log-in" in browser.text
    assert len(entries(place / "state", "withdrawal")) == before


def test_the_keyboard_suffices(browser: Browser) -> None:
    """The first key leads past the navigation, and what has the focus can be seen."""
    browser.log_in("viewer")
    browser.open("/ledger")
    browser.find("body").send_keys(Keys.TAB)
    focused = browser.driver.switch_to.active_element
    assert focused.text == "Skip to the content"
    outline = browser.driver.execute_script("return getComputedStyle(arguments[0]).outlineStyle", focused)
    assert outline == "solid"
    focused.send_keys(Keys.ENTER)
    assert browser.driver.execute_script("return document.activeElement.id") == "main"
    assert browser.find("html").get_attribute("lang") == "en"
