"""What a simulation found, to read: ``report.html``, and a table for the terminal."""

from cli.report.pictures import PictureRow, Pictures
from cli.report.render import render_report
from cli.report.terminal import render_table

__all__ = ["PictureRow", "Pictures", "render_report", "render_table"]
