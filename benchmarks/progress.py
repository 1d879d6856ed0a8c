"""What people see while it runs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Generator

    from rich.console import Console
    from rich.progress import TaskID

    from benchmarks.contestants.entrant import Entrant
    from benchmarks.measures import Sample
    from benchmarks.rows.row import Row

# Each refresh costs the readers, which share the process, some milliseconds.
REFRESHES_PER_SECOND = 2


class Display:
    """A line per row with a bar, and under them what is done now. A file or a pipe gets a line per figure instead."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self._console = console
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def expect(self, row: Row, turns: int) -> None:
        """Announce a row."""
        self._tasks[row.name] = self._progress.add_task(row.name, total=turns, doing="", start=False)

    def begin(self, row: Row) -> None:
        """Start a row's clock."""
        self._progress.start_task(self._tasks[row.name])

    def finish(self, row: Row) -> None:
        """Stop a row's clock."""
        self._progress.update(self._tasks[row.name], doing="")
        self._progress.stop_task(self._tasks[row.name])

    def note(self, row: Row, entrant: Entrant, text: str) -> None:
        """Say what a contestant does now."""
        self._progress.update(self._tasks[row.name], doing=f"{entrant.title}: {text}")

    def show(self, row: Row, entrant: Entrant, sample: Sample) -> None:
        """Show a contestant's figures of a round."""
        figures = ", ".join(f"{measure.text(value)} {measure.unit}" for measure, value in sample.items())
        self._progress.update(self._tasks[row.name], advance=1, doing=f"{entrant.title}: {figures}")
        if not self._console.is_terminal:
            self._console.print(f"{row.name}  {entrant.key}  {figures}", highlight=False, soft_wrap=True)


@contextmanager
def display(console: Console) -> Generator[Display]:
    """Show progress for as long as the block lasts."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[doing]}", style="dim"),
        console=console,
        refresh_per_second=REFRESHES_PER_SECOND,
        disable=not console.is_terminal,
    )
    with progress:
        yield Display(console, progress)
