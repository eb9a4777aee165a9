"""Ranks: under torchrun or srun this process joins the others that run the same command."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from idl_cli.errors import InputError, RunFailed

if TYPE_CHECKING:  # whether there are others is asked before torch is needed
    import torch

    from idl_core.peers import Peers
    from idl_core.training import Team


@dataclass(frozen=True)
class Ranks:
    """This process's place among others that run the same command."""

    rank: int
    count: int
    local_rank: int
    launcher: str

    @classmethod
    def of_environment(cls) -> Ranks | None:
        """From the variables of torchrun or srun; None for a process on its own."""
        env = os.environ
        if int(env.get("WORLD_SIZE") or 1) > 1 and "RANK" in env:
            return cls(
                int(env["RANK"]), int(env["WORLD_SIZE"]), int(env.get("LOCAL_RANK", 0)), "torchrun"
            )
        # Of a step, not of the job: a batch script is one process whatever the job may start.
        # And a shell of `srun --pty` is at a terminal, which its other tasks are not: they would
        # be waited for in vain (Lightning#19762).
        at_terminal = "SLURM_PTY_PORT" in env and os.isatty(0)
        tasks = 1 if at_terminal else int(env.get("SLURM_STEP_NUM_TASKS") or 1)
        if tasks > 1 and "SLURM_PROCID" in env:
            return cls(
                int(env["SLURM_PROCID"]),
                int(env["SLURM_STEP_NUM_TASKS"]),
                int(env.get("SLURM_LOCALID", 0)),
                "srun",
            )
        return None

    def device(self, devices: list[torch.device]) -> torch.device:
        """The device of this rank, among those that the configuration chooses on each machine.

        Raises: InputError where it asks for another number of workers than there are.
        """
        if len(devices) not in (1, self.count) and devices[0].type == "cpu":
            raise InputError(
                f"trainer.devices={len(devices)}: {self.launcher} started {self.count} ranks; "
                "leave trainer.devices out"
            )
        if devices[0].type == "cpu":
            return devices[0]
        import torch

        # srun may have given each rank a GPU of its own.
        return torch.device("cuda", self.local_rank % torch.cuda.device_count())


@dataclass
class JoinedRanks:
    """This process among ranks of which rank 0 prepares and records, and the others do a share.

    Before rank 0 gives the others their share it may work for hours, or be refused its directory:
    they wait for as long as it lives.
    """

    team: Team
    peers: Peers
    given: bool = False

    @property
    def rank(self) -> int:
        """0 for the process that prepares and records."""
        return self.team.rank

    def give(self, share: Any) -> None:
        """Give every other rank what it needs for its share; called by rank 0, once."""
        self.given = True
        self.peers.say("given")
        self.peers.done()
        self.team.first(share)

    def receive(self, on_wait: Callable[[], None] | None = None) -> Any:
        """Wait for what rank 0 gives; None where it ended without.

        Args:
            on_wait: called now and then; what it raises ends the waiting.

        Raises: RunFailed where rank 0 died.
        """
        from idl_core.peers import PeerLost

        try:
            self.peers.wait([0], on_wait)
        except PeerLost as error:
            raise RunFailed(str(error)) from error
        return self.team.first(None) if self.peers.heard()[0] is not None else None


@contextlib.contextmanager
def join_ranks(
    device: torch.device, ranks: Ranks | None, timeout: float = 600.0
) -> Iterator[JoinedRanks | None]:
    """Join the ranks that torchrun or srun started; None where this process is on its own.

    Args:
        timeout: seconds without a sign of life after which another rank counts as dead.

    Raises: InputError where the port of the rendezvous is taken.
    """
    if ranks is None:
        yield None
        return
    from idl_core.peers import Peers

    with process_group(device, ranks, timeout) as team, Peers.of_group(timeout) as peers:
        joined = JoinedRanks(team, peers)
        try:
            yield joined
        finally:
            if not team.rank and not joined.given:
                peers.done()  # the others wait for a share no longer


@contextlib.contextmanager
def process_group(
    device: torch.device, ranks: Ranks | None = None, timeout: float = 600.0
) -> Iterator[Team]:
    """Join the processes that RANK, WORLD_SIZE and MASTER_ADDR name; `ranks`, if given, first.

    Args:
        timeout: seconds that a process waits for the others to take part in what all do together.

    Raises: InputError where the port of the rendezvous is taken.
    """
    import torch
    import torch.distributed as dist

    from idl_core.training import Group

    if ranks is not None:
        _complete_environment(ranks)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    elif ranks is None and os.path.exists("/sys/class/net/lo"):
        # The workers of one machine: its own name may not be resolved, in a container say.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        port = os.environ.get("MASTER_PORT")
        raise InputError(
            f"MASTER_PORT={port}: the ranks cannot meet there ({' '.join(str(error).split())[:160]}"
            "); choose a free port"
        ) from error
    try:
        yield Group(device)
    finally:
        if ranks is not None:  # a worker ends without, see `idl_core.workers`
            dist.destroy_process_group()


def _complete_environment(ranks: Ranks) -> None:
    """Set the variables that torch needs and srun does not set."""
    env = os.environ
    env.setdefault("RANK", str(ranks.rank))
    env.setdefault("WORLD_SIZE", str(ranks.count))
    env.setdefault("LOCAL_RANK", str(ranks.local_rank))
    if "MASTER_ADDR" not in env:
        nodes = int(env.get("SLURM_STEP_NUM_NODES") or 1)
        env["MASTER_ADDR"] = "localhost" if nodes == 1 else env.get("SLURM_LAUNCH_NODE_IPADDR", "")
    if "MASTER_PORT" not in env:  # the same on every rank, another for every job
        number = int(env.get("SLURM_JOB_ID") or 0) * 31 + int(env.get("SLURM_STEP_ID") or 0)
        env["MASTER_PORT"] = str(20_000 + number % 20_000)
