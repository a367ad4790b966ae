"""Distilling a language model into a hidden Markov model: sample, start from clustered hidden states, fit by EM.

recipe.py      what decides the result          run.py        the driver, from recipe to model, resumable
sample.py      texts from a model               corpus.py     texts on disk, in shards
cluster.py     k-means of hidden states         initial.py    from clusters to first counts
em.py          the (init, step) pair of EM      workers.py    several processes, by torch.distributed
fit.py         the loop of EM                   checkpoint.py how far it came
card.py        what is said of the result       _curves.py    drawn
"""

__all__: list[str] = []
