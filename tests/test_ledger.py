"""The ledger: every claim of a finished chapter has a verdict, and prose cites what the outputs give."""

import json
import shutil

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from book import ledger
from book.verdicts import MIME

CHAPTERS = sorted(ledger.CHAPTERS.glob("*.ipynb"))
RECORD = {
    "id": "I1", "claim": "units | saturate", "verdict": "holds", "effect": -0.20519, "unit": "decades",
    "low": None, "high": 0.5, "seeds": 20, "data": "MNIST-1D", "machine": "x86_64", "size": "full",
    "threshold": {"at_least": -1.0}, "parts": {},
}  # fmt: skip


def notebook(folder, records=(RECORD,), prose="Text."):
    outputs = [new_output("display_data", {"text/plain": "", MIME: dict(r)}) for r in records]
    cells = [new_markdown_cell(prose), new_code_cell("dl.verdict()", outputs=outputs)]
    path = folder / "02-initialization.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_ids_of_claims_are_distinct_and_belong_to_one_chapter():
    names = [name for statements in ledger.claims().values() for name in statements]
    assert len(names) == len(set(names)) >= 30
    assert all(path.stem in ledger.claims() for path in CHAPTERS)


def test_every_claim_of_a_written_chapter_has_a_verdict():
    written = [claim for claim in ledger.collect() if claim["written"]]
    assert written
    assert [claim["id"] for claim in written if not claim["verdicts"]] == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_prose_cites_the_verdicts_that_the_outputs_give(path):
    assert ledger.citation_problems(path) == []


@pytest.mark.parametrize(
    ("prose", "problem"),
    [
        ("[G2a holds](#verdict-g2a)", None),
        ("[the experiment](#verdict-g2a)", None),
        ("[G2a fails](#verdict-g2a)", "the output says holds"),
        ("[G2a *does not hold, it fails*](#verdict-g2a)", "the output says holds"),
        ("[G9](#verdict-g9)", "no output gives"),
    ],
)
def test_a_wrong_citation_is_found(tmp_path, prose, problem):
    found = ledger.citation_problems(notebook(tmp_path, prose=f"As seen, {prose}, so be it."))
    assert bool(found) == bool(problem)
    assert not problem or problem in found[0]


def test_a_missing_verdict_shows(tmp_path):
    notebook(tmp_path)
    found = {claim["id"]: claim for claim in ledger.collect(tmp_path)}
    assert [r["id"] for r in found["I1"]["verdicts"]] == ["I1"]
    assert found["I2"]["written"]
    assert found["I2"]["verdicts"] == []
    assert not found["G1"]["written"]


def test_a_verdict_of_another_chapter_is_refused(tmp_path):
    notebook(tmp_path, [RECORD | {"id": "G1"}])
    with pytest.raises(ValueError, match="verdict G1 belongs to no claim of it"):
        ledger.collect(tmp_path)


def test_each_claim_of_the_book_has_a_verdict():
    assert [c["id"] for c in ledger.collect() if not c["written"] or not c["verdicts"]] == []


def test_the_page_has_every_verdict_with_its_effect(monkeypatch, tmp_path):
    for path in CHAPTERS[:-1]:  # the last one stands for a chapter that is not there yet
        shutil.copy(path, tmp_path)
    notebook(tmp_path)
    collect = ledger.collect
    monkeypatch.setattr(ledger, "collect", lambda: collect(tmp_path))
    page = ledger.as_markdown()
    for claim in ledger.collect():
        assert f"**{claim['id']}** {claim['claim']}" in page
        for record in claim["verdicts"]:
            assert f"[{record['id']}](#verdict-{record['id'].lower()})" in page
            assert all(ledger._text(name) in page for name in record["parts"])
    assert "units \\| saturate" in page
    assert "−0.205 decades [−∞, 0.5] against ≥ −1" in page
    assert "This chapter is not written yet" in page


def test_the_copy_for_programs_links_to_each_cell():
    copy = json.loads(ledger.as_json("1.2"))
    assert copy["version"] == "1.2"
    stored = {r["id"]: r for claim in copy["claims"] for r in claim["verdicts"]}
    assert stored["G1a"]["page"] == "chapters/01-gradients.html#verdict-g1a"
    assert stored["G1a"]["parts"]["logistic, Glorot"]["verdict"] == "holds"
