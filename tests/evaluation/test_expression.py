"""The regressions recover what was planted, find nothing where there is nothing, and never see a held-out gene."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Lasso, Ridge
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from candi_cli.evaluation import expression
from candi_cli.evaluation.expression import (
    ALPHAS,
    INNER_FOLDS,
    OUTER_FOLDS,
    REGRESSIONS,
    VARIANCES,
    Prediction,
    cross_validate,
    gene_folds,
    score_prediction,
)
from candi_cli.evaluation.metrics import pearson, r2, spearman

GENES = np.array([f"ENSG{number:011d}" for number in range(400)])


def planted(rng, noise=0.3, genes=GENES, n_biosamples=1):
    """Features of which some directions, with most of the variance, set the target."""
    n = len(genes) * n_biosamples
    hidden = rng.normal(size=(n, 3))
    features = hidden @ rng.normal(size=(3, 12)) * 3 + rng.normal(size=(n, 12)) * 0.3
    return features * rng.gamma(2, 10, 12) + 5, hidden @ [1.0, -0.5, 0.8] + rng.normal(size=n) * noise + 2


@pytest.mark.parametrize("regression", REGRESSIONS)
def test_a_planted_relation_is_recovered(regression, rng):
    features, target = planted(rng)
    prediction = cross_validate(features, target, GENES)[regression]
    score = score_prediction(target, prediction, np.full(400, "E003"))["r2"]
    explained = 1 - 0.3**2 / target.var()
    assert explained - 0.06 < score.value < explained + 0.02
    assert score.per_fold == pytest.approx(explained, abs=0.1)
    assert [split.n_components for split in prediction.splits] == [3] * 5  # the directions that were planted


def test_nothing_is_predicted_of_a_shuffled_target(rng):
    features, target = planted(rng)
    found = []
    for seed in range(3):
        shuffled = rng.permutation(target)
        for prediction in cross_validate(features, shuffled, GENES, seed=seed).values():
            scores = score_prediction(shuffled, prediction, np.full(400, "E003"))
            found.append((scores["pearson"].value, scores["r2"].value))
    assert np.mean(found, axis=0)[0] == pytest.approx(0, abs=0.12)
    assert -0.05 < np.mean(found, axis=0)[1] < 0.01


def test_features_that_tell_a_gene_apart_do_not_help_as_its_rows_are_in_one_fold(rng):
    """Of a gene's 4 biosamples the expression is the same, and random: a leak would predict it perfectly."""
    genes = np.tile(GENES[:150], 4)
    features = np.tile(rng.normal(size=(150, 100)), (4, 1))
    target = np.tile(rng.normal(size=150), 4)
    prediction = cross_validate(features, target, genes)["ridge"]
    assert score_prediction(target, prediction, np.repeat(list("abcd"), 150))["r2"].value < 0.05
    leaky = cross_validate(features, target, np.arange(600).astype(str))["ridge"]
    assert score_prediction(target, leaky, np.repeat(list("abcd"), 150))["r2"].value > 0.3


def test_no_fit_sees_a_gene_that_it_predicts(rng, monkeypatch):
    """Each row's features begin with its gene's number; what is fitted and what is predicted share none."""
    genes = np.tile(GENES[:60], 3)
    features, target = planted(rng, genes=GENES[:60], n_biosamples=3)
    features[:, 0] = np.tile(np.arange(60), 3)
    pairs = []

    class Recording(expression._Fit):
        def __init__(self, train, target):
            super().__init__(train, target)
            self.seen = set(train[:, 0])

        def coordinates(self, held_out):
            pairs.append((self.seen, set(held_out[:, 0])))
            return super().coordinates(held_out)

    monkeypatch.setattr(expression, "_Fit", Recording)
    cross_validate(features, target, genes)
    assert len(pairs) == OUTER_FOLDS * (INNER_FOLDS + 1)
    assert not any(seen & held_out for seen, held_out in pairs)
    for inner, outer in ((pairs[at : at + INNER_FOLDS], pairs[at + INNER_FOLDS]) for at in range(0, 25, 5)):
        for seen, held_out in inner:  # choosing sees the training genes alone
            assert seen | held_out == outer[0]


def test_held_out_rows_change_no_other_prediction_of_their_fold(rng):
    features, target = planted(rng)
    before = cross_validate(features, target, GENES)["ridge"]
    held_out = before.fold == before.fold[0]
    target[0] += 1_000
    features[0] *= 2
    after = cross_validate(features, target, GENES)["ridge"]
    assert after.splits[before.fold[0]] == before.splits[before.fold[0]]
    assert (after.values[held_out][1:] == before.values[held_out][1:]).all()
    assert (after.values[~held_out] != before.values[~held_out]).all()


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("regression", REGRESSIONS)
def test_a_fold_is_what_scikit_learn_fits(regression, wide, rng):
    features, target = planted(rng)
    if wide:  # fewer genes than features
        features = np.hstack([features, rng.normal(size=(400, 500))])
    prediction = cross_validate(features, target, GENES)[regression]
    for number, split in enumerate(prediction.splits):
        train = prediction.fold != number
        assert split.variance in VARIANCES
        assert split.alpha in ALPHAS[regression]
        linear = Ridge(split.alpha) if regression == "ridge" else Lasso(split.alpha, tol=1e-10, max_iter=100_000)
        pca = PCA(split.variance, svd_solver="full")
        model = make_pipeline(StandardScaler(), pca, linear).fit(features[train], target[train])
        assert pca.n_components_ == split.n_components
        assert prediction.values[~train] == pytest.approx(model.predict(features[~train]), abs=1e-6)


def test_the_choice_is_that_of_a_grid_search(rng):
    features, target = planted(rng, noise=3)
    for regression, prediction in cross_validate(features, target, GENES).items():
        linear = Ridge() if regression == "ridge" else Lasso(tol=1e-8)
        steps = Pipeline([("scale", StandardScaler()), ("pca", PCA(svd_solver="full")), ("linear", linear)])
        grid = {"pca__n_components": list(VARIANCES), "linear__alpha": list(ALPHAS[regression])}
        train = prediction.fold != 0
        inner = gene_folds(GENES[train], INNER_FOLDS, seed=~0)
        search = GridSearchCV(steps, grid, cv=PredefinedSplit(inner), scoring=_squared_error, refit=False)
        results = search.fit(features[train], target[train]).cv_results_
        total = sum(results[f"split{number}_test_score"] for number in range(INNER_FOLDS))
        best = results["params"][int(np.argmax(total))]
        assert (best["pca__n_components"], best["linear__alpha"]) == (
            prediction.splits[0].variance, prediction.splits[0].alpha,
        )  # fmt: skip


def _squared_error(model, features, target):
    return -np.square(model.predict(features) - target).sum()


def test_folds_hang_on_the_gene_and_the_seed_alone(rng):
    folds = gene_folds(GENES, 5, seed=3)
    order = rng.permutation(400)[:100]
    assert (gene_folds(GENES[order], 5, seed=3) == folds[order]).all()
    assert (gene_folds(np.repeat(GENES, 3), 5, seed=3) == np.repeat(folds, 3)).all()
    assert (gene_folds(GENES, 5, seed=4) != folds).mean() == pytest.approx(0.8, abs=0.1)
    assert np.bincount(folds, minlength=5) / 400 == pytest.approx(0.2, abs=0.06)
    assert gene_folds(["ENSG00000141510", "ENSG00000012048"], 5, seed=0).tolist() == [3, 2]  # as b2sum has it


def test_the_same_seed_gives_the_same_prediction(rng):
    features, target = planted(rng)
    one, other = (cross_validate(features, target, GENES, seed=5)["lasso"] for _ in range(2))
    assert (one.values == other.values).all()
    assert one.splits == other.splits


def test_scores_are_those_of_all_of_folds_and_of_biosamples(rng):
    target, biosample = rng.normal(size=90), np.repeat(["b", "a", "c"], 30)
    prediction = Prediction(target + rng.normal(size=90), np.tile(np.arange(5), 18), [])
    scores = score_prediction(target, prediction, biosample)
    for name, score in (("pearson", pearson), ("spearman", spearman), ("r2", r2)):
        found = scores[name]
        assert found.value == score(target, prediction.values)
        folds = [score(target[at::5], prediction.values[at::5]) for at in range(5)]
        assert found.per_fold == pytest.approx(folds)
        assert found.se_fold == pytest.approx(np.std(folds, ddof=1) / 5**0.5)
        assert found.biosample.tolist() == ["a", "b", "c"]
        assert found.per_biosample[0] == score(target[30:60], prediction.values[30:60])
    without = [pearson(np.delete(target, at), np.delete(prediction.values, at)) for at in np.split(np.arange(90), 3)]
    expected = (2 / 3 * np.square(np.array(without) - np.mean(without)).sum()) ** 0.5
    assert scores["pearson"].se_biosample == pytest.approx(expected)
    assert np.isnan(score_prediction(target, prediction, np.full(90, "a"))["r2"].se_biosample)


def test_features_without_variance_predict_the_mean_of_the_other_genes(rng, recwarn):
    target = rng.normal(size=400)
    for prediction in cross_validate(np.ones((400, 3)), target, GENES).values():
        means = np.array([target[prediction.fold != number].mean() for number in range(5)])
        assert prediction.values == pytest.approx(means[prediction.fold])
        assert np.isnan(score_prediction(target, prediction, np.full(400, "a"))["pearson"].per_fold).all()
    assert not recwarn.list


def test_too_few_genes_or_missing_values_are_refused(rng):
    features, target = planted(rng)
    with pytest.raises(ValueError, match="3 rows are too few"):
        cross_validate(features[:3], target[:3], GENES[:3])
    features[0, 0] = np.nan
    with pytest.raises(ValueError, match="must be finite"):
        cross_validate(features, target, GENES)["ridge"]
