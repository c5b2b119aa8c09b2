"""The report in a real browser: what people do with it works, on large and small screens."""

import time

import pytest

from vqtok.bench.report import write_report


@pytest.fixture(scope="module")
def browser(browsers, tmp_path_factory):
    with browsers.Browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(toys, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for modality in ("image", "audio"):
        results, media = toys.toy(modality, fails=0)
        write_report(results, media, folder / f"{modality}.html")
    return folder


@pytest.fixture
def show(browser, pages):
    """Opens a report; afterwards nothing may have gone wrong or been asked of a network."""
    browser.problems.clear()
    browser.requests.clear()

    def load(modality, width=1280, **options):
        browser.size(width, 900, **options)
        browser.prefer("light")
        browser.open(pages / f"{modality}.html")
        return browser

    yield load
    assert browser.problems == []
    assert {url.split("/")[0] for url in browser.requests} == {"file:"}


def centre(page, selector):
    page.js(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
    box = page.js(
        f"(() => {{const box = document.querySelector({selector!r}).getBoundingClientRect();"
        "return [box.left, box.top, box.width, box.height]})()"
    )
    return box[0] + box[2] / 2, box[1] + box[3] / 2, box[2]


def click(page, selector):
    x, y, _ = centre(page, selector)
    page.drag((x, y), (x, y))


def text(page, selector):
    return page.js(f"document.querySelector({selector!r}).textContent")


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_everything_is_drawn(show, modality):
    page = show(modality)
    curves = {"image": 4 + 3, "audio": 3 + 2}[modality]  # the external curve has one metric
    assert page.js("document.querySelectorAll('.plot .curve').length") == curves
    assert page.js("document.querySelectorAll('.curve.external').length") == 1
    dashes = "getComputedStyle(document.querySelector({!r})).strokeDasharray"
    assert page.js(dashes.format(".curve.external .line")) != "none"
    assert page.js(dashes.format(".curve.tokenizer .line")) == "none"
    assert page.js("[...document.images].every((image) => image.alt)")
    page.until("[...document.images].every((i) => i.loading === 'lazy' || i.naturalWidth > 0)")
    ticks = page.js("[...document.querySelectorAll('.plot text')].map((t) => t.textContent)")
    assert len(ticks) >= 10
    assert not any("NaN" in tick for tick in ticks)


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_a_phone_shows_it_without_scrolling_sideways(show, modality):
    page = show(modality, 390, scale=2, mobile=True)
    page.js("document.querySelectorAll('details').forEach((each) => each.open = true)")
    assert page.js("[innerWidth, document.documentElement.scrollWidth]") == [390, 390]
    size = "parseFloat(getComputedStyle(document.querySelector({!r})).{})"
    assert page.js(size.format("body", "fontSize")) >= 16
    assert page.js(size.format("#theme", "height")) >= 34


def test_the_divider_follows_pointer_and_keys(show):
    page = show("image")
    x, y, width = centre(page, ".frame")
    shown = "parseFloat(getComputedStyle(document.querySelector('.divider')).left)"
    assert page.js(shown) == pytest.approx(width / 2, abs=1)
    page.drag((x, y), (x + width / 4, y))
    assert page.js(shown) == pytest.approx(width * 0.75, abs=1)
    clip = page.js("getComputedStyle(document.querySelector('.frame .over')).clipPath")
    assert "25%" in clip
    page.js("document.querySelector('.slider input').focus()")
    page.press("ArrowLeft")
    page.press("ArrowLeft")
    assert page.js(shown) == pytest.approx(width * 0.74, abs=1)


def test_samples_rates_and_sides_can_be_chosen(show, toys):
    page = show("image")
    assert page.js("document.querySelectorAll('.crop').length") == 4
    names = page.js("[...document.querySelectorAll('#stage select')[0].options].map(o => o.text)")
    assert len(names) == 2
    assert "<script>" in names[0]
    before = page.js("document.querySelector('.frame .over').src")
    choose = "(() => {{const s = document.querySelectorAll('#stage select')[{}]; s.value = {}; "
    choose += "s.dispatchEvent(new Event('change'))}})()"
    page.js(choose.format(0, 1))
    assert page.js("document.querySelector('.frame .over').src") != before
    assert "three" in page.js("document.querySelector('#stage caption').textContent")
    page.js(choose.format(2, 3))
    assert "webp" in text(page, ".tag.right")
    sizes = (
        "[...document.querySelectorAll('#stage tbody')[1].rows].map(r => r.cells[1].textContent)"
    )
    settings = page.js(sizes)
    click(page, ".choice button:last-of-type")
    assert page.js(sizes) != settings
    assert "webp" in text(page, ".tag.right")


def test_crops_move_and_grow_together(show):
    page = show("image")
    moves = "[...document.querySelectorAll('.crop img')].map((image) => image.style.transform)"
    widths = "[...document.querySelectorAll('.crop img')].map((image) => image.style.width)"
    assert set(page.js(widths)) == {"96px"}
    page.js("document.querySelectorAll('.choice')[1].querySelectorAll('button')[1].click()")
    assert set(page.js(widths)) == {"192px"}
    page.size(390, 900)
    page.until("document.querySelector('.crop').clientWidth < 192")
    time.sleep(0.2)
    before = page.js(moves)
    assert len(set(before)) == 1
    x, y, _ = centre(page, ".crop")
    page.drag((x, y), (x + 400, y))
    after = page.js(moves)
    assert len(set(after)) == 1
    assert after != before
    assert after[0].startswith("translate(0px")
    page.js("document.querySelector('.crop').focus()")
    page.press("ArrowRight")
    assert page.js(moves)[0].startswith("translate(-16px")


def test_plots_tell_values_and_obey(show):
    page = show("image")
    page.js("document.querySelector('.plot svg').focus()")
    page.press("ArrowRight")
    tip = text(page, ".plot .tip")
    assert tip.startswith("photo 1 codebooks")
    assert "0.195 bpp" in tip
    page.press("ArrowRight")
    assert text(page, ".plot .tip").startswith("photo 2 codebooks")
    page.js("document.activeElement.blur()")
    mark = ".plot .curve.external use"
    x, y, _ = centre(page, mark)
    page.hover(x, y)
    assert "external" in text(page, ".plot .tip")
    page.hover(5, 5)
    assert page.js("document.querySelector('.plot .tip').hidden")
    line = "document.querySelector('.plot .line').getAttribute('d')"
    before = page.js(line)
    click(page, "#log")
    assert page.js(line) != before
    click(page, ".key")
    assert page.js("document.querySelector('.key').getAttribute('aria-pressed')") == "false"
    assert page.js("document.querySelectorAll('.plot .curve.tokenizer').length") == 0


def test_light_and_dark(show):
    page = show("image")
    paper = "getComputedStyle(document.body).backgroundColor"
    pressed = "document.getElementById('theme').getAttribute('aria-pressed')"
    light = page.js(paper)
    page.prefer("dark")
    page.until(f"{pressed} === 'true'")
    dark = page.js(paper)
    assert dark != light
    click(page, "#theme")
    assert (page.js(paper), page.js(pressed)) == (light, "false")
    click(page, "#theme")
    assert (page.js(paper), page.js(pressed)) == (dark, "true")
    page.js("localStorage.clear()")


def test_players_play(show):
    page = show("audio")
    assert page.js("document.querySelectorAll('audio').length") == 3
    page.until("[...document.querySelectorAll('audio')].every((a) => a.readyState > 0)")
    durations = page.js("[...document.querySelectorAll('audio')].map((a) => a.duration)")
    assert durations == pytest.approx([1.5] * 3, abs=0.01)
    buttons = "[...document.querySelectorAll('.play')].map((button) => button.textContent)"
    assert page.js(buttons) == ["Play"] * 3
    # So slowly that none comes to its end on a busy machine.
    page.js("document.querySelectorAll('audio').forEach((audio) => audio.playbackRate = 0.1)")
    click(page, ".play")
    page.until("document.querySelectorAll('audio')[0].currentTime > 0.06")
    page.until("parseFloat(document.querySelector('.cursor').style.left) > 3")
    page.until("document.querySelector('.transport input').value > 0.05")
    assert page.js(buttons) == ["Pause", "Play", "Play"]
    click(page, ".player:nth-child(2) .play")
    page.until("document.querySelectorAll('audio')[0].paused")
    assert page.js("document.querySelectorAll('audio')[1].currentTime") > 0.05
    click(page, ".player:nth-child(2) .play")
    page.until(f"{buttons}.every((text) => text === 'Play')")
    assert "/ 1.5 s" in text(page, ".clock")
    click(page, ".spectrogram")
    page.until("Math.abs(document.querySelectorAll('audio')[0].currentTime - 0.75) < 0.05")
    page.until("Math.abs(document.querySelector('.transport input').value - 0.75) < 0.05")
    page.js("document.querySelector('.transport input').focus()")
    before = page.js("document.querySelectorAll('audio')[0].currentTime")
    page.press("ArrowRight")
    page.until(f"document.querySelectorAll('audio')[0].currentTime > {before}")


def test_contrast_is_enough(show):
    """WCAG AA: 4.5 for small text, 3 for lines and marks, in both themes."""
    page = show("image")
    ratio = """(() => {
      const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
      const light = (colour) => {
        canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => {
          const part = value / 255;
          return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const of = (variable, colour) => {
        const probe = document.createElement('i');
        probe.className = variable.startsWith('codec') ? variable : '';
        document.body.append(probe);
        probe.style.color = variable.startsWith('codec') ? 'var(--codec)' : `var(--${variable})`;
        const found = getComputedStyle(probe).color;
        probe.remove();
        return light(found);
      };
      const against = (one, other) => {
        const [a, b] = [of(one), of(other)];
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      };
      const found = {};
      for (const paper of ['paper', 'card']) {
        for (const name of ['ink', 'muted', 'accent', 'better', 'worse', 'codec-0', 'codec-1',
          'codec-2', 'codec-3', 'codec-4', 'codec-5', 'codec-6', 'codec-7']) {
          found[`${name} on ${paper}`] = against(name, paper);
        }
      }
      return found;
    })()"""
    for scheme in ("light", "dark"):
        page.prefer(scheme)
        for pair, value in page.js(ratio).items():
            assert value >= (3 if pair.startswith("codec") else 4.5), (scheme, pair)


def test_tab_reaches_every_control(show):
    page = show("image")
    page.js("document.activeElement.blur()")
    reached = set()
    for _ in range(40):
        page.press("Tab")
        element = "document.activeElement"
        reached.add(
            page.js(f"{element}.id || {element}.getAttribute('class') || {element}.tagName")
        )
    assert {"theme", "key", "log", "svg", "SELECT", "crop", "scroll"} <= reached
