"""The ground-truth table: look-up, drawn worlds, regret, validity, files."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from sase_ray.statistics.variance_components import residuals
from sase_ray.tabular_benchmark.benchmark import TabularBenchmark
from sase_ray.tabular_benchmark.file_format import write_benchmark
from search_spaces.errors import UserError


def test_a_genotype_is_looked_up_at_every_epoch_and_seed(made_up_table) -> None:
    rows = made_up_table.rows.set_index(["genotype", "seed", "epoch"])
    for text in made_up_table.genotypes[::100]:
        for epoch in (1, 2, 3):
            entry = made_up_table.lookup(text, epoch)
            row = rows.loc[(text, 0, epoch)]
            assert (entry.val_loss, entry.val_accuracy) == (row["val_loss"], row["val_accuracy"])
            assert (entry.samples, entry.seconds) == (100 * epoch, 2.0 * epoch)
    first = made_up_table.genotypes[0]
    assert made_up_table.lookup(first).val_loss == rows.loc[(first, 0, 3), "val_loss"]
    assert made_up_table.lookup(first, 2, seed=3).val_loss == rows.loc[(first, 3, 2), "val_loss"]


def test_what_is_not_in_the_table_is_an_error(made_up_table) -> None:
    first, last = made_up_table.genotypes[0], made_up_table.genotypes[-1]
    for epoch in (4, 0, 1.5, "2"):
        with pytest.raises(UserError, match="epochs 1 to 3, not"):
            made_up_table.lookup(first, epoch)
    for seed in (-1, 0.5, "a"):
        with pytest.raises(UserError, match="seed is 0, 1, 2"):
            made_up_table.draw(first, seed=seed)
    for ask in (made_up_table.truth, made_up_table.regret):
        with pytest.raises(UserError, match="unknown metric 'test_loss'"):
            ask(first, "test_loss")
    with pytest.raises(UserError, match=r"trained with the seeds \[0\], not with 1"):
        made_up_table.lookup(last, seed=1)
    with pytest.raises(UserError, match="gap_std"):
        made_up_table.lookup("gap_std-conv3-conv3-gap-gap-affine")


def test_a_training_that_was_lost_stays_lost(make_table) -> None:
    lost = "gap-conv3-fc-gap-pnorm-conv3x3"
    table = make_table(diverged=[lost])
    assert not table.lookup(lost, 1).diverged
    for epoch in (2, 3):
        assert table.lookup(lost, epoch).diverged
        assert table.draw(lost, epoch, seed=5).diverged
    for metric in ("val_loss", "val_accuracy"):
        regrets = {g: table.regret(g, metric, seed=5) for g in table.genotypes}
        others = [regret for g, regret in regrets.items() if g != lost]
        assert regrets[lost] == max(others)
        assert table.regret(lost, metric) >= max(table.regret(g, metric) for g in table.genotypes)
    assert table.lookup(lost, 3).samples == table.lookup(lost, 2).samples == 200
    assert table.lookup(lost, 3).seconds == 4.0


def test_drawn_trainings_have_the_spread_and_noise_that_were_put_in(make_table) -> None:
    # 0.02 between genotypes and 0.01 noise; the seed's shift is common, so it cancels.
    table = make_table()
    drawn = np.array([[table.draw(g, seed=s).val_loss for g in table.genotypes] for s in range(20)])
    assert drawn.std(axis=1).mean() == pytest.approx((0.02**2 + 0.01**2) ** 0.5, rel=0.1)
    # Around a genotype's prediction vary what is not known of it, and the noise of a training:
    # of those trained once 0.01 * sqrt(ICC), as theirs is shrunken by the ICC of 0.8.
    truths = np.array([table.truth(g) for g in table.genotypes])
    once = np.sqrt(0.01**2 + 0.8 * 0.01**2)
    assert (drawn - truths)[:, 300:].std() == pytest.approx(once, rel=0.1)
    assert abs((drawn - truths).mean()) < 0.001
    components = table.reliability()
    assert components.genotype**0.5 == pytest.approx(0.02, rel=0.15)
    assert components.residual**0.5 == pytest.approx(0.01, rel=0.1)


def test_a_lucky_start_stays_lucky_over_the_epochs(made_up_table) -> None:
    # The made-up noise is the same at all epochs, so drawn curves keep their distance.
    for seed in range(5):
        text = made_up_table.genotypes[7 * seed]
        curve = [made_up_table.draw(text, epoch, seed=seed).val_loss for epoch in (1, 2, 3)]
        np.testing.assert_allclose(np.diff(curve), -0.2, atol=1e-3)


def test_the_same_seed_draws_the_same_and_another_another(made_up_table) -> None:
    text = made_up_table.genotypes[11]
    drawn = {made_up_table.draw(text, seed=seed).val_loss for seed in range(10)}
    assert len(drawn) > 5
    assert made_up_table.draw(text, seed=4) == made_up_table.draw(text, seed=4)


def test_without_repeats_regret_is_against_the_best_recorded(make_table) -> None:
    table = make_table(seeds=1)
    ends = table.rows[table.rows["epoch"] == 3].set_index("genotype")
    assert table.regret(ends["test_loss"].idxmin()) == 0
    worst = ends["test_accuracy"].idxmin()
    expected = ends["test_accuracy"].max() - ends["test_accuracy"].min()
    assert table.regret(worst, "val_accuracy") == pytest.approx(expected)
    assert table.best() == ends["val_loss"].idxmin()
    for ask in (table.draw, table.truth):
        with pytest.raises(UserError, match="too few genotypes with several seeds"):
            ask(table.genotypes[0])


def test_the_best_of_a_world_has_no_regret_in_it(made_up_table) -> None:
    for seed in range(5):
        regrets = [made_up_table.regret(g, seed=seed) for g in made_up_table.genotypes]
        assert min(regrets) == 0
        # All else has some, and drawn trainings of that world rank as its regrets do.
        assert sum(regret == 0 for regret in regrets) == 1
        losses = [made_up_table.draw(g, seed=seed).val_loss for g in made_up_table.genotypes]
        assert np.corrcoef(losses, regrets)[0, 1] == pytest.approx(0.8**0.5, abs=0.05)
    with pytest.raises(UserError, match="seed is 0, 1, 2"):
        made_up_table.regret(made_up_table.genotypes[0], seed=-1)


def test_expected_regret_is_the_mean_over_worlds(made_up_table) -> None:
    for text in made_up_table.genotypes[::200]:
        own = [made_up_table.regret(text, seed=seed) for seed in range(200)]
        error = np.std(own) / 200**0.5
        assert made_up_table.regret(text) == pytest.approx(np.mean(own), abs=4 * error)


def test_regret_is_that_of_the_known_truth(make_table) -> None:
    # Noise as large as the differences: the luckiest training is not the best genotype.
    table = make_table(sd_noise=0.02)
    true = np.array([table.made_of[g] for g in table.genotypes])
    ends = table.rows[(table.rows["epoch"] == 3) & (table.rows["seed"] == 0)]
    recorded = ends.set_index("genotype").loc[list(table.genotypes), "test_loss"].to_numpy()
    lucky = np.argsort(recorded)[:30]
    chosen = [*lucky, true.argmin(), np.argsort(true)[365]]
    worlds = np.array(
        [[table.regret(table.genotypes[i], seed=seed) for i in chosen] for seed in range(100)]
    )
    # The regret of what looks best, without winner's curse: within the error of the worlds.
    expected = worlds[:, :30].mean(axis=1)
    actual = (true[lucky] - true.min()).mean()
    assert actual == pytest.approx(expected.mean(), abs=3 * expected.std())
    # The truly best genotype may have regret 0; one of the middle cannot.
    low = np.quantile(worlds, 0.025, axis=0)
    assert low[30] < 0.005
    assert low[31] > 0.02


def test_agreement_of_validation_and_test_is_that_of_the_genotypes(make_table) -> None:
    # The noise is shared with either sign; the genotypes' effects are the same.
    for shared in (1.0, -1.0):
        assert make_table(sd_noise=0.02, shared=shared).test_agreement() > 0.9


def test_another_seeds_cost_is_its_own(made_up_table) -> None:
    rows = made_up_table.rows.assign(
        train_seconds=made_up_table.rows["train_seconds"] * (1 + made_up_table.rows["seed"])
    )
    table = TabularBenchmark(rows, made_up_table.about)
    assert table.lookup(table.genotypes[0], 3, seed=2).seconds == 18.0


def test_a_seed_that_was_only_begun_leaves_the_noise_alone(made_up_table) -> None:
    rows = made_up_table.rows
    few = rows[(rows["seed"] == 1) & rows["genotype"].isin(made_up_table.genotypes[:3])]
    begun = TabularBenchmark(pd.concat([rows, few.assign(seed=9)]), made_up_table.about)
    assert begun.reliability() == made_up_table.reliability()


def test_a_table_is_read_as_it_was_written(made_up_table, tmp_path) -> None:
    path = tmp_path / "table.parquet"
    write_benchmark(made_up_table.rows, made_up_table.about, path)
    loaded = TabularBenchmark.load(path)
    assert loaded.about == made_up_table.about
    for text in loaded.genotypes[::50]:
        ours, theirs = loaded.lookup(text, 2), made_up_table.lookup(text, 2)
        assert ours.val_loss == pytest.approx(theirs.val_loss, rel=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["table.parquet"]


def test_files_that_are_no_tables_are_refused(made_up_table, tmp_path) -> None:
    with pytest.raises(UserError, match="there is no table"):
        TabularBenchmark.load(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("not parquet")
    with pytest.raises(UserError, match="is not a table of sase-ray tabulate"):
        TabularBenchmark.load(tmp_path / "text.parquet")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(UserError, match="is not a table of sase-ray tabulate"):
        TabularBenchmark.load(tmp_path / "other.parquet")
    frame = made_up_table.rows
    for name, rows, about in (
        ("empty", frame, {}),
        ("list", frame, []),
        ("validity", frame, made_up_table.about | {"validity": {"of": "loss", "tau": 2}}),
        ("column", frame.drop(columns="val_loss"), made_up_table.about),
    ):
        table = pa.Table.from_pandas(rows, preserve_index=False)
        table = table.replace_schema_metadata({b"sase_ray": json.dumps(about)})
        pq.write_table(table, tmp_path / f"{name}.parquet")
        with pytest.raises(UserError, match="is not a table of sase-ray tabulate"):
            TabularBenchmark.load(tmp_path / f"{name}.parquet")
    part = made_up_table.rows[made_up_table.rows["genotype"] != made_up_table.genotypes[3]]
    write_benchmark(part, made_up_table.about, tmp_path / "part.parquet")
    with pytest.raises(UserError, match="1 genotypes are missing"):
        TabularBenchmark.load(tmp_path / "part.parquet")


def test_the_bundled_table_draws_the_noise_that_its_own_residuals_have() -> None:
    # Noise grows with the loss: Spearman of a genotype's mean and the size of its residuals.
    table = TabularBenchmark.load()
    rows = table.rows[
        table.rows["genotype"].isin(table.repeated_genotypes) & (table.rows["epoch"] == 3)
    ]
    recorded = rows.pivot(index="genotype", columns="seed", values="val_loss").to_numpy(dtype=float)
    recorded = (recorded - recorded.mean(axis=0)) / recorded.std(axis=0)

    def growth(scores):
        sizes = residuals(scores).std(axis=1)
        return stats.spearmanr(scores.mean(axis=1), sizes).statistic

    drawn = []
    for seed in range(10):
        true = table._worlds.truth(seed)[table._repeated_index]
        noise = np.random.default_rng(seed)
        world = [[t[4] + table._model.noise(t, noise)[4] for _ in range(3)] for t in true]
        drawn.append(growth(np.array(world)))
    assert growth(recorded) == pytest.approx(0.43, abs=0.01)
    # One Spearman coefficient of 100 genotypes has a standard error of about 0.09.
    assert np.mean(drawn) == pytest.approx(growth(recorded), abs=2.5 * 0.09)
    assert np.mean(drawn) > 0.2


def test_the_validity_of_a_table_is_read_where_it_is_known(made_up_table) -> None:
    assert made_up_table.validity is None
    bundled = TabularBenchmark.load().validity
    assert (bundled.tau, bundled.p_value) == (0.28, 0.14)
