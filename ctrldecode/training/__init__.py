"""Training a class-conditional language model, for guidance by Bayes' rule (GeDi, Krause et al. 2020).

codes.py       what stands before a text of each class     data.py        texts as ids, split, drawn in balance
class_lm.py    the loss                                    trainer.py     the loop, by transformers' Trainer
posterior.py   evidence, scale and bias, held-out figures  card.py        what is said of the result
run.py         from labelled texts to a folder             _accelerate.py what the Trainer needs
_resume.py     which training a folder is of               _folders.py    a folder that appears whole
"""

__all__: list[str] = []
