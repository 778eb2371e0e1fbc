"""What every forward pass is asked: sequences of tokens, some of them to be given log-probabilities."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TokenSequence:
    """Tokens, and the positions of those whose log-probability is wanted.

    `targets` ascends and never holds position 0, which nothing precedes. In training the targets are
    the tokens that carry loss; in scoring, a candidate's.
    """

    tokens: list[int]
    targets: list[int]
