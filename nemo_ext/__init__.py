"""The library the stages call: serving, grading, curation, Megatron training, evaluation, report."""
