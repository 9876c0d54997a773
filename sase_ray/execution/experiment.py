"""The parts of a comparison, built from a configuration, and checked for all possible errors."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from sase_ray.analysis.one_shot_agreement import Truth
from sase_ray.analysis.proxy_reliability import measured_reliability
from sase_ray.analysis.proxy_validity import measured_validity
from sase_ray.config import Config
from sase_ray.execution.images import expected_normalisation, source_images, split_images
from sase_ray.execution.registered import take_along
from sase_ray.results.load import Run, load_run
from sase_ray.results.search_id import SearchId
from sase_ray.strategies import SearchTask, Strategy, WarmStart
from sase_ray.strategies.catalogue import make_strategy
from search_spaces.baselines import BASELINES, baseline_attention
from search_spaces.errors import UserError, unknown_name
from search_spaces.network import NetworkSpec
from search_spaces.ops import load_operations
from search_spaces.space import SearchSpace
from trainables.data import (
    FinalData,
    SearchData,
    final_data,
    make_splits,
    search_data,
    shift_data,
)
from trainables.final.distributed import check_workers
from trainables.final.gradcam import chosen_images
from trainables.final.training import FinalJob
from trainables.hardware.memory_estimate import training_footprint
from trainables.planted.plant import PlantJob
from trainables.search_job import SearchJob
from trainables.training.frozen_host import HostJob

FIRST_FINAL_SEED = 10_000
"""First seed of the final trainings; those of searches count from 0."""

SHOWN_BASELINES = {"none", "se", "cbam"}
"""Baselines of which Grad-CAM is shown, in addition to the strategies' answers."""

SAMPLED = 3
"""Number of genotypes of which the memory is estimated."""


def _threads(config: Config) -> int:
    return max(1, int(config.resources.cpus_per_trial))


def _check_planted(config: Config) -> None:
    if config.task != "distillation" or config.task_options != {"match": "logits"}:
        raise UserError("planted modules are imitated by their logits: leave task out")
    if config.host is None or not config.host.frozen:
        raise UserError(
            "planted needs a frozen host, as a trainable one imitates any module by itself: set "
            "host (such as --set host.epochs=10)"
        )
    if config.data.shift is not None:
        raise UserError("planted is for the data that the host was trained on: leave shift out")
    if config.host.source is not None or config.host.classifier == "new":
        raise UserError(
            "planted is for the data that the host was trained on: leave host.source and "
            "host.classifier out"
        )


@dataclass(frozen=True)
class Problem:
    """The problem of a search: space, host, data, task and protocols, checked for consistency.

    Attributes:
        config: Configuration it was made from, which holds the task and the protocols.
        space: Search space, its operations loaded.
        network: Host network.
        search_data: Data that searches may read.
        final_data: Data that the final protocol reads.
        host_job: Training of the host that all trainings share, if there is one.
        notes: Sentences on how the images were read.
    """

    config: Config
    space: SearchSpace
    network: NetworkSpec
    search_data: SearchData
    final_data: FinalData
    host_job: HostJob | None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Config) -> Problem:
        """Build and check all parts.

        Raises:
            UserError: Anything that is asked for does not exist or does not fit.
        """
        if config.planted is not None:
            _check_planted(config)
        space = SearchSpace.load(config.space)
        load_operations(space)
        space = replace(space, registered=take_along())
        config.make_task().check_dataset(config.dataset)
        data, splits = split_images(config.dataset, config.data)
        normalisation = expected_normalisation(config, data.images.shape[1])
        unshifted = data
        if config.data.shift is not None:
            data = shift_data(data, config.data.shift)
        validation = len(splits.validation)
        final_size = config.final.train_size
        if final_size is not None and final_size <= validation:
            raise UserError(
                f"final.train_size {final_size} must exceed the {validation} validation images, "
                f"which final training includes"
            )
        everything = make_splits(
            data,
            config.data.split_seed,
            None if final_size is None else final_size - validation,
            validation if final_size is not None or config.data.validation_size else None,
        )
        search_view = search_data(data, splits, normalisation)
        channels, height, width = search_view.shape
        network = NetworkSpec(
            config.backbone.name,
            num_classes=search_view.num_classes,
            in_channels=channels,
            input_size=(height, width),
            options=config.backbone.options,
        )
        network.check_stages(space.stages)
        try:
            host = network.build(baseline_attention("none"))
        except UserError:
            raise
        except Exception as error:
            options = dict(config.backbone.options)
            raise UserError(
                f"backbone {config.backbone.name!r} cannot be built with options {options} for "
                f"images of {height}x{width}: {error}"
            ) from error
        host_job, notes = None, data.notes
        if config.host is not None:
            source, of_source = source_images(config, normalisation)
            notes += of_source
            own = source or search_data(unshifted, splits, normalisation)
            host_job = HostJob(network, own, search_view, config.host, _threads(config))
            host_job.check(config.backbone.options, config.final.workers)
        final_view = final_data(data, everything, normalisation)
        batch_size = min(config.final.batch_size, len(final_view.train))
        check_workers(config.final.workers, batch_size, host)
        if config.planted is None:  # a plant labels the data once the host is trained
            search_view, final_view = config.make_task().prepare(
                search_view, final_view, network.with_module
            )
        return cls(config, space, network, search_view, final_view, host_job, notes)

    @cached_property
    def threads(self) -> int:
        """Number of CPU threads of one trial."""
        return _threads(self.config)

    def job(self, seed: int) -> SearchJob:
        """Return the job of a search with a seed, which defines what it trains."""
        return SearchJob(
            self.network,
            self.space,
            self.search_data,
            self.config.proxy,
            seed,
            self.threads,
            host_job=self.host_job,
            task=self.config.make_task(),
        )

    def plant_job(self, seed: int) -> PlantJob | None:
        """Return the making of the plant that searches with a seed look for, if there is one."""
        settings = self.config.planted
        if settings is None:
            return None
        return PlantJob(
            self.network,
            self.space,
            self.search_data,
            self.final_data,
            self.config.proxy,
            self.config.final,
            settings,
            settings.seed + (0 if settings.same else seed),
            self.threads,
        )

    def final_job(self, module: str, *, baseline: bool, seed: int) -> FinalJob:
        """Return the final training of a module with one seed."""
        shows = seed == FIRST_FINAL_SEED and (not baseline or module in SHOWN_BASELINES)
        return FinalJob(
            self.network,
            self.space,
            module,
            baseline,
            self.config.final,
            seed,
            self.threads,
            self.shown_images if shows else (),
            self.config.make_task(),
            keeps_weights=self.config.final.keep_weights and not baseline,
        )

    @cached_property
    def shown_images(self) -> tuple[int, ...]:
        """Test images of which Grad-CAM is shown, the same for all modules."""
        count, seed = self.config.final.gradcam_images, self.config.data.split_seed
        return chosen_images(self.final_data.test.labels, count, seed)


@dataclass(frozen=True)
class Experiment:
    """A problem, and the strategies that are compared on it at one budget with several seeds.

    Attributes:
        problem: Problem, whose configuration also holds the budget and the number of seeds.
        strategies: Strategies by label, in the order of the configuration.
        reliability: Row of the proxy protocol's reliability, if it has been measured.
        validity: Row of its validity for the final protocol, if it has been measured.
        earlier: Run that strategies start from, if one is named.
        truth: Genotypes that one-shot searches are to rank, if a table is named.
    """

    problem: Problem
    strategies: Mapping[str, Strategy]
    reliability: pd.Series | None = None
    earlier: Run | None = None
    truth: Truth | None = None
    validity: pd.Series | None = None

    @classmethod
    def of(cls, config: Config) -> Experiment:
        """Build and check all parts.

        Raises:
            UserError: Anything that is asked for does not exist or does not fit.
        """
        unused = [name for name in config.strategy_options if name not in config.strategies]
        if unused:
            raise unknown_name("strategy in strategy_options", unused[0], config.strategies)
        for names, what in ((config.strategies, "strategy"), (config.baselines, "baseline")):
            doubled = [name for name in names if names.count(name) > 1]
            if doubled:
                raise UserError(f"{what} {doubled[0]!r} is named twice")
        strategies = {
            name: make_strategy(name, config.strategy_options.get(name))
            for name in config.strategies
        }
        for name in config.baselines:
            if BASELINES.find(name).tunes != "modules" and config.host is None:
                raise UserError(
                    f"baseline {name!r} tunes a trained host, and host is not set: leave it out, "
                    f"or set host (such as --set host.epochs=10)"
                )
        problem = Problem.of(config)
        experiment = cls(
            problem,
            strategies,
            measured_reliability(config),
            load_run(config.warm_start_from) if config.warm_start_from else None,
            Truth.of(config, problem.space),
            measured_validity(config),
        )
        for strategy in strategies.values():
            for seed in range(config.seeds) if strategy.starts_from else (0,):
                warm = experiment.warm_start(strategy, seed)
                strategy.check(replace(experiment.task(seed), warm=warm))
        return experiment

    @property
    def config(self) -> Config:
        """Configuration of the problem and the comparison."""
        return self.problem.config

    @cached_property
    def searches(self) -> tuple[SearchId, ...]:
        """All searches, every strategy with a seed before the next seed."""
        seeds = range(self.config.seeds)
        return tuple(s.search_id(seed) for seed in seeds for s in self.strategies.values())

    @cached_property
    def metrics(self) -> dict[str, str]:
        """Name of the metric that the trials of each strategy are compared by, by its label."""
        task = self.task(0)
        return {label: strategy.metric(task) for label, strategy in self.strategies.items()}

    def task(self, seed: int) -> SearchTask:
        """Return the search that every strategy gets with this seed."""
        genotypes = self.truth.genotypes if self.truth else ()
        job = replace(self.problem.job(seed), genotypes_to_score=genotypes)
        return SearchTask(job, self.config.budget, self.config.metric)

    def warm_start(self, strategy: Strategy, seed: int) -> WarmStart:
        """Return what a strategy starts from: the search of the same seed in the earlier run.

        Raises:
            UserError: The earlier run has no such search, or it was in another space.
        """
        parent = strategy.starts_from
        if parent is None:
            return WarmStart()
        if self.earlier is None:
            raise UserError(f"strategy {strategy.label!r} needs --warm-start-from RUN")
        of_run = f"run {self.earlier.name!r}"
        searches, rankings = self.earlier.searches, self.earlier.rankings
        search = searches[(searches["strategy"] == parent) & (searches["seed"] == seed)]
        ranked = rankings[(rankings["strategy"] == parent) & (rankings["seed"] == seed)]
        if search.empty or ranked.empty:
            raise UserError(f"{of_run} has no search of {parent} with seed {seed} to start from")
        best = ranked.sort_values("rank")["genotype"].head(self.config.warm_start_genotypes)
        try:
            genotypes = tuple(self.problem.space.parse(text) for text in best)
        except UserError as error:
            raise UserError(f"{of_run} searched another space: {error}") from None
        samples, seconds = search["samples"].iloc[0], search["seconds"].iloc[0]
        return WarmStart(genotypes, int(samples), float(seconds))

    def final_seeds(self, replicate: int) -> range:
        """Return the seeds of the final trainings that belong to one search seed.

        They are the same for all strategies, so that differences are paired; different for every
        replicate, so that replicates are independent; and not used by any search: a genotype must
        not be scored from the initial weights by which it was chosen.
        """
        count = self.config.final.seeds
        first = FIRST_FINAL_SEED + replicate * count
        return range(first, first + count)

    def footprints(self) -> tuple[int, int]:
        """Return the bytes of GPU memory that a trial takes, and those of a supernet's trial.

        For a trial it is the maximum over some genotypes, by the proxy and the final protocol.
        """
        config, problem = self.config, self.problem
        rng = random.Random(0)
        proxy, final = config.proxy, config.final
        of_trial = max(
            training_footprint(
                problem.network.with_genotype(problem.space.sample(rng)),
                problem.search_data.shape,
                size,
                kind,
            )
            * networks
            for size, kind, networks in (
                (proxy.batch_size, proxy.optimizer, proxy.seeds),
                (final.batch_size, final.optimizer, 1),
            )
            for _ in range(SAMPLED)
        )
        task = self.task(0)
        of_supernet = max(strategy.footprint(task) for strategy in self.strategies.values())
        return of_trial, of_supernet or of_trial
