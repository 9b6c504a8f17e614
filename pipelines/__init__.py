"""The stages as Kubeflow pipelines: graphs, compiling, submitting. Needs kfp; none of this is in the wheel."""
