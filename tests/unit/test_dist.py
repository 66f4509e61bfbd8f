"""Ranks from plain environments."""

from __future__ import annotations

import pytest

from sunpipe.dist import TORCHRUN, Ranks, discover, first_host, job_port, node_count
from sunpipe.errors import UsageError

SLURM = {
    "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_JOB_ID": "4711",
}  # fmt: skip


def asked(node: str) -> str:
    """Stand in for the cluster: the address of a node."""
    return f"10.0.0.1-of-{node}"


@pytest.mark.parametrize(
    ("nodelist", "first"),
    [
        ("n1", "n1"),
        ("n3,n4", "n3"),
        ("n[3-5,9],m1", "n3"),
        ("n[03-05]", "n03"),
        ("n[9,12-14]", "n9"),
        ("rack[1-2]-n[4-5]", "rack1-n4"),
        ("gpu-a-[10,12]-ib,x1", "gpu-a-10-ib"),
        ("node1.site.example,node2.site.example", "node1.site.example"),
    ],
)
def test_first_host(nodelist: str, first: str) -> None:
    assert first_host(nodelist) == first


@pytest.mark.parametrize("nodelist", ["", ",n1", "n[", "n[1-2", "n]", "[]"])
def test_first_host_refuses_what_is_no_node_list(nodelist: str) -> None:
    with pytest.raises(UsageError, match="node list"):
        first_host(nodelist)


def test_alone() -> None:
    assert discover({}) == Ranks(0, 1, 0, "127.0.0.1", 0, "single")
    assert discover({}).is_main


@pytest.mark.parametrize(
    ("source", "world", "env", "nodes"),
    [
        ("single", 1, {}, 1),
        ("slurm", 8, {"SLURM_STEP_NUM_NODES": "2"}, 2),
        ("slurm", 8, {}, None),
        ("torchrun", 8, {"GROUP_WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "8",
                         "SLURM_STEP_NUM_NODES": "3"}, 2),
        ("torchrun", 6, {"LOCAL_WORLD_SIZE": "4"}, 2),
        ("mpi", 8, {"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 2),
        ("mpi", 8, {"MPI_LOCALNRANKS": "no"}, None),
    ],
)  # fmt: skip
def test_nodes_are_what_the_launcher_says(
    source: str, world: int, env: dict[str, str], nodes: int | None
) -> None:
    assert node_count(Ranks(0, world, 0, "127.0.0.1", 0, source), env) == nodes


def test_torchrun_comes_first() -> None:
    env = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "h",
           "MASTER_PORT": "29500", **SLURM}  # fmt: skip
    assert discover(env, asked) == Ranks(3, 4, 1, "h", 29500, "torchrun")
    assert not discover(env, asked).is_main


@pytest.mark.parametrize("missing", TORCHRUN)
def test_half_a_torchrun_environment_is_refused(missing: str) -> None:
    env = dict.fromkeys(TORCHRUN, "1")
    del env[missing]
    with pytest.raises(UsageError, match=f"{missing}.* missing"):
        discover(env)


def test_slurm_step() -> None:
    found = discover(SLURM, asked)
    assert (found.rank, found.world, found.local_rank, found.source) == (5, 8, 1, "slurm")
    assert found.master_addr == asked("gpu07")
    assert found.master_port == job_port("4711.0.0")


def test_slurm_all_ranks_agree_and_a_restart_takes_another_port() -> None:
    first = discover({**SLURM, "SLURM_PROCID": "0"}, asked)
    assert first.master_port == discover(SLURM, asked).master_port
    again = discover({**SLURM, "SLURM_RESTART_COUNT": "1"}, asked)
    assert again.master_port != first.master_port


def test_slurm_takes_the_address_it_is_given() -> None:
    found = discover({**SLURM, "MASTER_ADDR": "h", "MASTER_PORT": "1234"}, asked)
    assert (found.master_addr, found.master_port) == ("h", 1234)


def test_batch_script_without_srun_is_alone() -> None:
    """sbatch sets SLURM_PROCID and SLURM_NTASKS for the script itself, but no step."""
    env = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "1", "SLURM_LOCALID": "0"}
    assert discover(env, asked).source == "single"


def test_one_task_asks_nobody_for_an_address() -> None:
    alone = {**SLURM, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}
    assert discover(alone, asked).master_addr == "127.0.0.1"


@pytest.mark.parametrize(
    "env",
    [
        {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2",
         "OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"},
        {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"},
    ],
)  # fmt: skip
def test_mpi_launchers(env: dict[str, str]) -> None:
    found = discover(env)
    assert (found.rank, found.world, found.local_rank, found.source) == (1, 2, 1, "mpi")
    assert 20000 <= found.master_port < 32000


def test_mpi_on_several_nodes_must_be_told_where_rank_0_is() -> None:
    env = {"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
    with pytest.raises(UsageError, match="MASTER_ADDR"):
        discover(env)
    assert discover({**env, "MASTER_ADDR": "h", "MASTER_PORT": "1"}).master_addr == "h"


@pytest.mark.parametrize(
    "change",
    [
        {"SLURM_PROCID": "8"},
        {"SLURM_PROCID": "-1"},
        {"SLURM_PROCID": "five"},
        {"SLURM_STEP_NUM_TASKS": ""},
        {"MASTER_PORT": "auto"},
    ],
)
def test_numbers_that_do_not_fit_are_refused(change: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=next(iter(change))):
        discover({**SLURM, **change}, asked)


def test_ports_stay_below_those_the_kernel_hands_out() -> None:
    ports = {job_port(str(number)) for number in range(500)}
    assert all(20000 <= port < 32000 for port in ports)
    assert len(ports) > 450
