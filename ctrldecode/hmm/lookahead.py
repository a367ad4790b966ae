"""`Lookahead`: what the rest of a text is worth, by an HMM distilled from the language model.

GeLaTo (Zhang et al. 2023), Ctrl-G (Zhang et al. 2024) and TRACE (Weng et al. 2025) are one recurrence here: Φ(x) = 1[the automaton
accepts x] · Π_t w(x_t), and ψ(prefix) = E_HMM[Φ(x) | prefix] within a budget of tokens. It does not know the language model.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ctrldecode.automata.dfa import TokenDFA
from ctrldecode.core.potential import Potential
from ctrldecode.errors import BudgetError, InputError
from ctrldecode.hmm import _arguments, _candidates, _filter, _patience, _table
from ctrldecode.hmm._candidates import Truncation
from ctrldecode.hmm._moves import Moves, along, logsumexp_by
from ctrldecode.hmm._table import Limit, Problem
from ctrldecode.kernels import hmm as kernels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ctrldecode.hmm.attributes import AttributeWeights
    from ctrldecode.hmm.model import HMM

__all__ = ["Lookahead", "LookaheadState"]


class LookaheadState(NamedTuple):
    """What a row's future depends on.

    Attributes:
        belief: (B, H) P(z_{t+1} | x_≤t).
        node: (B,) state of the automaton, −1 after a token that it forbids.
        left: (B,) new tokens that may still come, the end of sequence among them.
        log_product: (B,) log W(x), the bias of the weights and Σ_s log w(x_s).
        finished: (B,) bool, whether an end of sequence was stepped.
        budget: (B,) new tokens that might come when the first was chosen.
    """

    belief: Tensor
    node: Tensor
    left: Tensor
    log_product: Tensor
    finished: Tensor
    budget: Tensor


class Lookahead(Potential[LookaheadState]):
    """ψ(x) = Φ's expectation under the HMM given x, for a text that must be accepted within its budget.

    With a(h) = P(z_{t+1} = h | x_≤t), r tokens to come and q the automaton's state,

        num(v) = Σ_h a(h) E(h,v) w(v) β_{r−1}(δ(q,v), h),      den(v) = Σ_h a(h) E(h,v),
        ψ(x·v) = W(x) · num(v) / den(v),                        ψ(x) = W(x) · Σ_v num(v),

    so 0 ≤ ψ ≤ 1. If the language model were the HMM, p(v|x) ψ(x·v)/ψ(x) would be the exact conditional distribution. A token
    that the HMM cannot emit where it stands counts as missing. What cannot be accepted within the budget is masked by the automaton
    alone (the fewest tokens to acceptance), whatever the HMM says; where the HMM gives ψ(x) = 0, only that mask is left. So a poor
    HMM costs quality and never validity.

    Args:
        hmm: distilled from the language model that is to be controlled.
        automaton: which texts are accepted; None accepts every text.
        weights: w per token, an attribute (TRACE), or a product of several.
        max_new_tokens: R, the most tokens that a call may ask for, the end of sequence among them.
        limit: "eos": the end of sequence must come within the budget. "open": being cut off in an accepting state is fine.
        condition_on_prompt: whether the HMM reads the prompt.
        candidates: None weighs all tokens. An integer k weighs the k with the largest bound on p(v)·ψ(x·v), and a number in (0, 1) as
            many of these as it takes until the others' bounds are below that fraction of the mass kept; the others get −inf, and
            `truncation` tells the bound; rows that have ended stay as they are. In force where the scores are at hand, in `add_log_weights`, which `ControlProcessor` calls.
            There p is the model under all hard factors of a product and under what stands before this factor; with an exponent a,
            ψ^a takes the place of ψ. What stands behind sees candidates only, and the bound does not know it. Under a
            negative exponent all tokens are weighed.
        detail: in [0, 1], how far tokens that lead the automaton to one state are told apart: ψ(x·v) becomes its geometric mean, with
            weights `detail` and 1 − `detail`, with what the HMM expects of all of them together. 1 is the lookahead itself. 0 heeds how
            far the text has come and not how the HMM would go on, and reads no emissions: for conditions that a small HMM sees
            badly, such as keywords, this is the better form (docs/lookahead.md).
        patience: ≥ 1, for words that should wait for a good place. Above 1 the automaton's moves to states of more ψ, such as to begin a word that is
            wanted, are raised only where that decides: a move of probability P and tilt ρ, log ψ less its mean over moves, is raised by
            max(0, patience · (log P + ρ) − log P) in the place of ρ. 1 is ρ itself.
        urgency: u ≥ 0, an exponent on ψ of the moves that grows from 1 to 1 + u as the budget is spent. Patience and urgency are ours, without a
            source; like candidates they are in force where the scores are at hand.
        strength: a > 0, in σ(a · logit ψ) in the place of ψ (TRACE, eq. 9); for small ψ this is ψ^a.
        prior: a function of the prompts (B, P) and their mask to beliefs (B, H) over the first hidden state of the continuation, in
            the place of the HMM's own filter.
        max_table_bytes: bound on the table, (R + 1)·Q·H·4 bytes.
        cache_dir: a folder in which tables are kept, made if it is not there; a file in it that is damaged is made anew. None keeps
            them in memory only.

    Attributes:
        truncation: a running count of what candidate lists left out.

    Raises:
        InputError: HMM or automaton is something else, sizes or ends of sequence of HMM, automaton and weights disagree, an argument is
            out of range, or `cache_dir` cannot be made or written.
        AutomatonError: the automaton accepts nothing.
        TableLimitError: the table would be too large.

    Example:
        >>> from ctrldecode.hmm.model import HMM
        >>> fair = HMM([1, 0], [[0.5, 0.5], [0, 1]], [[0.5, 0.5, 0], [0, 0, 1]], eos_token_ids=[2])  # coins, then the end
        >>> one = TokenDFA([[0, 1, -1], [1, -1, -1]], start=0, accepting=[1], eos_token_ids=[2])  # token 1 just once
        >>> lookahead = Lookahead(fair, one, max_new_tokens=3)
        >>> lookahead.log_weights(lookahead.init(torch.zeros(1, 0, dtype=torch.long))).exp()
        tensor([[0.3333, 1.6667, 0.0000]])
    """

    def __init__(
        self,
        hmm: HMM,
        automaton: TokenDFA | None = None,
        weights: AttributeWeights | None = None,
        *,
        max_new_tokens: int,
        limit: Limit = "eos",
        condition_on_prompt: bool = True,
        candidates: float | None = None,
        detail: float = 1.0,
        patience: float = 1.0,
        urgency: float = 0.0,
        strength: float = 1.0,
        prior: Callable[[Tensor, Tensor | None], Tensor] | None = None,
        max_table_bytes: int = 2**31,
        cache_dir: str | Path | None = None,
    ) -> None:
        _arguments.check_kinds(hmm, automaton)
        automaton = _everything(hmm) if automaton is None else automaton
        _arguments.check_parts(hmm, automaton, weights)
        _arguments.check_numbers(max_new_tokens, limit, candidates, detail, strength)
        _arguments.check_patience(patience, urgency, alone=candidates is None and strength == 1)
        self.hmm = hmm
        self.automaton: TokenDFA = automaton
        self.limit: Limit = limit
        self.detail: float = float(detail)
        self.patience: float = float(patience)
        self.urgency: float = float(urgency)
        self._waits: bool = patience > 1 or urgency > 0
        self.strength: float = float(strength)
        self.size: int = hmm.size
        self.eos_token_ids: tuple[int, ...] = hmm.eos_token_ids
        self.max_new_tokens = max_new_tokens
        self.condition_on_prompt = condition_on_prompt
        self.candidates = candidates
        self.prior = prior
        self.truncation: Truncation = Truncation()
        values = None if weights is None else weights.values.to(hmm.device)
        self.log_token_weights: Tensor | None = None if values is None else values.log()
        self._log_bias = 0.0 if weights is None else weights.log_bias
        self.table: _table.Table = _table.table_of(
            Problem(hmm, automaton, values, limit), max_new_tokens, max_table_bytes, cache_dir
        )
        self._columns = torch.tensor(self.table.columns, device=hmm.device)
        self._starts = torch.tensor(self.table.starts, device=hmm.device)
        self._classes = torch.tensor(automaton.classes, dtype=torch.long, device=hmm.device)
        self._following = torch.tensor(automaton.table, dtype=torch.long, device=hmm.device)
        self._accepting = torch.tensor(automaton.accepting, device=hmm.device)
        self._ends = torch.tensor(hmm.eos_token_ids, device=hmm.device)
        self._is_end = _filter.is_end(torch.arange(hmm.size, device=hmm.device), hmm.eos_token_ids)
        self._needs = self._tokens_needed()

    def _tokens_needed(self) -> Tensor:
        """(Q, C) how many tokens it takes from each state if a token of each class comes first, that one included."""
        distance = np.append(self.automaton.accept_distance.astype(np.int64), 2**31)  # for the next state −1
        end = 1 if self.limit == "eos" else 0
        return torch.tensor(distance[self.automaton.table] + 1 + end, device=self.hmm.device)

    def init(self, prompts: Tensor, mask: Tensor | None = None, budget: Tensor | None = None) -> LookaheadState:
        """State after the prompts; see `Potential.init`.

        Raises:
            InputError: a budget is larger than `max_new_tokens`, ids lie outside the vocabulary, or the prior has another shape.
            BudgetError: nothing that the automaton accepts fits into a budget.
        """
        rows, device = len(prompts), self.hmm.device
        left = torch.full((rows,), self.max_new_tokens) if budget is None else budget.detach().cpu().long()
        self._check_budget(left)
        if self.prior is None:
            belief = _filter.after_prompts(self.hmm, prompts, mask, condition=self.condition_on_prompt)
        else:
            belief = self._checked_belief(self.prior(prompts, mask), rows)
        node = torch.full((rows,), self.automaton.start, device=device)
        finished = torch.zeros(rows, dtype=torch.bool, device=device)
        product = torch.full((rows,), self._log_bias, device=device)
        left = left.to(device)
        return LookaheadState(belief, node, left, product, finished, left)

    def log_weights(self, state: LookaheadState, tokens: Tensor | None = None) -> Tensor:
        """log ψ(x·v) − log ψ(x), (B, V) or (B, K) float32 on the device of the HMM; see `Potential.log_weights`."""
        moves = self._moves(state)
        return self._weigh(state, moves, self._log_psi_before(state, moves), tokens)

    def _weigh(self, state: LookaheadState, moves: Moves, before: Tensor, tokens: Tensor | None) -> Tensor:
        listed = None if tokens is None else tokens.to(self.hmm.device, torch.long)
        after = self._log_psi_after(state, moves, listed)
        weights = self._strong(after) - self._strong(before)[:, None]
        weights = torch.where(before.isneginf()[:, None], 0.0, weights)
        weights = weights.masked_fill(~self._allowed(state, listed), -math.inf)
        return weights.masked_fill(state.finished[:, None], 0.0)

    def add_log_weights(self, state: LookaheadState, scores: Tensor) -> None:
        """Add the log-weights to scores (B, V) in place, of candidates only if there is a bound on them."""
        self.add_power(state, scores, 1.0)

    def add_power(self, state: LookaheadState, scores: Tensor, power: float) -> None:
        """As `add_log_weights`, for ψ^power: candidates and their bound are those of the power; see `Potential.add_power`."""
        if self._waits:
            scores.add_(self._held_back(state, scores, power).to(scores.device))
            return
        if self.candidates is None:
            scores.add_(self.log_weights(state).to(scores.device), alpha=power)
            return
        moves = self._moves(state)
        before = self._log_psi_before(state, moves)
        plain = before.isneginf()  # only the mask is left
        bounds = self._bounds(state, moves).masked_fill_(plain[:, None], 0.0)
        _candidates.add(
            scores,
            lambda tokens: power * self._weigh(state, moves, before, tokens).to(scores.device),
            power * bounds.to(scores.device),  # of log ψ^a, as ψ is at most 1
            power * self._strong(before).masked_fill(plain, 0.0).to(scores.device),
            state.finished.to(scores.device),
            self.candidates,
            self.truncation,
        )

    def _held_back(self, state: LookaheadState, scores: Tensor, power: float) -> Tensor:
        """Log-weights (B, V) of ψ^power with patience and urgency; see `_patience.pulls`."""
        moves = self._moves(state)
        before = self._log_psi_before(state, moves)
        weights = self._weigh(state, moves, before, None)
        allowed = ~weights.isneginf()
        columns = moves.columns.long()[:, self._classes]
        rows = torch.arange(len(columns), device=columns.device)
        end = (len(moves.rows) + rows)[:, None]
        columns = torch.where(columns >= 0, columns, end)
        columns[:, self._ends] = end  # a move of its own; what has none has weight 0
        worth = torch.cat([moves.log_coarse, moves.log_coarse.new_zeros(len(columns))])
        probs = scores.to(weights).masked_fill(~allowed, -math.inf).softmax(-1)  # however little the model leaves them
        exponent = power * (1 + self.urgency * (1 - state.left / state.budget.clamp_min(1)))
        pulls = _patience.pulls(probs, columns, torch.cat([moves.rows, rows]), worth, exponent, self.patience)
        before = before - state.log_product
        # What tells tokens of one move apart stays as it is: their log-weights less the move's.
        found = power * (weights + before[:, None]) + (pulls - power * worth)[columns]
        found = torch.where(found.isfinite(), found, 0.0)
        return found.masked_fill(~allowed, -math.inf).masked_fill(state.finished[:, None], 0.0)

    def step(self, state: LookaheadState, tokens: Tensor) -> LookaheadState:
        """State after one more token a row; see `Potential.step`."""
        tokens = tokens.to(self.hmm.device, torch.long)
        _filter.check_ids(tokens, self.size)
        ends, node = self._is_end[tokens], state.node.clamp_min(0)
        alive = state.node >= 0
        finished = state.finished | ends & alive & self._accepting[node]
        following = torch.where(alive & ~ends, self._following[node, self._classes[tokens]], -1)
        unread = finished | ends
        belief = _filter.after_tokens(self.hmm, state.belief, tokens.masked_fill(unread, -1))
        product = state.log_product
        if self.log_token_weights is not None:
            product = product + self.log_token_weights[tokens].masked_fill(unread, 0.0)
        node = torch.where(finished, state.node, following)
        return LookaheadState(belief, node, (state.left - 1).clamp_min(0), product, finished, state.budget)

    def log_psi(self, state: LookaheadState) -> Tensor:
        """log ψ(x) ≤ 0 of every row, (B,); of a row that has ended, log Φ."""
        return self._strong(self._log_psi_before(state, self._moves(state)))

    def _bounds(self, state: LookaheadState, moves: Moves) -> Tensor:
        """An upper bound of log ψ(x·v), (B, V), without a pass over E: the largest β of the automaton's next state."""
        bounds = along(moves.log_scale, moves.columns.long()[:, self._classes], -math.inf)
        if self.log_token_weights is not None:
            bounds += self.log_token_weights
        bounds[:, self._ends] = self._accepted(state)
        bounds = self._strong(bounds.add_(state.log_product[:, None]).clamp_max_(0.0))
        return bounds.masked_fill_(state.finished[:, None], 0.0)

    def describe(self) -> str:
        """One line for error messages."""
        return f"the lookahead over {len(self.automaton.table)} automaton states and {self.hmm.states} HMM states"

    def _log_psi_before(self, state: LookaheadState, moves: Moves) -> Tensor:
        """log ψ(x) = log W(x) + log Σ_v num(v)."""
        node = state.node.clamp_min(0)
        end = (state.belief * self.table.edges.final[node]).sum(-1).log()
        total = logsumexp_by(moves.log_mass, moves.rows, end)
        spent = self.table.log_scale[0, node]  # 0 where being cut off here is fine
        total = torch.where(state.left > 0, total, spent).masked_fill(state.node < 0, -math.inf)
        return (total.masked_fill(state.finished, 0.0) + state.log_product).clamp_max(0.0)

    def _log_psi_after(self, state: LookaheadState, moves: Moves, tokens: Tensor | None) -> Tensor:
        """log ψ(x·v), (B, V) or (B, K): W(x) · w(v) times the expectation behind v, fine or coarse or between."""
        columns = moves.columns.long()
        columns = columns[:, self._classes] if tokens is None else columns.gather(1, self._classes[tokens])
        if self.detail == 0:
            after = along(moves.log_coarse, columns, -math.inf)
        else:
            after = self._fine(state, moves, tokens, columns)
        if 0 < self.detail < 1:
            after = self.detail * after + (1 - self.detail) * along(moves.log_coarse, columns, -math.inf)
        if self.log_token_weights is not None:
            after = after + (self.log_token_weights if tokens is None else self.log_token_weights[tokens])
        if tokens is None:
            after[:, self._ends] = self._accepted(state)
        else:
            after = torch.where(self._is_end[tokens], self._accepted(state), after)
        return (after + state.log_product[:, None]).clamp_max(0.0)

    def _accepted(self, state: LookaheadState) -> Tensor:
        """log ψ of an end, (B, 1): 0 where the text may end, else −inf."""
        return torch.where((state.node >= 0) & self._accepting[state.node.clamp_min(0)], 0.0, -math.inf)[:, None]

    def _fine(self, state: LookaheadState, moves: Moves, tokens: Tensor | None, columns: Tensor) -> Tensor:
        """log num(v) − log w(v) − log den(v), (B, V) or (B, K); the one pass over E."""
        listed = () if tokens is None else (tokens,)
        sweep = kernels.vocabulary_pass if tokens is None else kernels.candidate_pass
        num, den = sweep(self.hmm.emission, state.belief, moves.tilted, moves.columns, self._classes, *listed)
        if bool((den <= 0).any()):  # cannot be emitted, so it counts as missing
            anything = along(moves.tilted.sum(-1), columns, 0.0)
            num, den = torch.where(den > 0, num, anything), torch.where(den > 0, den, 1.0)
        return num.log() + along(moves.log_scale, columns, -math.inf) - den.log()

    def _moves(self, state: LookaheadState) -> Moves:
        """The automaton's moves out of each row's state, tilted by what comes after them."""
        table, device = self.table, self.hmm.device
        node, alive = state.node.clamp_min(0), (state.node >= 0) & (state.left > 0) & ~state.finished
        first = self._starts[node]
        counts = (self._starts[node + 1] - first).masked_fill(~alive, 0)
        offset = counts.cumsum(0) - counts
        rows = torch.arange(len(node), device=device).repeat_interleave(counts)
        edges = torch.arange(len(rows), device=device) - offset[rows] + first[rows]
        target, rest = table.edges.target[edges].long(), state.left[rows] - 1
        tilted = state.belief[rows] * table.future[rest, target]
        log_scale = table.log_scale[rest, target]
        columns = self._columns[node]
        columns = torch.where((columns >= 0) & alive[:, None], columns + offset[:, None], -1).to(torch.int32)
        log_mass = (tilted * table.edges.sums[edges]).sum(-1).log() + log_scale
        if self.detail < 1 or self._waits:
            emitted = table.emitted[edges]
            log_coarse = ((tilted * emitted).sum(-1) / (state.belief[rows] * emitted).sum(-1)).log() + log_scale
            log_coarse = log_coarse.nan_to_num(-math.inf, neginf=-math.inf)
        else:
            log_coarse = log_mass.new_zeros(0)
        return Moves(rows, tilted, log_scale, log_mass, log_coarse, columns)

    def _allowed(self, state: LookaheadState, tokens: Tensor | None) -> Tensor:
        """The hard mask, (B, V) or (B, K): what the automaton can still accept within the budget."""
        node, alive = state.node.clamp_min(0), state.node >= 0
        by_class = (self._needs[node] <= state.left[:, None]) & alive[:, None]
        allowed = by_class[:, self._classes] if tokens is None else by_class.gather(1, self._classes[tokens])
        accepted = (alive & self._accepting[node])[:, None]
        if tokens is not None:
            return torch.where(self._is_end[tokens], accepted, allowed)
        allowed[:, self._ends] = accepted
        return allowed

    def _strong(self, log_psi: Tensor) -> Tensor:
        """log σ(a · logit ψ)."""
        if self.strength == 1:
            return log_psi
        logit = log_psi - torch.log(-torch.expm1(log_psi))
        return torch.nn.functional.logsigmoid(self.strength * logit)

    def _check_budget(self, left: Tensor) -> None:
        if left.numel() and int(left.max()) > self.max_new_tokens:
            raise InputError(
                f"a budget of {int(left.max())} tokens was asked of a lookahead made for max_new_tokens={self.max_new_tokens}; make "
                "it for the larger number"
            )
        needed = int(self.automaton.accept_distance[self.automaton.start]) + (self.limit == "eos")
        if left.numel() and int(left.min()) < needed:
            raise BudgetError(
                f"row {int(left.argmin())} may have {int(left.min())} new tokens, and the shortest text that the automaton accepts "
                f"takes {needed}{', the end of sequence among them' if self.limit == 'eos' else ''}; raise max_new_tokens, or ask for less"
            )

    def _checked_belief(self, belief: Tensor, rows: int) -> Tensor:
        belief = belief.to(self.hmm.device, torch.float32)
        _arguments.check_belief(belief, (rows, self.hmm.states))
        return belief / belief.sum(-1, keepdim=True)


def _everything(hmm: HMM) -> TokenDFA:
    return TokenDFA(np.zeros((1, hmm.size), np.int32), 0, [0], hmm.eos_token_ids)
