"""Experiments of the form "fine-tune on X, test on Y": generate -> train -> test -> report."""
