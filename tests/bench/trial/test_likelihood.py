"""A private image picked out of the pool by the likelihood of its release, whatever an attack makes of it."""

import json

import pytest
import torch

from attacks.matching.candidates import most_likely
from bench.engines.run import prepare, run
from bench.grid.config import from_toml
from bench.price.certificates import identification_bound, is_broken
from bench.trial.clients import observe
from bench.trial.likelihood import identify_by_likelihood
from bench.trial.trial import identified_by_likelihood
from defenses.task import Batch
from leaderboards.tables.scores import render_scores

GRID = """
name = "likely"
[grid]
dataset = "digits"
models = [{{ name = "mlp", hidden = [16] }}]
images = {images}
attacks = ["label_rule", "grey_image"]
defenses = {defenses}
threat = {{ public = {public}, defense_known = {known}, releases = {releases} }}
public = 60
controls = false
[engine]
threads = 1
execution = "eager"
"""


def grid(defenses, images=20, public="true", known="true", releases="1"):
    told = {"public": public, "known": known, "releases": releases}
    return from_toml(GRID.format(defenses=json.dumps(defenses), images=images, **told))


def identified(defense, images=40, **changes):
    """The number of the first images that are identified under a defense."""
    _, _, clients, plan = prepare(grid([defense], images, **changes))
    found = [identified_by_likelihood(clients, b, clients.release(b)).found for b in plan.cells[0].blocks(plan.images)]
    return int(torch.cat(found).sum())


@pytest.mark.parametrize("defense", ["none", "dp_sgd(noise_multiplier=0.3)", "gradient_pruning(ratio=0.9)"])
def test_whoever_is_identified_is_the_certificate_s_most_likely_candidate(defense):
    _, _, clients, plan = prepare(grid([defense]))
    block, dataset = plan.cells[0].blocks(plan.images)[0], clients.dataset(plan.cells[0].setting)
    sent = clients.release(block)
    found = identified_by_likelihood(clients, block, sent).found
    pool = dataset.pool()
    rivals = [[i for i in pool if i != own][: len(pool) - 1] for [own] in sent.image_ids.tolist()]
    others = torch.stack([dataset.images(own) for own in rivals])
    images = torch.cat([sent.truth.float() / 255, others], 1)
    labels = torch.cat([sent.labels, torch.stack([dataset.labels[own] for own in rivals])], 1)
    assert torch.equal(found, most_likely(observe(sent, block.cell.threat), images, labels) == 0)


def test_more_noise_hides_more_and_more_releases_show_more():
    counts = [identified(f"dp_sgd(noise_multiplier={noise})") for noise in (0.01, 0.3, 3.0)]
    assert counts[0] == 40 > counts[1] > counts[2]
    once, often = (identified("dp_sgd(noise_multiplier=1.0)", 20, releases=count) for count in ("1", "8"))
    assert often > once


@pytest.mark.parametrize(("noise", "releases"), [(1.0, 1), (2.0, 4)])
def test_nobody_is_identified_more_often_than_the_noise_allows(noise, releases):
    hits = identified(f"dp_sgd(noise_multiplier={noise})", images=100, releases=str(releases))
    assert not is_broken(hits, 100, identification_bound(100, noise, releases))


def test_where_nothing_is_public_rows_are_as_they_were(tmp_path):
    done = run(grid(["none"], 4, public="false"), output=tmp_path / "run")
    assert done.frame()["identified_by_likelihood"].isna().all()
    records = [done.store.record(cell["blocks"][0]["id"]) for cell in done.store.plan()["cells"]]
    assert all("identified_by_likelihood" not in json.dumps(record) for record in records)


def test_a_copy_of_the_private_image_in_the_pool_is_a_tie_and_a_tie_fails():
    _, _, clients, plan = prepare(grid(["none"]))
    block = plan.cells[0].blocks(plan.images)[0]
    sent = clients.release(block)
    seen = observe(sent, block.cell.threat)[:1]
    truth, labels = sent.truth[:1], sent.labels[:1]
    [update], [other] = (
        [seen.task.gradient(sent.params, Batch(sent.truth[i].float() / 255, sent.labels[i]))] for i in (0, 1)
    )
    absent = torch.tensor([-1])
    assert identify_by_likelihood(seen, truth, labels, [other, other], absent).tolist() == [True]
    assert identify_by_likelihood(seen, truth, labels, [update, other], absent).tolist() == [False]
    assert identify_by_likelihood(seen, truth, labels, [update, other], torch.tensor([0])).tolist() == [True]


def test_rows_of_attacks_say_it_or_why_not_and_floors_do_not(tmp_path):
    config = grid(["none", "larger_batch(examples=2)"], 4, public="true", known="[false, true]")
    done = run(config, output=tmp_path / "run")
    frame = done.frame()
    told = frame["identified_by_likelihood"].notna()
    asked = frame["public"] & frame["defense_known"] & ~frame["control"] & (frame["defense"] == "none")
    assert told.any()
    assert (told == asked).all()
    assert (frame.loc[told, "identified_by_likelihood"] == 1).all()
    assert "by likelihood" in render_scores(frame[frame["defense_known"]])
    assert "by likelihood" not in render_scores(frame[~frame["defense_known"]])
    plan = json.loads((tmp_path / "run/plan.json").read_text())
    reasons = set()
    for cell in plan["cells"]:
        record = done.store.record(cell["blocks"][0]["id"])
        assert ("identified_by_likelihood" in record["images"][0]) == (not cell["control"])
        reasons.add(record["nulls"].get("identified_by_likelihood"))
    assert reasons - {None} == {
        "without knowledge of the defense a release has no likelihood",
        "an update of 2 images has no likelihood under one of them alone",
    }
