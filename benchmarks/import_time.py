"""What starting costs: `tutelage --help` against Python, a plan against torch and torchvision.

python -m benchmarks.import_time [--rounds 7] [--out FILE]
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from statistics import median

from benchmarks.timing import argument_parser, ratio, write_result

CASES = {
    "python": ["-c", "pass"],
    "torch": ["-c", "import torch"],
    "torch, torchvision": ["-c", "import torch, torchvision"],
    "tutelage": ["-c", "import tutelage"],
    "all names of tutelage": ["-c", "from tutelage import *"],
    "tutelage --help": ["-m", "tutelage", "--help"],
    "tutelage train --help": ["-m", "tutelage", "train", "--help"],
    "tutelage plan": ["-m", "tutelage", "plan", "classification/digits/rcka"],
}


def cpu_seconds(arguments: list[str]) -> float:
    """Return user and system time of a fresh Python process."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{arguments} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure and write."""
    arguments = argument_parser(__doc__, rounds=7).parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    for index in range(arguments.rounds + 1):
        names = list(CASES)
        random.Random(index).shuffle(names)
        for name in names:
            spent = cpu_seconds(CASES[name])
            if index:  # the first round fills the disk cache
                seconds[name].append(spent)
    content = {
        "cpu_seconds": {name: median(values) for name, values in seconds.items()},
        "all names of tutelage / import torch": ratio(
            seconds["all names of tutelage"], seconds["torch"]
        ),
        "tutelage plan / import torch, torchvision": ratio(
            seconds["tutelage plan"], seconds["torch, torchvision"]
        ),
        "rounds": arguments.rounds,
    }
    print(write_result("import_time", content, arguments.out))
    print(content)


if __name__ == "__main__":
    main()
