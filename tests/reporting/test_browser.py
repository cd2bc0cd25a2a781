"""The pages in a real browser: what is on them, no error, no request, light, dark, a phone."""

import json
import shutil

import lightning.pytorch as lightning
import numpy as np
import pytest
from helpers.quiet import QUIET
from helpers.run_folders import FINDING, falling, write_curves, write_packed
from helpers.sick_programs import make_loaders, make_zero
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_stab import GradientMonitor, StabilityReport, TrainingDoctor
from lightning_stab.reporting import read_run, report_page
from lightning_stab.reporting.compare import comparison_page, judged

pytestmark = pytest.mark.nightly
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def sick(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sick")
    curves = {"train_loss": np.r_[falling(30), [np.nan]], "val_loss": falling(6)}
    write_curves(folder, {**curves, "val_accuracy": [0.1, 0.5, 0.9], "lr/group0": [0.1, 0.01]})
    layers = [f"net.{i}.<b>linear" for i in range(30)]
    rows = [(s, {f"grad_norm/{n}": 10.0 ** (i - 29) for i, n in enumerate(layers)})
            for s in range(30)]  # fmt: skip
    write_packed(folder, rows, suffix=".g")
    updates = [(s, {f"update_ratio/{n}": 1e-3 for n in layers}) for s in range(30)]
    write_packed(folder, updates, suffix=".u")
    (folder / "findings.json").write_text(json.dumps({"findings": [FINDING]}))
    (folder / "report.html").write_text(report_page(read_run(folder)), "utf-8")
    return folder


def opened(browser, path, **settings):
    """Return a page, and lists of its errors and of its requests to other places."""
    page = browser.new_page(**settings)
    errors, requests = [], []
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    away = [url for url in requests if not url.startswith((path.as_uri(), "data:"))]
    return page, errors, away


def overflow(page):
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_the_report_is_whole(browser, sick, scheme, width):
    size = {"width": width, "height": 900}
    page, errors, away = opened(browser, sick / "report.html", color_scheme=scheme, viewport=size)
    assert (errors, away) == ([], [])
    assert page.locator("#verdict h1").is_visible()
    assert page.locator("#verdict").bounding_box()["y"] < 200
    assert "Vanishing gradient" in page.locator("#verdict h1").inner_text()
    assert page.locator("article.card.error").count() == 1
    assert page.locator("figure.chart").count() >= 5
    assert page.locator("figure.heat img").evaluate("image => image.naturalWidth") > 0
    assert overflow(page) <= 0
    bright = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(bright.split("(")[1].split(",")[0]) > 128) == (scheme == "light")
    page.close()


def test_the_report_prints_dark_on_white_also_from_a_dark_screen(browser, sick):
    page = browser.new_page()
    page.emulate_media(media="print", color_scheme="dark")
    page.goto((sick / "report.html").as_uri())
    for element, is_bright in (("body", True), (".tiles", False)):
        name = "backgroundColor" if is_bright else "color"
        script = f"getComputedStyle(document.querySelector('{element}')).{name}"
        red = int(page.evaluate(script).split("(")[1].split(",")[0])
        assert (red > 128) == is_bright
    page.close()


def test_values_zoom_and_hiding(browser, sick):
    page, errors, _ = opened(browser, sick / "report.html")
    plot = page.locator("#loss figure.chart .plot").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + 50
    page.mouse.move(x, y)
    assert "train_loss" in page.locator(".tip").inner_text()
    whole = plot.locator("svg").get_attribute("viewBox")
    page.mouse.down()
    page.mouse.move(x + 100, y)
    page.mouse.up()
    assert plot.locator("svg").get_attribute("viewBox") != whole
    page.mouse.dblclick(x, y)
    assert plot.locator("svg").get_attribute("viewBox") == whole
    button = page.locator("#loss button[data-line]").first
    button.click()
    assert page.locator("#loss path.line.off").count() == 1
    button.click()
    assert page.locator("#loss path.line.off").count() == 0
    assert errors == []
    page.close()


def test_a_comparison_is_whole(browser, sick, tmp_path):
    good = write_curves(tmp_path / "good", {"train_loss": falling(30)})
    path = tmp_path / "comparison.html"
    path.write_text(comparison_page(judged([read_run(sick), read_run(good)])), "utf-8")
    page, errors, away = opened(browser, path, viewport={"width": 360, "height": 800})
    assert (errors, away) == ([], [])
    assert "1 of 2 runs failed" in page.locator("#verdict").inner_text()
    assert overflow(page) <= 0
    page.close()


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory):
    """Run a net of zeros, and TensorBoard over its folder; return TensorBoard's address."""
    program = pytest.importorskip("tensorboard.program")
    folder = tmp_path_factory.mktemp("tensorboard")
    callbacks = [GradientMonitor(4), TrainingDoctor(print_findings=False), StabilityReport()]
    settings = {**QUIET, "logger": TensorBoardLogger(folder), "max_epochs": 3}
    trainer = lightning.Trainer(callbacks=callbacks, log_every_n_steps=4, **settings)
    trainer.fit(make_zero(), *make_loaders())
    server = program.TensorBoard()
    server.configure([None, f"--logdir={folder}", "--port=0", "--host=127.0.0.1"])
    return server.launch()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("tab", "shown"),
    [
        ("custom_scalars", ["1 learning", "metrics", "norm before and after clipping"]),
        ("text", ["diagnosis/bad-initialization", "measured", "threshold"]),
        ("hparams", ["TrainingDoctor", "outcome/healthy"]),
        ("images", ["stability_report/overview"]),
    ],
)
def test_tensorboards_own_pages_show_the_run(browser, dashboard, tab, shown):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{dashboard}#{tab}")
    for text in shown:
        page.get_by_text(text, exact=False).first.wait_for(timeout=60_000)
    assert errors == []
    page.close()
