"""A source of labelled images becomes the canonical dataset."""

from kfp import dsl

from components.base import component


@component
def ingest(
    task: str,
    heads: str,
    quality: str,
    source: str,
    source_digest: str,
    split: str,
    code_digest: str,
    dataset: dsl.Output[dsl.Dataset],
) -> str:
    """Read, split and store a source.

    Args:
        task: The task's name.
        heads: JSON: each head's classes, in order.
        quality: JSON: the quality profile that judges the images.
        source: ``KIND:PATH?option=value``.
        source_digest: What the source held when the run was asked for; here so that a change is no cache hit.
        split: ``fold:k/n``, ``stratified:seed``, or empty for the source's own or the default.
        code_digest: Of the code that makes datasets; here so that a change is no cache hit.
        dataset: The canonical dataset's folder.

    Returns:
        The dataset's digest: the steps that follow take it as an input.
    """
    from components.steps import step

    with step("ingest") as say:
        import json
        import tempfile
        from pathlib import Path

        from data.dataset import Head
        from data.ingest import ingest as make

        with tempfile.TemporaryDirectory() as folder:
            profile = Path(folder) / "profile.json"
            profile.write_text(quality)
            made = make(
                source,
                [Head(name, tuple(classes)) for name, classes in json.loads(heads).items()],
                Path(dataset.path),
                task=task,
                split_rule=split or None,
                quality_profile=str(profile),
            )
        dataset.metadata.update(digest=made.digest, test_digest=made.test_digest)
        say(f"{made.info['images']} images, {made.digest[:19]}")
        return made.digest
