"""anomalib's side, run by anomalib's own interpreter: it imports nothing of this project.

``python -P contender.py coreset|serve|quality``: one line of JSON in, one out; ``serve`` goes on reading
lines until its input ends. Its classes are used as they are: ``KCenterGreedy`` picks the coreset,
``Patchcore`` extracts, searches, scores and draws. Only what can't be had offline is put in: the backbone's
weights come from a file, not from the hub, with the normalisation that belongs to them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image


def peak_mib(field: str = "VmHWM") -> float:
    """This process's highest resident memory since it began (``VmRSS``: the present one), in MiB.

    ``ru_maxrss`` would count the parent's as well, since it outlives the exec.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def coreset(job: dict[str, Any]) -> dict[str, Any]:
    """Time ``KCenterGreedy`` alone, its random projection included; the indices go to ``job["indices"]``."""
    from anomalib.models.components import KCenterGreedy

    embeddings = torch.from_numpy(np.load(job["embeddings"], allow_pickle=False))
    torch.manual_seed(job["seed"])
    np.random.seed(job["seed"])  # its sparse projection draws from it
    before = peak_mib("VmRSS")
    # Half a patch more, so that its int(n * ratio) is the count.
    sampler = KCenterGreedy(embedding=embeddings, sampling_ratio=(job["count"] + 0.5) / len(embeddings))
    started = time.perf_counter()
    indices = sampler.select_coreset_idxs()
    seconds = time.perf_counter() - started
    np.save(job["indices"], np.asarray(indices, dtype=np.int64))
    return {"seconds": seconds, "peak_mib": peak_mib(), "before_mib": before}


def build(job: dict[str, Any]) -> Any:
    """``Patchcore`` with the weights, layers, input size and normalisation of the other side."""
    from anomalib.models.image.patchcore.lightning_model import Patchcore
    from anomalib.pre_processing import PreProcessor
    from safetensors.torch import load_file
    from torchvision.transforms.v2 import Compose, Normalize, Resize

    transform = Compose([Resize(tuple(job["input"]), antialias=True), Normalize(job["mean"], job["std"])])
    model = Patchcore(
        backbone=job["backbone"],
        layers=[int(layer) for layer in job["layers"]],
        pre_trained=False,
        pre_processor=PreProcessor(transform=transform),
        evaluator=False,
        visualizer=False,
    )
    state = load_file(job["weights"])
    # `features_only` leaves the head out; everything that it keeps must be given.
    missing, _ = model.model.feature_extractor.feature_extractor.load_state_dict(state, strict=False)
    if missing:
        raise RuntimeError(f"The weights lack {missing[:3]}")
    return model.eval()


def decoded(data: bytes) -> torch.Tensor:
    """An encoded image as anomalib reads one: Pillow, then float32 ``[1, 3, H, W]`` from 0 to 1."""
    from torchvision.transforms.v2.functional import to_dtype, to_image

    with Image.open(io.BytesIO(data)) as image:
        found: torch.Tensor = to_dtype(to_image(image.convert("RGB")), torch.float32, scale=True)[None]
    return found


def collect(model: Any, paths: list[str], keep: int | None, seed: int) -> int:
    """Embed images in training mode; at most ``keep`` patches stay, drawn at random. Gives how many."""
    model.train()
    with torch.no_grad():
        for path in paths:
            model.model(model.pre_processor(decoded(Path(path).read_bytes())))
    model.eval()
    store = model.model.embedding_store
    total = sum(len(part) for part in store)
    if keep is not None and keep < total:
        rows = torch.vstack(store)
        chosen = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:keep]
        store[:] = [rows[chosen.sort().values]]
    return min(total, keep or total)


def serve(job: dict[str, Any]) -> Any:
    """A model that answers: ``infer`` is its public path, ``steps`` the same cut into steps.

    The memory holds as many patches as the other side's, drawn at random: time doesn't depend on which.
    """
    model = build(job)
    with torch.no_grad():
        collect(model, job["train"], job["memory"], job["seed"])
        model.model.memory_bank = torch.vstack(model.model.embedding_store)
        model.model.embedding_store.clear()
    peak = peak_mib()
    exported: Any
    exported, failure = export(model, job) if job["export"] else (None, "")

    def answer(message: dict[str, Any]) -> dict[str, Any]:
        data = Path(message["image"]).read_bytes()
        if message["do"] == "exported":
            started = time.perf_counter()
            with Image.open(io.BytesIO(data)) as image:
                found = exported.predict(image.convert("RGB"))
            picture(found.anomaly_map)
            return {"ms": (time.perf_counter() - started) * 1e3, "score": float(found.pred_score.ravel()[0])}
        with torch.inference_mode():
            if message["do"] == "steps":
                return {"ms": steps(model, data)}
            started = time.perf_counter()
            found = model(decoded(data))
            picture(found.anomaly_map)
            return {"ms": (time.perf_counter() - started) * 1e3, "score": float(found.pred_score)}

    shape = list(model.model.memory_bank.shape)
    return {"memory": shape, "peak_mib": peak, "exported": exported is not None, "failure": failure}, answer


def export(model: Any, job: dict[str, Any]) -> tuple[Any, str]:
    """anomalib's own OpenVINO export of the fitted model and its own inferencer, or why there is none."""
    try:
        from anomalib.deploy import OpenVINOInferencer

        # One image at a time: with its own dynamic axes the graph comes out fixed to its example's two.
        fixed: dict[str, Any] = {"dynamic_axes": {}, "dynamic_shapes": None}
        path = model.to_openvino(job["folder"], input_size=tuple(job["input"]), onnx_kwargs=fixed)
        # It keeps a cache in the present folder.
        os.chdir(job["folder"])
        return OpenVINOInferencer(path, device="CPU", config={"INFERENCE_NUM_THREADS": job["threads"]}), ""
    except Exception as error:  # whatever stands in its way, the comparison goes on without it
        return None, (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def picture(anomaly_map: Any) -> bytes:
    """A map as a grey PNG, the way that costs least; anomalib's own visualiser draws more."""
    import cv2

    values = np.asarray(anomaly_map)[0, 0]
    low, high = float(values.min()), float(values.max())
    grey = ((values - low) * (255.0 / max(high - low, 1e-12))).astype(np.uint8)
    return bytes(cv2.imencode(".png", grey)[1])


def steps(model: Any, data: bytes) -> dict[str, float]:
    """Milliseconds of each step of one image, in the order of anomalib's own ``forward``."""
    core, times = model.model, {}
    clock = time.perf_counter

    def since(name: str, started: float) -> float:
        now = clock()
        times[name] = (now - started) * 1e3
        return now

    at = clock()
    image = decoded(data)
    at = since("decode", at)
    image = model.pre_processor(image)
    at = since("prepare", at)
    features = core.feature_extractor(image)
    features = {layer: core.feature_pooler(feature) for layer, feature in features.items()}
    embedding = core.generate_embedding(features)
    _, _, height, width = embedding.shape
    embedding = core.reshape_embedding(embedding)
    at = since("extract", at)
    scores, locations = core.nearest_neighbors(embedding=embedding, n_neighbors=1)
    at = since("search", at)
    scores, locations = scores.reshape((1, -1)), locations.reshape((1, -1))
    score = core.compute_anomaly_score(scores, locations, embedding)
    at = since("score", at)
    made = core.anomaly_map_generator(scores.reshape((1, 1, height, width)), image.shape[-2:])
    at = since("map", at)
    from anomalib.data import InferenceBatch

    done = model.post_processor(InferenceBatch(pred_score=score, anomaly_map=made))
    at = since("post-process", at)
    picture(done.anomaly_map)
    since("heatmap", at)
    return times


def quality(job: dict[str, Any]) -> dict[str, Any]:
    """Fit on the OK images and score the test images, with each number of neighbours; maps go to a file."""
    model = build(job)
    torch.manual_seed(job["seed"])
    np.random.seed(job["seed"])  # its sparse projection draws from it
    started = time.perf_counter()
    patches = collect(model, job["train"], job["max_patches"], job["seed"])
    embedded = time.perf_counter()
    with torch.inference_mode():
        model.model.subsample_embedding((job["count"] + 0.5) / patches)
    fitted = time.perf_counter()
    scores: dict[str, list[float]] = {str(n): [] for n in job["neighbours"]}
    maps = []
    with torch.inference_mode():
        for path in job["test"]:
            image = model.pre_processor(decoded(Path(path).read_bytes()))
            for number in job["neighbours"]:
                model.model.num_neighbors = number
                found = model.model(image)
                scores[str(number)].append(float(found.pred_score))
            maps.append(found.anomaly_map[0, 0].numpy().astype(np.float32))
    np.save(job["maps"], np.stack(maps))
    return {
        "scores": scores,
        "patches": patches,
        "memory": list(model.model.memory_bank.shape),
        "embed_seconds": embedded - started,
        "coreset_seconds": fitted - embedded,
        "test_seconds": time.perf_counter() - fitted,
        "peak_mib": peak_mib(),
    }


def main() -> None:
    """Read a job, do it, answer; standard output carries answers and nothing else."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    tasks = {"coreset": coreset, "serve": serve, "quality": quality}
    job = json.loads(sys.stdin.readline())
    torch.set_num_threads(job["threads"])
    with contextlib.suppress(ImportError):
        import cv2

        cv2.setNumThreads(job["threads"])
    found = tasks[sys.argv[1]](job)
    first, answer = found if isinstance(found, tuple) else (found, None)
    print(json.dumps(first), file=answers, flush=True)
    if answer is not None:
        for line in sys.stdin:
            print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
