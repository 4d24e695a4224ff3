"""The claims of the paper: their words, their figures, and the runs that each is held against."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from tools.paper.orderings import Cells, Ordering

UNTRAINED_LABEL, FIVE = "untrained", "epochs=5 on cifar10-jpeg"
"""Labels of weights that several presets share."""
COSINE, EUCLIDEAN = {"attack_name": "inverting_gradients"}, {"attack_name": "euclidean"}


@dataclass(frozen=True)
class PaperFigure:
    """A figure of the paper: PSNR over its images."""

    mean: float
    """In dB."""
    sd: float
    """In dB."""
    remembered: bool = True
    """Not looked up again in the paper."""

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.sd:.2f}" + (" [from memory]" if self.remembered else "")


@dataclass(frozen=True)
class PaperLine:
    """A row of the page's table."""

    cells: Cells
    """Our results."""
    paper: PaperFigure | None = None
    """The paper's figure for the same, where there is one."""


@dataclass(frozen=True)
class Held:
    """An ordering that our results are held against."""

    ordering: Ordering
    asked: bool = False
    """Our own question, of which the paper says nothing."""


@dataclass(frozen=True)
class ClaimVariant:
    """A claim as one preset tests it."""

    preset: str
    lines: tuple[PaperLine, ...]
    held: tuple[Held, ...]
    differs: str
    """Sentences about the differences of its setting from the paper's, and their reasons."""


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, with the presets that test it."""

    slug: str
    """The claim's part in the names of its pictures."""
    title: str
    paper: str
    """Sentences about what the paper shows and where."""
    variants: tuple[ClaimVariant, ...]


def floor(label: str, *, metric: str = "psnr_db", **where: object) -> Cells:
    """The strongest control, by the mean of this metric, among these rows."""
    return Cells(label, {"control": True, **where}, strongest=metric)


def above_floor(cells: Cells) -> tuple[Held, Held]:
    """The orderings of these cells above the strongest control, by PSNR and by images identified."""
    where = {key: value for key, value in cells.where.items() if key not in ("attack_name", "control")}
    label = f"{cells.label}: strongest floor"
    psnr, identified = (floor(label, metric=metric, **where) for metric in ("psnr_db", "identified"))
    return Held(Ordering(cells, psnr)), Held(Ordering(cells, identified, "identified"))


LENET = "LeNet(Zhu)"
TABLE1 = {
    ("lenet", "untrained"): (PaperFigure(18.00, 3.33, remembered=False), PaperFigure(46.25, 12.66)),
    ("lenet", "trained"): (PaperFigure(18.08, 4.27), PaperFigure(13.24, 5.44)),
    ("resnet", "untrained"): (PaperFigure(19.83, 2.96), PaperFigure(10.29, 5.38)),
    ("resnet", "trained"): (PaperFigure(13.95, 3.38), PaperFigure(6.90, 2.80)),
}
"""Geiping et al. (NeurIPS 2020), Table 1: the cosine attack, the Euclidean one."""


def _table1(preset: str, nets: dict[str, tuple[str, str]], weights: dict[str, str], differs: str) -> ClaimVariant:
    lines: list[PaperLine] = []
    found: dict[tuple[str, str], tuple[Cells, Cells]] = {}
    for kind, (model, net) in nets.items():
        for state, label in weights.items():
            where = {"model": model, "weights": label}
            # As the paper: 1e-2 for the untrained LeNet, 1e-4 else.
            usual = 1e-2 if (kind, state) == ("lenet", "untrained") else 1e-4
            cosine = Cells(f"{net}, {state}: cosine", {**where, **COSINE, "attack.tv_weight": usual})
            euclidean = Cells(f"{net}, {state}: Euclidean", {**where, **EUCLIDEAN})
            found[kind, state] = cosine, euclidean
            papers = TABLE1[kind, "untrained" if state == "untrained" else "trained"]
            lines += [PaperLine(cosine, papers[0]), PaperLine(euclidean, papers[1])]
            lines.append(PaperLine(floor(f"{net}, {state}: strongest floor", **where)))
    held = [Held(Ordering(e, c) if key == ("lenet", "untrained") else Ordering(c, e)) for key, (c, e) in found.items()]
    held += [Held(Ordering(c, e, "identified"), asked=True) for c, e in found.values()]
    wide = [cosine for (kind, _), (cosine, _) in found.items() if kind == "resnet"]
    held += [Held(Ordering(*pair)) for pair in itertools.pairwise(wide)]
    return ClaimVariant(preset, tuple(lines), tuple(held), differs)


ATTACKS = Claim(
    "table1",
    "Cosine and total variation against the Euclidean baseline",
    "The magnitude-invariant loss reconstructs images where the Euclidean one with L-BFGS fails, trained networks"
    " and deep ones included; only on the smooth untrained LeNet is the Euclidean attack better (Table 1, PSNR "
    "over the first 100 test images of CIFAR-10). The Euclidean row predates a bug fix in the authors' code, "
    "which halved the target's cross-entropy: its order is to be expected, not its decimals.",
    (
        _table1(
            "paper-table1",
            {"lenet": ("lenet-zhu", LENET), "resnet": ("resnet20-4", "ResNet20-4")},
            {"untrained": UNTRAINED_LABEL, "120 epochs": "epochs=120"},
            "Momentum and a half cosine in training where the paper lowers the rate in steps; LeNet(Zhu) is trained at "
            "a rate of .01, since with momentum it stays at chance at the paper's .1.",
        ),
        _table1(
            "paper-table1-small",
            {"lenet": ("lenet-zhu", LENET), "resnet": ("resnet20", "ResNet20, width 16")},
            {"untrained": UNTRAINED_LABEL, "5 epochs": FIVE},
            "Few images instead of the first 100, a fraction of the paper's 4,800 iterations and 300 outer steps of"
            " L-BFGS (the table says how many), and a quarter of ResNet20-4's width. Training is short and on "
            "20,000 JPEG images, not 120 epochs on CIFAR-10's 50,000: these networks are far from converged and "
            "their gradients large. LeNet(Zhu) is trained at a rate of .01, since with momentum it stays at chance "
            "at the paper's .1. On it the Euclidean attack is ahead, against the paper, but the cosine attack ended "
            "above its own objective on most images: whether so little training leaves it the smooth network of the "
            "untrained case, or the attack needed more iterations, is not told apart here. On ResNet20 decibels say "
            "little under the floor; there look at the images identified.",
        ),
        _table1(
            "paper-resnet20-4-small",
            {"resnet": ("resnet20-4", "ResNet20-4")},
            {"untrained": UNTRAINED_LABEL},
            "The paper's own network, but one image: it shows what happens there and decides nothing.",
        ),
    ),
)


def _trained(preset: str, model: str, net: str, states: dict[str, str], differs: str) -> ClaimVariant:
    lines: list[PaperLine] = []
    found: dict[tuple[str, str], Cells] = {}
    for mode, suffix in {"eval": "", "train": ", client in train mode"}.items():
        for state, label in states.items():
            where = {"model": model + suffix, "weights": label}
            found[mode, state] = Cells(f"{net}, {state}, client in {mode} mode", {**where, **COSINE})
            lines.append(PaperLine(found[mode, state]))
    lines.append(PaperLine(floor(f"{net}, {UNTRAINED_LABEL}: strongest floor", model=model, weights=UNTRAINED_LABEL)))
    first, *_, last = (found["eval", state] for state in states)
    held = [
        Held(Ordering(first, last)),
        Held(Ordering(first, last, "update_norm")),
        *(Held(Ordering(found["eval", s], found["train", s], "identified"), asked=True) for s in states),
    ]
    return ClaimVariant(preset, tuple(lines), tuple(held), differs)


_TRAINED = Claim(
    "training",
    "Trained networks, and the mode of the client",
    "Trained networks can be inverted too, but leak less than untrained ones (Table 1: ResNet20-4, "
    f"{TABLE1['resnet', 'untrained'][0]} against {TABLE1['resnet', 'trained'][0]} dB); near convergence the "
    "gradient is small. The paper's clients are in eval mode: what train mode changes, where batch norm ties all "
    "pixels of the batch together, is our question.",
    (
        _trained(
            "paper-architecture",
            "resnet20(width=64)",
            "ResNet20-4",
            {"untrained": UNTRAINED_LABEL, "1 epoch": "epochs=1", "5 epochs": "epochs=5", "120 epochs": "epochs=120"},
            "Momentum and a half cosine in training where the paper lowers the rate in steps.",
        ),
        _trained(
            "paper-architecture-small",
            "resnet20(width=16)",
            "ResNet20, width 16",
            {"untrained": UNTRAINED_LABEL, "1 epoch": "epochs=1 on cifar10-jpeg", "5 epochs": FIVE},
            "Few images, few epochs on the JPEG stand-in (nothing has converged; a network that errs on an image "
            "sends a large gradient for it), and so few iterations that the noise of the start is still there, "
            "which PSNR punishes. With so few images a sign test decides only where nearly all differ, "
            "and the norms of single images lie too far apart for an interval of their mean.",
        ),
    ),
)


def _shapes(
    preset: str, models: dict[str, str], orders: list[tuple[str, str]], states: dict[str, str], differs: str
) -> ClaimVariant:
    cells = {
        (m, s): Cells(f"{net}, {s}", {"model": m, "weights": w, **COSINE})
        for m, net in models.items()
        for s, w in states.items()
    }
    floors = [
        floor(f"{net}, {s}: strongest floor", model=m, weights=w)
        for m, net in models.items()
        for s, w in states.items()
    ]
    held = [Held(Ordering(cells[a, s], cells[b, s])) for a, b in orders for s in states]
    held += [one for cell in cells.values() for one in above_floor(cell)]
    first, *_, last = states
    held += [Held(Ordering(cells[m, first], cells[m, last], "update_norm")) for m in models]
    lines = [PaperLine(c) for pair in zip(cells.values(), floors, strict=True) for c in pair]
    return ClaimVariant(preset, tuple(lines), tuple(held), differs)


_SHAPES = Claim(
    "architecture",
    "Width and depth",
    "Architecture and parameters matter: wider networks give the image away better, and depth does not protect "
    "(section 5, pictures of ConvNets and ResNets; the direction is from memory, and no figure of it is at hand).",
    (
        _shapes(
            "paper-architecture",
            {f"convnet64(width={w})": f"ConvNet{w}" for w in (128, 64, 16)}
            | {"resnet20(width=64)": "ResNet20-4", "resnet20(width=16)": "ResNet20, width 16"}
            | {"resnet20(blocks=1)": "ResNet8, width 16", "resnet20(blocks=9)": "ResNet56, width 16"},
            [(f"convnet64(width={a})", f"convnet64(width={b})") for a, b in ((128, 64), (64, 16))]
            + [("resnet20(width=64)", "resnet20(width=16)")],
            {"untrained": UNTRAINED_LABEL, "120 epochs": "epochs=120"},
            "Momentum and a half cosine in training where the paper lowers the rate in steps.",
        ),
        _shapes(
            "paper-architecture-small",
            {
                "resnet20(width=16)": "ResNet20, width 16",
                "resnet20(width=8)": "ResNet20, width 8",
                "resnet20(blocks=1)": "ResNet8, width 16",
            },
            [("resnet20(width=16)", "resnet20(width=8)")],
            {"untrained": UNTRAINED_LABEL, "5 epochs": FIVE},
            "Narrow, shallow networks where the paper has 16 to 128 channels and up to 152 layers; few images, "
            "short training on the JPEG stand-in, and so few iterations that the noise of the start is still there,"
            " which PSNR punishes. With so few images a sign test decides only where nearly all differ, "
            "and the norms of single images lie too far apart for an interval of their mean.",
        ),
    ),
)


def _large(preset: str, models: dict[str, str], differs: str) -> ClaimVariant:
    cells = [Cells(net, {"model": m, **COSINE}) for m, net in models.items()]
    floors = [floor(f"{net}: strongest floor", model=m) for m, net in models.items()]
    held = tuple(one for cell in cells for one in above_floor(cell))
    return ClaimVariant(
        preset, tuple(PaperLine(c) for pair in zip(cells, floors, strict=True) for c in pair), held, differs
    )


_LARGE = Claim(
    "imagenet",
    "Images of 224x224",
    "Whole photographs are reconstructed from ResNet-18 and ResNet-152 at 224x224 (pictures; no figure at hand).",
    (
        _large(
            "paper-imagenet",
            {"resnet18": "ResNet-18, untrained", "resnet152": "ResNet-152, untrained"},
            "Random weights, for lack of ImageNet; the paper's are trained.",
        ),
        _large(
            "paper-imagenet-small",
            {"resnet18": "ResNet-18, untrained"},
            "No restarts and a fraction of the paper's 24,000 iterations of 8 restarts, random weights where the "
            "paper's are trained. It shows that the machinery runs at this size; two images decide nothing.",
        ),
    ),
)

NETWORKS = (_TRAINED, _SHAPES, _LARGE)


def _fedavg(preset: str, model: str, rates: tuple[float, ...], differs: str) -> ClaimVariant:
    lines = [PaperLine(Cells("one gradient", {"model": model, "defense_name": "none", **COSINE}))]
    lines.append(PaperLine(floor("one gradient: strongest floor", model=model, defense_name="none")))
    held = [*above_floor(lines[0].cells)]
    for rate in rates:
        for steps in (1, 5, 20):
            where = {"model": model, "defense.epochs": steps, "defense.learning_rate": rate}
            cells = Cells(f"{steps} local step{'s' * (steps > 1)}, rate {rate:g}", {**where, **COSINE})
            lines.append(PaperLine(cells))
            held += above_floor(cells)
        held.append(Held(Ordering(lines[0].cells, lines[-1].cells), asked=True))
    return ClaimVariant(preset, tuple(lines), tuple(held), differs)


_FEDAVG = Claim(
    "fedavg",
    "Several local steps",
    "Federated averaging does not protect: an attacker who knows the schedule unrolls the local steps and matches"
    " the difference of weights (section 6; the authors' notebook takes 5 steps at a rate of 1e-4 and 8,000 "
    "iterations; no figure at hand). That is: after 1, 5 and 20 steps the attack stays above what is possible "
    "without the update.",
    (
        _fedavg("paper-fedavg", "convnet64", (1e-4, 1e-3, 1e-2), "Rates and steps beside the notebook's are ours."),
        _fedavg(
            "paper-fedavg-small",
            "lenet-zhu",
            (1e-4, 1e-2),
            "LeNet(Zhu) instead of a ConvNet, few images, and a fraction of the notebook's 8,000 iterations; "
            "rates and steps beside 5 at 1e-4 are ours. After so few iterations some reconstructions are still noisy, "
            "which widens the intervals of PSNR; identified they are.",
        ),
    ),
)


def _batch(preset: str, net: dict[str, str], differs: str) -> ClaimVariant:
    sizes = (1, 4, 8, 100)
    where = {size: {**net, "images_per_update": size} for size in sizes}
    cells = {
        size: Cells(f"{size} image{'s' * (size > 1)} a client", {**where[size], **COSINE, "control": False})
        for size in sizes
    }
    floors = {size: floor(f"{cells[size].label}: strongest floor", **where[size]) for size in sizes}
    held = [one for size in sizes for one in above_floor(cells[size])]
    pairs = ((1, 4), (4, 8), (8, 100))
    held += [Held(Ordering(cells[a], cells[b], metric)) for a, b in pairs for metric in ("psnr_db", "identified")]
    return ClaimVariant(
        preset, tuple(PaperLine(c[size]) for size in sizes for c in (cells, floors)), tuple(held), differs
    )


_DEALT = (
    "Clients of 4, 8 and 100 images are dealt independently of each other, so that hardly any group of images cuts no "
    "client of two sizes: 4 against 8 and 8 against 100 images stay undecided."
)

_BATCH = Claim(
    "batch",
    "Several images in one gradient",
    "Averaging over images does not protect all of them: even of 100 images in one gradient some can be recognised "
    "(section 6, CIFAR-100, pictures of the most recognisable; no figure at hand), though quality falls with the "
    "batch. Recognised is measured here as identified.",
    (
        _batch(
            "paper-batch",
            {"model": "resnet32-10", "weights": "untrained"},
            f"The settings of 8 images (rate 1, 24,000 iterations, 8 restarts) are used for all. {_DEALT}",
        ),
        _batch(
            "paper-batch-small",
            {"model": "lenet-zhu"},
            "Grey Fashion-MNIST of 28x28 instead of CIFAR-100, LeNet(Zhu) instead of ResNet32-10, no restarts and a "
            "fraction of the 24,000 iterations. Clothes on black are alike, so that the mean of a class is a high "
            "floor in PSNR, which noise alone can miss; but the mean of a class is nobody's picture, and a noisy "
            "picture is somebody's: identification sees the leak where PSNR does not. From 4 images on the attack "
            "ended above its own objective on nearly all images, so that what larger batches seem to protect may be "
            f"what more iterations would get. {_DEALT}",
        ),
    ),
)

PROTOCOL = (_FEDAVG, _BATCH)
