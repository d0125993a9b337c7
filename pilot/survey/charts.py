"""Charts of a survey as SVG, drawn by matplotlib, for a page that stands on its own.

What the library draws is taken apart once more, so that two charts fit into one page and the
page refers to nothing outside: no namespaces, no metadata, no document type; ids that are unique to
the chart; a title and a description for those who don't see it. The same survey gives the
same bytes: no date, and ids from a fixed salt.

matplotlib is an optional dependency and takes half a second to import, so it is imported when
a chart is drawn.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from pilot.printable import printable
from pilot.survey.report import NODE_CLASSES, NodeClass
from pilot.survey.tally import Classes
from transport.errors import OperatorError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS: Mapping[NodeClass, str] = {
    "fully-compatible": "#1b7837",
    "underlay-disabled": "#a6cf7c",
    "cvmfs-only": "#f0a830",
    "none": "#b2182b",
}
"""Told apart by lightness too, for those who don't see red and green."""

CLASS_TITLES: Mapping[NodeClass, str] = {
    "fully-compatible": "fully compatible",
    "underlay-disabled": "compatible, underlay disabled",
    "cvmfs-only": "only through CVMFS",
    "none": "no support",
}
_LABEL_LENGTH_MAX = 40


def check_plotting() -> None:
    """Raise `OperatorError` where charts can't be drawn."""
    try:
        import matplotlib.figure  # noqa: F401 - whether it can be imported is the question
    except ImportError as error:
        raise OperatorError(
            "The page's charts are drawn by matplotlib, which can't be imported here "
            f"({error}): install it with `pip install 'two-layer-pilot[plot]'`, or leave --html "
            "out."
        ) from error


def pie_of_classes(classes: Classes) -> str:
    """Return a pie of the node classes."""
    shown = [(name, count) for name, count in classes.each().items() if count]
    described = ", ".join(
        f"{CLASS_TITLES[name]} {classes.percent(name):.1f} % ({count:,} nodes)"
        for name, count in shown
    )
    with _drawing("pie", (7, 3.6)) as figure:
        axes = figure.add_axes((0.02, 0.05, 0.45, 0.9))
        slices, *_ = axes.pie(
            [count for _, count in shown],
            colors=[COLOURS[name] for name, _ in shown],
            startangle=90,
            counterclock=False,
            wedgeprops={"edgecolor": "white", "linewidth": 1},
        )
        figure.legend(
            slices,
            [f"{CLASS_TITLES[name]}: {classes.percent(name):.1f} %" for name, _ in shown],
            loc="center left",
            bbox_to_anchor=(0.5, 0.5),
            frameon=False,
        )
        return _svg(figure, "pie", "Nodes by class", described)


def bars_by_site(sites: Sequence[tuple[str, Classes]]) -> str:
    """Return stacked bars, one a site: the share of each class."""
    labels = [f"{site_label(site)} ({classes.nodes:,})" for site, classes in sites]
    with _drawing("bars", (8, 1.2 + 0.26 * len(sites))) as figure:
        axes = figure.add_subplot()
        rows, left = range(len(sites)), [0.0] * len(sites)
        for name in NODE_CLASSES:
            widths = [classes.percent(name) for _, classes in sites]
            axes.barh(rows, widths, left=left, color=COLOURS[name], label=CLASS_TITLES[name])
            left = [before + width for before, width in zip(left, widths, strict=True)]
        axes.set_yticks(rows, labels)
        axes.set_ylim(len(sites) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of the site's nodes")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=4)
        return _svg(figure, "bars", "Classes by site", _told(sites))


def site_label(site: str) -> str:
    """Return a site's name as it is shown: on one line, and not too long."""
    plain = printable(site) or "(no site)"
    is_short = len(plain) <= _LABEL_LENGTH_MAX
    return plain if is_short else f"{plain[: _LABEL_LENGTH_MAX - 1]}…"


def _told(sites: Sequence[tuple[str, Classes]]) -> str:
    return "; ".join(
        f"{site_label(site)}: {classes.nodes:,} nodes, "
        f"{classes.percent('fully-compatible'):.1f} % fully compatible"
        for site, classes in sites
    )


@contextmanager
def _drawing(salt: str, inches: tuple[float, float]) -> Iterator[Figure]:
    """Give a figure; within, texts are texts (no formulas, no outlines) and ids are fixed."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # It tells of its font cache.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: dict[str, object] = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "text.parse_math": False,
        "font.family": "sans-serif",
        "font.size": 9,
    }
    with warnings.catch_warnings(), mpl.rc_context(dict(mpl.rcParamsDefault)):
        for name, value in settings.items():
            mpl.rcParams[name] = value  # type: ignore[index] # the stubs list the keys
        warnings.simplefilter("ignore")  # A site's name may have letters that its fonts lack.
        yield Figure(figsize=inches, layout="constrained" if salt == "bars" else None)


def _svg(figure: Figure, prefix: str, title: str, description: str) -> str:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    root = ET.fromstring(drawn.getvalue())  # noqa: S314 - drawn a moment ago, here
    _make_inline(root, prefix)
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ET.Element(tag, id=f"{prefix}-{tag}")
        element.text = text
        root.insert(position, element)
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}-title {prefix}-desc")
    return ET.tostring(root, encoding="unicode")


def _make_inline(root: ET.Element, prefix: str) -> None:
    """Take out what only a file of its own needs, and make ids the chart's own."""
    for child in list(root):
        if child.tag.endswith("}metadata"):
            root.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        for name, value in list(element.attrib.items()):
            del element.attrib[name]
            element.set(_local(name), _own(_local(name), value, prefix))


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _own(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return f"{prefix}-{value}"
    if name == "href" and value.startswith("#"):
        return f"#{prefix}-{value[1:]}"
    return value.replace("url(#", f"url(#{prefix}-")
