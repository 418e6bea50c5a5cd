"""What `train.accumulate` costs in time and saves in memory.

RCKA on logits and three stages, RN-32x4 → RN-8x4, one batch of 32×32 images, one thread. The
memory is the peak of a fresh process over what it has before the first step; the time is the CPU
time of a step, in the same process.

python -m benchmarks.accumulation [--rounds 3] [--batch-size 64] [--out FILE]
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from statistics import median

import torch

from benchmarks.timing import argument_parser, peak_mib, write_result
from tutelage import RCKA, Classification, Distiller, FrozenTeacher
from tutelage.engine.activations import activation_bytes
from tutelage.models import resnet8x4, resnet32x4

STAGES = {name: name for name in ("stage1", "stage2", "stage3")}
PIECES = (1, 2, 4, 8)


def measure(pieces: int, batch_size: int, rounds: int) -> dict[str, float]:
    """Return memory and time of a step in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    student = resnet8x4(100)
    teacher = FrozenTeacher(resnet32x4(100))
    task = Classification(num_classes=100)
    distiller = Distiller(student, teacher, RCKA(STAGES), task, accumulate=pieces)
    images, labels = torch.rand(batch_size, 3, 32, 32), torch.randint(100, (batch_size,))
    distiller.setup((images[:4], labels[:4]))
    distiller.train()
    kept = activation_bytes(student, (images[: batch_size // pieces],))
    before = peak_mib()
    seconds = []
    for _ in range(rounds + 1):  # the first one finds out how pieces are joined
        start = time.process_time()
        torch.stack(list(distiller((images, labels)).values())).sum().backward()
        seconds.append(time.process_time() - start)
        distiller.zero_grad()
    return {
        "activations_mib": kept / 2**20,
        "peak_mib": peak_mib() - before,
        "ms": 1e3 * median(seconds[1:]),
    }


def main() -> None:
    """Measure each number of pieces in a process of its own, and write the result."""
    parser = argument_parser(__doc__, rounds=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--pieces", type=int, help="measure this number in this process")
    arguments = parser.parse_args()
    if arguments.pieces is not None:
        print(json.dumps(measure(arguments.pieces, arguments.batch_size, arguments.rounds)))
        return
    rows = {}
    for pieces in PIECES:
        command = [sys.executable, "-m", "benchmarks.accumulation", "--pieces", str(pieces)]
        command += ["--rounds", str(arguments.rounds), "--batch-size", str(arguments.batch_size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows[str(pieces)] = json.loads(done.stdout)
        row = rows[str(pieces)]
        print(
            f"accumulate {pieces}: keeps {row['activations_mib']:7.1f} MiB, peak "
            f"+{row['peak_mib']:6.0f} MiB, {row['ms']:7.0f} ms, "
            f"{row['ms'] / rows['1']['ms']:.2f} times the whole batch"
        )
    write_result("accumulation", {"batch_size": arguments.batch_size, "rows": rows}, arguments.out)


if __name__ == "__main__":
    main()
