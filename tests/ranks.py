"""Run a function in several processes that form a group of torch.distributed, as tests do."""

import datetime
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

METHOD = "spawn"  # how the processes start
TIMEOUT = 30  # seconds


def on_ranks(function: Callable[[int], Any], ranks: int, folder: Path) -> list[Any]:
    """What `function(rank)` returns in each of the processes; they meet in an empty folder."""
    torch.multiprocessing.start_processes(
        _process, (function, ranks, str(folder)), ranks, start_method=METHOD
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(ranks)]


def _process(rank: int, function: Callable[[int], Any], ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    dist.init_process_group(
        "gloo",
        init_method=Path(folder, "meeting").as_uri(),
        rank=rank,
        world_size=ranks,
        timeout=datetime.timedelta(seconds=TIMEOUT),
    )
    torch.save(function(rank), Path(folder, f"{rank}.pt"))
    dist.destroy_process_group()
