"""The files that `diffuse evaluate` writes: the report in HTML and its charts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusecli.cli.printing import notice
from diffusecli.system.errors import InputError, many

if TYPE_CHECKING:
    from diffusecli.evaluation.evaluation import Evaluation


def require_place(html: Path | None, plots: Path | None) -> None:
    """Check before the work that the report can be written."""
    from diffusecli.files.endings import require_ending
    from diffusecli.files.writing import require_writable
    from diffusecli.report.templates import require_extra

    if html is None and plots is None:
        return
    if html is not None:
        require_ending(html, "--html", "a report is written as HTML", ".html", ".htm")
    if plots is not None:
        require_ending(plots, "--plots", "charts are written into a folder as SVG and PNG")
    if html is not None:
        if html.exists() and not html.is_file():
            raise InputError(f"--html {html}: is not a regular file. Choose another name")
        require_writable(html.parent)
    if plots is not None:
        require_extra()
        if plots.exists() and not plots.is_dir():
            raise InputError(f"--plots {plots}: is a file. Name a folder")
        require_writable(plots)


def write_report(found: Evaluation, html: Path | None, plots: Path | None, sort: Any = None) -> None:
    """Write the HTML report and the charts as image files, with targets in the order of `--sort`."""
    if html is not None:
        from diffusecli.files.writing import write_text
        from diffusecli.report.html import html_report

        write_text(html, html_report(found, sort))
        notice(f"wrote {html}")
    if plots is not None:
        from diffusecli.report.pictures import write_plots

        notice(f"wrote {many(len(write_plots(found, plots, sort)), 'picture')} into {plots}")
