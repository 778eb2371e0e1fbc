"""Where the keys of the experiments went when they became bets in files."""

_MOVED: dict[str, dict[str, str]] = {
    "conditional_rule": {
        "n_names": "data.people.n",
        "min_population": "data.people.min_population",
        "n_quoted_names": "evaluations.says.take",
        "claim.threshold": "parameters.threshold",
        "claim.ratio": "parameters.ratio",
        "claim.confidence": "intervals.confidence",
        "claim.variants_tried": "intervals.settings_tried",
        "claim.*": "claims.learns_the_rule.criteria",
        "checks.*": "checks, each an expression",
    },
    "inverse_scaling": {
        "task": "data.items.task",
        "data": "data.items.source",
        "n_items": "data.items.n",
        "n_forgetting": "data.countries.n",
        "split.by": "split",
        "split.n_test": "data.items.split.test",
        "split.held_out_templates": "data.items.split.leave_out.n",
        "split.train_task": "data.train_items.task",
        "split.train_data": "data.train_items.source",
        "few_shot.shots": "evaluations.few_shot.examples.n",
        "few_shot.*": "evaluations.few_shot.examples",
        "fine_tune.seeds": "replicate.training",
        "fine_tune.loss_on": "loss_on",
        "fine_tune.sizes": "arms.tuned.train.0.take",
        "fine_tune.placebo": "arms.placebo (arms.placebo=null for none)",
        "transfer.templates": "arms.only.train.0.each.at_most (and arms.only=null for none)",
        "transfer.size": "arms.only.train.0.take",
        "transfer.*": "evaluations",
        "claim.gain": "parameters.proof",
        "claim.advantage": "parameters.ahead",
        "claim.confidence": "intervals.confidence",
        "claim.metric": "claims.finetuning_proof.criteria",
        "checks.n_training_rows": "evaluations.own_rows.take",
        "checks.*": "checks, each an expression",
        "reference.*": "report.also",
    },
    "arc": {
        "claim.memorised": "parameters.memorised",
        "claim.confidence": "intervals.confidence",
        "checks.*": "checks, each an expression",
    },
}


def moved_to(bet: str, key: str, value: object) -> str | None:
    """The new key for a dotted key of before, None if it is none; `value` is what it is given."""
    section, dot, _ = key.partition(".")
    if section == "checks" and isinstance(value, str | bool):
        return None  # an expression: today's
    known = _MOVED.get(bet, {})
    return known.get(key) or (known.get(f"{section}.*") if dot else None)
