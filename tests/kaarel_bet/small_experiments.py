"""Settings that make the experiments small enough for a tiny model, here or behind a service."""

from pathlib import Path

INVERSE_SCALING = (
    "inverse_scaling.data.items.n=90",
    "inverse_scaling.data.countries.n=2",
    "inverse_scaling.data.items.split.test=9",
    "inverse_scaling.arms.only=null",
    "inverse_scaling.arms.tuned.train.0.take=[10, 64]",
    "inverse_scaling.evaluations.few_shot.examples.n=2",
    "inverse_scaling.evaluations.few_shot.examples.draws=1",
    "inverse_scaling.evaluations.own_rows.take=4",
    "inverse_scaling.replicate.training=1",
)


def arc(tasks: Path) -> tuple[str, ...]:
    """On the tasks in a directory, of which there must be 22."""
    # A service takes ten examples or more, of validation files as well.
    sizes = {"train": 10, "other": 10, "test": 2}
    return (
        *(f"arc.sets.{part}={{source: '{tasks}', n_tasks: {n}}}" for part, n in sizes.items()),
        "arc.counting={n_examples: 10, n_test: 2, max_side: 3}",
        "arc.prediction.n_samples=2",
        "arc.prediction.augmentations=2",
        "arc.prediction.search=null",
        "arc.augmentation.variants=1",
        "arc.test_time.variants=3",
    )
