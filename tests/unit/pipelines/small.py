"""A pipeline of two components for the runner's tests (kfp needs annotations that are objects)."""

from kfp import dsl

from components.base import component


@component
def first(text: str, counted: str, folder: dsl.Output[dsl.Artifact]) -> int:
    """Write a text; note that it ran."""
    from components.steps import step

    with step("first") as say:
        from pathlib import Path

        with Path(counted).open("a") as stream:
            stream.write("x")
        print("working on it")
        Path(folder.path).mkdir(parents=True)
        (Path(folder.path) / "text").write_text(text)
        say(f"made {len(text)} letters")
        return len(text)


@component
def second(folder: dsl.Input[dsl.Artifact], how: str) -> str:
    """End as asked."""
    if how == "broken":
        raise ImportError("not here")
    from components.steps import step

    with step("second"):
        import os
        import signal

        from data.errors import SourceError

        if how == "raise":
            raise SourceError("Nothing there.\nReally nothing.", hint="Look again.")
        if how == "killed":
            print("last words", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"


def _small(how: str, counted: str) -> None:
    made = first(text="hello", counted=counted)
    second(folder=made.outputs["folder"], how=how).set_caching_options(False)


small = dsl.pipeline(_small, name="small")
