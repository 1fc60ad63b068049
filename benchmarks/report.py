"""The results as a table, a JSON file, a figure, and a page of the book."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = {
    "torch_loop": "PyTorch, loop",
    "torch_processes": "PyTorch, loop in processes",
    "torch_batched": "PyTorch, batched",
    "jax": "JAX",
    "jax_with_compile": "JAX, compiling",
    "sklearn": "scikit-learn",
    "matmul_floor": "products alone",
}


def case_of(row: dict[str, Any]) -> tuple:
    return row["net"], row["replicas"], row["optimizer"], row["variant"]


def grouped(found: dict[str, Any]) -> dict[tuple, dict[str, dict]]:
    """Return rows by case, then by peer, plain nets first."""
    cases: dict[tuple, dict[str, dict]] = {}
    for row in sorted([*found["rows"], *found["also"]], key=lambda r: r["variant"] != "plain"):
        cases.setdefault(case_of(row), {})[row["peer"]] = row
    return cases


def name_of(case: tuple) -> str:
    net, replicas, optimizer, variant = case
    extra = "" if variant == "plain" else f", {variant.replace('_', ' ')}"
    return f"{net} × {replicas}, {optimizer}{extra}"


def cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    return f"{row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def table(found: dict[str, Any]) -> list[list[str]]:
    """Return header and rows of ratios."""
    header = ["net × replicas", *WORDS.values()]
    return [header] + [
        [name_of(case), *(cell(rows.get(peer)) for peer in WORDS)]
        for case, rows in grouped(found).items()
    ]


def settings(found: dict[str, Any]) -> list[list[str]]:
    """Return header and rows of GFLOP/s and the settings that were best."""
    lines = [["net × replicas", "side", "GFLOP/s", "seconds", "best setting"]]
    for case, rows in grouped(found).items():
        one = next(iter(rows.values()))
        lines.append(
            [
                name_of(case),
                "dlcore",
                f"{one['gflops']:.0f}",
                f"{one['seconds']:.2f}",
                one["setting"],
            ]
        )
        for peer, words in WORDS.items():
            if row := rows.get(peer):
                numbers = f"{row['peer_gflops']:.0f}", f"{row['peer_seconds']:.2f}"
                lines.append(["", words, *numbers, row["peer_setting"]])
    return lines


def aligned(lines: list[list[str]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def text(found: dict[str, Any]) -> str:
    """Return all of it for the terminal."""
    share = f"{100 * found['level']:.0f} %"
    parts = [
        found["machine"],
        "Peer's time / dlcore's: above 1 dlcore is faster. Median ratio over "
        f"{found['rounds']} rounds [{share} interval].",
        aligned(table(found)),
        "GFLOP/s of the step's matrix products",
        aligned(settings(found)),
    ]
    if denormal := found.get("denormal"):
        parts.append(
            f"Vanishing gradients ({100 * denormal['share_denormal']:.0f} % of the lowest layer's are "
            f"denormal or 0): time / time with healthy ones {cell(denormal)}"
        )
    return "\n\n".join(parts)


# --------------------------------------------------------------------------------------------------
# The page of the book


def markdown(header: list[str], lines: list[list[str]]) -> str:
    ruled = ["---", *["---:" for _ in header[1:]]]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ruled, *lines))


def extremes(found: dict[str, Any]) -> str:
    """Return a table with each peer's lowest and highest ratio over the plain nets."""
    lines = []
    for peer, words in WORDS.items():
        rows = [r for r in [*found["rows"], *found["also"]] if r["peer"] == peer]
        rows = sorted((r for r in rows if r["variant"] == "plain"), key=lambda r: r["ratio"])
        if rows:
            ends = [f"{r['ratio']:.2f} ({name_of(case_of(r))})" for r in (rows[0], rows[-1])]
            lines.append([words, *ends])
    return markdown(["Peer", "lowest ratio", "highest ratio"], lines)


def per_net(found: dict[str, Any]) -> str:
    """Return a table for each net and number of replicas: peers downwards, optimizers across."""
    parts = []
    cases = grouped(found)
    for net, replicas, variant in dict.fromkeys((n, r, v) for n, r, _, v in cases):
        own = {
            c[2]: rows
            for c, rows in cases.items()
            if (c[0], c[1], c[3]) == (net, replicas, variant)
        }
        one = {o: next(iter(rows.values())) for o, rows in own.items()}
        ours = [f"1 ({r['gflops']:.0f} GFLOP/s; {r['setting']})" for r in one.values()]
        lines = [["dlcore", *ours]]
        for peer, words in WORDS.items():
            if any(peer in rows for rows in own.values()):
                lines.append([words, *(_long(rows.get(peer)) for rows in own.values())])
        extra = "" if variant == "plain" else f", {variant.replace('_', ' ')}"
        title = f"**{net} × {replicas}{extra}**"
        parts.append(title + "\n\n" + markdown(["Peer", *own], lines))
    return "\n\n".join(parts)


def _long(row: dict[str, Any] | None) -> str:
    return "–" if row is None else f"{cell(row)} ({row['peer_setting']})"


def vanishing(found: dict[str, Any]) -> str:
    d = found["denormal"]
    return (
        f"Of the gradients of its lowest layer, {100 * d['share_denormal']:.0f} % are denormal or zero. "
        f"A step takes {d['ratio']:.2f} times as long as with healthy gradients "
        f"[{d['low']:.2f}, {d['high']:.2f}]."
    )


def blocks(found: dict[str, Any]) -> dict[str, str]:
    """Return what the page computes from the results, by the name of its place."""
    return {
        "machine": f"Measured on: {found['machine']}. {found['rounds']} rounds.",
        "extremes": extremes(found),
        "nets": per_net(found),
        "vanishing": vanishing(found),
    }


def filled(page: str, found: dict[str, Any]) -> str:
    """Return the page with the text between ``<!-- NAME -->`` and ``<!-- end -->`` made anew."""
    for name, made in blocks(found).items():
        head, place, rest = page.partition(f"<!-- {name} -->\n")
        if not place:
            raise ValueError(f"page: expected a place '<!-- {name} -->', got none")
        _, end, tail = rest.partition("<!-- end -->")
        page = f"{head}{place}{made}\n{end}{tail}"
    return page


# --------------------------------------------------------------------------------------------------
# Files


def write(found: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Join results of one machine and plan, measured case by case."""
    common = [{k: part[k] for k in ("machine", "plan", "rounds", "level")} for part in parts]
    if any(other != common[0] for other in common):
        raise ValueError(f"parts: expected one machine, plan and number of rounds, got {common}")
    denormal = {k: v for part in parts for k, v in part.items() if k == "denormal"}
    lists = {k: [r for part in parts for r in part[k]] for k in ("rows", "also", "failures")}
    return common[0] | lists | denormal


def figure(found: dict[str, Any], path: Path) -> None:
    """Draw a panel per plain net: peers downwards, ratio and interval to the right."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    from dlcore.plots import COLORS, MARKERS, STYLE

    nets = list(dict.fromkeys((r["net"], r["replicas"]) for r in found["rows"]))
    peers = [p for p in WORDS if any(r["peer"] == p for r in found["rows"])]
    with mpl.rc_context(STYLE):
        columns = min(2, len(nets))
        lines = -(-len(nets) // columns)
        fig, axes = plt.subplots(
            lines,
            columns,
            figsize=(7.4, 0.6 + 2.3 * lines),
            sharex=True,
            sharey=True,
            squeeze=False,
        )
        for ax, (net, replicas) in zip(axes.flat, nets, strict=False):
            for j, optimizer in enumerate(("momentum", "adam")):
                rows = {
                    r["peer"]: r
                    for r in found["rows"]
                    if (r["net"], r["replicas"], r["optimizer"]) == (net, replicas, optimizer)
                }
                y = [i + 0.2 * (2 * j - 1) for i, p in enumerate(peers) if p in rows]
                chosen = [rows[p] for p in peers if p in rows]
                x = [r["ratio"] for r in chosen]
                error = [
                    [r["ratio"] - r["low"] for r in chosen],
                    [r["high"] - r["ratio"] for r in chosen],
                ]
                ax.errorbar(
                    x, y, xerr=error, fmt=MARKERS[j], color=COLORS[j], markersize=5, label=optimizer
                )
            ax.axvline(1, color="black", linewidth=1)
            ax.set_title(f"{net} × {replicas}", fontsize=12)
            ax.set_xscale("log")
            ax.set_yticks(range(len(peers)), [WORDS[p] for p in peers])
        axes[0, 0].invert_yaxis()
        ticks = [0.5, 1, 2, 5, 10]
        axes[0, 0].set_xticks(ticks, [f"{t:g}" for t in ticks])
        axes[0, 0].xaxis.set_minor_locator(mpl.ticker.NullLocator())
        for ax in axes.flat[len(nets) :]:
            ax.axis("off")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        place = axes.flat[-1] if len(nets) < axes.size else axes.flat[0]
        place.legend(handles, labels, loc="center" if len(nets) < axes.size else "best")
        fig.supxlabel("peer's time / dlcore's time (right of 1: dlcore is faster)", fontsize=12)
        path.parent.mkdir(parents=True, exist_ok=True)
        fig.savefig(path)
        plt.close(fig)
