"""The quality commands of ``retiderm data``: ``quality`` and ``calibrate-quality``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from data.errors import ImageError, UsageError
from data.files import write_text
from data.progress import track

if TYPE_CHECKING:
    from data.quality.calibrate import Calibration, Separation
    from data.quality.gate import QualityVerdict

Profile = Annotated[
    str,
    typer.Option(
        "--profile", "-p", help="fundus, dermoscopy, thumbnail, photo, or a profile's YAML or JSON file."
    ),
]
Limit = Annotated[int | None, typer.Option(help="At most so many images, spread evenly.", min=1)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
# More images than this are counted rather than listed.
_LISTED = 20


def register(app: typer.Typer) -> None:
    """Add the commands to ``retiderm data``."""
    app.command("quality")(quality)
    app.command("calibrate-quality")(calibrate_quality)


def quality(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...", help="Images, folders, .txt lists of images, or MedMNIST .npz files."
        ),
    ],
    profile: Profile = "photo",
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Judge photographs as the server would: gradable, retake or ungradable, with reasons and scores.

    Up to 20 images are listed; of more, verdicts and reasons are counted. Exits with 1 if an image can't be
    read.

    Example: retiderm data quality eye.jpg --profile fundus
    """
    from data.quality.gate import assess
    from data.quality.images import find_images
    from data.quality.profile import load_profile

    chosen = load_profile(profile)
    verdicts: dict[str, QualityVerdict] = {}
    errors: dict[str, ImageError] = {}
    for image in track(find_images(places, limit=limit), "judging"):
        try:
            verdicts[image.name] = assess(image.read(), chosen)
        except ImageError as error:
            errors[image.name] = error
    if as_json:
        typer.echo(json.dumps(_document(chosen.name, verdicts, errors), indent=2))
    elif len(verdicts) + len(errors) > _LISTED:
        _print_counts(_document(chosen.name, verdicts, errors)["counts"])
    else:
        _print_list(verdicts, errors)
    if errors:
        raise typer.Exit(1)


def calibrate_quality(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="SHARP...", help="Photographs in focus: images, folders, .txt lists or .npz files."
        ),
    ],
    profile: Profile = "photo",
    out: Annotated[Path | None, typer.Option(help="Write the profile here, .yaml or .json.")] = None,
    sigma: Annotated[
        float, typer.Option(help="The blur to detect, in pixels at 224.", min=0.1, max=50)
    ] = 3.0,
    keep: Annotated[float, typer.Option(help="The share of the photographs to keep.", min=0.5, max=1)] = 0.98,
    name: Annotated[str | None, typer.Option(help="The new profile's name.")] = None,
    limit: Limit = 1000,
    as_json: AsJson = False,
) -> None:
    """Set a profile's sharpness threshold from your own photographs, and say how well it separates.

    Each photograph is blurred, and blurred with a camera's noise on top. Name the file that this writes in
    a task (quality: FILE) to use it.

    Example: retiderm data calibrate-quality eyes/ --profile fundus --out eyes-quality.yaml
    """
    from data.quality.calibrate import calibrate
    from data.quality.images import find_images
    from data.quality.profile import load_profile

    if out is not None and out.suffix not in (".yaml", ".yml", ".json"):
        raise UsageError(f"{out} is neither .yaml nor .json.")
    found = find_images(places, limit=limit)
    images = (image.read() for image in track(found, "measuring"))
    result = calibrate(images, load_profile(profile), sigma=sigma, keep=keep, name=name)
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=2))
    else:
        _print_calibration(result, profile)
    if out is not None:
        write_text(out, _profile_text(result.profile.to_dict(), out.suffix))
        typer.echo(f"wrote {out}", err=True)


def _profile_text(values: dict[str, Any], suffix: str) -> str:
    import yaml

    if suffix == ".json":
        return json.dumps(values, indent=2) + "\n"
    return str(yaml.safe_dump(values, sort_keys=False))


def _document(
    profile: str, verdicts: dict[str, QualityVerdict], errors: dict[str, ImageError]
) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for verdict in verdicts.values():
        for code in (verdict.verdict, *verdict.reasons):
            counts[code] = counts.get(code, 0) + 1
    for error in errors.values():
        counts[error.code] = counts.get(error.code, 0) + 1
    return {
        "profile": profile,
        "images": {
            **{
                name: {
                    "verdict": verdict.verdict,
                    "reasons": list(verdict.reasons),
                    "scores": {key: round(value, 4) for key, value in verdict.scores.items()},
                }
                for name, verdict in verdicts.items()
            },
            **{
                name: {"error": {"code": error.code, "message": str(error)}} for name, error in errors.items()
            },
        },
        "counts": {"images": len(verdicts) + len(errors), **counts},
    }


def _print_counts(counts: dict[str, int]) -> None:
    table = Table("", "images", "share")
    for code, count in counts.items():
        table.add_row(code, str(count), f"{count / counts['images']:.2%}")
    Console().print(table)


def _print_list(verdicts: dict[str, QualityVerdict], errors: dict[str, ImageError]) -> None:
    table = Table(
        Column("image", overflow="fold"), "verdict", "reasons", "sharpness", "exposure", "contrast", "field"
    )
    for name, verdict in verdicts.items():
        scores = [f"{verdict.scores[key]:.3g}" for key in ("sharpness", "exposure", "contrast", "field")]
        table.add_row(name, verdict.verdict, ", ".join(verdict.reasons), *scores)
    if verdicts:
        Console().print(table)
    for name, error in errors.items():
        typer.echo(f"{name}: {error.code}: {error}")


def _print_calibration(result: Calibration, given: str) -> None:
    table = Table("", "AUC", f"by {given}", f"by {result.profile.name}")
    table.add_row("min_sharpness", "", f"{result.threshold_before:g}", f"{result.profile.min_sharpness:g}")
    table.add_row("as they are: gradable", "", f"{result.gradable_before:.2%}", f"{result.gradable:.2%}")
    rows: tuple[tuple[str, Separation], ...] = (
        (f"blurred, sigma {result.sigma:g} at 224: rejected", result.blurred),
        ("the same with noise: rejected", result.blurred_noisy),
    )
    for title, each in rows:
        table.add_row(title, f"{each.auc:.4f}", f"{each.rejected_before:.2%}", f"{each.rejected:.2%}")
    console = Console()
    console.print(table)
    if result.reasons:
        console.print("not gradable because: " + ", ".join(f"{k} {v}" for k, v in result.reasons.items()))
    if not result.changed:
        console.print(
            f"This blur hardly shows at this size (AUC {result.blurred.auc:.2f}): the threshold stays."
        )
