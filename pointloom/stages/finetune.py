"""Stage ``finetune``: train an encoder with a head for a downstream task, over seeds."""

from pointloom.stages.artifacts import DatasetIn, MetricsOut, ModelIn, ResultOut, StateDir
from pointloom.stages.finetune_tasks import RUNNERS, FinetuneParams, Places


def finetune(
    params: FinetuneParams,
    *,
    dataset: DatasetIn,
    encoder: ModelIn,
    result: ResultOut,
    metrics: MetricsOut,
    state: StateDir,
) -> None:
    """Train an encoder end to end for a task and test it on objects it has never seen."""
    from pointloom.stages.runs import stage_run

    inputs = {"dataset": dataset, "encoder": encoder}
    with stage_run("finetune", name=result.name, params=params, inputs=inputs, metrics=metrics, state=state) as run:
        RUNNERS[params.task](params, Places(dataset=dataset, encoder=encoder, result=result, state=state), run)
        run.log_artifact(result, folder="result")
