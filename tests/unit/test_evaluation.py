"""The driver: which cells a task sees under which protocol, which post-processing is chosen, what is reported."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_screens import counts_view, subject_of

from plumbline import tasks
from plumbline.data.splits import Split, make_split
from plumbline.genes.relationships import known_pairs
from plumbline.scoring import evaluation
from plumbline.scoring.evaluation import item_frames, score_rows
from plumbline.scoring.parts import fitting_controls
from plumbline.scoring.records import Metric, Task
from plumbline.scoring.scores import Items, Score
from plumbline.scoring.screen import Screen, Subject, View

N = 120


def make_view(facts: dict | None = None, n_dimensions: int = 3) -> View:
    rng = np.random.default_rng(0)
    batch = np.repeat([f"b{i}" for i in range(6)], N // 6)
    control = np.tile([True, False, False], N // 3)
    label = np.where(control, "ctrl", np.tile(["A", "B"], N // 2))
    screen = Screen(
        np.array([f"c{i}" for i in range(N)]), label, control, batch, pd.DataFrame(), facts or {"has_controls": True}
    )
    test = np.isin(batch, ["b4", "b5"])
    split = Split(7, "batch", ~test, test & (label != "B"), test & (label == "B"), batch == "b5")
    values = rng.normal(size=(N, n_dimensions)).astype(np.float32)
    return View(values, screen, split, np.arange(N), "paper", 7)


METRICS = (
    Metric(name="toy", title="toy", lowest=-np.inf, highest=np.inf),
    Metric(name="other", title="other", lowest=-np.inf, highest=np.inf, higher_is_better=False),
)


def make_task(run, uses_split: bool = True, metrics: tuple[Metric, ...] = METRICS, **more) -> Task:
    return Task(name="toy", version="1", title="Toy", question="", order=0, metrics=metrics, main_metric="toy", run=run,
                not_applicable=lambda facts: "" if facts["has_controls"] else "no controls", uses_split=uses_split,
                **more)  # fmt: skip


def evaluate(view: View, task: Task, splits: list[Split], protocols: list[str]) -> list[evaluation.Row]:
    """The driver, on the embedding of a view."""
    return evaluation.evaluate(subject_of(view), task, splits, protocols)


def toy_scores(view: View, mask: np.ndarray) -> list[Score]:
    """Mean of the first dimension over some cells, one unit a cell."""
    values = view.embedding[mask, 0].astype(float)
    items = Items("cell", view.screen.cell_id[mask], values, np.ones(len(values)))
    return [Score.of("toy", items), Score.of("other", items)]


def test_paper_sees_every_test_cell_and_corrected_only_those_not_used_to_choose():
    seen = []
    view = make_view()

    def run(v: View) -> list[Score]:
        seen.append((v.protocol, frozenset(v.screen.cell_id[v.split.test1])))
        return toy_scores(v, v.split.test1)

    evaluate(view, make_task(run), [view.split], ["paper", "corrected"])
    everything = frozenset(view.screen.cell_id[view.split.test1])
    chosen_on = frozenset(view.screen.cell_id[view.split.test1 & view.split.validation])
    assert {cells for protocol, cells in seen if protocol == "paper"} == {everything}
    assert {cells for protocol, cells in seen if protocol == "corrected"} == {chosen_on, everything - chosen_on}


def test_a_task_over_all_cells_loses_the_validation_cells_from_its_report():
    seen = set()
    view = make_view()

    def run(v: View) -> list[Score]:
        seen.add((v.protocol, len(v.rows)))
        return toy_scores(v, np.ones(len(v.rows), dtype=bool))

    evaluate(view, make_task(run, uses_split=False), [view.split], ["paper", "corrected"])
    n_validation = int(view.split.validation.sum())
    assert seen == {("paper", N), ("corrected", n_validation), ("corrected", N - n_validation)}


@pytest.mark.parametrize("direction", [1, -1])
def test_the_choice_is_made_on_validation_and_reported_on_the_rest(direction: int):
    """A post-processing that wins on the validation part is reported even where another wins on the rest."""
    view = make_view()
    order = {"none": 0, "center": 1, "center_scale": 2, "tvn": 3}
    calls = iter([(part, m) for part in ("validation", "report") for m in order])

    def run(v: View) -> list[Score]:
        part, method = next(calls)
        value = direction * (order[method] if part == "validation" else -order[method])
        items = Items("cell", np.array(["x", "y"]), np.array([value, value], dtype=float), np.ones(2))
        return [Score.of("toy", items), Score.of("other", items)]

    task = make_task(run, metrics=(replace(METRICS[0], higher_is_better=direction > 0), METRICS[1]))
    rows = evaluate(view, task, [view.split], ["corrected"])
    selected = next(row for row in rows if row.postprocess == "selected" and row.score.metric == "toy")
    assert selected.score.value == direction * -3
    assert selected.score.reason.startswith("tvn: chosen by toy")


def test_paper_calls_the_best_of_the_four_best():
    view = make_view()
    rows = evaluate(view, make_task(lambda v: toy_scores(v, v.split.test1)), [view.split], ["paper"])
    toy = {row.postprocess: row.score.value for row in rows if row.score.metric == "toy"}
    assert set(toy) == {"none", "center", "center_scale", "tvn", "best"}
    assert toy["best"] == max(value for method, value in toy.items() if method != "best")


def test_without_a_validation_part_nothing_is_chosen():
    view = make_view()
    split = replace(view.split, validation=np.zeros(N, dtype=bool))
    rows = evaluate(view, make_task(lambda v: toy_scores(v, v.split.test1)), [split], ["corrected"])
    selected = next(row for row in rows if row.postprocess == "selected")
    assert selected.score.reason == "none: no validation part to choose a post-processing on"


def test_not_applicable_is_a_row_for_every_metric_with_its_reason():
    view = make_view({"has_controls": False})
    rows = evaluate(view, make_task(lambda v: []), [view.split], ["paper", "corrected"])
    assert {(row.protocol, row.postprocess, row.score.metric, row.score.status) for row in rows} == {
        (protocol, chosen, metric, "not_applicable")
        for protocol, chosen in (("paper", "best"), ("corrected", "selected"))
        for metric in ("toy", "other")
    }
    assert {row.score.reason for row in rows} == {"no controls"}


def test_a_predictor_is_scored_by_the_tasks_that_say_so_alone():
    view = replace(make_view(), predictor="no_effect")
    task = make_task(lambda v: toy_scores(v, v.split.test1))
    assert {row.score.reason for row in evaluate(view, task, [view.split], ["paper"])} == {
        "no_effect predicts expression; it is not an embedding"
    }
    scored = evaluate(view, replace(task, scores_predictors=True), [view.split], ["paper"])
    assert {row.score.status for row in scored} == {"ok"}


def test_without_controls_only_the_plain_embedding_is_scored_and_the_rest_say_why():
    view = make_view()
    view = replace(view, screen=replace(view.screen, is_control=np.zeros(N, dtype=bool)))
    rows = evaluate(view, make_task(lambda v: toy_scores(v, v.split.test1)), [view.split], ["paper"])
    status = {row.postprocess: row.score.status for row in rows if row.score.metric == "toy"}
    assert status == {"none": "ok", "best": "ok", **dict.fromkeys(("center", "center_scale", "tvn"), "not_applicable")}


def test_cells_the_model_could_not_embed_are_left_out():
    view = make_view()
    values = np.array(view.embedding)
    values[[3, 50]] = np.nan
    part = Subject.of_embedded(values, view.screen)
    assert len(part.rows) == N - 2
    assert not np.isin(["c3", "c50"], part.screen.cell_id).any()


def test_items_add_up_to_the_score_in_every_row():
    view = make_view()
    rows = evaluate(view, make_task(lambda v: toy_scores(v, v.split.test1)), [view.split], ["paper", "corrected"])
    keys = ["seed", "protocol", "postprocess", "metric"]
    items = pd.concat(item_frames(rows))
    sums = items.groupby(keys)[["numerator", "denominator", "offset", "scale"]].agg(
        {"numerator": "sum", "denominator": "sum", "offset": "first", "scale": "first"}
    )
    rebuilt = sums.offset + sums.scale * sums.numerator / sums.denominator
    scores = pd.DataFrame(list(score_rows(rows, make_task(None), n_boot=200))).set_index(keys)
    pd.testing.assert_series_equal(rebuilt.sort_index(), scores.value.sort_index(), check_names=False)
    assert (scores.ci_low <= scores.value).all()
    assert (scores.value <= scores.ci_high).all()
    worst = scores.value.max()
    bounded = make_task(None, metrics=tuple(replace(metric, highest=worst) for metric in METRICS))
    narrow = pd.DataFrame(list(score_rows(rows, bounded, n_boot=200))).set_index(keys)
    assert (scores.ci_high > worst).any()
    np.testing.assert_array_equal(narrow.ci_high, scores.ci_high.clip(upper=worst))


def test_half_of_each_batch_s_controls_fit_the_post_processing_in_any_order():
    screen = make_view().screen
    fit = fitting_controls(screen, 42)
    assert not fit[~screen.is_control].any()
    per_batch = pd.Series(fit[screen.is_control]).groupby(screen.batch[screen.is_control]).agg(["sum", "size"])
    assert (per_batch["sum"] == per_batch["size"] // 2).all()
    order = np.random.default_rng(1).permutation(N)
    np.testing.assert_array_equal(fitting_controls(screen.take(order), 42), fit[order])
    assert (fitting_controls(screen, 43) != fit).any()


@pytest.mark.parametrize("name", ["magnitude", "consistency"])
def test_noise_shows_no_effect_under_any_post_processing(name):
    """Planted: labels mean nothing. Fitted on the very controls compared with, TVN finds an effect in every perturbation."""
    rng = np.random.default_rng(5)
    n, batches = 2400, np.repeat([f"b{i}" for i in range(8)], 300)
    label = rng.choice(["control", *(f"p{i}" for i in range(40))], n, p=[0.2, *[0.02] * 40])
    screen = Screen(np.array([f"c{i}" for i in range(n)]), label, label == "control", batches, pd.DataFrame(), {})
    screen = replace(screen, facts={"has_controls": True, "n_perturbations": 40})
    split = Split(1, "batch", *(np.zeros(n, dtype=bool) for _ in range(4)))
    values = rng.normal(size=(n, 20)).astype(np.float32)
    view = View(values, screen, split, np.arange(n), "corrected", 1, n_draws=200)
    rows = evaluate(view, tasks.load(name), [split], ["corrected"])
    found = {row.postprocess: row.score.value for row in rows if row.score.metric == f"{name}_pct"}
    assert set(found) == {"none", "center", "center_scale", "tvn", "selected"}
    # 40 tests at 5 %: more than 7 positives has probability 0.002
    assert all(value <= 100 * 7 / 40 for value in found.values()), found


def noise_view(n_batches: int = 8, n: int = 2400, d: int = 12, seed: int = 5) -> View:
    """An embedding that says nothing of its 40 perturbations and 8 batches; a third of the cells are controls."""
    rng = np.random.default_rng(seed)
    batch = np.array([f"b{i}" for i in range(n_batches)])[rng.integers(0, n_batches, n)]
    label = rng.choice(["control", *(f"p{i}" for i in range(40))], n, p=[0.3, *[0.7 / 40] * 40])
    facts = {"has_controls": True, "n_perturbations": 40, "has_batches": True, "n_batches": n_batches}
    screen = Screen(np.array([f"c{i}" for i in range(n)]), label, label == "control", batch, pd.DataFrame(), facts)
    split = make_split(label, label == "control", batch, seed, "batch")
    return View(rng.normal(size=(n, d)).astype(np.float32), screen, split, np.arange(n), "corrected", seed, n_draws=200)


# name -> (chance, four standard errors or so): of accuracies among 28 classes, of percentages of 40 tests
CHANCE = {
    "linear_top1": (1 / 28, 0.04), "linear_top5": (5 / 28, 0.08), "linear_balanced": (1 / 28, 0.04),
    "knn_top1": (1 / 28, 0.04), "knn_top5": (5 / 28, 0.08), "auroc_control": (0.5, 0.06),
    "consistency_pct": (5, 14), "consistency_fdr_pct": (0, 5), "magnitude_pct": (5, 14), "magnitude_fdr_pct": (0, 5),
    "ilisi_ratio": (1, 0.08),
}  # fmt: skip


@pytest.mark.parametrize("name", ["separability", "consistency", "magnitude", "batch_effect"])
def test_every_metric_of_noise_is_at_chance_under_every_post_processing(name):
    view = noise_view()
    rows = [row for row in evaluate(view, tasks.load(name), [view.split], ["corrected"]) if row.score.metric in CHANCE]
    assert {row.postprocess for row in rows} == {"none", "center", "center_scale", "tvn", "selected"}
    assert {row.score.metric for row in rows} == {metric.name for metric in tasks.load(name).metrics} & set(CHANCE)
    for row in rows:
        chance, error = CHANCE[row.score.metric]
        assert row.score.value == pytest.approx(chance, abs=error), (row.postprocess, row.score.metric)


def test_recall_of_noise_is_at_chance_under_every_post_processing():
    view = noise_view(n=4000)
    genes = np.unique(known_pairs("CORUM")[:400])[:160]
    named = np.where(view.screen.is_control, "control", np.random.default_rng(0).choice(genes, 4000))
    genes = pd.DataFrame({"gene_id": [], "symbol": [], "ensembl_id": []}, dtype=str)
    view = replace(view, screen=replace(view.screen, perturbation=named, genes=genes))
    rows = [row for row in evaluate(view, tasks.load("recall"), [view.split], ["corrected"]) if row.score.status == "ok"]
    assert {row.postprocess for row in rows} == {"none", "center", "center_scale", "tvn", "center_perturbed", "selected"}
    for row in rows:
        chance = {"recall_mean": 0.1, "recall_corum": 0.1, "recall_corum_10": 0.2, "corum_ks": 0}.get(row.score.metric)
        if chance is not None:
            assert row.score.value == pytest.approx(chance, abs=0.05), (row.postprocess, row.score.metric)


def test_reconstruction_from_noise_is_no_better_than_no_effect_under_any_post_processing(tmp_path):
    view, _ = counts_view(tmp_path)
    noise = np.random.default_rng(3).normal(size=(len(view.rows), 12)).astype(np.float32)
    view = replace(view, embedding=noise)
    rows = evaluate(view, tasks.load("reconstruction"), [view.split], ["corrected"])
    found = {(row.postprocess, row.score.metric): row.score.value for row in rows}
    for method in ("none", "center", "center_scale", "tvn", "selected"):
        assert 0.4 < found[method, "structural_integrity"] < 0.505
        assert found[method, "pearson"] == pytest.approx(0, abs=0.03)
        assert found[method, "spearman"] == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("n_batches", [3, 6])
def test_of_few_batches_all_are_mixed_and_nothing_is_chosen(n_batches):
    view = noise_view(n_batches, n=1500)
    rows = evaluate(view, tasks.load("batch_effect"), [view.split], ["corrected"])
    found = {row.postprocess: row.score for row in rows if row.score.metric == "ilisi_ratio"}
    assert sorted(found["selected"].items.unit) == sorted(np.unique(view.screen.batch))
    assert found["selected"].value == found["none"].value == pytest.approx(1, abs=0.08)
    assert found["selected"].reason.startswith("none: all of the few batches are scored, and nothing is chosen")
    paper = evaluate(view, tasks.load("batch_effect"), [view.split], ["paper"])
    one = "test cells lie in 1 batch" if n_batches == 3 else "best of the four"
    assert all(one in row.score.reason for row in paper if row.postprocess == "best")


def test_batch_mixing_of_seven_batches_is_chosen_on_train_cells():
    view = noise_view(7)
    rows = evaluate(view, tasks.load("batch_effect"), [view.split], ["corrected"])
    found = next(row.score for row in rows if (row.postprocess, row.score.metric) == ("selected", "ilisi_scaled"))
    assert sorted(found.items.unit) == sorted(np.unique(view.screen.batch[view.split.test1]))
    assert "chosen by ilisi_scaled on the train cells" in found.reason


def test_of_few_batches_each_is_left_out_once():
    """By hand: a probe for every batch, trained on the others, and its hits added up; a confounded effect is not found."""
    view = separable_view()
    task = tasks.load("separability")
    rows = evaluate(view, task, [view.split], ["corrected"])
    found = {row.score.metric: row.score for row in rows if row.postprocess == "selected"}
    hits, cells = {}, {}
    for name in np.unique(view.screen.batch):
        split = replace(view.split, train=view.screen.batch != name, test1=view.screen.batch == name)
        one = {score.metric: score for score in task.run(replace(view, split=split))}["linear_top1"]
        for unit, hit, n in zip(one.items.unit, one.items.numerator, one.items.denominator, strict=True):
            hits[unit], cells[unit] = hits.get(unit, 0) + hit, cells.get(unit, 0) + n
    top = found["linear_top1"]
    assert dict(zip(top.items.unit, top.items.numerator, strict=True)) == hits
    assert top.n == sum(cells.values()) == (~view.screen.is_control).sum()
    assert top.value > 0.5
    assert found["auroc_control"].value > 0.8
    own = evaluate(separable_view(of_batch=True), task, [view.split], ["corrected"])
    own = {row.score.metric: row.score for row in own if row.postprocess == "selected"}
    assert own["linear_top1"].value < 0.35  # what a batch has for itself is not in the others; chance is 0.2
    assert 0.4 < own["auroc_control"].value < 0.7


def test_donors_are_the_units_of_a_single_perturbation():
    """Eight donors are all scored, so that there are enough of them for a verdict; with 40 perturbations some choose."""
    rng, n = np.random.default_rng(0), 800
    label, batch = np.where(np.arange(n) // 8 % 2, "control", "drug"), np.char.add("donor", (np.arange(n) % 8).astype(str))
    facts = {"has_controls": True, "n_perturbations": 1, "has_batches": True, "n_batches": 8}
    ids = np.array([f"c{i:04d}" for i in range(n)])
    screen = Screen(ids, label, label == "control", batch, pd.DataFrame(), facts)
    x = rng.normal(size=(n, 6)) + 2 * rng.normal(size=(8, 6))[np.arange(n) % 8] + (label == "drug")[:, None]
    split = make_split(label, label == "control", batch, 42, "batch")
    view = View(x.astype(np.float32), screen, split, np.arange(n), "corrected", 42, n_draws=50)
    main = {"magnitude": "magnitude_effect", "separability": "auroc_control", "batch_effect": "ilisi_scaled"}
    for name, metric in main.items():
        rows = evaluate(view, tasks.load(name), [view.split], ["corrected"])
        score = next(row.score for row in rows if (row.postprocess, row.score.metric) == ("selected", metric))
        assert (score.items.kind, sorted(score.items.unit)) == ("batch", sorted(np.unique(batch))), name
        assert score.reason.startswith("none: all of the few batches are scored")
    many = noise_view()
    rows = evaluate(many, tasks.load("magnitude"), [many.split], ["corrected"])
    assert all("chosen by magnitude_pct" in row.score.reason for row in rows if row.postprocess == "selected")


def separable_view(of_batch: bool = False) -> View:
    """Five perturbations in four batches, their effects the same in all batches, or another in each."""
    rng = np.random.default_rng(0)
    n = 480
    batch, which = np.arange(n) % 4, np.arange(n) // 4 % 6
    effects = 1.5 * rng.normal(size=(4, 6, 10)) if of_batch else np.tile(1.5 * rng.normal(size=(6, 10)), (4, 1, 1))
    effects[:, 5] = 0
    label = np.where(which == 5, "control", np.char.add("p", which.astype(str)))
    names = np.char.add("b", batch.astype(str))
    facts = {"has_controls": True, "n_perturbations": 5, "has_batches": True, "n_batches": 4}
    ids = np.array([f"c{i:04d}" for i in range(n)])
    screen = Screen(ids, label, label == "control", names, pd.DataFrame(), facts)
    x = rng.normal(size=(n, 10)) + effects[batch, which]
    return View(
        x.astype(np.float32), screen, make_split(label, label == "control", names, 42, "batch"), np.arange(n), "corrected", 42
    )


def test_the_train_cells_that_choose_for_batch_mixing_are_no_more_than_those_scored():
    view, sizes = noise_view(), []

    def run(v: View) -> list[Score]:
        cells = v.screen.cell_id[v.split.test1]
        sizes.append((len(cells), bool(np.isin(cells, view.screen.cell_id[view.split.test1]).any())))
        return toy_scores(v, v.split.test1)

    evaluate(view, make_task(run, chooses_on_train=True), [view.split], ["corrected"])
    n = int(view.split.test1.sum())
    assert sizes == [(n, False)] * 4 + [(n, True)] * 4


@pytest.mark.parametrize("compares", [("toy", "other"), ("toy",)])
def test_without_post_processing_all_controls_are_compared_with(compares):
    """To choose, all post-processings see the same cells."""
    view, seen = make_view(), []

    def run(v: View) -> list[Score]:
        cells = v.compared() if v.compared else v
        seen.append(int(cells.screen.is_control.sum()))
        return toy_scores(v, np.ones(len(v.rows), dtype=bool))

    metrics = tuple(replace(metric, compares_controls=metric.name in compares) for metric in METRICS)
    task = make_task(run, uses_split=False, metrics=metrics)
    evaluate(view, task, [view.split], ["corrected"])
    n, spared = int(view.screen.is_control.sum()), int((view.screen.is_control & ~fitting_controls(view.screen, 7)).sum())
    validation = view.split.validation & view.screen.is_control
    n_validation = int((validation & ~fitting_controls(view.screen, 7)).sum())
    assert seen == [n_validation] * 4 + [n - int(validation.sum())] + [spared - n_validation] * 3


def test_a_score_that_is_absent_names_no_choice():
    view = make_view()
    scores = [Score.absent(metric, "nothing to compare") for metric in ("toy", "other")]
    rows = evaluate(view, make_task(lambda v: scores), [view.split], ["paper", "corrected"])
    assert {row.score.reason for row in rows} == {"nothing to compare"}


def test_paper_says_where_nothing_could_be_chosen_by():
    view = make_view()

    def run(v: View) -> list[Score]:
        return [Score.absent("toy", "no pairs"), toy_scores(v, v.split.test1)[1]]

    rows = evaluate(view, make_task(run), [view.split], ["paper"])
    best = {row.score.metric: row.score.reason for row in rows if row.postprocess == "best"}
    assert best == {"toy": "no pairs", "other": "none: toy, by which to choose, cannot be scored"}


def test_a_floor_is_the_mean_of_several_draws_where_chance_is_not_known():
    """Of five perturbations one draw of noise says little; five draws scatter less, and about the same level."""
    view, task = separable_view(), tasks.load("separability")

    def top(seed: int, chance: bool) -> tuple[float, str]:
        noise = np.random.default_rng(seed).normal(size=(len(view.rows), 10)).astype(np.float32)
        subject = replace(subject_of(replace(view, embedding=noise)), chance=chance)
        rows = evaluate(subject, task, [view.split], ["corrected"])
        score = next(row.score for row in rows if (row.postprocess, row.score.metric) == ("selected", "knn_top1"))
        return score.value, score.reason

    one, five = ([top(seed, chance) for seed in range(4)] for chance in (False, True))
    assert all(reason.endswith("mean of 5 draws") for _, reason in five)
    assert not any("draws" in reason for _, reason in one)
    assert np.std([value for value, _ in five]) < np.std([value for value, _ in one])
    assert np.mean([value for value, _ in five]) == pytest.approx(0.2, abs=0.03)


def test_another_deal_of_the_vectors_holds_each_once_in_any_order_of_the_cells():
    subject = subject_of(separable_view())
    again = subject.redrawn(3)
    for values in (subject.embedding[:], again.embedding[:]):
        np.testing.assert_array_equal(np.sort(values[:, 0]), np.sort(subject.embedding[:][:, 0]))
    assert (again.embedding[:] != subject.embedding[:]).any(axis=1).mean() > 0.9
    order = np.random.default_rng(0).permutation(len(subject.rows))
    parts = {"embedding": subject.embedding.take(order), "screen": subject.screen.take(order), "rows": subject.rows[order]}
    np.testing.assert_array_equal(replace(subject, **parts).redrawn(3).embedding[:], again.embedding[:][order])
