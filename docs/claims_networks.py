"""Claims about networks: training, width and depth, and large images."""

from __future__ import annotations

from claims import COSINE, FIVE, UNTRAINED, Claim, Held, Line, Variant, above_floor, floor
from claims_attacks import TABLE1
from orderings import Cells, Ordering


def _trained(preset: str, model: str, net: str, states: dict[str, str], differs: str) -> Variant:
    lines: list[Line] = []
    found: dict[tuple[str, str], Cells] = {}
    for mode, suffix in {"eval": "", "train": ", client in train mode"}.items():
        for state, label in states.items():
            where = {"model": model + suffix, "weights": label}
            found[mode, state] = Cells(f"{net}, {state}, client in {mode} mode", {**where, **COSINE})
            lines.append(Line(found[mode, state]))
    lines.append(Line(floor(f"{net}, {UNTRAINED}: strongest floor", model=model, weights=UNTRAINED)))
    first, *_, last = (found["eval", state] for state in states)
    held = [
        Held(Ordering(first, last)),
        Held(Ordering(first, last, "update_norm")),
        *(Held(Ordering(found["eval", s], found["train", s], "identified"), asked=True) for s in states),
    ]
    return Variant(preset, tuple(lines), tuple(held), differs)


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
            {"untrained": UNTRAINED, "1 epoch": "epochs=1", "5 epochs": "epochs=5", "120 epochs": "epochs=120"},
            "Momentum and a half cosine in training where the paper lowers the rate in steps.",
        ),
        _trained(
            "paper-architecture-small",
            "resnet20(width=16)",
            "ResNet20, width 16",
            {"untrained": UNTRAINED, "1 epoch": "epochs=1 on cifar10-jpeg", "5 epochs": FIVE},
            "Few images, few epochs on the JPEG stand-in (nothing has converged; a network that errs on an image "
            "sends a large gradient for it), and so few iterations that the noise of the start is still there, "
            "which PSNR punishes. With so few images a sign test decides only where nearly all differ, "
            "and the norms of single images lie too far apart for an interval of their mean.",
        ),
    ),
)


def _shapes(
    preset: str, models: dict[str, str], orders: list[tuple[str, str]], states: dict[str, str], differs: str
) -> Variant:
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
    lines = [Line(c) for pair in zip(cells.values(), floors, strict=True) for c in pair]
    return Variant(preset, tuple(lines), tuple(held), differs)


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
            {"untrained": UNTRAINED, "120 epochs": "epochs=120"},
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
            {"untrained": UNTRAINED, "5 epochs": FIVE},
            "Narrow, shallow networks where the paper has 16 to 128 channels and up to 152 layers; few images, "
            "short training on the JPEG stand-in, and so few iterations that the noise of the start is still there,"
            " which PSNR punishes. With so few images a sign test decides only where nearly all differ, "
            "and the norms of single images lie too far apart for an interval of their mean.",
        ),
    ),
)


def _large(preset: str, models: dict[str, str], differs: str) -> Variant:
    cells = [Cells(net, {"model": m, **COSINE}) for m, net in models.items()]
    floors = [floor(f"{net}: strongest floor", model=m) for m, net in models.items()]
    held = tuple(one for cell in cells for one in above_floor(cell))
    return Variant(preset, tuple(Line(c) for pair in zip(cells, floors, strict=True) for c in pair), held, differs)


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
