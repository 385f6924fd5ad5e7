"""``retiderm models compare``: two versions side by side."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from training.registry.commands.parts import Data, Json, Ref, Task, dataset, open_registry, print_json, words


def compare(
    task: Task,
    candidate: Ref = "challenger",
    champion: Annotated[str, typer.Argument(help="The version to compare with.")] = "champion",
    metric: Annotated[str, typer.Option(help="auc, accuracy, balanced_accuracy, kappa, nll or ece.")] = "auc",
    margin: Annotated[float, typer.Option(help="How much worse would be acceptable.")] = 0.01,
    by: Annotated[
        str | None, typer.Option("--by", help="Columns to compare slices by, such as ita_class.")
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Compare two versions: their test metrics, and where they were judged on the same test images, a paired
    bootstrap of the difference.

    \b
    Examples:
      retiderm models compare dr_grading
      retiderm models compare dr_grading 4 2 --metric kappa
      retiderm models compare skin_lesion --by ita_class
    """
    from training.registry.gate import GateRules, against, groups

    registry = open_registry()
    one, other = registry.get(task, candidate), registry.get(task, champion)
    found: list[Any] | str = "They were judged on different test images, so no paired comparison is possible."
    slices: tuple[Any, ...] = ()
    if one.test_digest == other.test_digest:
        rules = GateRules(metric=metric, margin=margin, slice_by=words(by) or ())
        bundle, given = registry.bundle(one), dataset(data)
        found = against(registry, one, bundle, other, rules, given)
        slices = () if isinstance(found, str) else groups(registry, one, bundle, other, rules, given)
    pairs = [] if isinstance(found, str) else found
    if as_json:
        print_json(
            {
                "candidate": one.to_dict(),
                "champion": other.to_dict(),
                "comparisons": [item.to_dict() for item in pairs],
                "slices": [item.to_dict() for item in slices],
                "note": found if isinstance(found, str) else None,
            }
        )
        return
    from training.registry.view import compare_table, print_comparisons

    console = Console()
    console.print(compare_table(one, other))
    if isinstance(found, str):
        console.print(found, markup=False)
    print_comparisons(console, pairs)
    for check in slices:
        console.print(check.sentence, markup=False)
