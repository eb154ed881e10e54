"""The epoch loop of one stage, on Lightning Fabric.

Fabric gives devices, precision, processes and gradient clipping; the loop stays ours because labels, samplers and
memories change before an epoch's length is known, and because a resume must repeat every bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from gloam.augmentation.augmenter import Augmenter
from gloam.batches.batch import Batch
from gloam.batches.loaders import train_loader
from gloam.datasets.records import Modality, Record
from gloam.errors import GloamError, fitting, smaller
from gloam.inference.model import Model
from gloam.interruption import Signals
from gloam.methods.contract import Method
from gloam.models.backbone import backbone_layers
from gloam.pixels.store import PixelStore
from gloam.progress import progress_bar
from gloam.recipes.recipe import Recipe
from gloam.sampling import create_sampler
from gloam.seeds import mix_seed
from gloam.training.context import TrainingContext, epoch_numbers
from gloam.training.epoch_state import EpochState, UnsavableError, baseline
from gloam.training.guards import CollapseGuard
from gloam.training.logs import RunLogs
from gloam.training.machine import choose_machine
from gloam.training.optimizers import create_optimizer, set_learning_rate
from gloam.training.run_clock import RunClock
from gloam.training.schedule import learning_rate_factor
from gloam.training.training_data import TrainingData

if TYPE_CHECKING:
    from lightning.fabric import Fabric

_PROBE = 64  # images whose features are watched for collapse


class Stage:
    """One stage of a run: its optimiser, its labels, its epochs.

    Args:
        fabric: devices and precision.
        name: stage name.
        recipe: the stage's complete recipe.
        method: the method, on the CPU or already on the device.
        data: what to train on.
        logs: where numbers go.
        signals: asks for a stop between two batches.
        progress: show bars.
        clock: of the whole run.
        epochs_before: epochs of the stages before this one.

    Attributes:
        unfinished: the running epoch between two batches, for a checkpoint; None where only its start can be saved.
    """

    def __init__(
        self,
        fabric: Fabric,
        name: str,
        recipe: Recipe,
        method: Method[Any],
        data: TrainingData,
        logs: RunLogs,
        *,
        signals: Signals,
        progress: bool = True,
        clock: RunClock | None = None,
        epochs_before: int = 0,
    ) -> None:
        self._clock, self._epochs_before = clock or RunClock(recipe.train.epochs), epochs_before
        self.fabric, self.name, self.recipe = fabric, name, recipe
        self.unfinished: EpochState | None = None
        self._signals = signals
        self.method, self.data, self.logs = method, data, logs
        self.model = Model(method, recipe)
        self.labels = data.labels(method)
        self._progress = progress and fabric.is_global_zero
        method.to(fabric.device).train()
        method.start_stage(name)
        if recipe.train.bn_group is not None:
            from gloam.models.batch_norm_groups import group_batch_norm

            group_batch_norm(method, recipe.train.bn_group)
        layers = backbone_layers(method) if recipe.optimizer.layer_decay < 1 else []
        optimizer = create_optimizer(recipe.optimizer, method.parameter_groups(recipe.optimizer.lr), layers)
        self._module, self.optimizer = fabric.setup(method, optimizer)
        self._module.mark_forward_method("training_step")
        self._modalities = torch.tensor([int(record.modality) for record in data.records])
        self._cams = torch.tensor([record.cam for record in data.records])
        self._augment = Augmenter(recipe.augment)
        self._guard = CollapseGuard(name, recipe.train.epochs, method.plateaus())
        sampler = recipe.sampler
        if recipe.train.iterations is not None:
            sampler = sampler.model_copy(update={"iterations": recipe.train.iterations})
        self._sampler_config = sampler
        self._warned_about_one_modality = False
        self._before_training = baseline(method)

    def run(
        self,
        first_epoch: int,
        after_epoch: Callable[[int, dict[str, Any]], None],
        unfinished: EpochState | None = None,
    ) -> None:
        """Train epochs ``first_epoch`` .. ``recipe.train.epochs - 1``.

        Args:
            first_epoch: 0, or where a resume goes on.
            after_epoch: called with the number of finished epochs and the epoch's numbers; it may add to them.
            unfinished: where the first epoch goes on; None: at its start.

        Raises:
            Interrupted: a signal; ``unfinished`` says between which batches the epoch stopped.
        """
        for epoch in range(first_epoch, self.recipe.train.epochs):
            # Private draws for dropout and the like: the global generator is left as it was found.
            with torch.random.fork_rng(devices=_devices(self.fabric)):
                torch.manual_seed(mix_seed(self.recipe.train.seed, self.name, epoch, self.fabric.global_rank))
                numbers = self._epoch(epoch, unfinished if epoch == first_epoch else None)
            after_epoch(epoch + 1, numbers)
            self.unfinished = None

    def extract(self, function: Callable[[Tensor, Tensor], Tensor] | None = None, rows: Tensor | None = None) -> Tensor:
        """A function (default: the method's features) over the training records (of a mask), in order, ``(N, ...)``."""
        indices = None if rows is None else torch.nonzero(rows).flatten().numpy()
        return self.features_of(
            self.data.records, self.data.store, function=function, indices=indices, text="extracting"
        )

    def features_of(
        self, records: Sequence[Record], store: PixelStore, *, text: str | None = None, **options: Any
    ) -> Tensor:
        """:meth:`Model.compute` with this stage's method, device and processes; float32 at every precision."""
        self._share_buffers()
        return self.model.compute(
            records,
            store,
            progress=text if self._progress else None,
            rank=self.fabric.global_rank,
            world_size=self.fabric.world_size,
            gather=self._gather,
            **options,
        )

    def _gather(self, tensor: Tensor) -> Tensor:
        own = tensor.to(self.fabric.device)
        found = [torch.empty_like(own) for _ in range(self.fabric.world_size)]
        torch.distributed.all_gather(found, own)
        return torch.stack(found).cpu()

    def _share_buffers(self) -> None:
        """Give every process the first one's buffers.

        Batch-norm statistics have drifted apart since the last forward pass; features must not depend on which process
        computes them, and the checkpoint holds the first one's.
        """
        if self.fabric.world_size > 1:
            for buffer in self.method.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def _epoch(self, epoch: int, unfinished: EpochState | None) -> dict[str, Any]:
        recipe, started = self.recipe, time.perf_counter()
        self._clock.begin_epoch(self._epochs_before + epoch)
        truth = self.data.truth if self.data.splits.labelled else None
        context = self._context(epoch)
        if unfinished is None:
            self.method.on_epoch_start(context)
            self.labels = context.labels
            state = EpochState(logged=epoch_numbers(context, truth, self.data.partners()))
        else:
            state = unfinished
            self._guard.losses = state.losses
        started -= state.seconds
        self.method.train()
        sampler = create_sampler(
            self._sampler_config,
            self.labels.numpy(),
            self._modalities.numpy(),
            self._cams.numpy(),
            seed=recipe.train.seed,
            rank=self.fabric.global_rank,
            world_size=self.fabric.world_size,
        )
        sampler.set_epoch(epoch)
        loader = train_loader(
            self.data.records,
            self.labels.numpy(),
            self.data.store,
            sampler,
            frames=recipe.data.frames,
            frame_choice=recipe.data.train_clip,
            workers=recipe.data.workers,
            seed=recipe.train.seed,
            rank=self.fabric.global_rank,
            first_batch=state.step,
        )
        if len(sampler) == 0:
            raise GloamError(
                f"Epoch {epoch + 1} of stage {self.name!r} has no batch. Lower sampler.identities or instances."
            )
        rate = set_learning_rate(self.optimizer, learning_rate_factor(recipe.schedule, epoch, recipe.train.epochs))
        generator = torch.Generator().manual_seed(
            mix_seed(recipe.train.seed, f"augment {self.name}", epoch, self.fabric.global_rank)
        )
        if unfinished is not None:
            unfinished.put_back(self.method, generator, self.fabric.device)
        means, images = self._batches(loader, len(sampler), generator, epoch, rate, state, started)
        self.method.on_epoch_end(context)
        if hint := self._guard.check_epoch(self._probe(), means, epoch):
            self.logs.warn(hint)
        seconds = time.perf_counter() - started
        return {
            "stage": self.name,
            "epoch": epoch + 1,
            "lr": rate,
            **means,
            **state.logged,
            **epoch_numbers(context, truth, self.data.partners()),
            "images_per_second": images / seconds,
            "seconds": seconds,
        }

    def _batches(
        self,
        loader: DataLoader[Batch],
        steps: int,
        generator: torch.Generator,
        epoch: int,
        rate: float,
        state: EpochState,
        started: float,
    ) -> tuple[dict[str, float], int]:
        """All steps of an epoch: the mean of every number, and how many images went through all processes.

        A signal waits for the end of a step. The last state is kept until the epoch is saved, so that a stop while it
        is scored loses nothing.
        """
        step = fitting(self._step, f"{self._smaller_batches()} or --train.precision bf16.")
        with self._signals.deferred(), progress_bar(shown=self._progress) as bar:
            task = bar.add_task(f"{self.name} {epoch + 1}/{self.recipe.train.epochs}", total=None, note="")
            run = bar.add_task("run", total=self._clock.total, note="", is_whole=True)
            for loaded in loader:
                value, size = step(loaded, generator, epoch, state)
                share = state.step / steps
                bar.update(run, completed=self._clock.done(share), note=self._clock.words(share))
                bar.update(task, total=steps * size, completed=state.step * size, note=f"loss {value:.3f}")
                if state.step % self.recipe.train.log_every == 0:
                    parts = ", ".join(f"{name} {float(part) / state.step:.4f}" for name, part in state.sums.items())
                    place = f"{self.name} epoch {epoch + 1} batch {state.step}/{steps}"
                    self.logs.record(f"{place} lr {rate:.2e}: {parts}")
                if self.is_told_to_stop():
                    self._keep(state, generator, started)
                    self._signals.interrupt()
            self._keep(state, generator, started)
        means = {name: float(part) / steps for name, part in state.sums.items()}
        return self._mean_over_processes(means), state.images * self.fabric.world_size

    def _step(self, loaded: Batch, generator: torch.Generator, epoch: int, state: EpochState) -> tuple[float, int]:
        """One optimiser step: its loss, and the rows of the augmented batch."""
        self._warn_about_one_modality(loaded.modalities)
        batch = self._augment(loaded.to(self.fabric.device), generator)
        # Fabric's own wrapper leaves methods other than forward in full precision on a single device.
        with self.fabric.autocast():
            outputs = self._module.training_step(batch)
        loss = outputs["loss"]
        value = self._guard.check_loss(loss.item(), epoch, state.step)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        if self.recipe.train.clip_norm is not None:
            self.fabric.clip_gradients(self._module, self.optimizer, max_norm=self.recipe.train.clip_norm)
        self.optimizer.step()
        self.method.after_step()
        state.step += 1
        state.images += batch.images.shape[:-3].numel()  # rows, or the frames of all clips
        for name, part in outputs.items():
            # Summed where they were computed: reading each would stop the device once per number.
            state.sums[name] = state.sums.get(name, 0.0) + part.detach().float()
        return value, len(batch)

    def is_told_to_stop(self) -> bool:
        """Has any process got a signal? All have to ask, and stop, at the same place."""
        number = self._signals.requested or 0
        if self.fabric.world_size > 1:
            wanted = torch.tensor(number, device=self.fabric.device)
            torch.distributed.all_reduce(wanted, torch.distributed.ReduceOp.MAX)
            number = int(wanted)
            if number:
                self._signals.stop(number)
        return number > 0

    def _keep(self, state: EpochState, generator: torch.Generator, started: float) -> None:
        """Make the state between two batches savable."""
        state.seconds, state.losses = time.perf_counter() - started, self._guard.losses
        try:
            state.keep(self.method, self._before_training, generator, self.fabric.device)
            self.unfinished = state
        except UnsavableError as reason:
            self.logs.record(f"{reason}: this epoch can only be repeated from its start")

    def _smaller_batches(self) -> str:
        """What to try where a batch does not fit."""
        config = self._sampler_config
        name = "identities" if hasattr(config, "identities") else "batch_size"
        return f"Try --sampler.{name.replace('_', '-')} {smaller(getattr(config, name, 2))}"

    def _mean_over_processes(self, numbers: dict[str, float]) -> dict[str, float]:
        """A process may lack a number (a part that only some batches have); the others then decide."""
        world = self.fabric.world_size
        if world == 1:
            return numbers
        found: list[Any] = [None] * world
        torch.distributed.all_gather_object(found, numbers)
        names = dict.fromkeys(name for one in found for name in one)
        return {
            name: sum(one[name] for one in found if name in one) / sum(name in one for one in found) for name in names
        }

    def _context(self, epoch: int) -> TrainingContext:
        return TrainingContext(
            self.method,
            stage=self.name,
            epoch=epoch,
            num_epochs=self.recipe.train.epochs,
            labels=self.labels,
            modalities=self._modalities,
            cams=self._cams,
            seed=self.recipe.train.seed,
            # Not the bound method: its object is this stage, which knows the truth.
            extract=lambda function, rows: self.extract(function, rows),
        )

    def _probe(self) -> Tensor:
        """Features of some images spread over the training set; every process computes the same."""
        self._share_buffers()
        rows = torch.linspace(0, len(self.data.records) - 1, min(_PROBE, len(self.data.records))).long().numpy()
        return self.model.compute(self.data.records, self.data.store, indices=rows, workers=0)

    def _warn_about_one_modality(self, modalities: Tensor) -> None:
        if self.method.needs_both_modalities(self.method.options) and not self._warned_about_one_modality:
            first = modalities[0]
            if bool((modalities == first).all()):
                self._warned_about_one_modality = True
                modality = Modality(int(first)).name.lower()
                self.logs.warn(
                    f"A batch holds only {modality} images, so {self.recipe.method_name} compares no two modalities. "
                    f"Sampler {self.recipe.sampler.name!r} allows that; cross_modality_identity does not."
                )


def create_fabric(recipe: Recipe) -> Fabric:
    """Devices, processes and precision of a recipe.

    Raises:
        GloamError: what :func:`choose_machine` raises.
    """
    machine = choose_machine(recipe)
    # Four seconds of processor time: only when training begins.
    from lightning.fabric import Fabric

    precision = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[machine.precision]
    return Fabric(
        accelerator=machine.accelerator,
        devices=machine.devices,
        num_nodes=machine.nodes,
        # Stages freeze parts of a network, so some parameters have no gradient.
        strategy="ddp_find_unused_parameters_true" if machine.processes > 1 else "auto",
        precision=precision,  # type: ignore[arg-type]
    )


def _devices(fabric: Fabric) -> list[int]:
    return [fabric.device.index or 0] if fabric.device.type == "cuda" else []
