"""The client side of a run: datasets and their digests, models with weights, and the updates that are released."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from attacks.attack import Attack
from attacks.black_box import BlackBox, Lessons
from attacks.observation import Observation, PublicImages, joined
from attacks.threat import ThreatModel
from bench.data.dataset import Dataset, class_means, digest_of
from bench.data.load import load_dataset
from bench.data.public import public_split, without_public
from bench.errors import ConfigurationError
from bench.grid.cells import Block, Cell, PublicSet, Setting
from bench.grid.sections import Weights
from bench.models.build import untrained
from bench.models.training import Progress
from bench.models.weights import LoadedWeights, check_weights, load_weights, training_seconds
from bench.registry.registry import Registry
from bench.seeds import stream
from bench.trial.black_box import ForkedBlackBox, OwnBlackBox, most_together
from bench.trial.forked_clients import ForkedClients, PristineProcess
from bench.trial.held_out import HeldOutImages, counterparts
from bench.trial.likelihood import PoolLikelihood
from bench.trial.releases import released, seed_of
from defenses.batch_norm import batch_statistics, in_mode
from defenses.chain import Chain
from defenses.none import NoDefense
from defenses.schedule import Schedule
from defenses.surrogate import Simulation
from defenses.task import Batch, Classifier, Params, Task, Update


@dataclass(frozen=True)
class DataDigests:
    """Digests of the parts of a setting's datasets, other than the attacked images, that can change a result."""

    task: str
    """The classes, shape and normalisation of the attacked dataset, as text."""
    trained: str
    """SHA-256 of the images and labels trained on; empty where nothing is trained."""
    pool: str
    """SHA-256 of the images among which a private one is identified."""


def data_digests(dataset: Dataset, weights: Weights, training_set: Dataset | None = None) -> DataDigests:
    """The digests of an attacked dataset and of the dataset that its weights are trained on.

    `training_set` is that dataset where it is not the one that `weights` name.
    """
    task = str([dataset.classes, dataset.input_shape, dataset.mean, dataset.std])
    pool = dataset.digest(dataset.pool())
    if weights.epochs is None:
        return DataDigests(task, "", pool)
    training = (training_set or _training_set(dataset, weights)).training()
    return DataDigests(task, "" if training is None else digest_of(*training), pool)


@dataclass(frozen=True, eq=False)
class _Public:
    """The public images of a setting: the server's, the number of copies that are missing there, and the referee's."""

    granted: PublicImages
    left_out: int
    held_out: HeldOutImages


@dataclass(frozen=True)
class BlockRelease:
    """The updates that the clients of one block sent, and, for the referee alone, the images behind them."""

    task: Task
    """The model, loss, classes and schedule."""
    params: Params
    """The attacked weights."""
    updates: Update
    """The updates (t, ...) of each parameter, after the defense: the mean of each client's releases."""
    truth: Tensor
    """The private images uint8 (t b c h w), in the order of the clients' batches."""
    labels: Tensor
    """Their labels (t b)."""
    image_ids: Tensor
    """Their numbers (t b) in the dataset, or among the held-out images."""
    digest: str
    """SHA-256 of the updates, all releases of them."""
    weights: LoadedWeights
    """The attacked weights with their origin and accuracy."""
    defense: Simulation | None
    """The simulation of the defense, for attacks that know it; None where it has none."""
    each: Update | None = None
    """All releases (t, releases, ...) where they differ and the simulation looks at one; None elsewhere."""

    @property
    def norms(self) -> Tensor:
        """The Euclidean norm of each update (t,)."""
        return torch.stack([u.flatten(1).square().sum(1) for u in self.updates.values()]).sum(0).sqrt()


class Clients:
    """Builds and keeps what the blocks of one run need; `open_dataset` finds images by the name of their dataset."""

    def __init__(self, registry: Registry, open_dataset: Callable[..., Dataset] = load_dataset) -> None:
        self._registry = registry
        self._open = open_dataset
        self._datasets: dict[Any, Dataset] = {}
        self._class_means: dict[Any, Tensor | None] = {}
        self._public: dict[Any, _Public | None] = {}
        self._data_digests: dict[Setting, DataDigests] = {}
        self._models: OrderedDict[Any, tuple[Classifier, LoadedWeights]] = OrderedDict()
        self._released: OrderedDict[str, BlockRelease] = OrderedDict()
        self._held_out_released: OrderedDict[str, BlockRelease] = OrderedDict()
        self._lessons: OrderedDict[str, Lessons] = OrderedDict()
        self._together: OrderedDict[Any, int] = OrderedDict()
        self._pristine = PristineProcess(registry.plugins)
        self.pool = PoolLikelihood()

    def close(self) -> None:
        """End the process in which plugins compute their clients."""
        self._pristine.close()

    def dataset(self, setting: Setting) -> Dataset:
        spec = setting.dataset
        if spec not in self._datasets:
            self._datasets[spec] = self._open(spec.name, root=spec.root, download=spec.download, size=spec.size)
        return self._datasets[spec]

    def data_digests(self, setting: Setting) -> DataDigests:
        """The digests of the setting's datasets, computed once."""
        if setting not in self._data_digests:
            half = self._other_half(setting)
            self._data_digests[setting] = data_digests(self.dataset(setting), setting.weights, half)
        return self._data_digests[setting]

    def means_digest(self, setting: Setting) -> str:
        """SHA-256 of the class means; empty without any."""
        means = self.class_means(setting)
        return "" if means is None else digest_of(means)

    def class_means(self, setting: Setting, threat: ThreatModel | None = None) -> Tensor | None:
        """Mean training image of each class, None without a training split.

        Under a threat model with public images those of the public ones: floors and attacks see the same images.
        """
        if threat is not None and threat.public:
            public = self.public(setting)
            return None if public is None else class_means(public.images, public.labels, self.dataset(setting).classes)
        if setting.dataset not in self._class_means:
            self._class_means[setting.dataset] = self.dataset(setting).class_means()
        return self._class_means[setting.dataset]

    def public(self, setting: Setting) -> PublicImages | None:
        """The public images of a setting; None where there is no set to take them from, or none are asked for.

        Raises ConfigurationError for a set of another shape or classes, and for a named one with an attacked image.
        """
        found = self._public_split(setting)
        return None if found is None else found.granted

    def held_out(self, setting: Setting) -> HeldOutImages | None:
        """The public images of a setting that no server is granted; None where there are none."""
        found = self._public_split(setting)
        return found.held_out if found is not None and len(found.held_out.labels) else None

    def public_set(self, setting: Setting) -> PublicSet:
        """The public images of a setting in figures."""
        found = self._public_split(setting)
        return PublicSet() if found is None else PublicSet(len(found.granted), found.left_out, found.granted.digest)

    def _public_split(self, setting: Setting) -> _Public | None:
        asked, key = setting.public, (setting.dataset, setting.public, setting.attacked)
        if asked is None:
            return None
        if key not in self._public:
            own, source = self.dataset(setting), self.dataset(setting)
            if asked.dataset is not None:
                source = self._open(asked.dataset, root=asked.root, download=bool(asked.download), size=asked.size)
            if source.input_shape != own.input_shape or source.class_names != own.class_names:
                raise ConfigurationError(
                    f"grid.public: {source.name} has {source.classes} classes of shape {source.input_shape}, the "
                    f"attacked {own.name} has {own.classes} of {own.input_shape}; name a set of the same classes"
                )
            attacked = own.pixels(range(setting.attacked))
            split = public_split(source, asked.count, attacked, explicit=asked.dataset is not None)
            found = None
            if split is not None:
                granted, held_out = (split.pixels, split.labels), (split.held_out_pixels, split.held_out_labels)
                images = HeldOutImages(*held_out, digest_of(*held_out))
                found = _Public(PublicImages(*granted, digest_of(*granted)), split.left_out, images)
            self._public[key] = found
        return self._public[key]

    def _other_half(self, setting: Setting) -> Dataset | None:
        """The dataset that weights are trained on where their training set is also the public one; None elsewhere."""
        if not setting.trains_beside_public:
            return None
        return without_public(_training_set(self.dataset(setting), setting.weights))

    def chain(self, parts: tuple[Any, ...]) -> Chain:
        """The defense of a cell."""
        return Chain(tuple(self._registry.build("defense", part) for part in parts))

    def architecture(self, setting: Setting, seed: int) -> Classifier:
        """The model as attacked, with its untrained weights."""
        dataset = self.dataset(setting)
        model = untrained(
            setting.model.name,
            setting.model.parameters,
            input_shape=dataset.input_shape,
            classes=dataset.classes,
            mean=dataset.mean,
            std=dataset.std,
            seed=stream("model", seed),
        )
        for parts in setting.preparers:
            prepared = self.chain(parts).prepare(model)
            assert isinstance(prepared, Classifier), "a prepared model stays behind its normalisation"
            model = prepared
        return model.eval()

    def check_weights(self, setting: Setting, architecture: Classifier) -> str | None:
        """Raise ConfigurationError unless the setting's weights can be had; returns the SHA-256 of a checkpoint."""
        half = self._other_half(setting)
        return check_weights(architecture, setting.weights.spec, dataset=self.dataset(setting), training_set=half)

    def training_seconds(self, setting: Setting, seed: int) -> float:
        """Seconds that training the setting's weights would take; 0 where they are kept or need none."""
        model, dataset = self.architecture(setting, seed), self.dataset(setting)
        own, half = stream("training", seed), self._other_half(setting)
        return training_seconds(model, setting.weights.spec, dataset=dataset, seed=own, training_set=half)

    def model(self, setting: Setting, seed: int, progress: Progress | None = None) -> Any:
        """The model with its weights, and how they came about."""
        key = (str(setting.identity), seed)
        return _remember(self._models, key, 2, lambda: self._weighted(setting, seed, progress))

    def release(self, block: Block, progress: Progress | None = None) -> BlockRelease:
        """Every client of the block sends its update, one after the other, on the CPU; `progress` is of training."""
        return _remember(self._released, block.client_key, 4, lambda: self._release(block, progress))

    def release_of_held_out(self, block: Block, progress: Progress | None = None) -> BlockRelease:
        """The held-out clients of the block's ones, four of the first, then of the next, send updates as those do."""

        def send() -> BlockRelease:
            truth, labels, places = self.held_out_batches(block)
            return self._sent(block.cell, truth.flatten(0, 1), labels.flatten(0, 1), places.flatten(0, 1), progress)

        return _remember(self._held_out_released, block.client_key, 1, send)

    def held_out_batches(self, block: Block) -> tuple[Tensor, Tensor, Tensor]:
        """Images (t k b c h w), labels and positions (t k b) of held-out clients; `UnsupportedPair` without any."""
        dataset, held_out = self.dataset(block.cell.setting), self.held_out(block.cell.setting)
        assert held_out is not None, "without held-out images there is no such control"
        labels, before = dataset.labels[partition(block, dataset.name)], dataset.labels[: block.start]
        seed = stream("held-out", dataset.name, block.cell.seed)
        chosen = counterparts(labels, before, held_out.labels, Generator().manual_seed(seed))
        return held_out.pixels[chosen], held_out.labels[chosen], chosen

    def observed(self, cell: Cell, attack: Attack, releases: Sequence[BlockRelease]) -> Observation:
        """The server's observation of all clients behind these releases, as the cell's attack is granted it."""
        means = self.class_means(cell.setting, cell.threat) if cell.control else None
        public = self.public(cell.setting) if attack.needs_public else None
        # A floor of public images is as high as images alone make it: it need not guess labels.
        threat = replace(cell.threat, labels="known") if cell.control and cell.threat.public else cell.threat
        seen = joined([observe(sent, threat, means, public) for sent in releases])
        if not attack.needs_public:
            return seen
        return replace(seen, black_box=self._black_box(cell, releases[0], seen), lessons=self._lessons_of(cell))

    def _black_box(self, cell: Cell, sent: BlockRelease, seen: Observation) -> BlackBox:
        """The client of a cell as its attacker can run it: undefended, of the schedule assumed, where less is known."""
        known = cell.threat.defense_known and seen.task is sent.task
        sends = cell.threat.batch_norm == "batch", cell.threat.releases
        if known and (forked := self._forked(cell, sent.task, sent.params)) is not None:
            return ForkedBlackBox(forked, *sends)
        chain = self.chain(cell.defense) if known else Chain((NoDefense(),))
        key = sent.digest, known, str(seen.task.schedule)
        decide = partial(most_together, chain, seen.task, sent.params, sent.truth, sent.labels)
        return OwnBlackBox(chain, seen.task, sent.params, *sends, _remember(self._together, key, 4, decide))

    def _forked(self, cell: Cell, task: Task, params: Params) -> ForkedClients | None:
        """The clients of a cell whose defense is a plugin, where anybody may run it; None elsewhere.

        Without public images there is no black box from which a private client would have to be kept apart.
        """
        public = self.public(cell.setting)
        if public is None or not self._registry.foreign("defense", [part.name for part in cell.defense]):
            return None
        return ForkedClients(self._pristine, cell.defense, task, params, public)

    def _lessons_of(self, cell: Cell) -> Lessons:
        key = str([cell.client_identity, cell.threat.identity, self.public_set(cell.setting).digest])
        return _remember(self._lessons, key, 1, Lessons)

    def _weighted(self, setting: Setting, seed: int, progress: Progress | None) -> tuple[Classifier, LoadedWeights]:
        model, dataset, own = self.architecture(setting, seed), self.dataset(setting), stream("training", seed)
        half, spec = self._other_half(setting), setting.weights.spec
        weights = load_weights(model, spec, dataset=dataset, seed=own, progress=progress, training_set=half)
        return in_mode(model, setting.mode), weights

    def _release(self, block: Block, progress: Progress | None) -> BlockRelease:
        dataset = self.dataset(block.cell.setting)
        image_ids = partition(block, dataset.name)
        truth = torch.stack([dataset.pixels(ids) for ids in image_ids.tolist()])
        return self._sent(block.cell, truth, dataset.labels[image_ids], image_ids, progress)

    def _sent(
        self, cell: Cell, truth: Tensor, labels: Tensor, image_ids: Tensor, progress: Progress | None
    ) -> BlockRelease:
        """The release of clients of these images (t b c h w) with labels (t b), under the defense of the cell."""
        dataset = self.dataset(cell.setting)
        model, weights = self.model(cell.setting, cell.seed, progress)
        # The simulation comes from an object that sees no batch: what a plugin remembers must not reach the attacker.
        chain, blind = self.chain(cell.defense), self.chain(cell.defense)
        task = Task(model, dataset.classes, dataset.input_shape, chain.schedule(cell.setting.client))
        params = {name: p.detach() for name, p in model.named_parameters()}
        simulation, count = blind.simulation(task), cell.threat.releases
        pairs = list(zip(truth, labels, strict=True))
        forked = self._forked(cell, task, params)

        def turns() -> Iterator[Update]:
            for turn in range(count):
                # The stream holds the private images: who knows choices alone cannot rebuild the client's noise.
                seeds = [seed_of("client", cell.seed, digest_of(*pair), turn=turn) for pair in pairs]
                if forked is not None:
                    yield forked.updates(truth, labels, seeds)
                    continue
                updates: list[Update] = []
                for (pixels, own_labels), seed in zip(pairs, seeds, strict=True):
                    batch = Batch(pixels.float() / 255, own_labels)
                    updates.append(chain.update(task, params, batch, Generator().manual_seed(seed)))
                yield {name: torch.stack([u[name] for u in updates]) for name in params}

        own = released(turns(), count, simulation is not None and simulation.looks)
        sent = own.mean, truth, labels, image_ids, own.digest
        return BlockRelease(task, params, *sent, weights, simulation, own.each)


def _training_set(dataset: Dataset, weights: Weights) -> Dataset:
    if weights.dataset is None:
        return dataset
    elsewhere = {"root": weights.root, "download": bool(weights.download), "size": weights.size}
    return load_dataset(weights.dataset, **elsewhere)


def partition(block: Block, dataset_name: str) -> Tensor:
    """The block's image numbers (t b), dealt to trials by the seed alone."""
    b = block.cell.schedule.images
    rng = Generator().manual_seed(stream("partition", dataset_name, block.cell.seed, block.start, block.stop, b))
    return block.start + torch.randperm(block.stop - block.start, generator=rng).view(-1, b)


def observe(
    release: BlockRelease,
    threat: ThreatModel,
    class_means: Tensor | None = None,
    public: PublicImages | None = None,
) -> Observation:
    """The observation that the threat model grants of a release: no image, no image number, no order of labels."""
    schedule = release.task.schedule
    task, scale = release.task, schedule.update_scale
    if not threat.schedule_known and not schedule.sends_gradient:
        task, scale = replace(task, schedule=Schedule(images=schedule.images)), None  # all that is left to assume
    labels = release.labels.sort(dim=1).values if threat.labels == "known" else None
    # A simulation of local steps gives their schedule away.
    known = release.defense if threat.defense_known and task is release.task else None
    if known is not None:  # The mean of independent noise has less of it.
        known = replace(known, noise_std=known.noise_std / threat.releases**0.5)
    sent = None
    if threat.batch_norm == "batch":
        sent = batch_statistics(release.task, release.params, release.truth.float() / 255)
    common = task, release.params, release.updates, labels, threat, scale, class_means
    held = public if threat.public else None
    each = None if known is None else release.each
    return Observation(*common, defense=known, batch_statistics=sent, public=held, each=each)


def attack_seeds(block: Block) -> list[int]:
    """One number per trial for the attack's starting points, the same for every attack and defense.

    They count positions in the block, which the seed has dealt: no image number can be searched for in them.
    """
    trials = (block.stop - block.start) // block.cell.schedule.images
    return [stream("attack", block.cell.seed, block.start, trial) for trial in range(trials)]


def _remember(kept: OrderedDict[Any, Any], key: Any, most: int, make: Callable[[], Any]) -> Any:
    if key not in kept:
        while len(kept) >= most:
            kept.popitem(last=False)
        kept[key] = make()
    kept.move_to_end(key)
    return kept[key]
