"""The data checks: a dataset that fails stops the pipeline, and the rows are named."""

from kfp import dsl

from components.base import component


@component
def validate(
    dataset: dsl.Input[dsl.Dataset],
    dataset_digest: str,
    code_digest: str,
    report: dsl.Output[dsl.Artifact],
) -> None:
    """Check a canonical dataset with Great Expectations and our own rules.

    Args:
        dataset: The canonical dataset's folder.
        dataset_digest: Its digest, so that other content is no cache hit.
        code_digest: Of the code that checks, likewise.
        report: A folder with the report, readable without a network.
    """
    from components.steps import step

    with step("validate") as say:
        from pathlib import Path

        from data.checks import check, require
        from data.dataset import Dataset
        from data.errors import CheckFailed

        found = check(Dataset.open(Path(dataset.path)))
        found.write_report(Path(report.path))
        try:
            require(found)
        except CheckFailed as error:
            error.hint = f"Read {report.path}/report.html, mend the source and run again."
            raise
        warnings = len(found.warnings)
        say(f"passed, {warnings} warning{'' if warnings == 1 else 's'}")
