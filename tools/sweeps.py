"""Run the studies of parts II and IV in the full profile: python tools/sweeps.py [STUDY ...]

Finished runs go to .sweeps/STUDY.jsonl, and a stopped or killed study goes on from there: remove
the file to begin again. When all runs of a study are done, its record is written to
bnlib/records/STUDY.csv.gz.
"""

import sys
from pathlib import Path

from bnlib import experiments, mnist, sweep

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    if not mnist.load().full:
        sys.exit("The full profile needs full MNIST: set BNLIB_DATA to a folder with MNIST/raw.")
    for name in sys.argv[1:] or experiments.STUDIES:
        points = experiments.points(name, full=True)
        print(f"{name}: {len(points)} runs", flush=True)
        journal = ROOT / ".sweeps" / f"{name}.jsonl"
        table = sweep.run(
            experiments.STUDIES[name].run, points, journal, context=experiments.context
        )
        sweep.save(table, ROOT / "bnlib" / "records" / f"{name}.csv.gz")


if __name__ == "__main__":
    main()
