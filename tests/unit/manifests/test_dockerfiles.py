"""What can be said of the images without building them: no container engine is needed here."""

from __future__ import annotations

import fnmatch
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

IMAGES = ("serving", "gateway", "pipelines")


@dataclass
class Stage:
    """One ``FROM`` and what follows, each instruction as (word, arguments)."""

    base: str
    name: str | None
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        return [text for step, text in self.steps if step == word]


def parse(file: Path) -> list[Stage]:
    text = re.sub(r"^\s*#.*\n", "", file.read_text(), flags=re.MULTILINE)
    text = text.replace("\\\n", " ")
    stages: list[Stage] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        word, _, rest = line.strip().partition(" ")
        assert word.isupper(), f"{file.name}: {line!r} is no instruction"
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(base, name or None))
        elif stages:
            stages[-1].steps.append((word, rest.strip()))
        else:
            assert word == "ARG"
    return stages


@pytest.fixture(params=IMAGES)
def image(request: pytest.FixtureRequest, repository: Path) -> list[Stage]:
    return parse(repository / "manifests" / "docker" / f"{request.param}.Dockerfile")


def ignored(repository: Path, path: str) -> bool:
    """Docker's rule: the last pattern that matches a path or a folder above it decides."""
    parts = path.split("/")
    above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    verdict = False
    for line in (repository / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        keep = pattern.startswith("!")
        if any(fnmatch.fnmatchcase(name, pattern.lstrip("!")) for name in above):
            verdict = not keep
    return verdict


def test_what_is_copied_exists_and_reaches_the_builder(image: list[Stage], repository: Path) -> None:
    for stage in image:
        assert not stage.all("ADD")
        for copy in stage.all("COPY"):
            words = shlex.split(copy)
            if words[0].startswith("--from="):
                assert words[0].removeprefix("--from=") in {s.name for s in image}
                continue
            for source in words[:-1]:
                assert (repository / source).exists(), source
                assert not ignored(repository, source), f"{source} is kept from the builder by .dockerignore"


def test_context_leaves_data_and_environments_out(repository: Path) -> None:
    for path in (
        ".venv/bin/python",
        ".git/config",
        "var/demo/summary.json",
        "data/datasets/ham/dataset.json",
    ):
        assert ignored(repository, path), path
    assert not ignored(repository, "data/errors.py")


def test_everything_is_installed_from_a_lock_with_hashes(image: list[Stage]) -> None:
    commands = [c for stage in image for run in stage.all("RUN") for c in re.split(r"&&|\|\|", run)]
    installs = [c for c in commands if re.search(r"pip .*\b(install|sync)\b", c) and "uninstall" not in c]
    assert installs
    for command in installs:
        if "--editable ." in command:
            assert "--no-deps" in command
            assert "--no-build-isolation" in command
        else:
            assert "--require-hashes" in command, command
    assert not [c for c in commands if re.search(r"curl|wget|git clone|apt-get|http", c)]


def test_last_stage_is_lean_and_unprivileged(image: list[Stage]) -> None:
    build, final = image
    assert build.name == "build"
    assert final.base == build.base
    users = final.all("USER")
    assert users == ["10001:10001"]
    assert final.steps.index(("USER", users[0])) > max(
        i for i, (word, _) in enumerate(final.steps) if word in {"RUN", "COPY"}
    )
    assert not re.search(r"\b(gcc|make|build-essential|pip install|uv )", " ".join(final.all("RUN")))
    assert "pip uninstall" in " ".join(final.all("RUN"))
    assert len(final.all("HEALTHCHECK")) == 1
    assert len(final.all("CMD")) == 1


@pytest.mark.parametrize("name", ["serving", "gateway"])
def test_an_image_that_answers_takes_its_own_lock_and_no_training_code(name: str, repository: Path) -> None:
    stages = parse(repository / "manifests" / "docker" / f"{name}.Dockerfile")
    copied = {source for stage in stages for c in stage.all("COPY") for source in shlex.split(c)[:-1]}
    assert f"{name}.lock" in copied
    assert not copied & {"requirements.lock", "training", "components", "pipelines"}


def test_user_matches_the_manifests(image: list[Stage], documents: list[dict[str, object]]) -> None:
    text = repr(documents)
    assert set(re.findall(r"'runAsUser': (\d+)", text)) == {image[-1].all("USER")[0].split(":")[0]}


REFUSED = {"torch", "torchvision", "timm", "kfp", "mlflow", "training", "components", "pipelines", "scipy"}


def run_as_image(repository: Path, folder: Path, words: list[str], refused: set[str]) -> str:
    """Run Python with the copied folders alone, from another folder, with torch and its like refused."""
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {refused!r}:\n"
        "            raise ModuleNotFoundError(f'{name} is not in the image')\n"
        "sys.meta_path.insert(0, Refuse())\n"
    )
    for name in ("data", "serving"):
        (folder / name).symlink_to(repository / name)
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={
            "PYTHONPATH": str(folder),
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "RETIDERM_HOME": str(folder / "home"),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["serving.predictor", "serving.transformer"])
def test_entry_points_start_with_only_what_the_image_holds(
    module: str, repository: Path, tmp_path: Path
) -> None:
    assert "--http_port" in run_as_image(repository, tmp_path, ["-m", module, "--help"], REFUSED)


def test_the_gateway_is_made_with_only_what_its_image_holds(repository: Path, tmp_path: Path) -> None:
    make = "from serving.gateway.app import create_app; print(len(create_app().routes))"
    refused = {*REFUSED, "kserve", "grpc", "pandas", "openvino"}
    assert int(run_as_image(repository, tmp_path, ["-c", make], refused)) > 20


def test_tokens_are_made_with_only_what_the_gateways_image_holds(repository: Path, tmp_path: Path) -> None:
    refused = {*REFUSED, "kserve", "grpc", "pandas", "openvino", "onnxruntime"}
    words = ["-m", "serving.gateway.cli", "create", "my-app", "--role", "reviewer"]
    assert re.fullmatch(r"rtk_\S+\n", run_as_image(repository, tmp_path, words, refused))
