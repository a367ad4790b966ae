"""Samplers: texts from p(x) ψ(x) / Z with weights that say how they were drawn. All are called alike.

    samples = importance(lm, potential, prompts, num=100, max_new_tokens=64, rng=generator)

| sampler | texts | log-weights | model calls a text |
|---|---|---|---|
| `importance` | masked, independent | exact | one a token |
| `asap` | masked, steered by what earlier texts taught | exact | one a new prefix |
| `cars` | the target's own | 0 | as many attempts as it takes |
| `rejection` | the model's own, refused token by token | unbiased | one a token, and no mask |
| `smc` | masked, resampled by a twist | exact, dependent | one a prefix that differs |
| `branching` | all continuations, thinned without copies | exact, dependent | one a prefix kept |
| `mcmc` | the target's, in the limit | 0 | one a token and move |

They know potentials only; `hf` and `asap.learn` alone know the processor and `generate`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctrldecode.errors import InputError
from ctrldecode.samplers._adaptive import CARS, ASAp
from ctrldecode.samplers._branching import Branching
from ctrldecode.samplers._future import Future
from ctrldecode.samplers._importance import Importance, Rejection
from ctrldecode.samplers._mcmc import MCMC
from ctrldecode.samplers._samples import Progress, Sampler, Samples, effective_sample_size
from ctrldecode.samplers._smc import SMC
from ctrldecode.samplers._trie import Trie

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from ctrldecode.core.potential import Potential

__all__ = [
    "SAMPLERS",
    "Future",
    "Progress",
    "Sampler",
    "Samples",
    "Trie",
    "asap",
    "branching",
    "cars",
    "effective_sample_size",
    "hf",
    "importance",
    "mcmc",
    "rejection",
    "smc",
]

importance: Importance = Importance()
asap: ASAp = ASAp()
cars: CARS = CARS()
rejection: Rejection = Rejection()
smc: SMC = SMC()
mcmc: MCMC = MCMC()
branching: Branching = Branching()

SAMPLERS: dict[str, Sampler[Any]] = {
    sampler.name: sampler for sampler in (importance, asap, cars, rejection, smc, branching, mcmc)
}


def hf(
    name: str, potential: Potential[Any] | None = None, *, rng: torch.Generator | None = None, **options: Any
) -> Callable[..., Any]:
    """A sampler for `model.generate(..., custom_generate=hf("cars"))`, of any version of transformers that takes a callable there.

    `num_return_sequences`, `max_new_tokens`, `temperature`, `eos_token_id` and the attention mask are those of the call. The model is
    sampled whole, so top-k and the like must be off: `top_k=0`. What comes back is what `generate` returns, texts in order; weighted
    samplers return their texts with `output.log_weights` and `output.log_z` under `return_dict_in_generate=True`.

    Args:
        name: of `SAMPLERS`.
        potential: ψ; None takes that of the `ControlProcessor` among the logits processors of the call.
        rng: where randomness comes from; None follows torch's global generator, as `generate` does, without disturbing it more than
            by one number.
        options: of the sampler.

    Raises:
        InputError: no such sampler; in the call: other processors beside the one, beams, or too few texts within `max_lm_calls`.
    """
    from ctrldecode.samplers._hf import custom_generate  # noqa: PLC0415  transformers takes seconds to import

    if name not in SAMPLERS:
        raise InputError(f"there is no sampler {name!r}; there are {', '.join(SAMPLERS)}")
    return custom_generate(SAMPLERS[name], potential, rng=rng, **options)
