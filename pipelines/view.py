"""How a run is shown on standard error: a line a step, the step's own output beneath it while it works."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

_WIDTH = 10


class RunView:
    """Shows steps as they start, speak and end; with a spinner and the time on a terminal."""

    def __init__(self, console: Console | None = None, *, steps: int = 0, quiet: bool = False) -> None:
        # soft_wrap: a line that is longer than the window stays one line in a log file.
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self.quiet = quiet
        self._count, self._of = 0, steps
        # kfp writes to sys.stdout, which the runner reads: rich must leave it alone.
        self._spinner = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=quiet or not self.console.is_terminal,
        )
        self._spinning: TaskID | None = None

    def __enter__(self) -> Self:
        self._spinner.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spinner.stop()

    def header(self, text: str) -> None:
        """What is about to run."""
        self._print(f"[bold]{escape(text)}[/bold]")

    def started(self, step: str) -> None:
        """A step began."""
        self._count += 1
        self._spinning = self._spinner.add_task(self._place(step))
        if not self.console.is_terminal:
            self._print(f"[cyan]▸[/cyan] {self._place(step).rstrip()}")

    def line(self, text: str) -> None:
        """A line of the current step's output."""
        self._print(f"      [dim]{escape(text)}[/dim]")

    def finished(self, step: str, seconds: float, said: str) -> None:
        """A step ended well."""
        self._end()
        self._print(f"[green]✓[/green] {self._place(step)} {seconds:7.1f} s   {escape(said)}")

    def cached(self, step: str, said: str) -> None:
        """A step's result was there already."""
        self._count += 1
        self._print(f"[green]✓[/green] {self._place(step)}    cached   {escape(said)}")

    def skipped(self, step: str, why: str) -> None:
        """A step that the pipeline left out on purpose."""
        self._count += 1
        self._print(f"[yellow]–[/yellow] {self._place(step)}   skipped   {escape(why)}")

    def failed(self, step: str, seconds: float) -> None:
        """A step failed; the error itself is told once, at the end."""
        self._end()
        self._print(f"[red]✗[/red] {self._place(step)} {seconds:7.1f} s   failed")

    def note(self, text: str) -> None:
        """A remark between the steps."""
        self._print(escape(text))

    def _place(self, step: str) -> str:
        return f"{self._count:>2}/{self._of} {step:<{_WIDTH}}" if self._of else f"{step:<{_WIDTH}}"

    def _end(self) -> None:
        if self._spinning is not None:
            self._spinner.remove_task(self._spinning)
            self._spinning = None

    def _print(self, markup: str) -> None:
        if not self.quiet:
            self.console.print(markup)
