"""A certificate as PDF: the page of :mod:`cli.certificate.page`, set by another printer, word for word."""

from __future__ import annotations

import datetime as dt
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
from fpdf import FPDF, FontFace

from cli.certificate.page import page_of
from unlearning.certificate.signed import SignedCertificate

_GREY, _INK, _RULE = (87, 96, 108), (28, 36, 48), (213, 218, 224)


def pdf_of(signed: SignedCertificate) -> bytes:
    """The page as PDF; the same certificate gives the same bytes."""
    page = _Page()
    page.feed(page_of(signed))
    certificate = signed.certificate
    pdf = _Sheet(format="A4", foot=f"{certificate.certificate_id} of {certificate.request.id}")
    # So that the same certificate is the same file.
    pdf.set_creation_date(certificate.issued_at.astimezone(dt.UTC))
    pdf.set_title(page.title)
    pdf.set_lang("en")
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for style, name in (("", "DejaVuSans"), ("B", "DejaVuSans-Bold")):
        pdf.add_font("sans", style, fonts / f"{name}.ttf")
    pdf.set_margin(18)
    pdf.set_auto_page_break(auto=True, margin=20)
    pdf.add_page()
    for kind, rows in page.parts:
        pdf.put(kind, rows)
    return bytes(pdf.output())


class _Page(HTMLParser):
    """Collects ``(kind, rows)`` of a page: headings and paragraphs have one cell, tables several."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[tuple[str, list[list[str]]]] = []
        self.title = ""
        self._open: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a block, a row or a cell."""
        if tag not in ("meta", "br"):
            self._open.append((tag, dict(attrs).get("class") or ""))
        if tag in ("table", "dl"):
            self.parts.append((tag, []))
        elif tag in ("tr", "dt"):
            self.parts[-1][1].append([])
        if tag in ("td", "th", "dt", "dd"):
            self.parts[-1][1][-1].append("")
        elif tag in ("h1", "h2", "p", "li"):
            self.parts.append((self._open[-1][1] or tag, [[""]]))
        elif tag == "code" and self.parts and self.parts[-1][0] == "claimed":
            self._add(": ")
        elif tag in ("br", "small"):
            self._add("\n")
        elif tag == "div" and self._open[-1][1] == "level":
            self.parts.append(("claimed", [[""]]))

    def handle_endtag(self, tag: str) -> None:
        """End what is open."""
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        """Text, with its blanks as a browser has them."""
        tags = [tag for tag, _ in self._open]
        if "title" in tags:
            self.title += data
        elif "body" in tags and "style" not in tags and self.parts:
            self._add(data.replace("\n", " "))

    def _add(self, text: str) -> None:
        row = self.parts[-1][1][-1:]
        if row and row[0]:
            row[0][-1] += text


class _Sheet(FPDF):
    """A4 with a line at the foot of each sheet."""

    def __init__(self, *, format: str, foot: str) -> None:
        super().__init__(format=format)
        self._foot = foot

    def footer(self) -> None:
        """Which certificate, and which sheet of how many."""
        self.set_y(-14)
        self.set_font("sans", size=7)
        self.set_text_color(_GREY)
        self.cell(0, 5, f"Certificate {self._foot}, sheet {self.page_no()} of {{nb}}", align="R")

    def put(self, kind: str, rows: list[list[str]]) -> None:
        """Set one part."""
        if kind in ("table", "dl"):
            self._table(rows, labelled=kind == "dl")
            return
        text = " ".join(rows[0][0].split())
        size, bold, colour, before = {
            "stop": (13, True, (255, 255, 255), 0.0),
            "claimed": (8, False, _GREY, 4.0),
            "h1": (17, True, _INK, 0.0),
            "h2": (11, True, _INK, 5.0),
            "muted": (7.5, False, _GREY, 1.0),
            "warn": (10, True, (168, 40, 30), 1.0),
        }.get(kind, (9, False, _INK, 0.5))
        self.ln(before)
        self.set_font("sans", "B" if bold else "", size)
        self.set_text_color(colour)
        self.set_fill_color(168, 40, 30)
        if kind == "h2":
            if self.will_page_break(30):
                self.add_page()
            self.set_draw_color(_INK)
            self.line(self.l_margin, self.y, self.w - self.r_margin, self.y)
            self.ln(1.5)
        if kind == "li":
            self.set_x(self.l_margin + 3)
            text = f"•  {text}"
        align = "C" if kind == "stop" else "L"
        self.multi_cell(
            0, size * 0.52, text, align=align, fill=kind == "stop", padding=2 if kind == "stop" else 0,
            new_x="LMARGIN", new_y="NEXT",
        )  # fmt: skip

    def _table(self, rows: list[list[str]], *, labelled: bool) -> None:
        self.set_font("sans", size=8)
        self.set_text_color(_INK)
        self.set_draw_color(_RULE)
        self.set_fill_color(255, 255, 255)
        widths = (1, 3) if labelled else {3: (3.8, 1.6, 9), 5: (7, 2, 2, 3, 2)}.get(len(rows[0]))
        with self.table(
            col_widths=widths,
            borders_layout="NONE" if labelled else "HORIZONTAL_LINES",
            first_row_as_headings=not labelled,
            headings_style=FontFace(emphasis="BOLD", color=_GREY),
            line_height=4,
            padding=(0.6, 1.5, 0.6, 0),
            text_align="LEFT",
            v_align="TOP",
        ) as table:
            for row in rows:
                made = table.row()
                for place, cell in enumerate(row):
                    lines = [" ".join(line.split()) for line in cell.split("\n")]
                    style = FontFace(color=_GREY) if labelled and place == 0 else None
                    made.cell("\n".join(line for line in lines if line), style=style)
