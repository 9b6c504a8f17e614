"""Component ``notify``: no stage, the exit task that tells a webhook how a pipeline has ended."""

from kfp import dsl

from components.images import DATA


@dsl.container_component
def notify(status: dsl.PipelineTaskFinalStatus) -> dsl.ContainerSpec:
    """Tell a webhook how the pipeline has ended; its address comes from a secret, as POINTLOOM_WEBHOOK."""
    return dsl.ContainerSpec(
        image=DATA,
        command=["python", "-m", "pointloom.notify"],
        args=[
            "--status", status,
            "--run", dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            "--name", dsl.PIPELINE_JOB_RESOURCE_NAME_PLACEHOLDER,
        ],
    )  # fmt: skip
