"""Where the metrics of a training go: metrics.jsonl, Weights & Biases."""
