"""The directive ``explorable``: a static figure, its data, and the script that plays it."""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from matplotlib.figure import Figure
from sphinx.util.docutils import SphinxDirective

import dlcore as dl
from book import explorables

FOLDER = Path(__file__).parent / "play"
SCRIPT = "explorables.js"
DASHES = ("-", (0, (7, 3)), (0, (2, 3)), (0, (9, 3, 2, 3)), (0, (12, 4)), (0, (4, 4)))


class Explorable(SphinxDirective):
    """A numbered figure ``play-NAME`` with a caption; its data follow for the script.

    ``from`` names figures of chapters: below them stands a link to this one (``book.reading``).
    """

    required_arguments = 1
    has_content = True
    option_spec = {"alt": directives.unchanged_required, "from": directives.unchanged_required}

    def run(self):
        """Return the figure and its data."""
        name = self.arguments[0]
        stored = explorables.FOLDER / f"{name}.json"
        self.env.note_dependency(str(stored))
        self.env.note_dependency(__file__)
        path = Path(self.env.srcdir) / "_build/explorables" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(name).savefig(path, dpi=120)
        image = nodes.image(uri=f"/_build/explorables/{name}.png", alt=self.options["alt"])
        figure = nodes.figure("", image, classes=["explorable"], align="default")
        text = nodes.paragraph()
        self.state.nested_parse(self.content, self.content_offset, text)
        caption = nodes.caption("", "", *text.children[0].children)
        figure += caption
        figure["names"].append(f"play-{name}")
        self.state.document.note_explicit_target(figure, figure)
        data = stored.read_text("utf-8").strip()
        script = f'<script type="application/json" id="data-{name}">{data}</script>'
        box = nodes.container("", figure, nodes.raw("", script, format="html"))
        box["classes"] += ["play", f"play-{name}"]
        return [box]


def picture(name: str) -> Figure:
    """Draw an explorable as it first appears, for readers without scripts and for print."""
    with dl.plots.mpl.rc_context(dl.plots.STYLE):
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        PICTURES[name](figure.subplots(), explorables.read(name))
    return figure


def _flow(ax, data):
    for i, scale in enumerate((0.5, 1.0, 2.0)):
        net = next(
            n for n in data["nets"] if (n["unit"], n["depth"], n["scale"]) == ("tanh", 10, scale)
        )
        layers = range(1, net["depth"] + 1)
        powers = {
            key: [10**v for v in net[key]] for key in ("measured", "low", "high", "predicted")
        }
        ax.fill_between(layers, powers["low"], powers["high"], color=dl.plots.COLORS[i], alpha=0.25)
        ax.semilogy(layers, powers["measured"], "o", color=dl.plots.COLORS[i], label=f"{scale:g}")
        ax.semilogy(layers, powers["predicted"], "--", color=dl.plots.COLORS[i])
    ax.set(xlabel="hidden layer (1 is next to the input)", ylabel="size of the gradient (RMS of δ)")
    ax.legend(title="scale, tanh")


def _paths(ax, data):
    ground = data["surfaces"][0]
    _terrain(ax, ground)
    for i, path in enumerate(ground["paths"][2::5]):
        if path["optimizer"] in ("SGD", "Momentum", "Adam"):
            ax.plot(*zip(*path["points"], strict=True), color=dl.plots.COLORS[i], ls=DASHES[i],
                    marker=".", label=path["optimizer"])  # fmt: skip
    ax.legend()


def _momentum(ax, data):
    ground = data["surfaces"][0]
    _terrain(ax, ground)
    for i, momentum in enumerate((0.0, 0.9)):
        path = ground["paths"][len(data["factors"]) * data["momenta"].index(momentum) + 2]
        ax.plot(*zip(*path["points"], strict=True), color=dl.plots.COLORS[i], ls=DASHES[i],
                marker=".", label=f"momentum {momentum:g}")  # fmt: skip
    ax.legend()


def _terrain(ax, ground):
    x, y = (
        [low + (high - low) * k / (n - 1) for k in range(n)]
        for (low, high), n in (
            (ground["x"], len(ground["values"][0])),
            (ground["y"], len(ground["values"])),
        )
    )
    values = sorted({v for row in ground["values"] for v in row})
    levels = [values[int((len(values) - 1) * (k / 12) ** 2)] for k in range(1, 12)]
    ax.contour(x, y, ground["values"], levels=levels, colors="0.7", linewidths=0.8)
    ax.plot(*ground["minimum"], "k*", ms=12)
    ax.set(xlabel="θ₁", ylabel="θ₂", xlim=ground["x"], ylim=ground["y"])


def _rates(ax, data):
    for i, (method, rows) in enumerate(zip(data["methods"], data["accuracy"], strict=True)):
        ax.fill_between(data["rates"], *zip(*((min(r), max(r)) for r in rows), strict=True),
                        color=dl.plots.COLORS[i], alpha=0.15)  # fmt: skip
        ax.semilogx(data["rates"], [sum(r) / len(r) for r in rows], color=dl.plots.COLORS[i],
                    ls=DASHES[i], label=method)  # fmt: skip
    ax.set(xlabel="learning rate", ylabel="validation accuracy (%)", ylim=(0, 100))
    ax.legend(fontsize=9)


def _dropout(ax, data):
    for i, part in enumerate(("train", "valid")):
        rows = data[part][1]
        for rate, row in zip(data["rates"], rows, strict=True):
            ax.plot([rate] * len(row), row, ".", ms=4, color=dl.plots.COLORS[i])
        ax.plot(data["rates"], [sum(r) / len(r) for r in rows], color=dl.plots.COLORS[i],
                ls=DASHES[i], label={"train": "training", "valid": "validation"}[part])  # fmt: skip
    ax.set(
        xlabel=f"dropout rate, {data['sizes'][1]} examples", ylabel="accuracy (%)", ylim=(0, 100)
    )
    ax.legend()


PICTURES = {
    "gradient-flow": _flow,
    "optimizer-paths": _paths,
    "momentum": _momentum,
    "learning-rates": _rates,
    "dropout": _dropout,
}


def add_folder(app):
    """Let the script be copied; Jupyter Book would load what is there earlier on every page."""
    app.config.html_static_path.append(str(FOLDER))


def add_script(app, pagename, templatename, context, doctree):
    """Load the script where there is something to play with."""
    if (
        app.builder.name == "html"
        and doctree is not None
        and any("play" in box["classes"] for box in doctree.findall(nodes.container))
    ):
        app.add_js_file(SCRIPT, loading_method="defer")


def connect(app):
    """Connect the above."""
    app.add_directive("explorable", Explorable)
    app.connect("builder-inited", add_folder)
    app.connect("html-page-context", add_script)
