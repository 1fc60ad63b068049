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


def test_search_in_a_folder_shows_excerpts_and_logs_nothing(visit):
    base = SITE.as_uri() + "/"
    page = visit("search.html?q=saturate", base=base)
    page.wait_for_selector("#search-results li p.context")
    texts = page.locator("#search-results li p.context").all_inner_texts()
    assert len(texts) == page.locator("#search-results li").count() > 2
    assert all(len(text.split()) > 10 for text in texts)
    assert sum("saturat" in text.lower() for text in texts) >= len(texts) / 2
    assert problems(page.log, base) == []


def test_search_over_http_loads_no_texts_of_all_pages(visit, address):
    page = visit("search.html?q=momentum")
    page.wait_for_selector("#search-results li p.context")
    assert not [u for u in page.log.fetched if "excerpts.js" in u]


@pytest.mark.parametrize("name", [*CHAPTERS[:2], "intro.html", "chapters/appendix/ledger.html"])
def test_nothing_lies_over_printed_text(visit, name):
    page = visit(name)
    page.mouse.wheel(0, 3000)  # the theme shows "Back to top" on the way up
    page.wait_for_timeout(200)
    page.mouse.wheel(0, -500)
    page.wait_for_timeout(300)
    script = """() => [...document.querySelectorAll("body *")].filter(e => {
        const {position, visibility} = getComputedStyle(e);
        const {width, height} = e.getBoundingClientRect();
        return ["fixed", "sticky"].includes(position) && visibility !== "hidden" && width * height > 4;
    }).map(e => e.outerHTML.slice(0, 90))"""
    assert page.evaluate(script)  # on the screen there is something
    page.emulate_media(media="print")
    assert page.evaluate(script) == []
    grounds = """() => [...document.querySelectorAll('article :is(mjx-container[display=true], pre)')]
        .map(e => getComputedStyle(e).backgroundImage)"""
    assert set(page.evaluate(grounds)) <= {"none"}  # shadows say that something scrolls
    assert page.locator("h1:visible").count() == 1  # the theme has one for paper
    for gone in ("#pst-back-to-top", ".bd-sidebar-primary", ".article-header-buttons", ".copybtn"):
        assert page.locator(f"{gone}:visible").count() == 0, gone


EQUATIONS = """() => [...document.querySelectorAll('article mjx-container[display="true"]')].map(e => {
    const style = getComputedStyle(e);
    return {
        cut: e.scrollWidth - e.clientWidth,
        scrolls: style.overflowX,
        shadows: style.backgroundAttachment,
        focus: e.tabIndex,
        text: e.closest("[id]").id,
    };
})"""


@pytest.mark.parametrize("name", BOOK)
def test_equations_fit_a_laptop_and_scroll_with_a_cue_on_a_phone(visit, name):
    page = visit(name)
    assert [e for e in page.evaluate(EQUATIONS) if e["cut"] > 0] == []
    phone = visit(name, width=390)
    for equation in phone.evaluate(EQUATIONS):
        assert equation["scrolls"] == "auto", equation
        assert equation["shadows"] == "local, local, scroll, scroll", equation
        assert equation["focus"] == 0, equation
    ends = """() => [...document.querySelectorAll('article mjx-container[display="true"]')].map(e => {
        e.scrollLeft = 9999;
        return e.scrollWidth - e.clientWidth - e.scrollLeft;
    })"""
    assert all(abs(left) <= 1 for left in phone.evaluate(ends))
