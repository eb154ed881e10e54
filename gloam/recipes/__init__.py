"""Every flag of a run in one validated YAML file; the published runs as <dataset>/<method>.yaml."""
