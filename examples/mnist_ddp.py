"""Train a CNN on MNIST with several processes that share each mini-batch:

    torchrun --nproc-per-node 2 examples/mnist_ddp.py

Each process has its own part of the images, and BatchNorm normalizes with the statistics of all of
them. The first steps are compared with those of one process that has the whole mini-batch. When a
process ends, or does not answer for so many seconds as `--timeout` says, the others end, too.
"""

import argparse
import datetime
import os
import sys

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from bnlib import experiments, mnist
from bnlib.torch.distributed import convert_sync
from bnlib.torch.training import accuracy

BATCH = 64  # images in a mini-batch, of all processes together
COMPARED = 10  # steps
CUDA = torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", 2))  # a GPU a process


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--timeout", type=float, default=30, help="seconds (30)")
    parser.add_argument("--steps", type=int, default=500, help="mini-batches (500)")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a process a core
    if CUDA:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    dist.init_process_group(
        "nccl" if CUDA else "gloo",
        timeout=datetime.timedelta(seconds=options.timeout),
    )
    try:
        run(options.steps)
    except RuntimeError as error:  # what torch.distributed raises
        sys.exit(
            f"rank {dist.get_rank()} ends: another process ended, or did not answer for "
            f"{options.timeout:g} s ({str(error).splitlines()[0]})"
        )
    dist.destroy_process_group()


def run(steps: int) -> None:
    rank, ranks = dist.get_rank(), dist.get_world_size()
    digits = mnist.load()
    train_set = digits.train_images, digits.train_labels
    images, labels = part(*train_set, rank, ranks)
    start = f"rank {rank} of {ranks}: process {os.getpid()}, {len(labels):,} images\n"
    print(start, end="", flush=True)  # in one piece, for they all print at once

    # In float64: in float32 a rounding error that takes an input of ReLU across 0 hides the rest.
    alone = network().double()
    if rank == 0:
        train(alone, *part(*train_set, 0, 1), steps=COMPARED, together=ranks)
    for what, convert in ("its part", lambda net: net), ("the whole mini-batch", convert_sync):
        net = convert(network()).double()
        train(DistributedDataParallel(net), images, labels, steps=COMPARED)
        if rank == 0:
            pairs = zip(net.parameters(), alone.parameters(), strict=True)
            difference = max((ours - theirs).abs().max().item() for ours, theirs in pairs)
            print(f"statistics of {what}: {difference:.0e} from the weights of one process")

    net = convert_sync(network())
    train(DistributedDataParallel(net), images, labels, steps=steps)
    net.eval()
    share = accuracy(net, *part(digits.test_images, digits.test_labels, rank, ranks))
    total = torch.tensor(share, device=images.device)
    dist.all_reduce(total)
    if rank == 0:
        print(f"after {steps} steps {total.item() / ranks:.2%} of the test set: {digits.source}")


def network() -> torch.nn.Module:
    """6 convolutions with BatchNorm; the same weights in every process."""
    return experiments.cnn("ReLU", 6, batch_norm=True, seed=0)


def part(images: np.ndarray, labels: np.ndarray, rank: int, ranks: int) -> tuple[Tensor, Tensor]:
    """Every `ranks`-th image and its label; each rank has as many."""
    own = slice(rank, len(labels) // ranks * ranks, ranks)
    x = mnist.standardize(images[own]).reshape(-1, 1, 28, 28)
    device = "cuda" if CUDA else "cpu"
    return torch.tensor(x, device=device), torch.tensor(labels[own], device=device)


def train(
    model: torch.nn.Module, images: Tensor, labels: Tensor, *, steps: int, together: int = 1
) -> None:
    """SGD on a part of the images, or on `together` parts that lie one in another.

    The ranks draw the same numbers, each from its own part.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    drawn = torch.Generator().manual_seed(0)
    batch = BATCH // dist.get_world_size()
    dtype = next(model.parameters()).dtype
    for _ in range(steps):
        chosen = torch.randint(len(labels) // together, (batch, 1), generator=drawn)
        chosen = (chosen * together + torch.arange(together)).flatten()
        logits = model(images[chosen].to(dtype))
        loss = cross_entropy(logits, labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    main()
