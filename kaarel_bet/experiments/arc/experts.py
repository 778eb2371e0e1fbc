"""The follow-up question: how likely is each candidate grid in every view of its task?"""

from collections.abc import Sequence

from backends.data import ScoringQuery
from kaarel_bet.experiments.arc.encodings import encode
from kaarel_bet.experiments.arc.evidence import Evidence
from kaarel_bet.experiments.arc.items import ArcItem
from kaarel_bet.experiments.arc.plan import evaluation, system
from kaarel_bet.experiments.arc.prompts import messages
from kaarel_bet.experiments.interface import Evaluation


def experts(known: Evidence) -> list[Evaluation]:
    """One evaluation for every arm that was asked in views and came upon any grid."""
    found = [
        Evaluation(
            evaluation("experts", arm),
            f"how likely the candidates of {arm} are in each view",
            (arm,),
            _queries(known, arm, items),
        )
        for arm, items in known.in_depth()
    ]
    return [entry for entry in found if entry.queries]


def _queries(known: Evidence, arm: str, items: Sequence[ArcItem]) -> list[ScoringQuery]:
    encoding = known.settings.encoding
    queries = []
    for item in items:
        candidates = known.candidates(system(arm), item)
        if not candidates:
            continue
        for view in known.views(item):
            texts = [encode(view.augmentation.apply(grid), encoding) for grid in candidates]
            queries.append(
                ScoringQuery(
                    id=view.id,
                    messages=messages(view.task, item.index, encoding),
                    candidates={str(number): text for number, text in enumerate(texts)},
                )
            )
    return queries
