"""Replications: what the runs of the book in other arithmetics and with other seeds gave."""

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from book import ledger, replicate, verdicts
from dlcore import arithmetic

CHAPTERS = sorted(replicate.CHAPTERS.glob("*.ipynb"))
#: A cell that gives a verdict which hangs on what a replication changes.
CELL = """import os
import dlcore as dl
seed = int(os.environ.get("DLCORE_SEED", "0"))
dl.verdict("G1", "it grows", {"a": [5.0, 5.1, 5.2 - seed], "b": [9.0, 9.1, 9.2]}, at_least=1)"""
TIMING = """dl.verdict("G2", "it is fast", [1.5, 1.6, 1.7], at_least=1.1, unit="x time")"""


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    monkeypatch.setattr(replicate, "BUILT", tmp_path / "built")
    cells = [new_code_cell(CELL), new_code_cell(TIMING)]
    path = tmp_path / "01-gradients.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    nbformat.write(replicate.notebooks.execute(path)[0], path)
    return path


RUNS = (replicate.Run("native", 0), replicate.Run("native", 1), replicate.Run("native", 5))


@pytest.mark.thorough
def test_a_chapter_is_run_with_other_seeds_and_its_words_are_joined(chapter, tmp_path):
    lines = [replicate.execute(run, chapter) for run in RUNS[1:]]
    assert [line.rpartition(":")[0] for line in lines] == [
        "native-seed1, 01-gradients",
        "native-seed5, 01-gradients",
    ]
    found = replicate.collect([chapter], RUNS)
    assert list(found) == ["G1"]  # a measured time is not replicated
    assert found["G1"]["words"] == ["holds", "holds", "undecided"]
    assert found["G1"]["parts"]["b"] == {"words": ["holds"] * 3, "effects": [9.1] * 3}
    assert found["G1"]["parts"]["a"]["effects"] == pytest.approx([5.1, 4.76667, 3.43333])

    assert replicate.execute(RUNS[1], chapter).endswith("as before")
    notebook = nbformat.read(chapter, as_version=4)
    notebook.cells[0].source += "\n"
    nbformat.write(notebook, chapter)
    assert replicate.execute(RUNS[1], chapter).endswith(" s")


@pytest.mark.thorough
def test_runs_that_give_other_verdicts_are_refused(chapter):
    for run in RUNS[1:]:
        replicate.keep(run, chapter, [])
    with pytest.raises(ValueError, match=r"01-gradients\.ipynb: the runs give other verdicts"):
        replicate.collect([chapter], RUNS)


def test_what_was_stored_for_other_chapters_stays(tmp_path):
    path = tmp_path / "replications.json"
    one = {"chapter": "01-gradients", "unit": "", "words": ["holds"], "parts": {}}
    two = one | {"chapter": "02-initialization"}
    replicate.write({"G1": one, "G2": one}, path)
    replicate.write({"I1": two}, path)
    replicate.write({"G1": one}, path)
    assert list(verdicts.replications(path)["verdicts"]) == ["G1", "I1"]
    assert len(verdicts.replications(path)["runs"]) == len(replicate.RUNS)


@pytest.mark.thorough
def test_a_verdict_that_has_changed_since_is_named(chapter):
    for run in RUNS[1:]:
        replicate.execute(run, chapter)
    stored = {"runs": [], "verdicts": replicate.collect([chapter], RUNS)}
    assert replicate.problems(stored, chapter) == []
    stored["verdicts"]["G1"]["parts"]["a"]["effects"][0] = 7.0
    assert replicate.problems(stored, chapter) == ["01-gradients: G1, a is another now"]
    stored["verdicts"].clear()
    assert replicate.problems(stored, chapter) == ["01-gradients: G1 was never replicated"]


def test_the_first_run_is_what_notebooks_store_and_the_others_differ():
    assert replicate.RUNS[0] == replicate.Run("canonical", 0)
    assert len(set(replicate.RUNS)) == len(replicate.RUNS) >= 4
    assert {run.base_seed for run in replicate.RUNS if run.arithmetic == "canonical"} == {0, 1, 2}
    assert {run.arithmetic for run in replicate.RUNS} - {"canonical"} <= set(arithmetic.ARITHMETICS)


def test_the_ledger_shows_in_how_many_runs_a_word_stood(monkeypatch):
    record = ledger.collect()[0]["verdicts"][0]
    words = ["holds", "holds", "undecided", "holds"]
    seen = {
        "chapter": "01-gradients",
        "unit": record["unit"],
        "words": [record["verdict"], "undecided", record["verdict"], record["verdict"]],
        "parts": {name: {"words": words, "effects": [1.0] * 4} for name in record["parts"]},
    }
    monkeypatch.setattr(
        ledger, "replications", lambda: {"runs": [{}] * 4, "verdicts": {record["id"]: seen}}
    )
    page = ledger.as_markdown()
    assert page.count("the word stood in 3 of 4 runs") == 1
    assert page.count("(stood in 3 of 4)") == len(record["parts"])
    copy = json.loads(ledger.as_json("1"))
    assert copy["claims"][0]["verdicts"][0]["words_in_runs"] == seen["words"]


def test_what_is_stored_is_what_the_chapters_say():
    """What changed since is found, and is to be run again: `make replicate`."""
    stored = verdicts.replications()
    replicated = {entry["chapter"] for entry in stored["verdicts"].values()}
    chapters = [path for path in CHAPTERS if path.stem in replicated]
    assert [text for path in chapters for text in replicate.problems(stored, path)] == []
