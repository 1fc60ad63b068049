"""Explorables, previews and the ledger's filter: keys and pointer change what they show."""

import re

import pytest
from conftest import CHAPTERS, problems

PLAY = "chapters/appendix/explorables.html"
NAMES = ["gradient-flow", "optimizer-paths", "momentum", "learning-rates", "dropout"]
LEDGER = "chapters/appendix/ledger.html"


def state(page, name):
    """What an explorable shows: its picture and its words."""
    figure = page.locator(f"figure[data-explorable={name}]")
    return figure.locator("svg[role=img]").inner_html(), figure.locator(".says").inner_text()


@pytest.mark.parametrize("name", NAMES)
def test_every_control_answers_the_keyboard(visit, address, name):
    page = visit(PLAY)
    figure = page.locator(f"figure[data-explorable={name}]")
    assert not figure.locator("img").is_visible()
    controls = figure.locator("input, select")
    assert controls.count() >= 2
    for i in range(controls.count()):
        control = controls.nth(i)
        control.focus()
        before = state(page, name)
        kind = control.get_attribute("type") or "select"
        at = control.input_value()
        end = kind == "range" and at == control.get_attribute("max")
        page.keyboard.press(
            {"checkbox": "Space", "range": "ArrowLeft" if end else "ArrowRight"}.get(
                kind, "ArrowDown"
            )
        )
        picture, words = state(page, name)
        assert picture != before[0], f"control {i} ({kind}) changes no picture"
        if kind == "checkbox":  # without any curve the other controls would have nothing to show
            page.keyboard.press("Space")
            assert state(page, name) == before
        assert words.strip()
        assert "NaN" not in picture + words
        assert "undefined" not in picture + words
    assert problems(page.log, address) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_pointer_moves_a_slider(visit, name):
    page = visit(PLAY)
    slider = page.locator(f"figure[data-explorable={name}] input[type=range]").first
    slider.scroll_into_view_if_needed()
    before, box = state(page, name), slider.bounding_box()
    middle = box["y"] + box["height"] / 2
    share = 0.02 if slider.input_value() == slider.get_attribute("max") else 0.98
    page.mouse.click(box["x"] + share * box["width"], middle)
    assert state(page, name) != before
    assert slider.input_value() == ("0" if share < 0.5 else slider.get_attribute("max"))


def test_the_words_say_what_the_data_say(visit):
    """One position of the controls, against the numbers that the page holds."""
    page = visit(PLAY)
    data = page.evaluate("JSON.parse(document.getElementById('data-gradient-flow').textContent)")
    net = next(n for n in data["nets"] if (n["unit"], n["depth"], n["scale"]) == ("tanh", 10, 0.5))
    figure = page.locator("figure[data-explorable=gradient-flow]")
    figure.locator("input[type=range]").nth(1).fill(str(data["scales"].index(0.5)))
    decades = net["measured"][-1] - net["measured"][0]
    assert f"shrinks by {decades:.1f} powers of ten" in figure.locator(".says").inner_text()
    assert figure.locator("circle").count() == 10


def test_words_and_numbers_agree(visit):
    """One step is no steps, and a change of a few percent is not told as a factor of one."""
    page = visit(PLAY)
    says = page.locator("figure[data-explorable=optimizer-paths] .says")
    page.locator("figure[data-explorable=optimizer-paths] input[type=range]").nth(1).fill("0")
    assert "after 1 step;" in says.inner_text()
    assert not re.search(r"\b1 steps", says.inner_text())
    figure = page.locator("figure[data-explorable=gradient-flow]")
    seen = set()
    for depth in range(3):
        for scale in range(
            int(figure.locator("input[type=range]").nth(1).get_attribute("max")) + 1
        ):
            figure.locator("input[type=range]").nth(0).fill(str(depth))
            figure.locator("input[type=range]").nth(1).fill(str(scale))
            words = figure.locator(".says").inner_text()
            assert not re.search(r"factor of 1(\.0)? ", words), words
            seen.add(re.search(r"stays level|by [\d.]+ %|by a factor", words)[0][:4])
    assert len(seen) >= 2


def test_chapters_lead_to_the_explorables(visit):
    for name in (CHAPTERS[0], CHAPTERS[5]):
        page = visit(name)
        link = page.locator("article .to-play a").first
        assert "explorables.html#play-" in link.get_attribute("href")
    link.click()
    page.wait_for_url(re.compile(r"explorables\.html#play-"))


def test_a_word_of_the_glossary_shows_the_glossary(visit):
    page = visit(CHAPTERS[0])
    link = page.locator("article a.reference", has_text=re.compile("^verdict$")).first
    link.scroll_into_view_if_needed()
    link.hover()
    box = page.locator("#preview")
    box.wait_for(state="visible")
    assert "computed from the interval" in box.inner_text()
    assert "|" not in box.inner_text()


def test_controls_have_names_and_pictures_have_words(visit):
    page = visit(PLAY)
    for control in page.locator("figure.explorable :is(input, select)").all():
        assert control.evaluate("e => e.labels.length && e.labels[0].innerText.trim().length > 0")
    for picture in page.locator("figure svg[role=img]").all():
        assert len(picture.get_attribute("aria-label")) > 40


def test_without_scripts_the_static_figure_stays(visit):
    page = visit(PLAY, java_script_enabled=False)
    assert page.locator(".play figure img:visible").count() == len(NAMES)


def test_only_pages_with_explorables_load_their_script(visit):
    loads = {
        name: any("explorables.js" in u for u in visit(name).log.fetched)
        for name in (PLAY, CHAPTERS[0])
    }
    assert loads == {PLAY: True, CHAPTERS[0]: False}


# --------------------------------------------------------------------------------------------------
# Previews


def linked(page, part):
    """The first link in the text to an address with ``part``, moved into view."""
    link = page.locator(f"article a.reference[href*='{part}']").first
    link.scroll_into_view_if_needed()
    return link


@pytest.mark.parametrize(
    ("name", "part"),
    [
        (CHAPTERS[0], "#term-"),
        (CHAPTERS[0], "#ledger-g1a"),
        (CHAPTERS[1], "#equation-eq-forward"),
        (CHAPTERS[1], "#fig-"),
        ("intro.html", "#id"),
    ],
    ids=["term", "verdict", "equation", "figure", "citation"],
)
def test_a_preview_comes_with_the_pointer_and_goes_with_escape(visit, address, name, part):
    page = visit(name)
    box = page.locator("#preview")
    link = linked(page, part)
    link.hover()
    box.wait_for(state="visible")
    page.wait_for_timeout(300)
    assert len(box.inner_text().strip()) > 10 or box.locator("mjx-container").count()
    assert box.locator("mjx-container").count() == box.locator(".math").count()
    images = box.locator("img")
    for image in images.all():
        assert image.evaluate("e => e.decode().then(() => e.naturalWidth)") > 100
    size = box.bounding_box()
    assert size["x"] >= 0
    assert size["x"] + size["width"] <= 1280
    page.keyboard.press("Escape")
    assert not box.is_visible()
    assert problems(page.log, address) == []


def test_a_preview_comes_with_the_keyboard(visit):
    page = visit(CHAPTERS[0])
    link = linked(page, "#term-")
    page.keyboard.press("Tab")
    link.focus()
    box = page.locator("#preview")
    box.wait_for(state="visible")
    assert link.get_attribute("aria-describedby") == "preview"
    page.keyboard.press("Tab")
    assert link.get_attribute("aria-describedby") is None


def test_code_links_to_the_api(visit):
    page = visit(CHAPTERS[0])
    link = page.locator("article .highlight a.api", has_text="dl.sweep").first
    link.scroll_into_view_if_needed()
    link.click()
    page.wait_for_url(re.compile(r"appendix/api\.html#dlcore\.experiments\.sweep$"))
    page.locator("[id='dlcore.experiments.sweep']").wait_for(state="visible")


# --------------------------------------------------------------------------------------------------
# The ledger


def test_the_ledger_is_filtered_by_chapter_and_verdict(visit):
    page = visit(LEDGER)
    rows = page.locator("article .claim > ul > li")
    total = rows.count()
    assert total >= 40
    verdict, chapter = page.get_by_label("Verdict"), page.get_by_label("Chapter")
    counts = {}
    for word in verdict.locator("option").all_inner_texts()[1:]:
        verdict.select_option(word)
        seen = page.locator("article .claim > ul > li:visible")
        counts[word] = seen.count()
        assert {r.split(":")[0].split()[1] for r in seen.all_inner_texts()} == {word}
        assert (
            f"{seen.count()} of {total} verdicts"
            in page.locator(".ledger-filter output").inner_text()
        )
    assert sum(counts.values()) == total
    verdict.select_option("")
    chapter.select_option(index=2)
    shown = page.locator("article h2:visible").all_inner_texts()
    assert len(shown) == 1
    assert "Initialization" in shown[0]
    assert 0 < page.locator("article .claim > ul > li:visible").count() < total


def test_the_ledger_is_whole_without_scripts(visit):
    page = visit(LEDGER, java_script_enabled=False)
    assert page.locator("article .claim > ul > li:visible").count() >= 40


def test_a_badge_leads_to_the_ledger_and_back(visit):
    page = visit(CHAPTERS[0])
    link = linked(page, "#ledger-")
    name = link.get_attribute("href").rpartition("-")[2]
    link.click()
    page.wait_for_url(f"**/ledger.html#ledger-{name}")
    row = page.locator(f"li:has([id='ledger-{name}'])").last
    assert row.is_visible()
    row.locator("a.reference").first.click()
    page.wait_for_url(f"**/chapters/0*.html#verdict-{name}")


def test_every_chapter_opens_with_what_it_needs(visit):
    for name in CHAPTERS:
        box = visit(name).locator("article ul.opening > li")
        starts = [text.split(" ")[0:2] for text in box.all_inner_texts()]
        assert [" ".join(s) for s in starts] == ["You need", "You will", "It takes"], name
