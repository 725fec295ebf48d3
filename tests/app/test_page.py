"""The studio's page in a browser: every verb is drawn, and nothing that happens to a browser loses work."""

import signal
from pathlib import Path

import pytest
import studio_browser
from studio_browser import draw, open_page, set_steps, use

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

ROOT = Path(__file__).parents[2]
AXE = ROOT / "app/page/node_modules/axe-core/axe.min.js"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(studio_browser.CHROMIUM).exists(), reason=f"no {studio_browser.CHROMIUM}"),
]


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=studio_browser.CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studio") / "studio"
    with studio_browser.studio(folder, studio_browser.free_port()) as (_, address):
        yield address


@pytest.fixture
def page(browser, url):
    opened = open_page(browser, url)
    yield opened
    assert opened.problems == []
    opened.context.close()


def submit(page, verb: str) -> None:
    page.click("button.primary[type=submit]")
    page.wait_for_selector(f"article[aria-label^='{verb}:'][data-state=done]")


def test_draw_shows_pictures_and_keeps_them_in_the_gallery(page):
    page.click(".make .chip >> nth=0")
    caption = page.input_value("#field-captions")
    set_steps(page, num=2)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(f"article[aria-label='Draw: {caption}'] .results .tile-open >> nth=1")
    page.wait_for_selector(".gallery .tile-open >> nth=1")
    page.fill("#search", "no such words")
    page.wait_for_selector(".gallery-empty")
    page.fill("#search", caption.split()[0])
    page.wait_for_selector(".gallery .tile-open >> nth=1")


def test_vary(page):
    draw(page)
    use(page, "Vary")
    set_steps(page, num=2)
    submit(page, "Vary")
    assert page.locator(".results .tile-open").count() == 2
    page.click(".results .tile-open >> nth=0")
    page.wait_for_selector(".tree .tree .node[aria-current=true]")  # below the picture that it came from


def test_blend_by_drag_and_by_button_and_its_slider(page):
    draw(page, num=2)
    page.click("#tab-blend")
    page.locator(".gallery .tile-open >> nth=0").drag_to(page.locator("[data-field=a] .well"))
    page.wait_for_selector("[data-field=a] .well img")
    page.click("#field-b")
    page.click(".picker button >> nth=1")
    set_steps(page, num=3)
    submit(page, "Blend")
    slider = page.get_by_label("Which picture on the way")
    assert slider.get_attribute("aria-valuetext") == "2 of 3"
    slider.press("End")
    assert slider.get_attribute("aria-valuetext") == "3 of 3"


def test_text_diff_says_what_it_lacks_at_the_field(page):
    draw(page)
    use(page, "Text diff")
    page.click("button.primary[type=submit]")
    page.wait_for_selector("[data-field=caption_from] .error")
    page.fill("#field-caption_from", "a red circle")
    page.fill("#field-caption_to", "a green square")
    set_steps(page, num=2)
    submit(page, "Text diff")
    assert page.locator(".strip .tile-open").count() == 2


def test_a_mask_is_painted_with_the_pointer_and_inpainted(page):
    draw(page)
    use(page, "Inpaint")
    canvas = page.locator(".editor-canvas")
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 60, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 20, steps=8)
    page.mouse.up()
    marked = page.inner_text(".mask-field span")
    assert marked.endswith("% marked")
    page.click("button[aria-label=Undo]")
    assert page.inner_text(".mask-field span") == "Nothing marked yet"
    page.click("button[aria-label=Redo]")
    assert page.inner_text(".mask-field span") == marked
    page.fill("#field-caption", "a green triangle")
    set_steps(page)
    submit(page, "Inpaint")
    with page.expect_response("**/api/jobs?*") as jobs:
        page.reload()
    assert jobs.value.json()["jobs"][0]["request"]["mask"]
    page.wait_for_selector(".gallery .tile-open >> nth=1")
    assert page.locator(".gallery .tile-open").count() == 2, "the mask is no picture of the gallery"


def test_cancel(page):
    page.fill("#field-captions", "a blue square")
    set_steps(page, steps=100, num=4)
    page.click("button.primary[type=submit]")
    page.click(".job-tools button:has-text('Cancel')")
    page.wait_for_selector("article[data-state=cancelled]")


def test_a_refresh_while_drawing_loses_nothing(page):
    page.fill("#field-captions", "a yellow triangle")
    set_steps(page, steps=60, num=1)
    page.click("button.primary[type=submit]")
    page.wait_for_selector("article[data-state=running]")
    page.reload()
    page.wait_for_selector("article[aria-label='Draw: a yellow triangle'][data-state=done] .tile-open")
    assert page.input_value("#field-captions") == "a yellow triangle"


def test_a_restart_while_queued_loses_nothing(browser, tmp_path):
    port = studio_browser.free_port()
    with studio_browser.studio(tmp_path / "studio", port) as (process, url):
        page = open_page(browser, url)
        page.fill("#field-captions", "a cyan square")
        set_steps(page, steps=60)
        page.click("button.primary[type=submit]")
        page.click("button.primary[type=submit]")
        page.wait_for_selector(".recent-job >> nth=1")
        process.send_signal(signal.SIGKILL)
        process.wait()
        page.wait_for_selector("text=No connection")
    with studio_browser.studio(tmp_path / "studio", port):
        page.wait_for_selector("text=No connection", state="detached")
        page.wait_for_selector(".recent-job[data-state=done] >> nth=1")
        page.context.close()


def test_an_error_of_the_server_is_shown_at_its_field(page):
    page.fill("#field-captions", "a red circle")
    set_steps(page)
    page.fill("#field-steps", "100000")
    page.click("button.primary[type=submit]")
    page.wait_for_selector("[data-field=steps] .error")
    page.wait_for_selector("#field-steps:focus")


def test_a_lost_connection_is_shown_and_recovers(page):
    page.context.set_offline(True)
    page.evaluate("dispatchEvent(new Event('online'))")  # a new attempt, which fails
    page.wait_for_selector("text=No connection")
    page.context.set_offline(False)
    page.wait_for_selector("text=No connection", state="detached")


def test_a_dropped_picture_gives_its_request(page):
    draw(page, caption="a purple ring")
    page.fill("#field-captions", "")
    page.evaluate(
        """async () => {
            const src = document.querySelector(".gallery img").src.replace("/thumbnail", "");
            const file = new File([await (await fetch(src)).blob()], "dropped.png", { type: "image/png" });
            const data = new DataTransfer();
            data.items.add(file);
            document.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }"""
    )
    page.click("text=Take its settings")
    assert page.input_value("#field-captions") == "a purple ring"


def test_a_grid_over_two_settings(page):
    page.fill("#field-captions", "a red circle")
    set_steps(page)
    page.click(".plot-button")
    page.select_option("#axis-Across", "guidance")
    page.fill("#axis-Across-values", "1, 3")
    page.select_option("#axis-Down", "seed")
    page.fill("#axis-Down-values", "1, 2")
    page.click("text=Draw the grid")
    page.wait_for_selector(".plot-table .tile-open >> nth=3")
    assert page.locator(".plot-table th[scope=col]").all_inner_texts() == ["1", "3"]
    page.reload()
    page.click(".recent-open.plot")
    page.wait_for_selector(".plot-table .tile-open >> nth=3")


def test_favourite_compare_and_delete(page):
    draw(page, num=3)
    page.click(".results .tile-open >> nth=0")
    page.wait_for_selector(".viewer-tools")
    page.keyboard.press("f")
    page.wait_for_selector(".viewer-tools [aria-pressed=true]")
    page.keyboard.press("Escape")
    page.click("button[aria-label='Favourites only']")
    page.wait_for_selector(".gallery .tile >> nth=1", state="detached")
    page.click("button[aria-label='Favourites only']")
    page.wait_for_selector(".gallery .tile >> nth=2")
    for i in (0, 1):
        page.locator(f".gallery .tile-pick >> nth={i}").click(force=True)
    page.click(".tray button:has-text('Compare 2')")
    page.click("text=On each other")
    page.get_by_label("How much of the first picture is shown").press("End")
    page.keyboard.press("Escape")
    page.click(".results .tile-open >> nth=0")
    page.wait_for_selector(".viewer-tools")
    page.keyboard.press("Delete")
    page.wait_for_selector(".gallery .tile >> nth=2", state="detached")
    page.click("text=Undo")
    page.wait_for_selector(".gallery .tile >> nth=2")


def test_by_keyboard_alone(page):
    page.keyboard.press("p")
    page.keyboard.type("a red circle")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("article[data-state=done] .tile-open")
    page.focus(".results .tile-open >> nth=0")
    page.keyboard.press("Enter")
    page.focus(".uses button:has-text('Inpaint')")
    page.keyboard.press("Enter")
    page.wait_for_selector(".editor-canvas")
    page.focus(".editor-canvas")
    page.keyboard.down("Space")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.keyboard.up("Space")
    assert page.inner_text(".mask-field span").endswith("% marked")
    page.keyboard.press("Control+z")
    assert page.inner_text(".mask-field span") == "Nothing marked yet"
    page.focus("[role=tab][aria-selected=true]")
    page.keyboard.press("Home")
    assert page.get_attribute("[role=tab]:focus", "id") == "tab-draw"
    page.keyboard.press("?")
    page.wait_for_selector("dialog >> text=Keyboard shortcuts")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")


def test_on_a_phone(browser, url):
    page = open_page(browser, url, 390, 844, has_touch=True, is_mobile=True, device_scale_factor=2)
    page.fill("#field-captions", "a red circle")
    set_steps(page)
    page.tap("button.primary[type=submit]")
    page.wait_for_selector("article[data-state=done] .tile-open")
    for name in ("Make", "Pictures", "Gallery"):
        page.tap(f".bottom button:has-text('{name}')")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
    page.tap(".gallery .tile-open >> nth=0")
    page.tap(".uses button:has-text('Inpaint')")
    box = page.locator(".editor-canvas").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.tap(".bottom button:has-text('Make')")
    assert page.inner_text(".mask-field span").endswith("% marked")
    assert page.problems == []
    page.context.close()


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed: npm ci in app/page")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, url, scheme):
    page = open_page(browser, url, color_scheme=scheme, bypass_csp=True)
    page.evaluate(AXE.read_text())
    found = []

    def look(where: str) -> None:
        page.wait_for_timeout(400)  # colours are not theirs while they fade in
        for one in page.evaluate("axe.run()")["violations"]:
            if one["impact"] in ("serious", "critical"):
                found.append((where, one["id"], [node["target"] for node in one["nodes"]]))

    look("welcome")
    draw(page, num=2)
    look("drawn")
    for verb in ("vary", "blend", "edit", "inpaint"):
        page.click(f"#tab-{verb}")
        look(verb)
    use(page, "Inpaint")
    look("canvas")
    page.click(".plot-button")
    look("grid")
    page.keyboard.press("Escape")
    page.click(".gallery .tile-open >> nth=0")
    page.wait_for_selector(".viewer-tools")
    look("viewer")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    look("help")
    assert found == []
    page.context.close()
