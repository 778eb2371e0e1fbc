"""What a finished training leaves on the wire: the result file and the checkpoints."""

from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint
from openai.types.fine_tuning.jobs.fine_tuning_job_checkpoint import Metrics

from backends.data import REWARD_COLUMNS, CurvePoint
from backends.server.identifiers import new_id, now

_COLUMNS = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"


def result_csv(curve: tuple[CurvePoint, ...]) -> bytes:
    """The training curve, one line a step; accuracies of tokens, which aren't computed, are empty."""
    names = REWARD_COLUMNS if curve[-1].rewards else {}
    rows = [",".join([_COLUMNS, *names])]
    for point in curve:
        further = [getattr(point.rewards, name) for name in names.values()]
        known = f"{point.step},{point.train_loss},,{_or_empty(point.validation_loss)},"
        rows.append(",".join([known, *map(str, further)]))
    return ("\n".join(rows) + "\n").encode()


def checkpoint(job_id: str, model: str, last: CurvePoint) -> FineTuningJobCheckpoint:
    """The model after an epoch's last step."""
    return FineTuningJobCheckpoint(
        id=new_id("ftckpt_"),
        object="fine_tuning.job.checkpoint",
        created_at=now(),
        fine_tuned_model_checkpoint=model,
        fine_tuning_job_id=job_id,
        step_number=last.step,
        metrics=Metrics(
            step=last.step, train_loss=last.train_loss, full_valid_loss=last.validation_loss
        ),
    )


def _or_empty(loss: float | None) -> str:
    return "" if loss is None else str(loss)
