"""Where the metrics of a training go: metrics.jsonl, summary.json, Weights & Biases.

To add a logger: a callback here, created in jobs/recording.py; its options in
config/training_options.py and conf/logger/.
"""
