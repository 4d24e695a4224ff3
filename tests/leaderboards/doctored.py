"""Doctored entries: an honest one in which one thing is a lie, every hash right; and what finds it."""

from __future__ import annotations

import copy
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from doctoring import Cell, Doctor
from tiny_board import PICTURES, PUBLIC, TRAININGS

from leaderboards.checks.rules import ENTRY_RULES

READING = "reading"
"""Finds what is wrong before any rule is asked."""
RERUN = "figures"
"""The rule that asks for what is computed again."""
PLUGIN = "cells, by the plugin's file"
"""The rule `cells`, where the plugin's file is given."""
Change = Callable[[Doctor], None]


@dataclass(frozen=True)
class Case:
    """`lie` in words; the honest `entry` of a `board` that `change` doctors; the name of the rule that finds it, and a
    telling part of what it says. What is found by RERUN alone is so in the cell or job that `again` names."""

    lie: str
    change: Change
    rule: str
    says: str
    entry: str = "noise"
    board: str = PICTURES
    again: Callable[[Doctor], dict[str, Any]] | None = None


CASES: dict[str, Case] = {}


def case(lie: str, rule: str, says: str, **where: Any) -> Callable[[Change], Change]:
    """Enter the decorated function as the change of a case that bears its name."""

    def enter(change: Change) -> Change:
        CASES[change.__name__] = Case(lie, change, rule, says, **where)
        return change

    return enter


IG = "inverting_gradients"
attacked = lambda doctor: doctor.cell(IG)

answers = lambda doctor: doctor.cell("same_class", knows=True, of="posterior_mean")
ANSWERS = {"entry": "pairs", "board": PUBLIC}

# Files


@case("A review lies among the files of the entry", READING, "no cell shows it")
def review_inside(doctor: Doctor) -> None:
    doctor.more["noise.review.json"] = b'{"state": "re-run"}'


@case("Two finished cells have no images at all", READING, "it shows no image")
def no_images(doctor: Doctor) -> None:
    for cell in list(doctor.all("label_rule")):
        cell["columns"] = {key: None if value is None else [] for key, value in cell["columns"].items()}


@case("A column has one image less than the others", READING, "columns are [3, 4] long")
def short_column(doctor: Doctor) -> None:
    attacked(doctor)["columns"]["ssim"].pop()


@case("An SSIM of 2", READING, "less than or equal to 1")
def impossible_metric(doctor: Doctor) -> None:
    attacked(doctor)["columns"]["ssim"][0] = 2.0


@case("The board is unknown", READING, "unknown board")
def unknown_board(doctor: Doctor) -> None:
    doctor.manifest["board"] = "easy-v1"


@case("The board's name is a path", READING, "unknown board")
def board_is_a_path(doctor: Doctor) -> None:
    doctor.manifest["board"] = "../tiny-pictures-v1"


@case("An answer to a held-out client has no label", READING, "found_label is 15 long", **ANSWERS)
def answer_without_label(doctor: Doctor) -> None:
    answers(doctor)["columns"]["found_label"].pop()


# Place and configuration


@case("It was made for another version of the board", "place", "another file of")
def another_board_file(doctor: Doctor) -> None:
    doctor.manifest["board_sha256"] = "0" * 64


@case("Its folder has another name", "place", "its manifest says other")
def folder_differs(doctor: Doctor) -> None:
    doctor.manifest["name"] = "other"


@case("An entry of this name, with other results, is published", "place", "another entry noise is published")
def published_name(doctor: Doctor) -> None:
    doctor.manifest["note"] = "better than before"


@case("Its defense is on the board already", "place", "is in the entry noise already")
def published_defense(doctor: Doctor) -> None:
    moved(doctor, "copycat")


@case("It brings an undefended client of its own", "place", "none is in the entry undefended already")
def own_baseline(doctor: Doctor) -> None:
    for cell in list(doctor.all("")):
        other = copy.deepcopy(cell)
        doctor.renamed(other, defense="none", defense_name="none", defense_parameters=[{}])
        doctor.cells.append(other)


@case("The undefended entry leaks less than it did", "place", "another entry undefended", entry="undefended")
def weaker_baseline(doctor: Doctor) -> None:
    doctor.show(attacked(doctor), doctor.images(doctor.cell("prior_only")))


@case("Its board has fewer iterations", "configuration", "grid.attacks is")
def another_configuration(doctor: Doctor) -> None:
    doctor.manifest["config"]["grid"]["attacks"][0] = "inverting_gradients(iterations=1)"


@case("Its certificate asks less", "configuration", "[certificate] is not the board's", board=TRAININGS)
def another_certificate(doctor: Doctor) -> None:
    doctor.manifest["config"]["certificate"]["trials"] = 1


@case("It was made in half precision", "configuration", "engine.precision is bfloat16")
def half_precision(doctor: Doctor) -> None:
    doctor.manifest["config"]["engine"]["precision"] = "bfloat16"


@case("It does not say what made it", "configuration", "does not say which torch")
def without_versions(doctor: Doctor) -> None:
    del doctor.manifest["environment"]["packages"]["torch"]


@case("Too many defenses", "limits", "6 defenses, at most 5")
def many_defenses(doctor: Doctor) -> None:
    for i in range(5):
        for cell in list(doctor.all("label_rule", "dp_sgd")):
            other = copy.deepcopy(cell)
            doctor.renamed(other, defense=f"other{i}", defense_name=f"other{i}")
            doctor.cells.append(other)


@case("More images an update than the board allows", "limits", "4 images of an update, at most 2", entry="signs")
def large_batches(doctor: Doctor) -> None:
    for cell in list(doctor.all("")):
        doctor.renamed(cell, images_per_update=4)


@case("Images that do not divide into clients", "limits", "a divisor of 30", entry="tens", board=TRAININGS)
def undivided(doctor: Doctor) -> None:
    for cell in list(doctor.all("")):
        doctor.renamed(cell, images_per_update=7)


@case("Parameters ask for more work than they say", "methods", "local steps, at most 4")
def hidden_work(doctor: Doctor) -> None:
    for cell in list(doctor.all("")):
        changes = {"epochs": 10**12, "batch_size": None, "learning_rate": 0.1}
        called = "local_epochs(epochs=1000000000000, learning_rate=0.1)"
        doctor.renamed(cell, defense=called, defense_name="local_epochs", defense_parameters=[changes])


@case("Parameters that the defense does not take", "methods", "dp_sgd")
def unknown_parameter(doctor: Doctor) -> None:
    for cell in list(doctor.all("")):
        doctor.renamed(cell, defense_parameters=[{"noise": 3.0}])


@case("An attack joins that the board would then ask of everybody", "limits", "required of every entry")
def unranks_everybody(doctor: Doctor) -> None:
    other = copy.deepcopy(doctor.cell("linear_layer"))
    doctor.renamed(other, attack="linear_layer(iterations=7)", attack_parameters={"iterations": 7})
    doctor.cells.append(other)


# Cells


@case("A cell is left out", "cells", "linear_layer on untrained weights is missing")
def dropped_cell(doctor: Doctor) -> None:
    doctor.cells.remove(doctor.cell("linear_layer"))


@case("A cell is there twice", "cells", "a cell is there twice")
def doubled_cell(doctor: Doctor) -> None:
    other = copy.deepcopy(attacked(doctor))
    other["identity"]["cell"] = "0" * 16
    doctor.cells.append(other)


@case("An image is left out of a cell", "cells", "3 images, the board has 4")
def dropped_image(doctor: Doctor) -> None:
    cell, images = attacked(doctor), doctor.images(attacked(doctor))
    cell["columns"] = {key: None if value is None else value[:3] for key, value in cell["columns"].items()}
    cell["sheet"] = doctor.sheet(images[:3])


@case("A control of its own raises the floors", "cells", "does not ask for prior_only(iterations=9)")
def own_control(doctor: Doctor) -> None:
    other = copy.deepcopy(doctor.cell("prior_only"))
    doctor.renamed(other, attack="prior_only(iterations=9)")
    other["sheet"] = doctor.manifest["truth"]
    doctor.cells.append(other)


@case("The strongest attack is said to be impossible", "cells", "the board's plan does not skip it")
def skipped_attack(doctor: Doctor) -> None:
    for cell in list(doctor.all("linear_layer")):
        emptied(cell, "skipped", "needs a dense layer")


@case("A cell has another seed", "cells", "is missing; run the board to its end")
def other_seed(doctor: Doctor) -> None:
    doctor.renamed(attacked(doctor), seed=1)


@case("A cell shows what fewer iterations found, and says so", "cells", "does not ask for inverting_gradients")
def short_attack_by_label(doctor: Doctor) -> None:
    doctor.renamed(attacked(doctor), attack="inverting_gradients(iterations=5, tv_weight=0.01)")


@case("The parameters of an attack are not those of its label", "cells", "attack_parameters is")
def short_attack_by_parameters(doctor: Doctor) -> None:
    attacked(doctor)["identity"]["attack_parameters"]["iterations"] = 5


@case("The id of a cell is that of other choices", "cells", "is not the id of these choices", entry="signs")
def foreign_id(doctor: Doctor) -> None:
    attacked(doctor)["identity"]["cell"] = "0" * 16


@case("A built-in defense claims an adaptive attack", "cells", "adapts is 'True'", entry="several")
def adapts_forged(doctor: Doctor) -> None:
    for cell in list(doctor.all("label_rule", "gradient_pruning")):
        cell["identity"]["adapts"] = True


@case("A built-in defense claims to be audited otherwise", "cells", "audited is")
def audited_forged(doctor: Doctor) -> None:
    for cell in list(doctor.all("")):
        cell["identity"]["audited"] = not cell["identity"]["audited"]


@case("A plugin without a surrogate claims an adaptive attack", PLUGIN, "adapts is 'True'", entry="signs")
def adapts_forged_for_a_plugin(doctor: Doctor) -> None:
    for cell in list(doctor.all(IG)):
        cell["identity"]["adapts"] = True


@case("A plugin calls itself something else", "cells", "its label does not name", entry="signs")
def false_label(doctor: Doctor) -> None:
    for cell in list(doctor.all("")):
        cell["identity"]["defense"] = "perfect_privacy"


@case("The parameters of a plugin differ from cell to cell", "cells", "disagree about", entry="signs")
def parameters_by_cell(doctor: Doctor) -> None:
    cell = attacked(doctor)
    cell["identity"]["defense_parameters"] = [{"scale": 0.001}]


# Images and metrics


@case("The private images are in another order", "truth", "are not the first 4 of MNIST")
def permuted_truth(doctor: Doctor) -> None:
    doctor.manifest["truth"] = doctor.sheet(doctor.truth()[::-1])


@case("The private images are other images", "truth", "are not the first 4 of MNIST")
def replaced_truth(doctor: Doctor) -> None:
    doctor.manifest["truth"] = doctor.sheet(doctor.images(attacked(doctor)))


@case("Images are dealt to other clients", "trials", "deals the images to other trials", entry="several")
def other_trials(doctor: Doctor) -> None:
    for cell in list(doctor.all("", "larger_batch")):
        cell["columns"]["trial"] = [0, 0, 1, 1] if cell["columns"]["trial"] != [0, 0, 1, 1] else [0, 1, 0, 1]


@case("The true labels are others", "trials", "true_label is not the dataset's")
def other_labels(doctor: Doctor) -> None:
    attacked(doctor)["columns"]["true_label"][0] += 1


@case("One metric of one image is lower", "metrics", "ssim of image 2 is")
def edited_metric(doctor: Doctor) -> None:
    attacked(doctor)["columns"]["ssim"][2] -= 0.01


@case("All metrics of a cell are scaled", "metrics", "4 of 4 images differ")
def scaled_metrics(doctor: Doctor) -> None:
    for metric in ("mse", "psnr_db", "ssim"):
        columns = attacked(doctor)["columns"]
        columns[metric] = [0.9 * value for value in columns[metric]]


@case("Identified images are not counted", "metrics", "identified of image")
def unidentified(doctor: Doctor) -> None:
    doctor.cell("linear_layer")["columns"]["identified"] = [0.0, 0.0, 0.0, 1.0]
    doctor.cell("linear_layer", knows=True)["columns"]["identified"] = [1.0, 0.0, 0.0, 0.0]


@case("Pictures are replaced and metrics are not", "metrics", "but its reconstruction has")
def other_pictures(doctor: Doctor) -> None:
    attacked(doctor)["sheet"] = doctor.sheet(doctor.images(attacked(doctor))[::-1])


@case("One of four answers to held-out clients is another", "metrics", "but the 4 answers about it have", **ANSWERS)
def other_answer(doctor: Doctor) -> None:
    images = doctor.images(answers(doctor))
    images[2] = 255 - images[2]
    answers(doctor)["sheet"] = doctor.sheet(images)


@case("Answers are said to fit their own clients better", "metrics", "held_out_ssim of image 0 is", **ANSWERS)
def better_answers(doctor: Doctor) -> None:
    answers(doctor)["columns"]["held_out_ssim"][0] += 0.1


@case("Images were identified among fewer", "metrics", "identification_pool is 2")
def small_pool(doctor: Doctor) -> None:
    attacked(doctor)["identification_pool"] = 2


@case("The floor wrong_image borrows from a better cell", "metrics", "it borrows from")
def borrowed_elsewhere(doctor: Doctor) -> None:
    lender = doctor.cell("linear_layer")["identity"]["cell"]
    cell = doctor.cell("wrong_image", of=IG)
    cell["of"] = lender
    doctor.score(cell)


@case("The floor wrong_image is edited", "metrics", "wrong_image")
def edited_floor(doctor: Doctor) -> None:
    cell = doctor.cell("wrong_image", of=IG)
    cell["columns"]["ssim"] = [value + 0.1 for value in cell["columns"]["ssim"]]


# Objectives, updates, floors


@case("An objective ends above where it began", "consistency", "its objective ends at")
def found_above_start(doctor: Doctor) -> None:
    columns = attacked(doctor)["columns"]
    columns["objective_found"] = [2 * value for value in columns["objective_start"]]


@case("The objectives are left out, so that nothing seems underpowered", "reference", "objective_found is null")
def hidden_objectives(doctor: Doctor) -> None:
    for cell in list(doctor.all(IG)):
        cell["columns"] |= dict.fromkeys(("objective_start", "objective_found", "objective_truth"))


@case("One objective at the truth is left out", "reference", "objective_truth of image 1 is null")
def hidden_objective(doctor: Doctor) -> None:
    attacked(doctor)["columns"]["objective_truth"][1] = None


@case("The weights have another accuracy than the undefended entry's", "reference", "weights_accuracy is 0.9")
def other_weights(doctor: Doctor) -> None:
    for cell in list(doctor.all("")):
        cell["weights_accuracy"] = 0.9


@case("Attacked images are the answers to held-out clients", "consistency", "nearer to the attacked images", **ANSWERS)
def higher_floor(doctor: Doctor) -> None:
    doctor.show(answers(doctor), np.repeat(doctor.truth(), 4, axis=0))


@case("One attack was shown another update", "consistency", "attacked another update")
def another_update(doctor: Doctor) -> None:
    attacked(doctor)["updates"] = ["0" * 64]


@case("One attack states another norm of the update", "consistency", "attacked another update")
def another_norm(doctor: Doctor) -> None:
    attacked(doctor)["columns"]["update_norm"][0] *= 2


@case("A floor shows the private images", "floors", "from the floor of the undefended client")
def truth_as_floor(doctor: Doctor) -> None:
    for cell in list(doctor.all("prior_only")):
        doctor.show(cell, doctor.truth())


@case("A constant floor shows the private images", "floors", "is not what this floor shows", entry="several")
def truth_as_constant_floor(doctor: Doctor) -> None:
    cell = doctor.cell("grey_image", defense="larger_batch")
    doctor.show(cell, (0.1 * doctor.truth() + 0.9 * doctor.images(cell)).astype(np.uint8))


@case("The floor class_mean shows one of the private images", "floors", "image 3", entry="tens", board=TRAININGS)
def truth_among_class_means(doctor: Doctor) -> None:
    cell = doctor.cell("class_mean")
    doctor.show(cell, np.concatenate([doctor.images(cell)[:3], doctor.truth()[3:4], doctor.images(cell)[4:]]))


# Trainings and certificates


@case("An accuracy that is no count of test images", "jobs", "is no count of 360", board=TRAININGS)
def accuracy_no_count(doctor: Doctor) -> None:
    doctor.job("training")["figures"]["accuracy"] = 0.9012345


@case("An accuracy at equal images that is no count of them", "jobs", "equal_images 0.9012345 is no", board=TRAININGS)
def early_accuracy_no_count(doctor: Doctor) -> None:
    doctor.job("training")["figures"]["accuracy_at_equal_images"] = 0.9012345


@case("More test images, so that any accuracy is a count", "jobs", "test_images is 10000000.0", board=TRAININGS)
def many_test_images(doctor: Doctor) -> None:
    doctor.job("training")["figures"] |= {"accuracy": 0.9012345, "test_images": 1e7}


@case("Guessing is said to reach less", "jobs", "chance is 0.01", board=TRAININGS)
def lower_chance(doctor: Doctor) -> None:
    doctor.job("training")["figures"]["chance"] = 0.01


@case("A built-in defense proves more than it does", "jobs", "epsilon is", board=TRAININGS)
def lower_epsilon(doctor: Doctor) -> None:
    for job in doctor.jobs:
        job["figures"]["epsilon"] = job["figures"]["epsilon"] and job["figures"]["epsilon"] / 2


@case("A heuristic has an epsilon", "jobs", "which no such training has", entry="tens", board=TRAININGS)
def epsilon_of_a_heuristic(doctor: Doctor) -> None:
    for job in doctor.jobs:
        job["figures"]["epsilon"] = 0.1


@case("A training took more rounds than the board's", "jobs", "rounds is 400", board=TRAININGS)
def more_rounds(doctor: Doctor) -> None:
    doctor.job("training")["figures"]["rounds"] = 400.0


@case("A seed of the trainings is left out", "jobs", "1 of 2 trainings", board=TRAININGS)
def dropped_training(doctor: Doctor) -> None:
    doctor.jobs.remove(doctor.job("training", seed=1))


@case("An update weighs nothing", "jobs", "bytes_sent is", board=TRAININGS)
def weightless(doctor: Doctor) -> None:
    doctor.job("training")["figures"]["bytes_sent"] = 0.0


@case("The certificate is left out", "jobs", "0 of 1 certificates", board=TRAININGS)
def dropped_certificate(doctor: Doctor) -> None:
    doctor.jobs.remove(doctor.job("certificate"))


@case("The bound of a certificate is lower than its noise says", "jobs", "by its noise it is", board=TRAININGS)
def lower_bound(doctor: Doctor) -> None:
    doctor.job("certificate")["figures"]["bound"] /= 2


@case("A certificate has more noise, and the bound of that noise", "jobs", "noise_multiplier is", board=TRAININGS)
def more_noise(doctor: Doctor) -> None:
    from bench.price.certificates import identification_bound

    figures = doctor.job("certificate")["figures"]
    figures |= {"noise_multiplier": 5.0, "bound": identification_bound(int(figures["candidates"]), 5.0)}


@case("A certificate has fewer trials than the board's", "jobs", "trials is 2", board=TRAININGS)
def fewer_trials(doctor: Doctor) -> None:
    doctor.job("certificate")["figures"] |= {"trials": 2.0, "successes": 0.0}


@case("A job is of a defense that was not attacked", "jobs", "is no defense of this entry", board=TRAININGS)
def foreign_job(doctor: Doctor) -> None:
    job = copy.deepcopy(doctor.job("training"))
    doctor.jobs.append(job | {"defense": "perfect_privacy", "job": "training-" + "0" * 16})


# What only computing again finds


@case("Noise instead of reconstructions, all metrics honestly those of the noise", RERUN, "mean PSNR", again=attacked)
def noise_shown(doctor: Doctor) -> None:
    shape = doctor.truth().shape
    for cell in list(doctor.all(IG)):
        doctor.show(cell, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


@case("Noise as far from the private images as the reconstructions were", RERUN, "mean SSIM", again=attacked)
def noise_at_the_same_psnr(doctor: Doctor) -> None:
    rng, truth = np.random.default_rng(0), doctor.truth()
    for cell in list(doctor.all(IG)):
        error = np.sqrt(np.mean((doctor.images(cell).astype(float) - truth) ** 2, axis=(1, 2, 3), keepdims=True))
        doctor.show(cell, as_far(truth, rng.choice([-1.0, 1.0], truth.shape), error))


@case("Reconstructions are shown with other images than their own", RERUN, "distance of SSIM by image")
def leaks_moved(doctor: Doctor) -> None:
    truth, cell = doctor.truth().astype(float), attacked(doctor)
    error = doctor.images(cell).astype(float) - truth
    doctor.show(cell, np.clip(truth + error[::-1], 0, 255).round().astype(np.uint8))


@case("The attack ran for fewer iterations than its label says", RERUN, "objective found", again=attacked)
def really_short_attack(doctor: Doctor) -> None:
    for cell in list(doctor.all(IG)):
        images, columns = shorter(cell)
        cell["columns"] |= columns
        doctor.show(cell, images)


@case("A weaker attack under the name of the required one", RERUN, "mean PSNR", again=attacked)
def weaker_attack(doctor: Doctor) -> None:
    for cell in list(doctor.all(IG)):
        doctor.show(cell, doctor.images(doctor.cell("prior_only", knows=cell["identity"]["defense_known"])))


@case(
    "Objectives are lowered below those at the truth, so that nothing seems underpowered",
    RERUN,
    "images underpowered",
    entry="several",
    again=lambda doctor: doctor.cell(IG, defense="gradient_pruning"),
)
def lowered_objective(doctor: Doctor) -> None:
    for cell in list(doctor.all(IG)):
        cell["columns"]["objective_found"] = [0.99 * value for value in cell["columns"]["objective_truth"]]


@case("The norm of the update is another in all cells", RERUN, "norm of the update", again=attacked)
def all_norms(doctor: Doctor) -> None:
    for cell in list(doctor.all("")):
        cell["columns"]["update_norm"] = [0.5 * value for value in cell["columns"]["update_norm"]]


@case(
    "Labels that were found are exchanged, the share of right ones counted honestly",
    RERUN,
    "labels found",
    entry="several",
    again=lambda doctor: doctor.cell("label_rule", defense="gradient_pruning"),
)
def labels_exchanged(doctor: Doctor) -> None:
    for cell in list(doctor.all("label_rule", "gradient_pruning")):
        columns = cell["columns"]
        columns["found_label"] = [(label + 1) % 10 for label in columns["true_label"]]
        columns["label_accuracy"] = label_accuracy(columns)


@case(
    "A floor is a little better for clients of several images, where it may be",
    RERUN,
    "mean SSIM of prior_only",
    entry="several",
    again=lambda doctor: doctor.cell("prior_only", defense="larger_batch"),
)
def raised_floor(doctor: Doctor) -> None:
    cell = doctor.cell("prior_only", defense="larger_batch")
    doctor.show(cell, (0.96 * doctor.images(cell) + 0.04 * doctor.truth()).astype(np.uint8))


@case(
    "A higher accuracy that is a count of test images",
    RERUN,
    "accuracy in %",
    board=TRAININGS,
    again=lambda doctor: doctor.job("training"),
)
def higher_accuracy(doctor: Doctor) -> None:
    figures = doctor.job("training")["figures"]
    figures["accuracy"] = float(f"{(round(figures['accuracy'] * 360) + 20) / 360:.7g}")


@case(
    "An update is said to be smaller than it is",
    RERUN,
    "bytes of an update",
    board=TRAININGS,
    again=lambda doctor: doctor.job("training"),
)
def smaller_update(doctor: Doctor) -> None:
    doctor.job("training")["figures"]["bytes_sent"] /= 10


@case(
    "The attacker behind a certificate succeeded more seldom than it did",
    RERUN,
    "private images identified",
    board=TRAININGS,
    again=lambda doctor: doctor.job("certificate"),
)
def fewer_successes(doctor: Doctor) -> None:
    figures = doctor.job("certificate")["figures"]
    assert figures["successes"] >= 1
    figures["successes"] -= 1


def moved(doctor: Doctor, name: str) -> None:
    """Give the entry this name, and its folder."""
    doctor.manifest["name"] = name
    doctor.folder = doctor.folder.rename(doctor.folder.with_name(name))


def emptied(cell: Cell, status: str, reason: str) -> None:
    """Take a cell's results away, and those of nobody who borrows."""
    cell |= {"status": status, "reason": reason, "sheet": None, "of": None, "columns": None, "updates": []}


def label_accuracy(columns: dict[str, list[Any]]) -> list[float]:
    """The share of labels found by client, as multisets."""
    trials = sorted(set(columns["trial"]))
    of = lambda key, trial: Counter(v for v, t in zip(columns[key], columns["trial"], strict=True) if t == trial)
    right = {t: (of("true_label", t) & of("found_label", t)).total() / of("true_label", t).total() for t in trials}
    return [right[trial] for trial in columns["trial"]]


def as_far(truth: np.ndarray, direction: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Images at this root mean squared distance from the truth, in a direction that is kept inside [0, 255]."""
    inward = np.where(truth > 127, -1.0, 1.0) * np.abs(direction)
    direction = np.where((truth + direction * error < 0) | (truth + direction * error > 255), inward, direction)
    return np.clip(truth + direction * error, 0, 255).round().astype(np.uint8)


def shorter(cell: Cell) -> tuple[np.ndarray, dict[str, list[float]]]:
    """What the cell's attack finds in 2 iterations instead of 20, and its objectives."""
    from tiny_board import NOISE

    from bench.engines.run import run
    from leaderboards.entries.board import boards

    text = boards()[PICTURES].replace("iterations = 20", "iterations = 2")
    grid = text[text.index("[grid]") :].replace('"linear_layer", "label_rule"', "")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "short.toml"
        path.write_text(grid)
        overrides = ["engine.execution=eager", "engine.threads=1", f'grid.defenses=["{NOISE}"]']
        done = run(path, output=Path(folder) / "run", overrides=overrides)
        known = cell["identity"]["defense_known"]
        plan = done.store.plan()["cells"]
        own = next(c for c in plan if c["attack_name"] == IG and c["defense_known"] == known)
        record = done.store.record(own["blocks"][0]["id"])
        stored = done.store.arrays(own["blocks"][0]["id"])["images"]
        rows = record["images"]
        images = np.stack([stored[tuple(row["position"])].transpose(1, 2, 0) for row in rows])
        names = ("objective_start", "objective_found", "objective_truth")
        return images, {name: [float(f"{row[name]:.7g}") for row in rows] for name in names}


def table() -> str:
    """Every case as a row of Markdown."""
    rows = ["| Lie | Found by |", "|:--|:--|"]
    rules = {rule.name: rule.promise for rule in ENTRY_RULES}
    rules[READING] = "reading: what is there, hashes, types and bounds"
    rules[PLUGIN] = f"{rules['cells']}, where the plugin's file is given"
    for one in CASES.values():
        again = f"computing it again, and nothing else: “{one.says}”"
        found = again if one.rule == RERUN else rules[one.rule]
        rows.append(f"| {one.lie} | {found} |")
    return "\n".join(rows)


if __name__ == "__main__":
    from tools.detection import DETECTION_PAGE
    from tools.readme import put

    put("lies", table(), DETECTION_PAGE)
