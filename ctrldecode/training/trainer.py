"""The loop, which is transformers' Trainer: devices, several processes, checkpoints and logs are its own.

A checkpoint is a folder of the base model, with scale and bias beside it, and what the Trainer keeps to go on.
"""

from __future__ import annotations

import math
import os
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerState

from ctrldecode.errors import InputError, ModelError
from ctrldecode.training._resume import POSTERIOR_FILE, STATE_FILE, random_file
from ctrldecode.training.data import BalancedOrder, collate

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from ctrldecode.training.class_lm import ClassLM
    from ctrldecode.training.data import Text

    Report = Callable[[int, int, dict[str, float]], None]

__all__ = ["ClassLMTrainer", "Settings"]

# Scale and bias are few numbers that all texts bear on: they may move a hundred times faster than weights do.
_POSTERIOR_RATE = 0.02
_WARM_UP = 0.05  # part of the steps: Adam's second moments are noise at first
_CHECKPOINTS = 10  # in a run
_MOST = 10**9  # of any setting: more is a slip of the keyboard, and past 2**63 no index


@dataclass(frozen=True)
class Settings:
    """What decides the result, with the texts and the base.

    Attributes:
        mix: λ, the part of the generative loss.
        prefixes: part of the discriminative loss that is over all prefixes.
        epochs: passes; of balanced classes a pass is all texts of the smallest and as many of each other.
        steps: number of updates; with it `epochs` does not matter.
        batch: texts an update and process; each is run behind every code.
        learning_rate: of the weights, at its highest.
        max_length: positions that code and text take at most.
        holdout: part of the texts that figures are measured on.
        balance: whether classes come equally often.
        calibrate: whether scale and bias are fitted anew to half of the held-out texts; figures are then of the other half. On texts
            that were trained on the scale grows too large.
        seed: of the split, of orders, and of dropout.
    """

    mix: float = 0.2
    prefixes: float = 0.5
    epochs: float = 3.0
    steps: int | None = None
    batch: int = 16
    learning_rate: float = 3e-4
    max_length: int = 512
    holdout: float = 0.1
    balance: bool = True
    calibrate: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("mix", "prefixes"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if not 0 < self.holdout < 1:
            raise InputError(f"holdout must lie between 0 and 1, got {self.holdout}; figures need held-out texts")
        for name in ("epochs", "steps", "batch", "learning_rate", "max_length"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} must be a finite number above 0, got {value}")
            if value is not None and value > _MOST:
                raise InputError(f"{name} must be {_MOST:,} at most, got {value}")


class ClassLMTrainer(Trainer):
    """Trains a `ClassLM`.

    Args:
        model: base in float32, with scale and bias.
        texts: to train on.
        settings: how.
        folder: for checkpoints.
        cpu: whether to leave a GPU alone.
        report: called with steps done, steps in all, and figures where there are new ones.
    """

    model: ClassLM

    def __init__(
        self, model: ClassLM, texts: Sequence[Text], settings: Settings, folder: Path, *, cpu: bool, report: Report
    ) -> None:
        self._order = BalancedOrder(texts, settings.batch, settings.seed, balance=settings.balance)
        self._parts: dict[str, torch.Tensor] = {}
        super().__init__(
            model=model,
            args=_arguments(settings, len(self._order), folder, cpu=cpu),
            train_dataset=texts,  # pyright: ignore[reportArgumentType]  a list has all that is used
            data_collator=collate,
            callbacks=[_Reports(report)],
        )
        self.remove_callback(PrinterCallback)  # it prints on standard output

    @property
    def processes(self) -> int:
        """How many share an update; each takes a batch of its own. A process that was not launched uses all GPUs that it sees."""
        return self.args.world_size * max(1, self.args.n_gpu)

    def go_on(self, checkpoint: str | None) -> int:
        """Train, from a checkpoint if one is given, and return the updates done; one at the end is only read.

        Raises:
            ModelError: the checkpoint is damaged, or the loss is no number.
        """
        if checkpoint is not None:
            done, total = _steps(Path(checkpoint))
            if done >= total:
                self._load_from_checkpoint(checkpoint)
                return done
        self.train(resume_from_checkpoint=checkpoint)
        return self.state.global_step

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,  # noqa: ARG002  the signature is the Trainer's
    ) -> Any:
        outputs = model(**inputs)
        self._parts = {name: value for name, value in outputs.items() if name != "loss"}
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the last batch's loss; a loss that is no number ends the run."""
        if not math.isfinite(logs.get("loss", 0.0)):
            raise ModelError(
                f"the loss is {logs['loss']} at step {self.state.global_step}; remove the checkpoints, and start again "
                "with a smaller --learning-rate"
            )
        parts = {name: value.mean().item() for name, value in self._parts.items()} if "loss" in logs else {}
        super().log({**logs, **parts}, start_time)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:  # noqa: ARG002
        base = list(self.model.base.parameters())
        groups = [
            {"params": [weight for weight in base if weight.ndim > 1], "weight_decay": self.args.weight_decay},
            {"params": [weight for weight in base if weight.ndim <= 1], "weight_decay": 0.0},
            {"params": [self.model.log_scale, self.model.bias], "weight_decay": 0.0, "lr": _POSTERIOR_RATE},
        ]
        self.optimizer: torch.optim.Optimizer | None = torch.optim.AdamW(groups, lr=self.args.learning_rate)
        return self.optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> BalancedOrder:  # noqa: ARG002  the signature is the Trainer's
        return self._order

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:  # noqa: ARG002
        folder = Path(output_dir or self.args.output_dir or ".")
        self.model.base.save_pretrained(folder)
        posterior = {"log_scale": self.model.log_scale, "bias": self.model.bias}
        save_file({name: value.detach().cpu() for name, value in posterior.items()}, folder / POSTERIOR_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:  # noqa: ARG002
        base, folder = self.model.base, Path(resume_from_checkpoint)
        for file in sorted(folder.glob("*.safetensors")):
            with _reading(file), safe_open(file, "pt"):
                pass
        with _reading(folder):
            config = deepcopy(base.config)  # not the folder's: a damaged one may ask for a model of any size
            saved, told = type(base).from_pretrained(
                folder, config=config, dtype=torch.float32, output_loading_info=True
            )
            if told["missing_keys"] or told["mismatched_keys"]:
                raise ValueError(
                    f"it lacks weights: {sorted(map(str, told['missing_keys'] or told['mismatched_keys']))[:3]}"
                )
            base.load_state_dict(saved.state_dict())
        with _reading(folder / POSTERIOR_FILE), torch.no_grad():
            posterior = load_file(folder / POSTERIOR_FILE)
            self.model.load_state_dict({name: posterior[name] for name in ("log_scale", "bias")}, strict=False)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        for name in ("optimizer.pt", "scheduler.pt"):
            with _reading(Path(checkpoint, name)):  # mapped, not read: it is for the name in the message
                torch.load(Path(checkpoint, name), map_location="cpu", weights_only=True, mmap=True)
        with _reading(Path(checkpoint, "optimizer.pt")):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            with _reading(Path(checkpoint, random_file(self.args.process_index, self.args.world_size))):
                super()._load_rng_state(checkpoint)


class _Reports(TrainerCallback):
    """Hands steps and figures on."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        if state.is_world_process_zero:
            self._report(state.global_step, state.max_steps, {})

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
        if state.is_world_process_zero and logs and "loss" in logs:
            self._report(state.global_step, state.max_steps, logs)


@contextmanager
def _reading(path: Path) -> Generator[None]:
    """Errors of several libraries, each in its own words, that mean one thing: a file of a checkpoint is not what was written."""
    try:
        yield
    except Exception as error:
        folder = path.parent if path.suffix else path
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{path} is damaged: {why}\n  Remove {folder}, and --resume goes on from the checkpoint before it, or from the start"
        ) from error


def _steps(checkpoint: Path) -> tuple[int, int]:
    """Updates done, and updates in all, by the Trainer's own state."""
    file = checkpoint / STATE_FILE
    with _reading(file):
        state = TrainerState.load_from_json(str(file))
        if checkpoint.name != f"checkpoint-{state.global_step}" or not 0 < state.global_step <= state.max_steps:
            raise ValueError(f"it says that {state.global_step} of {state.max_steps} updates are done")
    return state.global_step, state.max_steps


def _arguments(settings: Settings, texts: int, folder: Path, *, cpu: bool) -> TrainingArguments:
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # as torchrun says it
    steps = settings.steps or math.ceil(settings.epochs * math.ceil(texts / settings.batch / processes))
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=settings.batch,
        num_train_epochs=settings.epochs,
        max_steps=settings.steps or -1,
        learning_rate=settings.learning_rate,
        weight_decay=0.01,
        warmup_steps=_WARM_UP,
        lr_scheduler_type="linear",
        logging_steps=max(1, steps // 100),
        logging_nan_inf_filter=False,
        save_steps=max(1, steps // _CHECKPOINTS),
        save_total_limit=2,
        seed=settings.seed % 2**32,  # as numpy, which the Trainer seeds too, takes it
        use_cpu=cpu,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=not cpu and torch.cuda.is_available(),
    )
