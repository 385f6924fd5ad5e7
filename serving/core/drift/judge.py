"""The judgement on a window: which measures are further off than chance explains."""

from __future__ import annotations

import dataclasses

from data.errors import UsageError
from serving.core.drift.measures import Measure
from serving.core.drift.null import distance
from serving.core.drift.outcomes import judge_outcomes
from serving.core.drift.reference import Reference
from serving.core.drift.report import DriftReport, Finding
from serving.core.drift.settings import Settings
from serving.core.drift.window import Window

#: From this effect on an alarm is critical: three images in ten look otherwise.
CRITICAL = 0.3


def judge(reference: Reference, window: Window, settings: Settings | None = None) -> DriftReport:
    """Hold a window against the reference.

    A window may be judged as often as one likes while it fills: only the looks of ``settings`` count, each
    on the images that had come by then, so that asking again can't raise the chance of a false alarm. An
    alarm at an earlier look stays. Each measure gets an equal part of a look's level. Of a window of labels
    the outcomes alone are judged.

    Raises:
        UsageError: the window holds more images than ``settings.size``, or is of another model.
    """
    settings = settings or Settings()
    if window.images > settings.size:
        raise UsageError(
            f"The window holds {window.images} images, more than the {settings.size} that one is judged on.",
            hint="Cut it into windows that follow each other, or set the size.",
        )
    reached = [look for look in settings.schedule if look[0] <= window.images]
    findings: list[Finding] = []
    if not window.of_labels:
        findings += [_finding(reference, measure, window, settings) for measure in reference.measures]
        findings += [
            Finding(name, "outputs" if head else "inputs", head, "waiting", f"Not judged: {why}.")
            for (name, head), why in reference.absent.items()
        ]
    findings += judge_outcomes(reference, window, settings)
    return DriftReport(
        task=reference.task,
        digest=reference.digest,
        images=window.images,
        look=reached[-1][0] if reached else 0,
        size=settings.size,
        level=settings.level,
        findings=tuple(findings),
    )


def _finding(reference: Reference, measure: Measure, window: Window, settings: Settings) -> Finding:
    """The first look that alarms, or else the last one."""
    first = settings.schedule[0][0]
    found = Finding(
        measure.name,
        measure.family,
        measure.head,
        "waiting",
        f"Not judged yet: {window.images} of {first} images have come.",
    )
    for images, level in settings.schedule:
        if images > window.images:
            break
        found = _look(reference, measure, window.first(images), level, settings, found)
        if found.alarm:
            break
    return found


def _look(
    reference: Reference,
    measure: Measure,
    window: Window,
    level: float,
    settings: Settings,
    before: Finding,
) -> Finding:
    values = measure.of(window)
    if values is None:
        return dataclasses.replace(before, reason="Not judged: the window doesn't hold it.")
    if len(measure.values) < settings.least:
        why = f"the bundle was made from {len(measure.values)} held-out images, {settings.least} are needed"
        return dataclasses.replace(before, reason=f"Not judged: {why}.")
    if len(values) < settings.least:
        why = f"{len(values)} of {window.images} images have it, {settings.least} are needed"
        return dataclasses.replace(before, reason=f"Not judged: {why}.")
    difference = measure.columns(values).mean(axis=0) - measure.own.mean(axis=0)
    statistic = float(distance(difference, measure.weights, len(measure.own), len(values)))
    null = reference.null(measure, len(values), settings)
    threshold, chance = null.threshold(level / len(reference.measures)), null.chance(statistic)
    told = measure.tell(measure.values, values)
    alarm = statistic >= threshold > 0.0
    severity = ("critical" if told.effect >= CRITICAL else "warning") if alarm else "ok"
    return dataclasses.replace(
        before,
        severity=severity,
        reason=_reason(told.sentence, len(values), chance, alarm),
        statistic=statistic,
        threshold=threshold,
        chance=chance,
        reference=told.reference,
        now=told.now,
        effect=told.effect,
        images=len(values),
        look=window.images,
    )


def _reason(sentence: str, images: int, chance: float, alarm: bool) -> str:
    told = rarity(chance)
    if not alarm:
        told = f"Not beyond chance: {told[0].lower()}{told[1:]}"
    return f"{sentence} ({images} images). {told}"


def rarity(chance: float) -> str:
    """How rare so large a difference is without a shift, in words."""
    if chance < 1e-6:
        return "Without a shift fewer than one window in a million differs so much."
    if chance > 0.4:
        return "Without a shift many windows differ as much."
    return f"Without a shift one window in {round(1 / chance):,} differs so much."
