"""Fit, calibrate and infer: the steps, on the parts of ``serving.core.patchcore``, with no HTTP in them."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import RequestError, ServingError
from data.image import DecodeLimits
from data.preprocess import resize
from serving.core.patchcore.calibrate import calibrate
from serving.core.patchcore.extractor import CARD_FILE, Extractor
from serving.core.patchcore.score import Region, ShapeMask, evaluate_roi
from serving.patchcore.asked import CalibrateAsked, FitAsked, InferAsked
from serving.patchcore.desk import Deadline, Desk
from serving.patchcore.embeddings import Embeddings
from serving.patchcore.errors import Reporter, TooLarge
from serving.patchcore.fitting import Fitter
from serving.patchcore.form import Form, Part
from serving.patchcore.images import header_of, pixels_of, png_base64
from serving.patchcore.locks import Locks
from serving.patchcore.regions import Regions, Served
from serving.patchcore.settings import Settings, extractors
from serving.patchcore.timing import Stopwatch

_LOG = logging.getLogger("retiderm.patchcore")

# Images that pass through the extractor together: more gain nothing on a processor.
_BATCH = 8


class Service:
    """One extractor, one folder of memories. Its methods block, and may be called from several threads."""

    def __init__(self, settings: Settings, extractor: Extractor, device: str) -> None:
        """Use :meth:`open`."""
        self.settings = settings
        self.extractor = extractor
        self.device = device
        self.version = metadata.version("retiderm")
        self.reporter = Reporter(settings.debug)
        limits = settings.limits
        self.desk = Desk("infer", settings.workers, limits.max_waiting)
        self.fits = Desk("fit", settings.fit_workers, limits.max_waiting_fits)
        self._decode = DecodeLimits(limits.max_image_bytes, limits.max_image_pixels)
        self._regions = Regions(settings.models_dir, extractor.card, limits)
        self._fitter = Fitter(extractor.card, limits.fit_memory_bytes)
        self._fitting = Locks()

    @classmethod
    def open(cls, settings: Settings) -> Service:
        """Load the extractor, verify its digest and run it once.

        Raises:
            ServingError: there is none, it isn't the one that the settings name, or not for this device.
            BundleError: its files are altered or don't fit each other.
        """
        folder = settings.extractor_folder
        if not (folder / CARD_FILE).is_file():
            made = ", ".join(sorted(path.parent.name for path in extractors().glob(f"*/{CARD_FILE}")))
            raise ServingError(
                f"There is no extractor in {folder}.",
                hint="Make one with retiderm anomaly extractor, and name its folder with --extractor or "
                "PATCHCORE_EXTRACTOR." + (f" In {extractors()} there are: {made}." if made else ""),
            )
        extractor, device = _opened(folder, settings)
        card = extractor.card
        if settings.model_name not in (None, card.backbone, card.name):
            raise ServingError(
                f"The extractor's model is {card.backbone}, not MODEL_NAME={settings.model_name}.",
                hint="Name another folder with PATCHCORE_EXTRACTOR, or leave MODEL_NAME out.",
            )
        if settings.input_size is not None and (settings.snapped,) * 2 != card.input_size:
            raise ServingError(
                f"The extractor takes {card.input_size[0]}×{card.input_size[1]} pixels; INPUT_SIZE="
                f"{settings.input_size} is {settings.snapped} by this model's patches.",
                hint="Make an extractor of that size, or leave INPUT_SIZE out.",
            )
        extractor.embed(np.zeros((1, *card.input_size, 3), np.uint8))
        return cls(settings, extractor, device)

    def over(self, models_dir: Path) -> Service:
        """The same extractor, threads and places, over another folder of memories. Closed with this one."""
        other = copy.copy(self)
        other.settings = replace(self.settings, models_dir=models_dir)
        other._regions = Regions(models_dir, self.extractor.card, self.settings.limits)
        other._fitting = Locks()
        return other

    def close(self) -> None:
        """Finish what runs."""
        self.fits.close()
        self.desk.close()

    def health(self) -> dict[str, str]:
        """The answer to ``/health``."""
        model = self.extractor.card.backbone
        return {"status": "ok", "device": self.device, "model": model, "version": self.version}

    def fit(self, deadline: Deadline, asked: FitAsked, form: Form, watch: Stopwatch) -> dict[str, Any]:
        """Make or extend a region's memory and publish it; calibrate it anew afterwards.

        Raises:
            RequestError: images of different sizes; a memory to join that isn't there or is another's.
            ImageError: one can't be decoded.
            TooSlow: not done in time; then nothing was published.
        """
        named = asked.named
        # One fit of a region at a time, from the reading of an older memory to the publishing of the new one.
        with self._fitting.hold(named):
            deadline.check()
            before = self._regions.serving(named).stored if asked.incremental else None
            with watch.step("decode"):
                self._same_size(form, asked.images)
            old = None if before is None else before.memory.emb
            with self._room(len(asked.images), 0 if old is None else len(old)) as embeddings:
                if old is not None:
                    embeddings.add(old)
                for batch in self._decoded(form, asked.images, deadline, watch):
                    with watch.step("extract"):
                        patches = self.extractor.embed(batch)
                        embeddings.add(patches.reshape(-1, patches.shape[-1]))
                rate = 1.0 if asked.whole else self.settings.coreset_rate
                with watch.step("coreset"):
                    if before is None:
                        made = self._fitter.first(embeddings.rows, rate, len(asked.images), deadline)
                    else:
                        made = self._fitter.joined(
                            before.memory, embeddings.rows, rate, len(asked.images), deadline
                        )
            deadline.check()
            with watch.step("publish"):
                self._regions.publish(named, made.memory, before)
        answer = made.answer()
        watch.log(
            "fit_ok",
            named.role,
            named.roi,
            self.device,
            images=len(asked.images),
            embeddings=answer["n_embeddings"],
            coreset=answer["coreset_size"],
            token_shape=_times(answer["token_shape"]),
            incremental=asked.incremental,
        )
        return answer

    def calibrate(self, deadline: Deadline, asked: CalibrateAsked) -> dict[str, Any]:
        """Set a region's threshold by scores of its memory.

        Raises:
            RequestError: the region has no memory, or a score or setting can't be used.
        """
        named, watch = asked.named, Stopwatch()
        made = calibrate(
            asked.ok_scores,
            asked.ng_scores,
            mm_per_px=asked.mm_per_px,
            area_mm2_thr=asked.area_mm2_thr,
            score_percentile=asked.score_percentile,
        )
        deadline.check()
        with watch.step("publish"):
            self._regions.calibrate(named, made)
        watch.log(
            "calibrate_ng",
            named.role,
            named.roi,
            self.device,
            ok=len(asked.ok_scores),
            ng=len(asked.ng_scores or ()),
        )
        return made.to_dict()

    def infer(self, deadline: Deadline, asked: InferAsked, form: Form, watch: Stopwatch) -> bytes:
        """Score one image: the JSON of ``/infer``.

        Raises:
            RequestError: the region has no memory, or another extractor's; the shape can't be used.
            ImageError: the image can't be decoded.
        """
        named = asked.named
        with watch.step("load"):
            served = self._regions.serving(named)
        with watch.step("decode"):
            rgb = pixels_of(form.read(asked.image), self._decode)
            height, width = rgb.shape[:2]
            mask = ShapeMask.from_json(asked.shape, width, height).mask()
        deadline.check()
        with watch.step("extract"):
            patches = self.extractor.embed(self._stretched(rgb)[None])[0]
        deadline.check()
        with watch.step("search"):
            found, _ = served.index.search(patches.reshape(-1, patches.shape[-1]))
        with watch.step("score"):
            scored = evaluate_roi(
                found.reshape(patches.shape[:2]),
                (height, width),
                mm_per_px=asked.mm_per_px,
                mask=mask,
                calibration=served.stored.calibration,
                blur_sigma=self.settings.blur_sigma,
            )
        with watch.step("encode"):
            calibration = served.stored.calibration
            answer = json.dumps(
                {
                    "role_id": named.role,
                    "roi_id": named.roi,
                    "score": scored.score,
                    "threshold": None if calibration is None else calibration.threshold,
                    "heatmap_png_base64": png_base64(scored.heatmap),
                    "regions": [_region(region) for region in scored.regions],
                    "token_shape": list(patches.shape[:2]),
                    "params": self._params(asked, served),
                },
                allow_nan=False,
            ).encode()
        watch.log(
            "infer",
            named.role,
            named.roi,
            self.device,
            width=width,
            height=height,
            coreset=len(served.stored.memory.emb),
            regions=len(scored.regions),
            token_shape=_times(patches.shape[:2]),
        )
        return answer

    def _params(self, asked: InferAsked, served: Served) -> dict[str, Any]:
        card, calibration = self.extractor.card, served.stored.calibration
        info = served.stored.memory.info
        said = {} if calibration is None else calibration.to_dict()
        height, width = card.input_size
        return {
            "extractor": card.backbone,
            "input_size": height if height == width else [height, width],
            "coreset_rate": info.coreset_rate if info is not None else None,
            "coreset_rate_applied": info.coreset_rate_applied if info is not None else None,
            "k": 1,
            "distance": "squared_l2",
            "score_percentile": said.get("score_percentile", 99),
            "blur_sigma": self.settings.blur_sigma,
            "mm_per_px": asked.mm_per_px,
            "area_mm2_thr": said.get("area_mm2_thr"),
        }

    def _same_size(self, form: Form, parts: tuple[Part, ...]) -> None:
        """Refuse a fit that can't be made before any of its work is done."""
        sizes = [header_of(form.read(part), self._decode) for part in parts]
        first = (sizes[0].width, sizes[0].height)
        for number, header in enumerate(sizes, 1):
            if (header.width, header.height) != first:
                raise RequestError(
                    f"Image {number} has {header.width}×{header.height} pixels, the first has "
                    f"{first[0]}×{first[1]}.",
                    hint="The images of a fit are one region, cropped to one size.",
                )

    def _room(self, images: int, older: int) -> Embeddings:
        """A block for the embeddings of so many images, after so many vectors of an older memory."""
        card, limits = self.extractor.card, self.settings.limits
        count = images * card.grid[0] * card.grid[1]
        if count > limits.max_embeddings:
            raise TooLarge(
                f"{images:,} images make {count:,} embeddings; the limit is {limits.max_embeddings:,}.",
                hint="Fit with fewer, and add the others by incremental fits.",
            )
        return Embeddings(older + count, card.dim, limits.fit_memory_bytes)

    def _stretched(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        # Whatever crop or padding a task's extractor was tuned with: here the patches' grid is the region's.
        return resize(rgb, self.extractor.card.input_size)

    def _decoded(
        self, form: Form, parts: tuple[Part, ...], deadline: Deadline, watch: Stopwatch
    ) -> Iterator[NDArray[np.uint8]]:
        for start in range(0, len(parts), _BATCH):
            deadline.check()
            with watch.step("decode"):
                batch = np.stack(
                    [
                        self._stretched(pixels_of(form.read(part), self._decode))
                        for part in parts[start : start + _BATCH]
                    ]
                )
            yield batch


def _region(region: Region) -> dict[str, Any]:
    return {
        "bbox": list(region.bbox),
        "area_px": region.area_px,
        "area_mm2": region.area_mm2,
        "contour": [list(point) for point in region.contour],
    }


def _times(shape: Any) -> str:
    return "x".join(str(side) for side in shape)


def _opened(folder: Path, settings: Settings) -> tuple[Extractor, str]:
    """The extractor and the device that it runs on in fact, which ``/health`` then names."""
    if settings.device != "auto":
        return Extractor.open(folder, threads=settings.threads, device=settings.device), settings.device
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        try:
            return Extractor.open(folder, threads=settings.threads, device="cuda"), "cuda"
        except ServingError as error:
            _LOG.warning("serving on the processor: %s", error.message)
    return Extractor.open(folder, threads=settings.threads, device="cpu"), "cpu"
