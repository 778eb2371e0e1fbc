"""Log-probabilities of candidates over the wire: several ways, each an interval that holds the truth."""
