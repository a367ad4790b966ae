"""pomegranate, hmmlearn and Ctrl-G: likelihoods agree, and what comes in is checked."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pomegranate.distributions import Categorical, Exponential
from pomegranate.hmm import DenseHMM, SparseHMM
from safetensors.torch import save_file

from ctrldecode.errors import InputError, ModelError, VocabularyError
from ctrldecode.hmm import HMM, from_ctrlg, from_pomegranate, to_pomegranate
from tests.hmm.models import Parameters, paths, random_parameters, vocabulary


@pytest.fixture
def parameters() -> Parameters:
    return random_parameters(np.random.default_rng(0), 5, 9, eos=(2,))


def unequal_ends(rng: np.random.Generator, states: int, size: int) -> tuple[np.ndarray, ...]:
    """Initial, moves, ends and emission with moves and ends that add up to 1, as a fitted model of pomegranate has."""
    moves = rng.dirichlet(np.ones(states + 1), states)
    return rng.dirichlet(np.ones(states)), moves[:, :-1], moves[:, -1], rng.dirichlet(np.ones(size), states)


def pomegranate(initial, moves, ends, emission) -> DenseHMM:
    starts, edges, stops, table = (torch.tensor(part).float() for part in (initial, moves, ends, emission))
    return DenseHMM([Categorical(row[None]) for row in table], edges=edges, starts=starts / starts.sum(), ends=stops)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_pomegranate_gives_the_same_likelihoods_and_posteriors(parameters, dtype):
    hmm = parameters.hmm(dtype=dtype)
    tokens = hmm.sample(40, 6, np.random.default_rng(0))
    model = to_pomegranate(hmm)
    assert model.ends.exp().tolist() == [1.0] * 6
    np.testing.assert_allclose(model.log_probability(tokens[..., None]), hmm.log_prob(tokens), rtol=1e-4)
    open_ones = tokens[(tokens != 2).all(1)]
    assert len(open_ones) > 3
    np.testing.assert_allclose(model.predict_proba(open_ones[..., None]), hmm.posterior(open_ones), atol=1e-4)


def test_there_and_back(parameters):
    hmm = parameters.hmm(vocabulary_fingerprint="abc", metadata={"a": 1})
    back = from_pomegranate(to_pomegranate(hmm), 2, vocabulary_fingerprint="abc", metadata={"a": 1})
    assert back.states == hmm.states
    assert (back.vocabulary_fingerprint, back.metadata) == ("abc", {"a": 1})
    tokens = hmm.sample(40, 6, np.random.default_rng(0))
    np.testing.assert_allclose(back.log_prob(tokens), hmm.log_prob(tokens), rtol=1e-5)


def test_end_probabilities_become_an_end_of_sequence():
    model = pomegranate(*unequal_ends(np.random.default_rng(1), 3, 4))
    hmm = from_pomegranate(model, eos_token_ids=4)
    assert (hmm.states, hmm.size) == (4, 5)
    tokens = torch.randint(0, 4, (30, 5), generator=torch.Generator().manual_seed(0))
    wanted = model.log_probability(tokens[..., None])
    np.testing.assert_allclose(hmm.log_prob([[*row, 4] for row in tokens.tolist()]), wanted, rtol=1e-5)
    assert from_pomegranate(model, eos_token_ids=(4, 6), size=9, dtype="uint8").size == 9


def test_a_fitted_model_comes_in():
    """Fitted on texts with their ends, it may stop behind a text, or emit its end; here both are the end. Seed 0."""
    source = random_parameters(np.random.default_rng(2), 3, 4, eos=(3,)).hmm()
    rows = source.sample(300, 4, np.random.default_rng(0))
    texts = rows[(rows[:, :3] != 3).all(1) & (rows[:, 3] == 3)]
    assert len(texts) > 20
    rng = np.random.default_rng(3)
    model = to_pomegranate(Parameters(*random_parameters(rng, 3, 4, eos=(3,))).hmm())
    model.max_iter = 3
    model.fit(texts[..., None])
    hmm = from_pomegranate(model, eos_token_ids=3)
    moves, ends = model.edges.exp().double().numpy(), model.ends.exp().double().numpy()
    assert ends.max() > 0.3  # what was ones is fitted now
    exact = Parameters(model.starts.exp().double().numpy(), moves, _emission(model), (3,))
    for text in [[0, 1, 3], [2, 0, 0, 3], [1, 3], [2, 2, 2, 3]]:
        stops = sum(chance * ends[path[-1]] for path, chance in paths(exact, text[:-1]).items())
        emits = sum(paths(exact, text).values())
        np.testing.assert_allclose(hmm.log_prob([text]).exp(), [stops + emits], rtol=1e-4, atol=1e-9)


def _emission(model: DenseHMM) -> np.ndarray:
    return np.stack([each.probs[0].detach().double().numpy() for each in model.distributions])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (DenseHMM(), "got DenseHMM over"),
        (DenseHMM([Categorical([[0.5, 0.5]])]), "wanted an initialised pomegranate DenseHMM"),
        (DenseHMM([Categorical([[0.5, 0.5], [0.5, 0.5]])], edges=[[1.0]], starts=[1.0]), "of one feature"),
        (DenseHMM([Exponential([1.0])], edges=[[1.0]], starts=[1.0]), "Exponential"),
        (SparseHMM(), "got SparseHMM"),
        (DenseHMM([Categorical([[0.5, 0.5]])], edges=[[1.0]], starts=[1.0], ends=[0.5]), "its end probability is 0.5"),
        (3, "got int"),
    ],
    ids=str,
)
def test_pomegranate_models_that_do_not_fit(model, message):
    with pytest.raises(InputError, match=message):
        from_pomegranate(model, 1)


def test_pomegranate_without_ends_is_a_model_of_prefixes():
    model = DenseHMM(
        [Categorical([[0.5, 0.0, 0.5]]), Categorical([[0.0, 1.0]])], edges=[[0.5, 0.5], [0, 1.0]], starts=[1.0, 0]
    )
    assert from_pomegranate(model, 1).log_prob([[0, 1], [2]]).exp().tolist() == pytest.approx([0.25, 0.5])


def test_hmmlearn_gives_the_same(parameters):
    hmmlearn = pytest.importorskip("hmmlearn.hmm", reason="needs the extra `bench`")
    hmm = parameters.hmm()
    model = hmmlearn.CategoricalHMM(n_components=6, n_features=9, implementation="scaling")
    model.startprob_, model.transmat_, model.emissionprob_ = parameters[:3]
    tokens = hmm.sample(40, 6, np.random.default_rng(0))
    for row in tokens[(tokens != 2).all(1)].numpy():
        score, gamma = model.score_samples(row[:, None])
        np.testing.assert_allclose(hmm.log_prob([row]), [score], rtol=1e-5)
        np.testing.assert_allclose(hmm.posterior([row])[0], gamma, atol=1e-5)
        best, states = model.decode(row[:, None])
        np.testing.assert_allclose(hmm.viterbi([row]).log_prob, [best], rtol=1e-5)
        assert hmm.viterbi([row]).states[0].tolist() == states.tolist()


def checkpoint(folder, parameters: Parameters, **changed):
    """What Ctrl-G saves; the end of sequence may be mixed with other tokens."""
    with np.errstate(divide="ignore"):
        tensors = {
            "alpha_exp": torch.tensor(parameters.transition).float(),
            "beta": torch.tensor(np.log(parameters.emission)).float(),
            "gamma": torch.tensor(np.log(parameters.initial)).float(),
            **changed,
        }
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, folder / "model.safetensors")
    config = {"hidden_states": 3, "vocab_size": 4, "eos_token_id": parameters.eos[0]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def mixed(seed: int = 0) -> Parameters:
    rng = np.random.default_rng(seed)
    return Parameters(rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), 3), rng.dirichlet(np.ones(4), 3), (1,))


def test_ctrlg(tmp_path):
    parameters = mixed()
    words = vocabulary(4, (1,))
    hmm = from_ctrlg(checkpoint(tmp_path, parameters), vocabulary=words, metadata={"note": "x"}, dtype="float16")
    assert (hmm.states, hmm.dtype, hmm.vocabulary_fingerprint) == (4, "float16", words.fingerprint)
    assert hmm.metadata == {"source": "Ctrl-G", "note": "x"}
    texts = [[0, 2, 1], [1], [3, 3, 2], [0]]
    wanted = [sum(paths(parameters, tokens).values()) for tokens in texts]
    np.testing.assert_allclose(from_ctrlg(tmp_path).log_prob(texts).exp(), wanted, rtol=1e-5)
    assert from_ctrlg(tmp_path).vocabulary_fingerprint is None


def test_ctrlg_normalises_gamma_and_trace_holds_probabilities(tmp_path):
    parameters = mixed(1)
    wanted = from_ctrlg(checkpoint(tmp_path, parameters))
    moved = torch.tensor(np.log(parameters.initial) + 3).float()
    found = from_ctrlg(checkpoint(tmp_path, parameters, gamma=moved))
    torch.testing.assert_close(found.initial, wanted.initial)
    trace = torch.tensor(parameters.initial).float()[None]
    extra = {"gamma": None, "gamma_exp": trace, "weights_tensor": torch.zeros(4)}
    torch.testing.assert_close(from_ctrlg(checkpoint(tmp_path, parameters, **extra)).initial, wanted.initial)


def test_checkpoints_that_do_not_fit(tmp_path):
    parameters = mixed(2)
    with pytest.raises(InputError, match=r"there is no config\.json in"):
        from_ctrlg(tmp_path)
    checkpoint(tmp_path, parameters, beta=None)
    with pytest.raises(ModelError, match=r"holds \['alpha_exp', 'gamma'\], wanted alpha_exp, beta and gamma"):
        from_ctrlg(tmp_path)
    checkpoint(tmp_path, parameters, beta=torch.zeros(4, 3))
    with pytest.raises(ModelError, match=r"beta \(4, 3\) and gamma \(3,\), wanted \(H, H\), \(H, V\) and \(H,\)"):
        from_ctrlg(tmp_path)
    checkpoint(tmp_path, parameters)
    with pytest.raises(VocabularyError, match="is over 4 token ids"):
        from_ctrlg(tmp_path, vocabulary=vocabulary(5, (1,)))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="names no eos_token_id, got None"):
        from_ctrlg(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="is damaged"):
        from_ctrlg(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x")
    checkpoint_config = {"eos_token_id": 1}
    (tmp_path / "config.json").write_text(json.dumps(checkpoint_config))
    with pytest.raises(ModelError, match="is damaged"):
        from_ctrlg(tmp_path)


@pytest.mark.parametrize(
    "beta",
    [
        lambda log_probs: log_probs.exp(),  # probabilities
        lambda log_probs: 3 * log_probs + 1,  # logits
        lambda log_probs: log_probs + np.log(0.5),  # rows that sum to 0.5
        lambda log_probs: log_probs * float("nan"),
    ],
)
def test_a_checkpoint_whose_emission_is_no_distribution_is_refused(tmp_path, beta):
    parameters = mixed(3)
    checkpoint(tmp_path, parameters, beta=beta(torch.tensor(np.log(parameters.emission)).float()))
    with pytest.raises(ModelError, match=r"wanted probabilities in alpha_exp, and logarithms.*emission of state \d"):
        from_ctrlg(tmp_path)


def test_moves_of_a_checkpoint_are_checked_too(tmp_path):
    parameters = mixed(3)
    checkpoint(tmp_path, parameters, alpha_exp=torch.tensor(np.log(parameters.transition)).float())
    with pytest.raises(ModelError, match="transition of state 0 holds -"):
        from_ctrlg(tmp_path)


@pytest.mark.parametrize("gamma", [torch.tensor(0.0), torch.zeros(3, 1)])
def test_a_gamma_of_another_shape_is_refused(tmp_path, gamma):
    checkpoint(tmp_path, mixed(), gamma=gamma)
    with pytest.raises(ModelError, match=r"gamma \(.*\), wanted \(H, H\), \(H, V\) and \(H,\)"):
        from_ctrlg(tmp_path)


@pytest.mark.parametrize("config", ["[]", "3", "null", '{"eos_token_id": true}', '{"eos_token_id": [1]}'])
def test_a_config_without_the_id_of_an_end_is_refused(tmp_path, config):
    (checkpoint(tmp_path, mixed()) / "config.json").write_text(config)
    with pytest.raises(ModelError, match="names no eos_token_id"):
        from_ctrlg(tmp_path)


def test_a_state_of_ends_may_stop():
    """What pomegranate makes of a state that emits ends alone and stops half of the time: the HMM stays as it is."""
    moves, ends = [[0.5, 0.5], [0.0, 0.5]], [0.0, 0.5]
    model = pomegranate([1.0, 0.0], moves, ends, np.eye(2))
    hmm = from_pomegranate(model, eos_token_ids=1)
    assert (hmm.states, hmm.transition.tolist()) == (2, [[0.5, 0.5], [0.0, 1.0]])


def test_equal_models_are_equal(parameters):
    assert HMM(*parameters) == parameters.hmm()
