"""Whether the recent answers of the version that serves still are what it was made for; for a schedule."""

from kfp import dsl

from components.base import component


@component
def drift(
    task: str,
    windows: str,
    level: float,
    size: int,
    report: dsl.Output[dsl.Artifact],
    figures: dsl.Output[dsl.Metrics],
) -> bool:
    """Judge the windows of the champion's answers. An alarm is a result, not an error. Never to be cached.

    Args:
        task: The task's name; its champion's bundle is the reference.
        windows: The gateway's address (``https://…``; its token is ``RETIDERM_REVIEW_TOKEN``), or the folder
            that holds windows of recent answers; those of other versions are left out.
        level: The chance that a window without a shift alarms.
        size: Images in a full window.
        report: A folder: of each window ``report.json`` and, once it was judged, ``page.html``; and
            ``latest.json``, the report of the newest window that alarms, or else of the newest one.
        figures: Of that window: each measure in thresholds, from 1 on it alarms.

    Returns:
        Whether an alarm stands: in the newest whole window or after it, of images or of labels.
    """
    from components.steps import step

    with step("drift") as say:
        import tempfile
        from pathlib import Path

        from data.errors import RegistryError
        from data.files import write_json
        from serving.core.drift import Settings
        from training.drift.fetch import fetch_windows, is_address
        from training.drift.run import judge_windows, standing
        from training.registry.client import Registry

        registry = Registry()
        champion = registry.champion(task)
        if champion is None:
            raise RegistryError(
                f"No version of {task} serves, so there is nothing to watch.",
                hint=f"Train and promote one: retiderm run {task} --data KIND:PATH.",
            )
        with tempfile.TemporaryDirectory() as folder:
            if is_address(windows):
                fetch_windows(windows, task, Path(folder))
            found = judge_windows(
                registry.bundle(champion),
                [Path(folder) if is_address(windows) else Path(windows)],
                Settings(level=level, size=size),
                out=Path(report.path),
            )
        newest = next((one for one in reversed(standing(found)) if one.report.alarm), found[-1])
        write_json(Path(report.path) / "latest.json", newest.document)
        figures.log_metric("alarm", float(newest.report.alarm))
        for finding in newest.report.findings:
            if finding.statistic is not None and finding.threshold:
                name = f"{finding.head}.{finding.measure}" if finding.head else finding.measure
                figures.log_metric(name, finding.statistic / finding.threshold)
        say(f"{len(found)} windows; {newest.name}: {newest.report.severity}. {newest.report.reason}")
        return newest.report.alarm
