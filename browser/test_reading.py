"""What a reader does: search, turn pages, change the theme, read from a folder."""

import re

import pytest
from conftest import BOOK, CHAPTERS, SITE, problems, settle


def test_search_finds_a_term(visit, address):
    page = visit("search.html?q=saturate")
    page.wait_for_selector("#search-results li a")
    titles = page.locator("#search-results li > a").all_inner_texts()
    assert any("Initialization" in title for title in titles)
    assert problems(page.log, address) == []
    page.goto(address + "search.html?q=xyzzyplugh")
    page.wait_for_selector("#search-results p.search-summary")
    page.wait_for_function("!document.querySelector('#search-progress')?.innerText.includes('...')")
    assert page.locator("#search-results li").count() == 0


def test_the_keyboard_opens_the_search(visit):
    page = visit("intro.html")
    field = page.locator(
        "dialog input[type=search], .search-button__wrapper input[type=search]"
    ).first
    assert not field.is_visible()
    page.keyboard.press("Control+k")
    field.wait_for(state="visible")
    field.fill("momentum")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=momentum")
    page.wait_for_selector("#search-results li a")


def luminance(page, selector):
    colour = page.locator(selector).first.evaluate("e => getComputedStyle(e).backgroundColor")
    red, green, blue = (float(v) for v in re.findall(r"[\d.]+", colour)[:3])
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255


def test_dark_is_dark_and_figures_stay_on_white(visit):
    page = visit(CHAPTERS[0], theme="dark")
    assert luminance(page, "body") < 0.1
    figure = page.locator("main figure img, main .cell_output img").first
    assert (
        luminance(page, "main figure img") > 0.8
    )  # figures have white grounds, which the theme dims
    assert figure.evaluate("e => e.naturalWidth") > 300
    assert luminance(visit(CHAPTERS[0], theme="light"), "body") > 0.95


def test_the_button_changes_the_theme(visit):
    page = visit("intro.html", theme="light")
    seen = {page.locator("html").get_attribute("data-theme")}
    for _ in range(3):
        page.locator("button.theme-switch-button:visible").first.click()
        seen.add(page.locator("html").get_attribute("data-theme"))
    assert seen == {"light", "dark"}


def test_pages_can_be_turned_from_first_to_last(visit):
    page = visit("intro.html")
    seen = [page.url]
    while page.locator("a.right-next").count():
        page.locator("a.right-next").click()
        settle(page)
        seen.append(page.url)
        assert len(seen) < 50
    names = [u.partition("/some/where/")[2].partition("#")[0] for u in seen]
    assert set(CHAPTERS) < set(names)
    assert len(names) == len(set(names)) >= 9
    page.goto(seen[3])
    page.locator("a.left-prev").click()
    page.wait_for_url(seen[2])


@pytest.mark.parametrize("name", BOOK)
def test_it_can_be_read_from_a_folder(visit, name):
    base = SITE.as_uri() + "/"
    page = visit(name, base=base)
    assert problems(page.log, base) == []
    assert page.locator("main .math").count() == page.locator("main mjx-container").count()


def test_it_can_be_read_without_scripts(visit):
    page = visit(CHAPTERS[0], java_script_enabled=False)
    assert len(page.locator("main").inner_text().split()) > 2000


def test_reduced_motion_is_respected(visit):
    page = visit(CHAPTERS[0], motion="reduce")
    moving = page.evaluate(
        """() => [...document.querySelectorAll("*")].filter(e => {
            const style = getComputedStyle(e);
            const times = (style.transitionDuration + "," + style.animationDuration).split(",");
            return times.some(t => parseFloat(t) > 0.01) || style.scrollBehavior === "smooth";
        }).slice(0, 5).map(e => e.outerHTML.slice(0, 100))"""
    )
    assert moving == []


def test_version_and_date_are_shown(visit):
    footer = visit(CHAPTERS[0]).locator("footer").all_inner_texts()
    text = " ".join(footer)
    assert re.search(r"Version \d+\.\d+", text)
    assert re.search(r"20\d\d", text)


def test_launch_links_are_well_formed_or_absent(visit):
    page = visit(CHAPTERS[0])
    links = page.locator("header a, .article-header-buttons a").evaluate_all(
        "es => es.map(e => e.href)"
    )
    outside = [u for u in links if not u.startswith(("http://127.0.0.1", "javascript:"))]
    for link in outside:
        assert re.match(
            r"https://(github\.com|gitlab\.com|bitbucket\.org|colab\.research\.google\.com/github"
            r"|mybinder\.org/v2/gh|kaggle\.com/kernels/welcome\?src=https%3A%2F%2Fgithub\.com%2F)",
            link,
        ), link
