"""The patches that are kept: the memory of what is normal."""

from kfp import dsl

from components.base import component


@component
def coreset(
    extractor: dsl.Input[dsl.Model],
    patches: dsl.Input[dsl.Artifact],
    coreset_rate: float,
    seed: int,
    code_digest: str,
    memory: dsl.Output[dsl.Model],
) -> None:
    """Choose the coreset by k-center greedy: exact, seeded, the same on every machine.

    Args:
        extractor: The extractor's folder.
        patches: The OK training images' patches.
        coreset_rate: The part of them that is kept.
        seed: Of the first choice.
        code_digest: Of the code that chooses, so that a change is no cache hit.
        memory: A folder: ``memory.npz``, ``index.faiss``, and ``built.json`` (how it was made).
    """
    from components.steps import step

    with step("coreset") as say:
        from pathlib import Path

        from serving.core.patchcore.extractor import Extractor
        from training.patchcore.build import Patches, choose, save_memory

        opened, given = Extractor.open(Path(extractor.path)), Patches.open(Path(patches.path))
        built = choose(given, coreset_rate, seed=seed)
        save_memory(built, given, opened.card, Path(memory.path), rate=coreset_rate, seed=seed)
        say(
            f"{len(built.emb):,} of {len(given):,} patches in {built.seconds:.1f} s, "
            f"cover radius {built.coreset.radius:.4f}"
        )
