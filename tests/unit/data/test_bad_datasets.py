from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import CheckFailed, RetidermError
from tests.unit.data.bad_datasets import BAD_DATASETS, Builder, attempt


@pytest.mark.parametrize(
    ("builder", "error", "message"),
    [each[1:] for each in BAD_DATASETS],
    ids=[each[0] for each in BAD_DATASETS],
)
def test_each_kind_of_bad_data_gets_its_own_error(
    builder: Builder, error: type[RetidermError], message: str, tmp_path: Path
) -> None:
    spec = builder(tmp_path / "source")
    with pytest.raises(error) as caught:
        attempt(spec, tmp_path / "out")
    assert type(caught.value) is error
    assert message in str(caught.value)
    assert caught.value.hint
    if isinstance(caught.value, CheckFailed):
        assert caught.value.rows
    elif "is not canonical" not in message:
        assert not (tmp_path / "out/dataset").exists()


def test_messages_differ() -> None:
    assert len({(each[0], each[3]) for each in BAD_DATASETS}) == len(BAD_DATASETS) >= 25
