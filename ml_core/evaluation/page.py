"""The page of a report: one HTML file without scripts that loads nothing, on light, dark, narrow and printed pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ml_core.domain.diagnostics import Confusion, Importance
from ml_core.domain.html import escaped, shown

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_MAX_BARS = 30
_STYLE: Final = """
:root{color-scheme:light dark;--page:#fff;--ink:#1d2430;--soft:#5b6675;--rule:#dfe3e8;--card:#f6f7f9;--main:#2463b5;
--warn:#9a5b00;--warn-card:#fff6e3;--better:#1f7a3f;--worse:#b3302a;--c1:#c2571a;--c2:#2b8a4b;--c3:#8b4bb0;--c4:#b0305f;
--c5:#6b6f1d}
@media (prefers-color-scheme:dark){:root{--page:#14171c;--ink:#e4e8ee;--soft:#9aa5b3;--rule:#313843;--card:#1d2229;
--main:#6ea8f2;--warn:#f0b95a;--warn-card:#2b2416;--better:#62c184;--worse:#f08a83;--c1:#f0955a;--c2:#6cc98b;--c3:#c192e6;
--c4:#ee85ad;--c5:#c9cc6a}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:64rem;padding:2rem 1.25rem 4rem;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;overflow-wrap:break-word}
h1{font-size:1.75rem;line-height:1.2;margin:0}h2{font-size:1.2rem;margin:2.5rem 0 .75rem;padding-top:.75rem;
border-top:1px solid var(--rule)}h3{font-size:1rem;margin:1.25rem 0 .5rem}p{margin:.5rem 0}
.lead{color:var(--soft);margin:.25rem 0 0}.soft{color:var(--soft)}.badges{margin:.75rem 0 0;padding:0;display:flex;
flex-wrap:wrap;gap:.4rem;list-style:none}.badges li{border:1px solid var(--main);color:var(--main);border-radius:1rem;
padding:.05rem .7rem;font-size:.85rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.75rem;margin:1.25rem 0 0;padding:0;
list-style:none}.tiles li{background:var(--card);border-radius:.5rem;padding:.7rem .8rem;
font-size:.875rem}.tiles b{display:block;
font-size:1.5rem;line-height:1.2;font-variant-numeric:tabular-nums}
.notes{background:var(--warn-card);border-left:3px solid var(--warn);border-radius:.25rem;margin:1.25rem 0;
padding:.6rem 1rem .6rem 2rem}
.wide{overflow-x:auto;margin:.5rem 0}table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
td,th{text-align:left;vertical-align:top;padding:.3rem 1.2rem .3rem 0;border-bottom:1px solid var(--rule)}
th{color:var(--soft);font-weight:600}td{max-width:24rem}.wide>table{width:max-content}
.wide>.facts{width:auto}.facts td{max-width:34rem;overflow-wrap:anywhere}.facts td:first-child{min-width:7rem}
.better{color:var(--better);font-weight:600}.worse{color:var(--worse);font-weight:600}
.chosen td{font-weight:600}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1rem 2rem}
figure{margin:0;min-width:0}figcaption{font-weight:600;margin:.5rem 0}figcaption small{display:block;font-weight:400;
color:var(--soft)}svg{display:block;width:100%;max-width:34rem;height:auto}
svg text{font-size:11px;fill:var(--soft)}svg .x{text-anchor:middle}svg .y{text-anchor:end}
svg .small{font-size:9px;text-anchor:middle}svg .label{fill:var(--ink)}.grid{stroke:var(--rule)}
.line{fill:none;stroke:currentColor;stroke-width:1.8}.dot{fill:currentColor}.ideal{fill:none;stroke:var(--soft);
stroke-dasharray:4 4}.bar{fill:var(--main)}.pale{fill:var(--main);opacity:.22}
.c0{color:var(--main)}.c1{color:var(--c1)}.c2{color:var(--c2)}.c3{color:var(--c3)}.c4{color:var(--c4)}.c5{color:var(--c5)}
.legend{list-style:none;margin:.25rem 0;padding:0;display:flex;flex-wrap:wrap;gap:.1rem 1.2rem;font-size:.85rem}
.legend li::before{content:"";display:inline-block;width:1.1em;border-top:3px solid currentColor;margin-right:.4em;
vertical-align:middle}
.heat{width:auto}.heat td,.heat th{border:1px solid var(--page);padding:.3rem .6rem;text-align:right;min-width:2.6rem;
max-width:9rem}.heat tbody th{text-align:right;font-weight:400;color:var(--ink)}
.heat td{background:color-mix(in srgb,var(--main) calc(var(--share)*75%),var(--card))}
.heat thead th{vertical-align:bottom;font-weight:400;color:var(--ink)}.heat .axis{color:var(--soft);text-align:left;
white-space:nowrap;max-width:none}
.parts{display:grid;grid-template-columns:minmax(5rem,auto) 1fr auto;gap:.25rem .75rem;align-items:center;
font-size:.9rem;font-variant-numeric:tabular-nums}.parts i{height:.75rem;background:var(--main);border-radius:2px;
width:calc(var(--share)*100%)}
.parts span{overflow-wrap:anywhere;max-width:20rem}
pre{background:var(--card);border-radius:.5rem;padding:.8rem 1rem;overflow-x:auto;font-size:.85rem;line-height:1.45}
@media print{body{max-width:none;padding:0}h2{break-after:avoid}figure,tr{break-inside:avoid}pre{white-space:pre-wrap}}
"""


def page(title: str, head: str, sections: Iterable[str]) -> str:
    """A whole document."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escaped(title)}</title><style>{_STYLE}</style></head>"
        f"<body><header>{head}</header><main>{''.join(sections)}</main></body></html>"
    )


def section(title: str, *parts: str) -> str:
    """A section with a heading; nothing where all its parts are empty."""
    body = "".join(parts)
    return f"<section><h2>{escaped(title)}</h2>{body}</section>" if body else ""


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; nothing where the text is empty. Line breaks are kept."""
    marked = f' class="{kind}"' if kind else ""
    return f"<p{marked}>{escaped(text).replace(chr(10), '<br>')}</p>" if text else ""


def bullets(texts: Iterable[str], kind: str) -> str:
    """A list; nothing where there is no text."""
    items = "".join(f"<li>{escaped(text)}</li>" for text in texts)
    return f'<ul class="{kind}">{items}</ul>' if items else ""


def tiles(values: Iterable[tuple[str, Any, str]]) -> str:
    """Large values, each with its name before it and a remark below."""
    items = "".join(
        f'<li>{escaped(name)}<b>{escaped(shown(value))}</b><span class="soft">{escaped(remark)}</span></li>'
        for name, value, remark in values
    )
    return f'<ul class="tiles">{items}</ul>' if items else ""


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], kinds: Iterable[str] = (), kind: str = "") -> str:
    """A table that scrolls where it is too wide; nothing without rows.

    Args:
        header: The names of the columns.
        rows: Values as ``shown`` shows them.
        kinds: The classes of the first rows.
        kind: The class of the table.
    """
    lines = [*map(_row, rows)]
    if not lines:
        return ""
    classes = [*kinds] + [""] * len(lines)
    body = "".join(
        f'<tr class="{of_row}">{line}</tr>' if of_row else f"<tr>{line}</tr>"
        for line, of_row in zip(lines, classes, strict=False)
    )
    head = "".join(f"<th>{escaped(name)}</th>" for name in header)
    head = f"<thead><tr>{head}</tr></thead>" if head else ""
    opened = f'<table class="{kind}">' if kind else "<table>"
    return f'<div class="wide">{opened}{head}<tbody>{body}</tbody></table></div>'


def facts(of: Mapping[str, Any]) -> str:
    """A table of names and values, without those that are not known."""
    known = ((name, value) for name, value in of.items() if value not in (None, "", (), [], {}))
    return table((), known, kind="facts")


def charts(drawn: Iterable[tuple[str, str, str]]) -> str:
    """Charts side by side where there is room: title, remark and drawing; those without a drawing are left out."""
    figures = "".join(
        f"<figure>{_caption(title, remark)}{drawing}</figure>" for title, remark, drawing in drawn if drawing
    )
    return f'<div class="charts">{figures}</div>' if figures else ""


def _caption(title: str, remark: str) -> str:
    small = f"<small>{escaped(remark)}</small>" if remark else ""
    return f"<figcaption>{escaped(title)}{small}</figcaption>" if title else ""


def confusion(of: Confusion) -> str:
    """Truth in rows, prediction in columns; a cell is as dark as its share of the row."""
    names = [*of.classes, *(["(others)"] if of.has_others else [])]
    head = "".join(f"<th>{escaped(name)}</th>" for name in names)
    rows = "".join(
        f"<tr><th>{escaped(name)}</th>{''.join(_heat(count, max(sum(counts), 1)) for count in counts)}</tr>"
        for name, counts in zip(names, of.counts, strict=True)
    )
    return (
        '<div class="wide"><table class="heat"><thead>'
        f'<tr><th class="axis">true ↓ predicted →</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def importances(of: Sequence[Importance]) -> str:
    """The most important columns, with a bar for each."""
    most = max((each.worse_by for each in of), default=0.0)
    lines = (
        f'<span>{escaped(each.column)}</span><i style="--share:{max(each.worse_by, 0.0) / (most or 1.0):.3f}"></i>'
        f"<span>{shown(each.worse_by)}</span>"
        for each in of[:_MAX_BARS]
    )
    return f'<div class="parts">{"".join(lines)}</div>' if of else ""


class Marked(str):
    """A text of a table that is shown as better or worse than another."""

    kind: str

    def __new__(cls, text: str, kind: str) -> Marked:
        """Mark a text; ``kind`` is ``better`` or ``worse``."""
        made = super().__new__(cls, text)
        made.kind = kind
        return made


def _row(cells: Sequence[Any]) -> str:
    return "".join(
        f'<td class="{cell.kind}">{escaped(cell)}</td>'
        if isinstance(cell, Marked)
        else f"<td>{escaped(shown(cell))}</td>"
        for cell in cells
    )


def _heat(count: int, of_row: int) -> str:
    return f'<td style="--share:{count / of_row:.3f}">{count:,}</td>'
