"""The engine against the plain loop, one row a case; `make benchmark` runs them and prints the table.

Before a figure counts the two must agree, from the same start. As it is timed the engine's first objective is the
plain loop's to 1e-4 (relative; 5e-2 in bfloat16, of three digits), compiled in float32 those of five iterations. On the
way down rounding decides on which side of a ReLU's kink a value falls, and sign turns a rounded zero into a whole step:
so the way is compared in float64 and without sign, to 1e-9 over five iterations, or twenty evaluations of L-BFGS, which
amplifies rounding, to 1e-6. Every row counts towards goals: ratios
that the best of their rows must reach. No test here fails for a goal, the table does. Rows marked slow compile for
minutes to no known gain: `-m "slow or not slow"` adds them.
"""

from dataclasses import dataclass, replace

import pytest
import torch
from clients import observed
from duel import Duel

from attacks.attack import Attack
from attacks.engine.execution import Execution
from attacks.optimisation.euclidean import Euclidean
from attacks.optimisation.inverting_gradients import InvertingGradients
from bench.data.load import load_dataset

GOALS = {
    "lenet-zhu, compiled": 14,
    "lenet-zhu, eager": 9,
    "resnet20, float32": 4,
    "resnet20, any precision": 5.5,
    "resnet20-4": 1.4,
    "convnet64, float32": 1.0,
    "convnet64, any precision": 1.2,
    "euclidean": 6,
    "local steps": 8,
}
"""Goal -> ratio to the plain loop, at least."""
SCALING = (1, 4, 16, 64, 256)


@dataclass(frozen=True)
class Case:
    """One row: an attack on so many clients of CIFAR-10's test images, and the goals that it counts towards."""

    name: str
    model: str
    trials: int
    attack: Attack
    goals: tuple[str, ...] = ()
    mode: str = "eager"
    precision: str = "float32"
    epochs: int = 0
    stretch: int = 8
    slow: bool = False

    @property
    def parameter(self):
        name = f"{self.name}-{self.trials}-{self.mode}-{self.precision}".replace(" ", "-")
        return pytest.param(self, id=name, marks=[pytest.mark.slow] if self.slow else [])

    def duel(self):
        data = load_dataset("cifar10-samples")
        chosen = [i % len(data) for i in range(self.trials)]
        images, labels = data.images(chosen), data.labels[chosen]
        seen = observed(self.model, images, labels, epochs=self.epochs)
        duel = Duel(seen, self.attack, Execution(mode=self.mode, precision=self.precision))
        return duel.with_faster_form()


def paper(stretches, stretch=8):
    """The paper's attack with the constants of its table of the untrained LeNet, one iteration before all stretches."""
    return InvertingGradients(iterations=1 + stretches * stretch, tv_weight=1e-2)


RESNET, CONVNET = ("resnet20, any precision",), ("convnet64, any precision",)
CASES = [
    Case("lenet-zhu", "lenet-zhu", 128, paper(7), ("lenet-zhu, eager",)),
    Case("lenet-zhu", "lenet-zhu", 128, paper(7), ("lenet-zhu, compiled",), "compile"),
    Case("resnet20", "resnet20", 16, paper(5), ("resnet20, float32", *RESNET)),
    Case("resnet20", "resnet20", 16, paper(5), ("resnet20, float32", *RESNET), "compile"),
    Case("resnet20", "resnet20", 16, paper(5), RESNET, "eager", "bfloat16"),
    Case("resnet20", "resnet20", 16, paper(5), RESNET, "compile", "bfloat16"),
    Case("resnet20-4", "resnet20-4", 4, paper(5), ("resnet20-4",)),
    Case("resnet20-4", "resnet20-4", 4, paper(5), ("resnet20-4",), "compile", stretch=2, slow=True),
    Case("convnet64", "convnet64", 4, paper(5), ("convnet64, float32", *CONVNET)),
    Case("convnet64", "convnet64", 4, paper(5), ("convnet64, float32", *CONVNET), "compile", stretch=2, slow=True),
    Case("convnet64", "convnet64", 4, paper(5), CONVNET, "eager", "bfloat16"),
    Case("convnet64", "convnet64", 4, paper(5), CONVNET, "compile", "bfloat16", stretch=2, slow=True),
    # Ten outer steps are 200 evaluations: in the median one the history of 100 pairs is full.
    Case("euclidean lenet-zhu", "lenet-zhu", 64, Euclidean(iterations=10), ("euclidean",), stretch=28),
    Case("local steps lenet-zhu", "lenet-zhu", 64, paper(5), ("local steps",), epochs=5),
]


def disagreements(case, duel, found):
    """What of engine and plain loop is compared, with how far their objectives are apart and may be, relatively.

    `found` is the reconstruction that was timed.
    """
    exact = replace(duel, observation=duel.observation.to("cpu", torch.float64), execution=Execution(mode="eager"))
    if isinstance(case.attack, Euclidean):
        way = exact.disagreement(iterations=1, until=20), 1e-6
    else:
        way = exact.disagreement(iterations=5, signed=False), 1e-9
    both = case.mode == "compile" and case.precision == "float32"
    timed = duel.disagreement(until=5 if both else 1, found=found), 5e-2 if case.precision == "bfloat16" else 1e-4
    return {"as timed": timed, "in float64": way}


@pytest.mark.parametrize("case", [case.parameter for case in CASES])
def test_case(benchmark, case):
    duel = case.duel()
    found, figures = benchmark.pedantic(duel.figures, (case.stretch,), rounds=1)
    compared = disagreements(case, duel, found)
    for which, (apart, allowed) in compared.items():
        assert apart < allowed, f"engine and plain loop differ by {apart:.1e} {which}, allowed are {allowed}"
    targets = {goal: GOALS[goal] for goal in case.goals}
    benchmark.extra_info.update(
        kind="case", name=case.name, targets=targets, disagreement=compared["as timed"][0], **figures
    )


@pytest.mark.parametrize("trials", SCALING)
def test_scaling(benchmark, trials):
    duel = Case("lenet-zhu", "lenet-zhu", trials, paper(7)).duel()
    _, figures = benchmark.pedantic(duel.figures, (4,), rounds=1)
    benchmark.extra_info.update(kind="scaling", name="lenet-zhu", **figures)
