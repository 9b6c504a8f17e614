"""One container component of Kubeflow Pipelines per stage, written out; none of this is in the wheel."""
