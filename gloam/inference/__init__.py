"""A trained model and what it computes: checkpoints, Model, Features, extraction, scoring, feature files."""
