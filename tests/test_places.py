"""The package sets of Colab, Kaggle and Binder: lists, and what is compared with them."""

import re
import tomllib
import urllib.error
from pathlib import Path

import pytest
from packaging.requirements import Requirement

pytest.importorskip("nbclient")
from book import places

ROOT = Path(__file__).resolve().parent.parent
LISTS = places.places()


def test_the_newest_of_colab_comes_first_and_all_places_are_there():
    assert LISTS[0].name == "colab"
    kinds = [place.kind for place in LISTS]
    assert set(kinds) == set(places.MARKS)
    assert kinds.count("colab") == 3


@pytest.mark.parametrize("place", LISTS, ids=lambda p: p.name)
def test_a_list_holds_what_dlcore_and_the_kernel_need(place):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for requirement in map(Requirement, project["dependencies"]):
        assert place.packages[requirement.name] in requirement.specifier, requirement
    assert {"ipykernel", "ipython", "pip"} <= set(place.packages)
    assert re.fullmatch(r"3\.1[1-9]", place.python)
    assert place.published.startswith("https://raw.githubusercontent.com/")
    assert len(places.pins((places.LISTS / f"{place.name}.txt").read_text())) == len(place.packages)


def test_colab_pairs_an_old_ipython_with_a_new_python():
    """What `x = !command` in the first cell could not survive."""
    for place in LISTS:
        if place.kind in ("colab", "kaggle"):
            assert place.packages["ipython"].startswith("7.")
            assert place.python in ("3.12", "3.13")


def test_differences_are_named():
    place = LISTS[0]
    text = "".join(f"{name}=={version}\n" for name, version in place.packages.items())
    assert places.differences(place, text) == []
    version = place.packages["numpy"]
    changed = text.replace(f"numpy=={version}", "numpy==2.9.0")
    assert places.differences(place, changed) == [
        f"colab: numpy {version} is listed, 2.9.0 is published"
    ]
    conda = (
        "https://host/linux-64/ipython-9.9.0-pyh1_0.conda\nhttps://host/x/_libgcc-0.1-main.conda"
    )
    binder = next(place for place in LISTS if place.name == "binder")
    assert [line.split(": ")[1].split()[0] for line in places.differences(binder, conda)] == [
        "ipython"
    ]


def test_what_cannot_be_read_is_told(monkeypatch):
    def fail(address):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(places, "fetch", fail)
    found = places.compare()
    assert len(found) == len(LISTS)
    assert all("cannot be read" in line for line in found)


def test_a_list_that_is_no_longer_in_use_is_told(monkeypatch):
    published = {
        place.published: "".join(f"{k}=={v}\n" for k, v in place.packages.items())
        for place in LISTS
    }
    pages = dict(place.witness for place in LISTS if place.witness[0])
    assert len([place for place in LISTS if place.witness[0]]) == 3
    monkeypatch.setattr(places, "fetch", lambda address: published.get(address, "### 2026.04"))
    found = places.compare()
    assert sorted(line.partition(":")[0] for line in found) == ["colab-2026.07", "kaggle"]
    assert all(address in pages for address in (re.search(r"https\S+", line)[0] for line in found))


def test_the_kernel_finds_nothing_of_ours(monkeypatch):
    for name in ("PYTHONPATH", "DLCORE_SIZE", "DLCORE_BACKEND", "MPLBACKEND"):
        monkeypatch.setenv(name, "x")
    env = places.environment(LISTS[0], Path("/venv/bin/python"))
    assert not {"PYTHONPATH", "DLCORE_SIZE", "DLCORE_BACKEND", "MPLBACKEND"} & set(env)
    assert env["COLAB_RELEASE_TAG"]
    assert env["PATH"].startswith("/venv/bin")
