"""ARC, the Abstraction and Reasoning Corpus (https://arxiv.org/abs/1911.01547).

Can a language model memorise tasks on grids by fine-tuning, and does that help with tasks it has not seen?
"""
