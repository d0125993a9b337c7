"""Names that a hostile site would choose."""

from __future__ import annotations

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></svg><iframe src=//evil.example>",
    "&lt;b&gt; &amp; &#60;",
    "$\\alpha$ $\\undefined{",
    "[red]rich[/red] [link=http://evil.example]x[/link]",
    '=HYPERLINK("http://evil.example","click")',
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "\x1b[2J\x1b]0;owned\x07",
    "line\nbreak\r\ttab,comma;\"quotes'",
    "\u202egpj.exe \u2028 \x00 \ud7ff",
    "日本 Ελλάδα 🙂",
    "]]> <!-- --> <![CDATA[",
    "",
    "x" * 255,
)
