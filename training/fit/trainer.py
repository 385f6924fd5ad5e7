"""The training loop: steps, epochs, validation, and the state that a checkpoint holds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.errors import DataError
from data.files import atomic_path
from data.progress import track
from training.fit import checkpoint
from training.fit.augment import apply, draw
from training.fit.cache import Pixels
from training.fit.device import autocast, spare_depthwise
from training.fit.distributed import World, wrap
from training.fit.ema import Ema
from training.fit.loss import TaskLoss
from training.fit.metrics import head_metrics, score
from training.fit.mix import mix
from training.fit.optimise import make_optimiser, rate_factor, set_rates
from training.fit.order import AUGMENT, DROPOUT, MIX, batches, epoch_order, image_weights, seed_of
from training.labels import Rows
from training.model import Classifier, about, set_about
from training.task import Task

Epoch = dict[str, Any]


class Stopped(Exception):
    """The process was asked to end; the checkpoint is written."""


@dataclass(slots=True)
class Progress:
    """Where a run is, and what it has seen; everything here goes into the checkpoint."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    images: int = 0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    history: list[Epoch] = field(default_factory=list)
    best_epoch: int = -1
    best_score: float = -math.inf
    resumed: int = 0


class Trainer:
    """One model, its optimiser and its data. :meth:`run` yields after every epoch."""

    def __init__(
        self,
        task: Task,
        model: Classifier,
        pixels: Pixels,
        train: Rows,
        val: Rows,
        folder: Path,
        *,
        seed: int,
        device: torch.device,
        precision: str,
        world: World,
        fingerprint: dict[str, Any],
    ) -> None:
        self.task, self.recipe, self.folder = task, task.train, folder
        self.seed, self.device, self.precision, self.world = seed, device, precision, world
        self.fingerprint = fingerprint
        self.train_rows, self.val_rows = train, val
        self.source = _Source(pixels, device)
        self.train_at, self.val_at = pixels.where(train.sha256), pixels.where(val.sha256)
        self.labels = {name: torch.from_numpy(values) for name, values in train.labels.items()}
        self.weights = image_weights(train.labels, task.heads, task.train.balance)
        layout = torch.channels_last if self.recipe.channels_last else torch.contiguous_format
        self.model = model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        self.layout = layout
        self.ema = Ema(self.model, self.recipe.ema_decay) if self.recipe.ema_decay else None
        spare_depthwise(self.model, device, precision)
        self.loss = TaskLoss(task.heads, train.labels, self.recipe).to(device)
        self.optimiser = make_optimiser(self.model, self.recipe, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.forward: Callable[[Tensor], Tensor] = self.model
        if self.recipe.compile:
            self.forward = torch.compile(self.model)
        self._wrapped: tuple[bool, torch.nn.Module] | None = None
        self.at = Progress()
        self.asked_to_stop: Callable[[], bool] = lambda: False

    # -- the run ---------------------------------------------------------------------------------------------

    def run(self) -> Iterator[Epoch]:
        """Train on from where it is; yields each epoch's row once its checkpoint is written."""
        while self.at.epoch < self.recipe.epochs:
            row = self._epoch()
            self.at.history.append(row)
            if row["score"] is not None and row["score"] > self.at.best_score:
                self.at.best_score, self.at.best_epoch = row["score"], row["epoch"]
                self._keep_best()
            self.at.epoch += 1
            self.at.step = self.at.images = 0
            self.at.loss_sum = self.at.epoch_seconds = 0.0
            self.save()
            self._forget_older()
            yield row

    def reason_to_stop(self) -> str | None:
        """Why no further epoch should start: ``epochs``, ``early_stop`` or ``max_minutes``."""
        at, recipe = self.at, self.recipe
        if at.epoch >= recipe.epochs:
            return "epochs"
        patience = recipe.early_stop_patience
        if patience and at.best_epoch >= 0 and at.epoch - 1 - at.best_epoch >= patience:
            return "early_stop"
        if recipe.max_minutes is not None and self.world.agree(at.seconds) > recipe.max_minutes * 60:
            return "max_minutes"
        return None

    def _epoch(self) -> Epoch:
        at, recipe = self.at, self.recipe
        order = epoch_order(len(self.train_rows), self.weights, self.seed, at.epoch)
        steps = batches(order, recipe.batch_size)
        if len(steps[0]) < 2 * self.world.size:
            raise DataError(
                f"{len(steps[0])} training images are too few for {self.world.size} processes.",
                hint="Each process needs two images a step.",
            )
        net = self._prepare(frozen=at.epoch < recipe.freeze_backbone_epochs)
        mark = saved = time.monotonic()
        losses = torch.zeros((), device=self.device, dtype=torch.float64)
        todo = range(at.step, len(steps))
        shown = track(todo, f"Epoch {at.epoch + 1}/{recipe.epochs}") if self.world.leads else iter(todo)
        for step in shown:
            set_rates(self.optimiser, rate_factor(at.epoch * len(steps) + step, len(steps), recipe))
            stop = self._step(net, steps[step], step, losses)
            at.step, at.images = step + 1, at.images + len(steps[step])
            now = time.monotonic()
            if stop or (now - saved >= recipe.checkpoint_seconds and step + 1 < len(steps)):
                self._clock(now - mark)
                mark = saved = now
                at.loss_sum += float(losses)
                losses.zero_()
                self.save()
                saved = time.monotonic()
                if stop:
                    raise Stopped
        at.loss_sum += float(losses)  # waits for the GPU, so that the clock is right
        trained = at.epoch_seconds + time.monotonic() - mark
        found = self.validate()
        self._clock(time.monotonic() - mark)
        chosen = score(found, self.task.heads, recipe.val_metric)
        return {
            "epoch": at.epoch,
            "loss": at.loss_sum / max(1, len(steps)),
            "lr": self.optimiser.param_groups[0]["lr"],
            "val": found,
            "score": self.world.agree(chosen),
            "seconds": round(at.epoch_seconds, 3),
            "images_per_second": round(at.images / max(trained, 1e-9), 2),
        }

    def _clock(self, seconds: float) -> None:
        self.at.epoch_seconds += seconds
        self.at.seconds += seconds

    def _prepare(self, *, frozen: bool) -> torch.nn.Module | Callable[[Tensor], Tensor]:
        """Training mode with the right parts still; wrapped for several processes."""
        self.model.train()
        for parameter in self.model.backbone.parameters():
            parameter.requires_grad_(not frozen)
        if frozen or self.recipe.freeze_norm:
            for module in self.model.backbone.modules():
                if frozen or isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.eval()
        if self.world.size == 1:
            return self.forward
        # What is wrapped is what learns, so that thawing the backbone needs a new wrapping.
        if self._wrapped is None or self._wrapped[0] != frozen:
            self._wrapped = frozen, wrap(self.model, self.device, self.world)
        return self._wrapped[1]

    def _step(
        self, net: Callable[[Tensor], Tensor], chosen: NDArray[np.int64], step: int, losses: Tensor
    ) -> bool:
        """One step; adds its loss to ``losses``. True when some process was asked to stop."""
        at, recipe, world = self.at, self.recipe, self.world
        mine = chosen[world.rank :: world.size]
        labels = {name: values[mine].to(self.device) for name, values in self.labels.items()}
        images = self.source.images(self.train_at[mine])
        draws = draw(
            recipe.augment, len(chosen), self.task.input_size, seed_of(self.seed, AUGMENT, at.epoch, step)
        )
        images = apply(images, draws.part(world.rank, world.size), fill=recipe.augment.fill)
        mixed = mix(images, labels, recipe, seed_of(self.seed, MIX, at.epoch, step, world.rank))
        images = self._normalised(mixed.images if mixed else images)
        torch.manual_seed(seed_of(self.seed, DROPOUT, at.epoch, step, world.rank))
        with autocast(self.device, self.precision):
            logits = net(images)
        parts = {name: logits[:, part] for name, part in self.model.slices.items()}
        sums, weights = self.loss.sums(parts, labels, (mixed.labels, mixed.share) if mixed else None)
        # Averaged over the whole batch, not over each process's share: a label may be rare.
        flag = torch.tensor([float(self.asked_to_stop())], device=self.device)
        totals = world.sum(torch.cat([weights.detach(), flag]))
        loss = self.loss.combine(sums, totals[:-1])
        self.optimiser.zero_grad(set_to_none=True)
        # DistributedDataParallel takes the mean over the processes; the sum is meant.
        self.scaler.scale(loss * world.size).backward()  # type: ignore[no-untyped-call]
        if recipe.grad_clip:
            self.scaler.unscale_(self.optimiser)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.grad_clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update()
        losses += world.sum(loss.detach().double())
        return bool(totals[-1] > 0) if world.size > 1 or self.device.type == "cpu" else self.asked_to_stop()

    def _normalised(self, images: Tensor) -> Tensor:
        mean = torch.tensor(self.model.mean, device=images.device).view(1, 3, 1, 1)
        std = torch.tensor(self.model.std, device=images.device).view(1, 3, 1, 1)
        return ((images - mean) / std).contiguous(memory_format=self.layout)

    # -- validation ------------------------------------------------------------------------------------------

    @property
    def evaluated(self) -> Classifier:
        """The model that is judged and kept: the average where there is one."""
        return self.ema.model if self.ema is not None else self.model  # type: ignore[return-value]

    @torch.no_grad()
    def validate(self) -> dict[str, dict[str, float]]:
        """Each head's metrics on the validation images, in full precision; the processes share the work."""
        if not len(self.val_rows):
            return {}
        model = self.evaluated.eval()
        self.world.copy_buffers(model)
        logits = torch.zeros(len(self.val_at), model.head.out_features, device=self.device)
        mine = np.arange(self.world.rank, len(self.val_at), self.world.size)
        for part in np.array_split(mine, max(1, math.ceil(len(mine) / 64))):
            if len(part):
                images = self._normalised(self.source.images(self.val_at[part]))
                logits[torch.from_numpy(part).to(self.device)] = model(images).float()
        found = self.world.sum(logits).cpu().numpy()
        return {
            head.name: head_metrics(found[:, model.slices[head.name]], self.val_rows.labels[head.name], head)
            for head in self.task.heads
        }

    # -- state -----------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the checkpoint (the leading process only)."""
        if not self.world.leads:
            return
        at = self.at
        checkpoint.save(
            self.folder,
            {
                "fingerprint": self.fingerprint,
                "at": {name: getattr(at, name) for name in Progress.__slots__},
                "about": about(self.model),
                "model": self.model.state_dict(),
                "ema": self.ema.model.state_dict() if self.ema else None,
                "ema_steps": self.ema.steps if self.ema else 0,
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.scaler.state_dict(),
            },
        )

    def restore(self, state: dict[str, Any]) -> None:
        """Take up where a checkpoint was written."""
        self.at = Progress(**state["at"])
        self.at.resumed += 1
        self.model.load_state_dict(state["model"])
        set_about(self.model, state["about"])
        if self.ema is not None:
            self.ema.model.load_state_dict(state["ema"])
            self.ema.steps = state["ema_steps"]
        self.optimiser.load_state_dict(state["optimiser"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])

    def chosen_state(self) -> dict[str, Tensor]:
        """The weights to keep: the best epoch's, or the last if the recipe says so."""
        from safetensors.torch import load_file

        if self.recipe.select == "best" and self.at.best_epoch >= 0:
            return load_file(self._best_path(self.at.best_epoch))
        return self.evaluated.state_dict()

    def _best_path(self, epoch: int) -> Path:
        return self.folder / f"best-{epoch:05d}.safetensors"

    def _keep_best(self) -> None:
        """Write the best epoch's weights under their own name; the older ones count until the checkpoint."""
        if self.world.leads and self.recipe.select == "best":
            from safetensors.torch import save_file

            state = {
                key: value.detach().cpu().contiguous() for key, value in self.evaluated.state_dict().items()
            }
            with atomic_path(self._best_path(self.at.best_epoch)) as temporary:
                save_file(state, temporary)

    def _forget_older(self) -> None:
        if self.world.leads:
            for path in self.folder.glob("best-*.safetensors"):
                if path != self._best_path(self.at.best_epoch):
                    path.unlink()


class _Source:
    """Images from the pixel cache onto the device; on a GPU with room for it, all of them at once."""

    def __init__(self, pixels: Pixels, device: torch.device) -> None:
        self.pixels, self.device = pixels, device
        self.whole: Tensor | None = None
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if pixels.array.nbytes < free * 0.3:
                self.whole = torch.from_numpy(np.array(pixels.array)).to(device)

    def images(self, rows: NDArray[np.int64]) -> Tensor:
        """Float ``[N, 3, H, W]`` from 0 to 1."""
        if self.whole is not None:
            taken = self.whole[torch.from_numpy(rows).to(self.device)]
        else:
            taken = torch.from_numpy(self.pixels.array[rows]).to(self.device)
        return taken.permute(0, 3, 1, 2).float().div_(255)
