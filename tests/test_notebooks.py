"""The stored notebooks: everything that nbval does not see, and proof that our checks see it.

nbval itself runs by `make nbval`, with chapters/conftest.py.
"""

import base64
import copy
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

pytest.importorskip("PIL")
from PIL import Image

from book import notebooks, verdicts
from dlcore import arithmetic

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
RECORD = {
    "id": "G1", "claim": "gradients shrink", "verdict": "holds", "effect": 52.3, "unit": "points",
    "low": 51.0, "high": 53.6, "seeds": 20, "data": "MNIST-1D", "machine": "x86_64", "size": "full",
    "arithmetic": "canonical", "level": 0.95, "threshold": {"at_least": 20.0}, "parts": {},
}  # fmt: skip


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_stored_chapter(path):
    assert notebooks.problems(path) == []


# --------------------------------------------------------------------------------------------------
# Every hole is shown by a notebook that is good but for that one thing.


def line(record):
    return (
        f"{record['id']} {record['verdict']}: {record['claim']}; effect +52.3 points, "
        f"95 % interval [+51.0, +53.6], {record['seeds']} seeds, margin 4.1"
    )


def png(size=8, mode="P", noise=False):
    pixels = np.random.default_rng(0).integers(0, 256 if noise else 2, (size, size), dtype=np.uint8)
    image = Image.fromarray(pixels).convert("RGB")
    buffer = io.BytesIO()
    (image.quantize(256 if noise else 4) if mode == "P" else image.convert(mode)).save(
        buffer, "PNG"
    )
    return base64.b64encode(buffer.getvalue()).decode() + "\n"


def display(**data):
    return new_output("display_data", {k.replace("_", "/", 1): v for k, v in data.items()})


def figure_cell(number=1):
    cell = new_code_cell("plot()", execution_count=number)
    cell.outputs = [display(text_plain="<Figure size 640x480 with 1 Axes>", image_png=png())]
    cell.metadata["mystnb"] = {
        "image": {"alt": f"Line {number} falls to the left."},
        "figure": {"caption": f"Caption {number}.", "name": f"fig-{number}"},
    }
    return cell


def verdict_cell(number, record=RECORD):
    cell = new_code_cell("dl.verdict()", execution_count=number)
    cell.outputs = [
        new_output("display_data", {"text/plain": line(record), verdicts.MIME: dict(record)})
    ]
    return cell


def good():
    nb = new_notebook(
        cells=[new_markdown_cell("# Title\n\n" + "word " * 2500), figure_cell(1), verdict_cell(2)]
    )
    nb.cells += [
        new_code_cell("print(1)", execution_count=3, outputs=[new_output("stream", text="1\n")])
    ]
    return notebooks.normalise(nb)


def problems(nb, tmp_path):
    path = tmp_path / "broken.ipynb"
    nbformat.write(nb, path)
    return "\n".join(notebooks.problems(path))


def test_a_good_notebook_passes(tmp_path):
    assert problems(good(), tmp_path) == ""


def change(cell, **values):
    """Return a function that sets attributes of one cell of a notebook."""

    def apply(nb):
        for name, value in values.items():
            setattr(nb.cells[cell], name, value)

    return apply


def add_output(output):
    return lambda nb: nb.cells[3].outputs.append(output)


def set_alt(text):
    return lambda nb: nb.cells[1].metadata.mystnb.image.update(alt=text)


def two_alike(field, key):
    def apply(nb):
        nb.cells.append(figure_cell(4))
        nb.cells[4].metadata.mystnb[field][key] = nb.cells[1].metadata.mystnb[field][key]

    return apply


def second_figure(nb):
    nb.cells[1].outputs.append(copy.deepcopy(nb.cells[1].outputs[0]))


def set_record(**values):
    return lambda nb: nb.cells[2].outputs[0].data[verdicts.MIME].update(values)


HOLES = {
    "never run": change(3, execution_count=None, outputs=[]),
    "is empty": change(3, source=""),
    "first to last": change(3, execution_count=7),
    "without its image": lambda nb: nb.cells[1].outputs[0].data.pop("image/png"),
    "raises none": lambda nb: nb.cells[3].metadata.update(tags=["raises-exception"]),
    "stored error": add_output(new_output("error", ename="ValueError", evalue="x", traceback=[])),
    "on stderr": add_output(new_output("stream", name="stderr", text="Warning: x\n")),
    "nbval to look away": change(3, source="# NBVAL_IGNORE_OUTPUT\nprint(1)"),
    "to look away": lambda nb: nb.cells[3].metadata.update(tags=["nbval-skip"]),
    "without alt text": set_alt("  "),
    "a file's path": set_alt("../_images/abc.png"),
    "path for alt": set_alt("build/figures/1"),
    "same alt text": two_alike("image", "alt"),
    "same caption": two_alike("figure", "caption"),
    "same name": two_alike("figure", "name"),
    "without caption": lambda nb: nb.cells[1].metadata.mystnb.pop("figure"),
    "2 figures in one cell": second_figure,
    "26 lines": change(3, source="print(1)\n" * 26),
    "semicolon": change(3, source="plot();\n"),
    "absolute path": change(3, source="open('/home/someone/x')"),
    "path of one machine": add_output(new_output("stream", text="/tmp/x.py:1\n")),
    "machine": lambda nb: setattr(nb.cells[0], "source", nb.cells[0].source + r" C:\Users\x"),
    "expected 2000": change(0, source="# Title\n\n" + "word " * 1990),
    "to 3500": change(0, source="word " * 3501),
    "normal form": lambda nb: nb.cells[3].metadata.update(execution={"iopub.status.busy": "2026"}),
    "in normal form": lambda nb: nb.metadata.update(widgets={}),
    "not in normal": lambda nb: nb.cells[1].outputs[0].data.update({"image/png": png(mode="RGB")}),
    "text/html": add_output(display(text_html="<div>random id</div>")),
    "widget-view": add_output(
        new_output(
            "display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "x"}
        )
    ),
    "no verdict": lambda nb: nb.cells[2].outputs.clear(),
    "lacks ['unit']": lambda nb: nb.cells[2].outputs[0].data[verdicts.MIME].pop("unit"),
    "is no verdict": set_record(verdict="perhaps"),
    "size quick": set_record(size="quick"),
    "expected canonical": set_record(arithmetic="arm64, no OpenBLAS, baseline SIMD"),
    "what the record says": set_record(verdict="fails"),
    "the record says": set_record(seeds=19),
    "a figure of": lambda nb: (
        nb.cells[1].outputs[0].data.update({"image/png": png(320, noise=True)})
    ),
    "11 figures": lambda nb: nb.cells.extend(figure_cell(n) for n in range(4, 14)),
    "bytes, at most 2,000,000": lambda nb: nb.cells[3].outputs[0].update(text="x" * 2_000_000),
}


@pytest.mark.parametrize("expected", HOLES)
def test_each_hole_is_closed(expected, tmp_path):
    nb = good()
    HOLES[expected](nb)
    assert expected in problems(nb, tmp_path)


def test_an_exception_that_is_meant_passes(tmp_path):
    nb = good()
    nb.cells[3].metadata["tags"] = ["raises-exception"]
    nb.cells[3].outputs = [new_output("error", ename="ValueError", evalue="x", traceback=[])]
    assert problems(nb, tmp_path) == ""


def test_normalise_keeps_the_content():
    nb = good()
    nb.metadata = nbformat.from_dict(
        {"kernelspec": {"name": "mine"}, "widgets": {"a": 1}, "toc": {}}
    )
    ids = [c.id for c in nb.cells]
    cell = nb.cells[3]
    cell.metadata = nbformat.from_dict(
        {"tags": ["hide-cell"], "execution": {"t": 1}, "collapsed": True}
    )
    cell.outputs = [new_output("stream", text="1"), new_output("stream", text="\n")]
    notebooks.normalise(nb)
    assert nb.metadata == notebooks.METADATA
    assert [c.id for c in nb.cells] == ids
    folded = {"source_hidden": True, "outputs_hidden": True}
    assert cell.metadata == {"tags": ["hide-cell"], "jupyter": folded}
    assert [o.text for o in cell.outputs] == ["1\n"]
    again = nbformat.from_dict(nb)
    assert notebooks.normalise(again) == nb


def test_normalise_gives_missing_and_doubled_ids_a_name():
    nb = good()
    nb.cells[2].id = nb.cells[1].id
    del nb.cells[3]["id"]
    notebooks.normalise(nb)
    assert [c.id for c in nb.cells[2:]] == ["cell-2", "cell-3"]


def test_quantise_meets_the_limit_and_keeps_the_picture():
    original = png(300, mode="RGBA", noise=True)
    small = notebooks.quantise(original, limit=60_000)
    assert len(base64.b64decode(small)) <= 60_000
    before, after = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(p))).convert("L"), dtype=float)
        for p in (original, small)
    )
    assert before.shape == after.shape
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.98


def test_running_does_not_store_what_failed(tmp_path, capsys):
    path = tmp_path / "fails.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1 / 0")]), path)
    before = path.read_bytes()
    assert notebooks.main(["run", str(path)]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().out
    assert path.read_bytes() == before


# --------------------------------------------------------------------------------------------------
# Records of verdicts: a fresh one against the stored one.

CONDITIONS = RECORD | {
    "verdict": "depends", "effect": None, "low": None, "high": None, "threshold": {"at_least": 2.0},
    "parts": {
        "deep": {"verdict": "holds", "effect": 5.0, "low": 4.0, "high": 6.0, "seeds": 20},
        "shallow": {"verdict": "fails", "effect": 0.0, "low": -1.0, "high": 1.0, "seeds": 20},
    },
}  # fmt: skip
TIMING = RECORD | {"unit": "x time", "effect": 1.3, "low": 1.2, "high": 1.4}
BOUND = RECORD | {"high": None}
ELSEWHERE = {"arithmetic": "arm64, no OpenBLAS, baseline SIMD"}
RATIO = RECORD | {
    "unit": "times", "effect": 2.0, "low": 1.6, "high": 2.5, "threshold": {"at_least": 1.25}
}  # fmt: skip
ROUNDED = RECORD | {"unit": "log10", "effect": -7.0, "low": -7.01, "high": -6.99}


def part(name, **values):
    return CONDITIONS | {"parts": CONDITIONS["parts"] | {name: CONDITIONS["parts"][name] | values}}


@pytest.mark.parametrize(
    ("stored", "fresh"),
    [
        (RECORD, RECORD),
        (RECORD, RECORD | {"effect": 52.3004, "machine": "another"}),
        (BOUND, BOUND),
        (CONDITIONS, CONDITIONS | {"parts": dict(reversed(CONDITIONS["parts"].items()))}),
        (TIMING, TIMING | {"effect": 9.0, "verdict": "undecided"}),
    ],
)
def test_records_that_agree(stored, fresh):
    assert verdicts.compare([stored], [fresh]) == []


@pytest.mark.parametrize(
    ("stored", "fresh", "expected"),
    [
        (
            RECORD,
            RECORD | {"effect": 52.31},
            "effect is 52.3 as stored and 52.31 now, in canonical",
        ),
        (RECORD, RECORD | {"low": 51.1}, "low is 51.0 as stored and 51.1 now"),
        (RECORD, RECORD | {"effect": float("nan")}, "effect is 52.3 as stored and nan now"),
        (RECORD, RECORD | {"effect": None}, "effect is 52.3 as stored and None now"),
        (RECORD, RECORD | {"verdict": "undecided"}, "verdict is holds as stored and undecided now"),
        (RECORD, RECORD | {"seeds": 19}, "seeds is 20 as stored and 19 now"),
        (RECORD, RECORD | {"id": "G2"}, "['G1'] are stored, ['G2']"),
        (RECORD, RECORD | {"unit": "x time"}, "unit is"),
        (RECORD, RECORD | {"claim": "gradients grow"}, "claim is"),
        (RECORD, RECORD | {"size": "quick"}, "size is"),
        (BOUND, BOUND | {"high": 53.0}, "high is None as stored"),
        (CONDITIONS, part("deep", effect=5.1), "G1, deep: effect is 5.0 as stored and 5.1 now"),
        (CONDITIONS, part("deep", verdict="fails"), "G1, deep: the verdict is holds"),
        (CONDITIONS, CONDITIONS | {"verdict": "undecided"}, "G1: the verdict is depends as stored"),
        (CONDITIONS, part("shallow", seeds=3), "G1, shallow: 20 seeds stored and 3 now"),
        (CONDITIONS, CONDITIONS | {"parts": {}}, "conditions are"),
        (TIMING, TIMING | {"verdict": "fails"}, "turned from holds to fails"),
        (TIMING, TIMING | {"seeds": 3}, "seeds is"),
    ],
)
def test_records_that_differ(stored, fresh, expected):
    assert expected in "\n".join(verdicts.compare([stored], [fresh]))


# RECORD's standard error is 1.3 / t(0.975, 19) = 0.621 points, so effects may lie 4 √2 0.621 = 3.51 apart.
@pytest.mark.parametrize(
    ("stored", "fresh"),
    [
        (RECORD, RECORD | {"effect": 49.0}),
        (RECORD, RECORD | {"effect": 55.7, "low": 0.0, "high": 90.0}),
        (RECORD, RECORD | {"effect": 52.0, "verdict": "undecided"}),
        (CONDITIONS, part("deep", verdict="fails", effect=3.0, low=1.0, high=1.9)),  # smaller
        (CONDITIONS, part("shallow", verdict="fails", effect=-1.5, low=-2.5, high=-0.5)),
        (CONDITIONS, part("shallow", effect=0.5) | {"verdict": "fails"}),
        (RATIO, RATIO | {"effect": 3.6}),
        (ROUNDED, ROUNDED | {"effect": -6.5}),
        (TIMING, TIMING | {"effect": 0.5, "verdict": "fails"}),  # its kernels are others
    ],
)
def test_records_that_agree_in_another_arithmetic(stored, fresh):
    assert verdicts.compare([stored], [fresh | ELSEWHERE]) == []


@pytest.mark.parametrize(
    ("stored", "fresh", "expected"),
    [
        (RECORD, RECORD | {"effect": 48.7}, "more than 4 standard errors of 0.878 away"),
        (RECORD, RECORD | {"effect": 55.9}, "standard errors"),
        (RECORD, RECORD | {"effect": 48.7, "low": 0.0, "high": 90.0}, "standard errors"),
        (RECORD, RECORD | {"effect": float("nan")}, "standard errors"),
        (RECORD, RECORD | {"effect": None}, "effect is 52.3 as stored and None now"),
        (BOUND, BOUND | {"effect": 1e9}, "standard errors"),
        (
            CONDITIONS,
            part("deep", verdict="fails", effect=0.0, low=-1.0, high=1.0),
            "G1, deep: the finding is 'holds' as stored and 'no difference' now",
        ),
        (
            CONDITIONS,
            part("deep", verdict="fails", effect=-5.0, low=-6.0, high=-4.0),
            "is 'holds' as stored and 'opposite' now",
        ),
        (RATIO, RATIO | {"effect": 3.8}, "standard errors"),
        (
            RATIO,
            RATIO | {"verdict": "fails", "effect": 0.7, "low": 0.6, "high": 0.8},
            "is 'holds' as stored and 'opposite' now",
        ),
        (ROUNDED, ROUNDED | {"verdict": "fails"}, "is 'holds' as stored and 'opposite' now"),
        (TIMING, TIMING | {"seeds": 19}, "seeds is 20 as stored and 19 now"),
        (RECORD, RECORD | {"seeds": 19}, "seeds is 20 as stored and 19 now"),
    ],
)
def test_records_that_differ_in_another_arithmetic(stored, fresh, expected):
    assert expected in "\n".join(verdicts.compare([stored], [fresh | ELSEWHERE]))


def test_what_replications_vary_widens_the_limit_in_another_arithmetic_only():
    fresh = RECORD | {"effect": 47.0}
    assert verdicts.compare([RECORD], [fresh], {("G1", ""): 1.0})
    assert verdicts.compare([RECORD], [fresh | ELSEWHERE], {("G1", ""): 1.0}) == []
    assert verdicts.compare([RECORD], [fresh | ELSEWHERE], {("G2", ""): 1.0})


def test_spreads_come_from_canonical_runs_with_other_seeds():
    runs = [{"arithmetic": name, "base_seed": seed} for name, seed in
            (("canonical", 0), ("canonical", 1), ("canonical", 2), ("nehalem", 0))]  # fmt: skip
    parts = {"": {"words": ["holds"] * 4, "effects": [1.0, 2.0, 3.0, 99.0]}}
    ratios = {"a": {"words": ["holds"] * 4, "effects": [1.0, np.e, np.e**2, 99.0]},
              "b": {"words": ["holds"] * 4, "effects": [1.0, None, 1.0, 1.0]}}  # fmt: skip
    found = {"runs": runs, "verdicts": {"G1": {"unit": "points", "parts": parts},
                                        "G2": {"unit": "times", "parts": ratios}}}  # fmt: skip
    spreads = verdicts.spreads(found)
    assert spreads == {("G1", ""): pytest.approx(1.0), ("G2", "a"): pytest.approx(1.0)}


def test_verdicts_of_one_claim_pool_what_replications_vary_under_a_condition():
    runs = [{"arithmetic": "canonical", "base_seed": seed} for seed in range(3)]

    def verdict(unit, **effects):
        parts = {name: {"words": ["holds"] * 3, "effects": each} for name, each in effects.items()}
        return {"unit": unit, "parts": parts}

    found = {
        "A3a": verdict("points", deep=[1.0, 1.0, 1.0], flat=[2.0, 2.0, 2.0]),
        "A3b": verdict("points", deep=[0.0, 2.0, 4.0]),
        "A3c": verdict("times", deep=[1.0, 1.0, 1.0]),
        "A1": verdict("points", deep=[3.0, 3.0, 3.0]),
    }
    spreads = verdicts.spreads({"runs": runs, "verdicts": found})
    pooled = pytest.approx(2**0.5)  # the root of the mean of 0 and 4
    assert spreads == {("A3a", "deep"): pooled, ("A3b", "deep"): pooled, ("A3a", "flat"): 0.0,
                       ("A3c", "deep"): 0.0, ("A1", "deep"): 0.0}  # fmt: skip


def test_a_missing_record_is_seen():
    assert verdicts.compare([RECORD], []) == ["verdicts ['G1'] are stored, [] came from the run"]


# --------------------------------------------------------------------------------------------------
# What nbval masks.

PATTERNS = re.findall(
    r"^regex: (.*)$\n^replace: (.*)$",
    (ROOT / "book" / "sanitize.cfg").read_text(encoding="utf-8"),
    re.MULTILINE,
)


def masked(text):
    for pattern, replacement in PATTERNS:
        text = re.sub(pattern, replacement, text)
    return text


@pytest.mark.parametrize(
    ("stored", "fresh"),
    [
        (
            line(RECORD),
            line(RECORD).replace("52.3", "51").replace("+51.0", "+50").replace("4.1", "-3"),
        ),
        ("took 12.5 s", "took 3 s"),
        ("took 120 ms", "took 95.1 ms"),
        ("loss 1.2e-05", "loss 3e-5"),
        ("rate  0.1  -1,204.5", "rate 0.01 7.2"),
        ("accuracy 93 %, 61.2%", "accuracy 9 %, 7%"),
        ("3.5 times as many", "12 times as many"),
        ("+3 points, −2", "-1.5 points, +10"),
        ("effect 12 times, 95 % interval [10, 14.1]", "effect 9.5 times, 95 % interval [8.1, inf]"),
    ],
)
def test_measured_numbers_are_masked(stored, fresh):
    assert masked(stored) == masked(fresh)


@pytest.mark.parametrize(
    ("stored", "fresh"),
    [
        (line(RECORD), line(RECORD).replace("holds", "fails")),
        (line(RECORD), line(RECORD).replace("20 seeds", "19 seeds")),
        (line(RECORD), line(RECORD).replace("G1", "G2")),
        ("20 seeds, 3 s", "21 seeds, 3 s"),
        ("layer 1: 0.5", "layer 2: 0.5"),
        ("MNIST-1D", "MNIST-2D"),
        ("40-100-10", "40-200-10"),
        ("loss 0.5", "loss nan"),
        ("effect +1.0", "effect nan"),
        ("chapter 1", "chapter 1\n"),
    ],
)
def test_the_rest_is_compared(stored, fresh):
    assert masked(stored) != masked(fresh)


# --------------------------------------------------------------------------------------------------
# The whole way: nbval with our conftest, on a notebook whose cells differ from their stored outputs.

EMIT = """from IPython.display import display
def emit(line, record):
    data = {"text/plain": line, "application/vnd.dlcore.verdict+json": record}
    display(data, raw=True)
"""


def emitting(stored, fresh):
    """A cell that stored one verdict and emits another when it is run."""
    cell = new_code_cell(f"emit({line(fresh)!r}, {fresh!r})", execution_count=1)
    cell.outputs = [new_output("display_data", {"text/plain": line(stored), verdicts.MIME: stored})]
    return cell


def printing(stored, fresh):
    return new_code_cell(
        f"print({fresh!r})", execution_count=1, outputs=[new_output("stream", text=stored + "\n")]
    )


def outcomes_of_nbval(folder, cells, **variables):
    """Run nbval with our conftest over these cells: whether each passed, and what was printed."""
    nbformat.write(new_notebook(cells=cells), folder / "sample.ipynb")
    (folder / "conftest.py").write_text((ROOT / "chapters" / "conftest.py").read_text())
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml")]
    command += ["--rootdir", str(ROOT), "-rA", "--nbval", "--nbval-current-env", "-s"]
    command += ["--nbval-sanitize-with", str(ROOT / "book" / "sanitize.cfg")]
    command += ["-p", "no:cacheprovider", str(folder / "sample.ipynb")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=os.environ | variables
    )
    found = re.findall(r"^(PASSED|FAILED) .*::Cell (\d+)", done.stdout, re.MULTILINE)
    return {int(number): word == "PASSED" for word, number in found}, done.stdout


def image_that_is_missing():
    cell = new_code_cell("display({'text/plain': 'x'}, raw=True)", execution_count=1)
    cell.outputs = [display(text_plain="x", image_png=png())]
    return cell


needs_avx2 = pytest.mark.skipif(
    bool(arithmetic.why_not("canonical")), reason="canonical arithmetic cannot be had here"
)


@needs_avx2
@pytest.mark.thorough
def test_nbval_with_our_comparison(tmp_path):
    cases = [
        (new_code_cell(EMIT, execution_count=1), True),
        (emitting(RECORD, RECORD | {"machine": "another"}), True),
        (emitting(RECORD, RECORD | {"effect": 52.4}), False),
        (emitting(RECORD, RECORD | {"verdict": "fails"}), False),
        (emitting(RECORD, RECORD | {"seeds": 19}), False),
        (emitting(TIMING, TIMING | {"verdict": "undecided", "effect": 1.05}), True),
        (emitting(TIMING, TIMING | {"verdict": "fails"}), False),
        (image_that_is_missing(), False),
        (printing("loss 0.5, 20 seeds", "loss 0.25, 20 seeds"), True),
        (printing("loss 0.5, 19 seeds", "loss 0.25, 20 seeds"), False),
    ]
    outcomes, printed = outcomes_of_nbval(tmp_path, [cell for cell, _ in cases])
    assert outcomes == {index: passes for index, (_, passes) in enumerate(cases)}, printed
    assert "Arithmetic of the kernels: canonical. Verdicts are compared to rounding." in printed
    assert "effect is 52.3 as stored and 52.4 now, in canonical arithmetic" in printed


@pytest.mark.skipif(
    bool(arithmetic.why_not("nehalem")), reason="there is no other arithmetic to be had here"
)
@pytest.mark.thorough
def test_nbval_with_our_comparison_in_another_arithmetic(tmp_path):
    cases = [
        (new_code_cell(EMIT, execution_count=1), True),
        (emitting(RECORD, RECORD | ELSEWHERE | {"effect": 54.0, "verdict": "undecided"}), True),
        (emitting(RECORD, RECORD | ELSEWHERE | {"effect": 60.0}), False),
        (image_that_is_missing(), False),
        (printing("3 of 20 stuck, loss 0.5", "4 of 20 stuck, loss 0.25"), True),
        (printing("none stuck", "all stuck"), False),
    ]
    outcomes, printed = outcomes_of_nbval(
        tmp_path, [cell for cell, _ in cases], DLCORE_ARITHMETIC="nehalem"
    )
    assert outcomes == {index: passes for index, (_, passes) in enumerate(cases)}, printed
    assert "Verdicts are compared statistically." in printed
    assert "the effect is 52.3 as stored and 60.0 now, more than 4 standard errors" in printed


@pytest.mark.thorough
def test_nbval_refuses_another_size(tmp_path, monkeypatch):
    nbformat.write(good(), tmp_path / "sample.ipynb")
    (tmp_path / "conftest.py").write_text((ROOT / "chapters" / "conftest.py").read_text())
    monkeypatch.setenv("DLCORE_SIZE", "quick")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        str(ROOT / "pyproject.toml"),
        "--nbval",
        "--collect-only",
    ]
    done = subprocess.run(
        [*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert "make quick" in done.stdout + done.stderr
