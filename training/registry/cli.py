"""``retiderm models``: look at versions, decide which serves, and see that history is whole."""

from __future__ import annotations

import typer

from .commands import challenger, comparison, foreign, health, learned, promotion, versions

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def models() -> None:
    """Versions of models: list, compare, approve, promote, roll back, verify.

    \b
    What is there, and what serves:
      retiderm models list
      retiderm models show dr_grading champion
      retiderm models history dr_grading

    \b
    Change what serves:
      retiderm models promote dr_grading 3
      retiderm models rollback dr_grading --why "worse on the new camera"

    \b
    Look at a version beside what serves:
      retiderm models challenge dr_grading 4 --shadow
      retiderm models withdraw dr_grading

    \b
    After a crash, or when in doubt:
      retiderm models verify
      retiderm models reconcile
    """


# In the order of the help.
app.command("list")(versions.list_)
app.command()(versions.show)
app.command()(comparison.compare)
app.command("import")(foreign.import_)
app.command()(promotion.approve)
app.command()(promotion.promote)
app.command()(challenger.challenge)
app.command()(challenger.withdraw)
app.command()(promotion.rollback)
app.command()(learned.learned)
app.command()(versions.history)
app.command()(health.verify)
app.command()(health.reconcile)
