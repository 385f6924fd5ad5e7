"""One memory of drawn parts for the whole folder: made once by the very functions that the pipeline calls."""

from __future__ import annotations

import pytest

from data.dataset import Dataset
from serving.core.patchcore.extractor import Extractor
from tests.anomaly_sets import Made, parts_dataset, small_task
from training.patchcore.build import choose, collect, network, save_memory
from training.patchcore.export import export_extractor
from training.patchcore.report import judge
from training.patchcore.scoring import calibrate_memory, open_scorer


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return parts_dataset(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="session")
def made(parts: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("memory")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETIDERM_HOME", str(folder / "var"))
        task = small_task()
        export_extractor(network(task), task, folder / "extractor")
        extractor = Extractor.open(folder / "extractor")
        patches = collect(task, parts, extractor, folder / "patches", seed=0)
        rate = 0.1
        save_memory(
            choose(patches, rate, seed=0), patches, extractor.card, folder / "memory", rate=rate, seed=0
        )
        scorer = open_scorer(task, folder / "extractor", folder / "memory")
        calibration = calibrate_memory(scorer, parts, task, folder / "scores").calibration
        report = judge(
            scorer,
            calibration,
            parts,
            task,
            predictions=folder / "predictions",
            pictures=folder / "pictures",
        )
    return Made(
        task,
        parts,
        folder / "extractor",
        folder / "memory",
        scorer,
        calibration,
        folder / "predictions",
        folder / "pictures",
        report,
    )
