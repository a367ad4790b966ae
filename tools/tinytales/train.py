"""Trains tinytales on the corpus and writes its folder; the recipe is in the model card beside the weights.

Run: python -m tools.tinytales.train --steps N --work FOLDER [--start FOLDER] [--resume CHECKPOINT]
The learning rate warms up, stays, and falls linearly to zero over the last `--decay` share of the steps. The work
folder gets `last.pt` regularly and `stable.pt` just before the fall, from which a longer run may be resumed.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed, nn
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from tools.tinytales.corpus import Forms, document, forms_of, read_stories, split
from tools.tinytales.packing import PADDING, rows_of
from tools.tinytales.tokens import CONTEXT, MODEL_FOLDER, SAD, corpus_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

__all__ = ["batches", "new_model", "optimizers_for", "rate_at"]

_WARM_UP = 100  # steps; Muon's first momentum is noise for about 1 / (1 - 0.95) = 20 steps, AdamW's second for more
_MATRIX_RATE = 0.02  # Muon's usual rate for updates of spectral norm one
_VECTOR_RATE = 3e-3  # AdamW for the embedding and the norms: usual for models of a few million weights
_WEIGHT_DECAY = 0.01
_CLIP = 1.0  # global norm of the gradient
_REPORT_EVERY = 50  # steps
_SAVE_EVERY = 200  # steps, some minutes


def new_model(vocabulary: int, end: int) -> LlamaForCausalLM:
    """An untrained model: 6 layers 192 wide, 6 heads sharing 2 key-value heads, tied embedding; 3.2M weights.

    Narrow and deep enough to tell a story, small enough that minutes on two cores show it each story several times.
    """
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=192,
        intermediate_size=576,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    model = LlamaForCausalLM(config)
    # Residual outputs start at zero: every layer begins as the identity, which trains faster at a high rate.
    for layer in model.model.layers:
        nn.init.zeros_(layer.self_attn.o_proj.weight)
        nn.init.zeros_(layer.mlp.down_proj.weight)
    # A padding row would be kept at zero gradient, but the padding token is also the begin and end token.
    model.model.embed_tokens.padding_idx = None
    return model


def optimizers_for(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the embedding and the norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=_MATRIX_RATE, momentum=0.95, weight_decay=_WEIGHT_DECAY),
        torch.optim.AdamW(others, lr=_VECTOR_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate_at(step: int, progress: float, decay: float) -> float:
    """Share of the full learning rate: up over `_WARM_UP` steps, down to 0 over the last `decay` of `progress` 0..1."""
    return min(1.0, (step + 1) / _WARM_UP, max(0.0, 1.0 - progress) / decay)


def batches(
    forms: list[Forms], tokenizer: PreTrainedTokenizerBase, rows: int, start: int, more_sad: int = 0
) -> Iterator[np.ndarray]:
    """Endless batches (rows, CONTEXT + 1) from number `start` on; each epoch draws forms and order anew.

    Every sad story comes `more_sad` more times behind its code: they are few, and the code is else hardly learnt.
    """
    sad = [f"{SAD}{story.story}" for story in forms if story.mood_code == SAD] * more_sad
    epoch = number = 0
    while True:
        rng = random.Random(epoch)
        texts = [document(story, rng) for story in forms] + sad
        rng.shuffle(texts)
        packed = rows_of(tokenizer(texts).input_ids, tokenizer.eos_token_id, CONTEXT + 1, rng)
        for place in range(0, len(packed) - rows + 1, rows):
            if number >= start:
                yield packed[place : place + rows]
            number += 1
        epoch += 1


def _loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean nats per target token; `inputs` and `targets` are (rows, CONTEXT)."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=inputs, use_cache=False).logits  # (rows, CONTEXT, vocabulary)
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=PADDING)


@dataclass
class _Run:
    """What a step changes: the weights, the optimizers, the number of steps done."""

    model: LlamaForCausalLM
    optimizers: list[torch.optim.Optimizer]
    step: int = 0


def _train(rank: int, options: argparse.Namespace) -> None:
    """Process `rank` of the run: its share of each batch, the same weights as all others; the first one writes."""
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    meeting = f"file://{options.work.resolve()}/meeting"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=options.processes)
    run, source = _prepared(options)
    clock = _Clock(options.steps, options.minutes, talks=rank == 0)
    loss_of = torch.compile(_loss)
    progress, falling = run.step / options.steps, False
    while progress < 1.0:
        if rank == 0 and progress >= 1.0 - options.decay and not falling:
            falling = True
            _save(options.work / "stable.pt", run)
        batch = torch.from_numpy(next(source)[rank :: options.processes])
        loss = loss_of(run.model, batch[:, :-1].clamp(min=0), batch[:, 1:].contiguous())
        loss.backward()
        mean_loss, progress = _averaged(run.model, loss.item(), clock.progress(run.step + 1))
        _update(run, rate_at(run.step, progress, options.decay))
        clock.report(run.step, mean_loss, options.rows * CONTEXT)
        if rank == 0 and run.step % _SAVE_EVERY == 0:
            _save(options.work / "last.pt", run)
    if rank == 0:
        print(f"ended after step {run.step}", flush=True)
        run.model.half().save_pretrained(options.out)
    distributed.destroy_process_group()


def _prepared(options: argparse.Namespace) -> tuple[_Run, Iterator[np.ndarray]]:
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    training, _ = split(read_stories(corpus_path()))
    torch.manual_seed(0)
    model = new_model(len(tokenizer), tokenizer.eos_token_id)
    run = _Run(model, optimizers_for(model))
    if options.start:
        run.model.load_state_dict(LlamaForCausalLM.from_pretrained(options.start, dtype=torch.float32).state_dict())
    if options.resume:
        _restore(options.resume, run)
    return run, batches([forms_of(story) for story in training], tokenizer, options.rows, run.step, options.more_sad)


class _Clock:
    """How much of the run is over, by steps or by time, whichever is further; prints loss and speed."""

    def __init__(self, steps: int, minutes: float, *, talks: bool) -> None:
        self._steps, self._seconds, self._talks = steps, 60.0 * minutes, talks
        self._began = self._reported = time.monotonic()
        self._losses: list[float] = []

    def progress(self, step: int) -> float:
        return max(step / self._steps, (time.monotonic() - self._began) / self._seconds)

    def report(self, step: int, loss: float, tokens: int) -> None:
        self._losses.append(loss)
        if step % _REPORT_EVERY == 0 and self._talks:
            now = time.monotonic()
            rate = len(self._losses) * tokens / (now - self._reported)
            mean = sum(self._losses) / len(self._losses)
            print(f"step {step} loss {mean:.4f} nats/token, {rate:.0f} tokens/s", flush=True)
            self._losses, self._reported = [], now


def _averaged(model: nn.Module, loss: float, progress: float) -> tuple[float, float]:
    """Average the gradients over the processes, in place; returns the averages of `loss` and `progress` too.

    The clocks of the processes differ: with the average, all take the same learning rate and end at the same step.
    """
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), torch.tensor([loss, progress])])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    *parts, means = flat.split([*(gradient.numel() for gradient in gradients), 2])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
    mean_loss, mean_progress = means.tolist()
    return mean_loss, mean_progress


def _update(run: _Run, rate: float) -> None:
    nn.utils.clip_grad_norm_(run.model.parameters(), _CLIP)
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.setdefault("full_rate", group["lr"])
        optimizer.step()
        optimizer.zero_grad()
    run.step += 1


def _save(path: Path, run: _Run) -> None:
    state = {
        "model": run.model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in run.optimizers],
        "step": run.step,
    }
    part = path.with_suffix(".part")  # so that a run cut off while saving leaves the old file whole
    torch.save(state, part)
    part.replace(path)


def _restore(path: Path, run: _Run) -> None:
    state = torch.load(path, weights_only=True)
    run.model.load_state_dict(state["model"])
    for optimizer, saved in zip(run.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    run.step = state["step"]


def main() -> None:
    """Train from the start, or on from a checkpoint, and write the model in float16."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--steps", type=int, required=True, help="steps in all, those before --resume included")
    parser.add_argument("--minutes", type=float, default=math.inf, help="longest time; the rate falls by it too")
    parser.add_argument("--rows", type=int, default=8, help="rows of 512 tokens per step")
    parser.add_argument("--decay", type=float, default=0.3, help="share of the steps over which the rate falls to 0")
    parser.add_argument("--more-sad", type=int, default=0, help="further copies of sad stories behind their code")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--start", type=Path, help="folder of a trained model whose weights a new run begins with")
    parser.add_argument("--resume", type=Path, help="checkpoint to go on from")
    parser.add_argument("--tokenizer", type=Path, default=MODEL_FOLDER, help="folder with tokenizer.json")
    parser.add_argument("--out", type=Path, default=MODEL_FOLDER, help="folder for the weights")
    parser.add_argument("--processes", type=int, default=2, help="each of one thread; they share the rows of a step")
    options = parser.parse_args()
    (options.work / "meeting").unlink(missing_ok=True)  # a file of an earlier run would make this one wait for it
    torch.multiprocessing.spawn(_train, (options,), nprocs=options.processes)


if __name__ == "__main__":
    main()
