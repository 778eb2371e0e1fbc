"""What a finished training leaves on the wire: the result file and the checkpoint."""

from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint
from openai.types.fine_tuning.jobs.fine_tuning_job_checkpoint import Metrics

from backends.data import CurvePoint
from backends.server.identifiers import new_id, now

_COLUMNS = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"


def result_csv(curve: tuple[CurvePoint, ...]) -> bytes:
    """The training curve, one line a step; the columns of accuracies, which aren't computed, are empty."""
    rows = (f"{p.step},{p.train_loss},,{_or_empty(p.validation_loss)}," for p in curve)
    return ("\n".join([_COLUMNS, *rows]) + "\n").encode()


def final_checkpoint(
    job_id: str, model: str, curve: tuple[CurvePoint, ...]
) -> FineTuningJobCheckpoint:
    """The model after the last step, as a checkpoint."""
    last = curve[-1]
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
