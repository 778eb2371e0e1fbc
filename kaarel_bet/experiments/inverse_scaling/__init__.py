"""Redefine-math and the other Inverse Scaling tasks (https://arxiv.org/abs/2306.09479).

Is a task that language models get wrong finetuning-proof, or does a little training (or a few examples in
the prompt) mend it?
"""
