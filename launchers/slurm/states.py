"""The meaning, for a stage, of Slurm's words for a job's end and for why one waits, and what to do about each."""

from launchers.slurm.jobs import Job
from nemo_ext.megatron.runtime.preemption import EXIT_PREEMPTED

AGAIN = "cancel it (launchers/cancel.py) and launch again"

ENDS = {
    "OUT_OF_MEMORY": (
        "the node's memory, not a GPU's, ran out",
        "raise cluster.mem, or take whole nodes (cluster.exclusive=true cluster.mem=0)",
    ),
    "TIMEOUT": ("it met its time limit", "raise stages.{stage}.resources.time where it saves nothing in that time"),
    "NODE_FAIL": ("a node went down", "leave out one that fails again: cluster.extra_sbatch={{exclude: <node>}}"),
    "PREEMPTED": ("a job of higher priority took its place", "a cluster.qos that is not preempted runs through"),
    "BOOT_FAIL": ("its nodes did not boot", "tell the cluster's staff which nodes"),
    "DEADLINE": ("its deadline passed before it could end", "take the deadline out of cluster.extra_sbatch"),
    "REVOKED": ("another cluster of the federation runs it", "look for it there with squeue --federation"),
}  # fmt: skip

REASONS = {
    "DependencyNeverSatisfied": "what it waits for failed: fix that stage, {again}",
    "JobHeldUser": "it was held: scontrol release {job}",
    "JobHeldAdmin": "the cluster's staff hold it: ask them",
    "PartitionTimeLimit": "the partition does not grant that long: lower stages.{stage}.resources.time, {again}",
    "PartitionNodeLimit": "the partition does not grant so many nodes: lower stages.{stage}.resources.nodes, {again}",
    "PartitionDown": "the partition is down; it starts when that is up again",
    "PartitionInactive": "the partition takes no jobs now; it starts when it does again",
    "BadConstraints": "no node has what it asks for: see stages.{stage}.resources and cluster.extra_sbatch, {again}",
    "InvalidAccount": "the account may not run here: set cluster.account, {again}",
    "InvalidQOS": "the qos may not be used here: set cluster.qos, {again}",
    "launch_failed_requeued_held": "a node could not start it, and Slurm holds it: scontrol release {job}",
    "job_requeued_in_held_state": "it was put back on hold: scontrol release {job}",
}  # fmt: skip
"""Reasons to wait that waiting alone does not remove."""


def end_of(job: Job, stage: str) -> tuple[str, str]:
    """Why an ended job ended badly, and what to do, where more is needed than to launch again."""
    if job.state in ENDS:
        meaning, advice = ENDS[job.state]
        return f"{job.state}: {meaning}{_on(job)}", advice.format(stage=stage)
    if job.exit_code == EXIT_PREEMPTED:
        return f"{job.state}: stopped after saving, as often as cluster.max_requeues lets it go on by itself", ""
    how = f"ended by signal {job.signal}" if job.signal else f"exit code {job.exit_code}"
    return f"{job.state}: {how}{_on(job)}", ""


def why_waits(job: Job, number: str, stage: str) -> str:
    """What to do about a job that waiting alone does not start; empty for the others."""
    word = job.reason.strip("()").replace(" ", "_")
    return REASONS.get(word, "").format(job=number, stage=stage, again=AGAIN)


def _on(job: Job) -> str:
    return f", on {job.nodes}" if job.nodes else ""
