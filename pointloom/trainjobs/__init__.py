"""Training on several machines: a stage as a TrainJob of Kubeflow Trainer, started and followed from one pod."""
