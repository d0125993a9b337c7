"""A survey as one page that stands on its own: no script, nothing fetched, charts inside.

Whatever a node wrote goes through `html.escape` here, or through the charts' own writer. The page
is well-formed XML as well, so that a test can take it apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import islice

from pilot.printable import printable
from pilot.survey.charts import CLASS_TITLES, bars_by_site, pie_of_classes, site_label
from pilot.survey.counting import Survey
from pilot.survey.report import NODE_CLASSES
from pilot.survey.summary import FIGURE_TITLES, keys_lines, summary
from pilot.survey.tally import Tally

SITES_DRAWN_MAX = 40
_KEYS_SHOWN_MAX = 100

_STYLE = """
body { font: 15px/1.45 sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
body { color: #1a1a1a; background: #fff; }
svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child, .text td { text-align: left; }
td { overflow-wrap: anywhere; }
caption { text-align: left; font-weight: bold; padding: .3rem 0; }
"""


def survey_page(survey: Survey, *, sites_max: int | None = None) -> str:
    """Return the page. Its table has ``sites_max`` sites (None: all), its bars 40 at most."""
    overall = survey.overall()
    biggest = [(site, survey.classes(site)) for site in islice(survey.sites(), SITES_DRAWN_MAX)]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            _head("Pilot survey"),
            "<body>",
            "<h1>Pilot survey</h1>",
            *(f"<p>{escape(line)}</p>" for line in summary(survey, overall)),
            "<h2>Classes of nodes</h2>",
            pie_of_classes(overall.classes),
            *_figures(overall),
            "<h2>Sites</h2>",
            bars_by_site(biggest),
            *_site_table(survey, sites_max),
            "<h2>Keys</h2>",
            *_key_table(overall),
            *_troubles(survey),
            "</body>",
            "</html>",
            "",
        ]
    )


def _head(title: str) -> str:
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"/>'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
    )


def _figures(tally: Tally) -> Iterator[str]:
    rows = [
        [title, *(_percent(count, tally.nodes) for count in tally.figure(name).values())]
        for name, title in FIGURE_TITLES.items()
    ]
    yield from _table("The figures of the 2019 survey", ["", "yes", "no", "unknown"], rows)


def _site_table(survey: Survey, sites_max: int | None) -> Iterator[str]:
    names = list(islice(survey.sites(), sites_max))
    left_out = sum(1 for _ in survey.sites()) - len(names)
    titles = ["site", "nodes", *(CLASS_TITLES[name] for name in NODE_CLASSES)]
    yield from _table("Percent of the site's nodes", titles, _site_rows(survey, names))
    if left_out:
        yield f"<p>{left_out:,} smaller sites are left out; with --all they are here.</p>"


def _site_rows(survey: Survey, names: Sequence[str]) -> Iterator[list[str]]:
    for name in names:
        classes = survey.classes(name)
        shares = (_percent(count, classes.nodes) for count in classes.each().values())
        yield [site_label(name), f"{classes.nodes:,}", *shares]


def _key_table(tally: Tally) -> Iterator[str]:
    rows = keys_lines(tally, _KEYS_SHOWN_MAX)
    yield from _table("What the nodes answered", ["key", "values"], rows, style="text")


def _troubles(survey: Survey) -> Iterator[str]:
    if not survey.broken:
        return
    rows = [
        [f"{printable(trouble.file)}:{trouble.line or ''}".removesuffix(":"), trouble.reason]
        for trouble in survey.troubles
    ]
    yield "<h2>Not counted</h2>"
    title = f"{survey.broken:,} reports or files; the first of them"
    yield from _table(title, ["place", "why"], rows, style="text")


def _table(
    caption: str, titles: Sequence[str], rows: Iterable[Sequence[str]], style: str = "numbers"
) -> Iterator[str]:
    yield f'<table class="{style}"><caption>{escape(caption)}</caption>'
    yield "<thead><tr>"
    yield "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    yield "</tr></thead><tbody>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
    yield "</tbody></table>"


def _percent(count: int, nodes: int) -> str:
    return f"{100 * count / nodes:.1f} %"
