"""What squeue 22.05 and sacct print, read."""

import time
from pathlib import Path

import pytest

from launchers.slurm import jobs as slurm_jobs
from tests.launchers.followed_run import Clients

# as squeue 22.05 prints it
QUEUE = """\
1_[2-5%2]|PENDING|JobArrayTaskLimit||0:00|N/A|N/A|0|0|/runs/sft/solve/submit.sh
4_[2-900:2%1]|CANCELLED|JobArrayTaskLimit||0:00|2026-11-21T19:17:15|2026-11-21T19:17:15|0|0|/runs/sft/solve/submit.sh
5|PENDING|BeginTime||0:00|2026-11-21T19:17:16|NONE|1|0|/runs/sft/train/submit.sh
1_0|RUNNING|None|node[1-2]|1-02:03:04|2026-11-21T19:17:10|2027-11-21T19:17:10|0|0|/runs/sft/solve/submit.sh
1_1|FAILED|NonZeroExitCode|node1|0:04|2026-11-21T19:17:10|2026-11-21T19:17:14|0|256|/runs/sft/solve/submit.sh 1000
6|CANCELLED|None|node1|0:04|2026-11-21T19:17:10|2026-11-21T19:17:14|0|15|/runs/a|b/submit.sh
"""


def test_the_queue_is_read() -> None:
    found = slurm_jobs.parse_queue(QUEUE)
    assert sorted(found) == ["1", "4", "5", "6"]
    assert sorted(index for index in found["1"] if index is not None) == [0, 1, 2, 3, 4, 5]
    waits, runs, failed = found["1"][3], found["1"][0], found["1"][1]
    assert (waits.state, waits.reason, waits.ended, waits.start) == ("PENDING", "JobArrayTaskLimit", False, None)
    assert (runs.nodes, runs.elapsed_s, runs.reason) == ("node[1-2]", 93_784.0, "")
    assert time.localtime(runs.start)[:6] == (2026, 11, 21, 19, 17, 10)
    assert (failed.exit_code, failed.signal, failed.ended) == (1, 0, True)
    assert len(found["4"]) == 450 and found["4"][900].state == "CANCELLED"
    assert found["5"][None].restarts == 1
    assert (found["6"][None].signal, found["6"][None].script) == (15, "/runs/a|b/submit.sh")


def test_what_is_no_queue_is_nothing() -> None:
    assert slurm_jobs.parse_queue("") == {} and slurm_jobs.parse_queue("slurm is tired\n\n||\n") == {}
    assert slurm_jobs.parse_accounts("x\n") == {}


@pytest.mark.parametrize(
    ("name", "number", "indices"),
    [("7", "7", [None]), ("7_3", "7", [3]), ("7_[5-7,9%2]", "7", [5, 6, 7, 9]), ("7_[0-8:4]", "7", [0, 4, 8])],
)
def test_elements(name: str, number: str, indices: list[int | None]) -> None:
    assert slurm_jobs.elements(name) == (number, indices)


@pytest.mark.parametrize(("text", "value"), [("0:07", 7), ("1:00:07", 3607), ("2-00:00:01", 172_801), ("INVALID", 0)])
def test_seconds(text: str, value: float) -> None:
    assert slurm_jobs.seconds(text) == value


def test_accounts_count_earlier_attempts() -> None:
    text = """\
8|NODE_FAIL|node1|30|2026-11-21T19:00:00|2026-11-21T19:00:30|0:0
8|COMPLETED|node2|70|2026-11-21T19:01:00|2026-11-21T19:02:10|0:0
9_3|CANCELLED by 0|None assigned|0|Unknown|2026-11-21T19:02:10|0:0
9_4|FAILED|node1|5|2026-11-21T19:00:00|2026-11-21T19:00:05|3:0
"""
    found = slurm_jobs.parse_accounts(text)
    assert (found["8"][None].state, found["8"][None].restarts, found["8"][None].elapsed_s) == ("COMPLETED", 1, 70.0)
    assert (found["9"][3].state, found["9"][3].nodes, found["9"][4].exit_code) == ("CANCELLED", "", 3)


def test_what_a_real_slurmdbd_says() -> None:
    """22.05 of jobs that ended in each way: job 7 was requeued once, job 4 is an array, job 5 took too much memory."""
    found = slurm_jobs.parse_accounts((Path(__file__).parent / "sacct_22_05.txt").read_text())
    states = {number: elements[None].state for number, elements in found.items() if None in elements}
    assert states == {
        "1": "COMPLETED", "2": "FAILED", "3": "FAILED", "5": "FAILED", "6": "CANCELLED", "7": "COMPLETED",
        "11": "PENDING", "12": "CANCELLED", "13": "NODE_FAIL",
    }  # fmt: skip
    assert [found["4"][index].state for index in range(4)] == ["COMPLETED", "FAILED"] * 2
    bad, killed, again, lost, waits = (found[number][None] for number in ("2", "3", "7", "13", "11"))
    assert (bad.exit_code, bad.signal, killed.signal) == (3, 0, 9)
    assert (again.restarts, again.elapsed_s, again.nodes) == (1, 8.0, "node[1-2]")
    assert lost.nodes == "node2" and lost.ended
    assert (waits.nodes, waits.start, waits.ended) == ("", None, False)


def test_a_forgotten_job_is_no_failure(clients: Clients) -> None:
    clients.script(
        "squeue.answer", "#!/bin/bash\necho 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1\n"
    )
    assert slurm_jobs.queue(["7"]) == {}


def test_a_dead_controller_is_told_and_a_hung_one_waited_for_no_longer_than_said(clients: Clients) -> None:
    clients.script("squeue.answer", "#!/bin/bash\necho 'Unable to contact slurm controller' >&2; exit 1\n")
    with pytest.raises(ValueError, match="Unable to contact"):
        slurm_jobs.queue(["7"])
    clients.script("squeue.answer", "#!/bin/bash\nexec sleep 60\n")
    with pytest.raises(ValueError, match=r"did not answer in 0\.2 s"):
        slurm_jobs.queue(["7"], timeout_s=0.2)


def test_the_list_of_waiting_elements_is_asked_for_whole(clients: Clients, tmp_path: Path) -> None:
    clients.script("squeue.answer", f'#!/bin/bash\necho "$SLURM_BITSTR_LEN" >{tmp_path}/length\n')
    slurm_jobs.queue(["7", "8"])
    assert (tmp_path / "length").read_text() == "0\n"
    assert "--jobs=7,8 --states=all" in clients.calls[0]
