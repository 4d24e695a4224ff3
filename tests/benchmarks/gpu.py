"""The engine on a GPU against the plain loop on the same GPU: `python tests/benchmarks/gpu.py [--dry-run]`.

First that GPU and CPU agree, then as many rows as fit into the time, those that matter most first; what was dropped is
named. The plain loop runs in full float32 throughout: one image at a time it waits for kernels to start, not for them
to compute. Needs torch alone, and torchvision for resnet18: images are seeded noise unless `--images` names an .npz
with `images` (n c h w) in [0, 1]. Writes a file that table.py reads, and prints its Markdown. Exits with 1 where a
check, a row or a goal fails.
"""

import argparse
import json
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "benchmarks")]  # the project need not be installed

GOALS = {"resnet20-4": 30, "convnet64": 30, "resnet18 at 224": 3}
"""Model -> ratio to the plain loop, at least; met by the best of its rows."""
EXPECTED = {"eager": 20, "graph": 25, "compile": 110}
"""Seconds that a row of this mode takes, until one has been measured."""
ORDER = [
    ("eager", "float32"), ("graph", "float32"), ("graph", "bfloat16"), ("eager", "bfloat16"), ("eager", "tf32"),
    ("graph", "tf32"), ("compile", "float32"), ("compile", "bfloat16"), ("compile", "tf32"),
]  # fmt: skip

DRY_RUN = {("convnet64", "eager", "bfloat16"), ("resnet18 at 224", "eager", "float32")}
"""Rows of the dry run: few, because a step is traced once for every row, however tiny its tensors."""


def main():
    import torch
    from gpu_checks import checks
    from measuring import machine
    from table import lines_of

    asked = arguments()
    if not asked.dry_run and not torch.cuda.is_available():
        sys.exit("torch sees no GPU here; --dry-run runs the same code on the CPU with tiny sizes")
    device = torch.device("cpu" if asked.dry_run else "cuda")
    # Else the plain loop's convolutions would be in TF32, and no check could be tight.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    end = time.monotonic() + asked.seconds
    stored = {
        "machine_info": {"leakboard": machine(device)},
        "checks": [],
        "benchmarks": [],
        "dropped": [],
        "failed": [],
    }

    side, trials, iterations = (8, 2, 3) if asked.dry_run else (32, 4, 50)
    images, labels = clients_images(asked.images, trials, side, classes=10)
    stored["checks"] = checks(images, labels, device, iterations)
    for name, value, allowed in stored["checks"]:
        print(f"{name}: {value:.1e}, allowed {allowed:.0e}{'' if value <= allowed else ' FAILED'}", flush=True)
    correct = all(value <= allowed for _, value, allowed in stored["checks"])
    if correct:
        measure(asked, device, end, stored)
    lines, reached = lines_of(stored)
    print(*lines, *(f"dropped: {what}" for what in stored["dropped"]), *stored["failed"], sep="\n")
    sys.exit(not (correct and not stored["failed"] and (reached or asked.dry_run)))


def measure(asked, device, end, stored):
    """Measure row after row until the time is over; everything found so far is on disk after each."""
    expected, form_of = dict(EXPECTED), {}
    signal.signal(signal.SIGALRM, interrupt)
    for mode, precision in ORDER:
        for model in GOALS:
            what, left = f"{model}, {mode}, {precision}", end - time.monotonic()
            if asked.dry_run and (model, mode, precision) not in DRY_RUN:
                stored["dropped"].append(f"{what} (needs a GPU)")
                continue
            if left < expected[mode]:
                stored["dropped"].append(f"{what} (takes about {expected[mode]:.0f} s, {max(left, 0):.0f} s are left)")
                continue
            started = time.monotonic()
            signal.alarm(int(left) + 1)
            try:
                stored["benchmarks"].append({"extra_info": row(asked, device, model, mode, precision, form_of)})
            except TimeUp:
                stored["dropped"].append(f"{what} (not done when the time was up)")
            except Exception as error:  # one broken row must not cost the others
                stored["failed"].append(f"FAILED: {what}: {type(error).__name__}: {str(error).splitlines()[0]}")
            finally:
                signal.alarm(0)
            expected[mode] = max(expected[mode] / 2, time.monotonic() - started)
            print(f"{what}: {time.monotonic() - started:.0f} s", flush=True)
            asked.output.parent.mkdir(parents=True, exist_ok=True)
            asked.output.write_text(json.dumps(stored, indent=1))


def row(asked, device, model, mode, precision, form_of):
    """The figures of one model in one execution, where engine and plain loop agree.

    `form_of` keeps the faster form of every model's gradient, found by its first row.
    """
    from clients import CIFAR10, IMAGENET, observed
    from duel import Duel

    from attacks.engine.execution import Execution
    from attacks.optimisation.inverting_gradients import InvertingGradients

    large = model == "resnet18 at 224"
    side, trials, stretch, rounds = (224, 16, 4, 3) if large else (32, 100, 6, 3)
    if asked.dry_run:
        side, trials, stretch, rounds = 32 if large else 8, 2, 2, 1
    classes, statistics = (1000, IMAGENET) if large else (10, CIFAR10)
    images, labels = clients_images(asked.images, trials, side, classes)
    seen = observed(model.split()[0], images, labels, classes=classes, statistics=statistics).to(device)
    attack = InvertingGradients(iterations=1 + rounds * stretch, tv_weight=1e-2)
    if model not in form_of:
        plainly = Duel(seen, attack, Execution(precision=precision))
        form_of[model] = plainly.with_faster_form().execution.gradient
    duel = Duel(seen, attack, Execution(mode=mode, gradient=form_of[model], precision=precision))
    found, figures = duel.figures(stretch)
    # Low precision rounds other values to each side of a ReLU's kink: there the first objective alone is compared.
    until, allowed = (5, 1e-3) if precision == "float32" else (1, 1e-1)
    apart = duel.disagreement(until=until, found=found)
    if not apart < allowed:
        raise ArithmeticError(f"the objectives of engine and plain loop differ by {apart:.1e}, allowed are {allowed}")
    return {"kind": "case", "name": model, "targets": {model: GOALS[model]}, "disagreement": apart, **figures}


def clients_images(file, count, side, classes):
    """Images (count 3 side side) in [0, 1], repeated where the file has fewer, and labels (count,)."""
    import torch
    from torch.nn import functional as F

    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (count,), generator=rng)
    if file is None:
        return torch.rand((count, 3, side, side), generator=rng), labels
    import numpy as np

    kept = torch.from_numpy(np.load(file)["images"]).float()
    images = kept[torch.arange(count) % len(kept)]
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True).clamp(0, 1), labels


class TimeUp(Exception):
    """The budget is used up in the middle of a row."""


def interrupt(*_):
    raise TimeUp


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU, to test the script")
    parser.add_argument("--seconds", type=float, default=420, help="time budget (default: 420)")
    parser.add_argument("--images", type=Path, help="an .npz with `images` (n c h w) in [0, 1]")
    parser.add_argument("--output", type=Path, default=ROOT / ".benchmarks" / "gpu.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
