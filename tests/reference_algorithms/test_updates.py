"""Twenty updates from fixed gradients: JAX, PyTorch, and the papers' formulas in float64 agree."""

import math

import numpy as np
import pytest
import update_agreement as runs

import reference_algorithms

MATRICES = {"block/dense/kernel", "block/square/kernel", "block/out/kernel"}
NAMES = [name for name in reference_algorithms.names() if name != "sam"]  # see test_sam
# Two implementations of others agree on these; no formula of ours beside them.
WITHOUT_FORMULA = {"prodigy", "soap"}
SELF_TUNING = {"nadamw_self_tuning", "schedule_free_self_tuning"}


@pytest.fixture(scope="module")
def finals():
    """Return a function: name -> (parameters after all steps in jax, in pytorch); runs once."""
    done = {}

    def of(name):
        if name not in done:
            shapes = runs.SQUARE if name == "soap" else runs.SHAPES
            initial, gradients = runs.initial_and_gradients(shapes)
            done[name] = (*runs.final_values(name, initial, gradients), initial, gradients)
        return done[name]

    return of


@pytest.mark.parametrize("name", reference_algorithms.names())
def test_frameworks_agree(name, finals):
    in_jax, in_torch, initial, _ = finals(name)
    # At the small rates of the self-tuning forms, float32 rounds weights by more of an update.
    bound = 1e-4 if name in {*SELF_TUNING, "prodigy"} else 1e-5
    assert runs.difference(in_jax, in_torch, initial) < bound


@pytest.mark.parametrize("name", sorted(set(NAMES) - SELF_TUNING - WITHOUT_FORMULA))
def test_frameworks_follow_the_paper(name, finals):
    in_jax, in_torch, initial, gradients = finals(name)
    point = runs.point_of(name)
    by_hand = {}
    for key, weight in initial.items():
        history = [gradient[key].astype(np.float64) for gradient in gradients]
        formula = FORMULAS[name] if key in MATRICES or name not in FOR_MATRICES else adamw
        formula = NORMS[key] if name == "scion" else formula
        by_hand[key] = formula(weight.astype(np.float64), history, point)
    assert runs.difference(in_jax, by_hand, initial) < 1e-5
    assert runs.difference(in_torch, by_hand, initial) < 1e-5


@pytest.mark.parametrize("name", sorted(SELF_TUNING))
def test_self_tuning_is_the_algorithm_at_its_fixed_point(name, finals):
    in_jax, in_torch, initial, gradients = finals(name)
    base = {"nadamw_self_tuning": "nadamw"}.get(name, "schedule_free_adamw")
    point = vars(runs.load(name).FIXED)
    for run_of, final in zip(runs.RUNS.values(), (in_jax, in_torch), strict=True):
        run = run_of(runs.load(base), point, initial)
        for gradient in gradients:
            run.step(gradient)
        for key, value in run.values().items():
            np.testing.assert_array_equal(value, final[key])


def test_an_unfactored_basis_is_the_reason_for_soap():
    """With square matrices the frameworks agree (above), with others they cannot."""
    assert 1e-4 < runs.agreement("soap", runs.SHAPES) < 1
    assert set(runs.REASONS) == {"soap"}


def rates_of(point):
    """Warm-up over 5 updates, then cosine over 19 or linear over 11."""
    for update in range(1, 21):
        if update <= 5:
            yield point["learning_rate"] * update / 5
        elif "end_factor" in point:
            left = max(0.0, 1 - (update - 5) / 11)
            yield point["learning_rate"] * (point["end_factor"] + (1 - point["end_factor"]) * left)
        else:
            cosine = (1 + math.cos(math.pi * (update - 5) / 19)) / 2
            yield point["learning_rate"] * max(0.01, cosine)


def averages(history, decay, power=1):
    """The exponential moving averages after each step, as sums."""
    for step in range(1, len(history) + 1):
        yield sum(
            (1 - decay) * decay ** (step - i) * history[i - 1] ** power for i in range(1, step + 1)
        )


def adam_directions(history, point, eps=1e-8, nesterov=False):
    """Kingma and Ba's algorithm 1, or Dozat's m-bar with constant mu."""
    b1, b2 = 1 - point["one_minus_beta1"], point["beta2"]
    pairs = zip(averages(history, b1), averages(history, b2, 2), strict=True)
    for t, (first, second) in enumerate(pairs, start=1):
        mean = first / (1 - b1**t)
        if nesterov:
            mean = b1 * first / (1 - b1 ** (t + 1)) + (1 - b1) * history[t - 1] / (1 - b1**t)
        yield mean / (np.sqrt(second / (1 - b2**t)) + eps)


def decayed(weight, directions, point):
    """Decoupled weight decay, with the schedule's rates."""
    for rate, direction in zip(rates_of(point), directions, strict=True):
        weight = weight - rate * (direction + point["weight_decay"] * weight)
    return weight


def adamw(weight, history, point):
    return decayed(weight, adam_directions(history, point), point)


def nadamw(weight, history, point):
    return decayed(weight, adam_directions(history, point, nesterov=True), point)


def momentum(weight, history, point, nesterov=False):
    velocity, m = np.zeros_like(weight), 1 - point["one_minus_beta1"]
    for rate, gradient in zip(rates_of(point), history, strict=True):
        total = gradient + point["weight_decay"] * weight
        velocity = m * velocity + total
        weight = weight - rate * (total + m * velocity if nesterov else velocity)
    return weight


def nesterov(weight, history, point):
    return momentum(weight, history, point, nesterov=True)


def lamb(weight, history, point):
    """You et al. 2020, algorithm 2."""
    for rate, direction in zip(rates_of(point), adam_directions(history, point, 1e-6), strict=True):
        update = direction + point["weight_decay"] * weight
        weight = weight - rate * np.linalg.norm(weight) / np.linalg.norm(update) * update
    return weight


def cautious_adamw(weight, history, point):
    """Liang et al. 2024, algorithm 1."""

    def masked():
        for direction, gradient in zip(adam_directions(history, point), history, strict=True):
            kept = np.where(direction * gradient > 0, 1.0, 0.0)
            yield direction * kept * kept.size / (kept.sum() + 1)

    return decayed(weight, masked(), point)


def lion(weight, history, point):
    """Chen et al. 2023, algorithm 2: the momentum is the last step's."""
    before = [np.zeros_like(weight), *averages(history, point["beta2"])]
    b1 = 1 - point["one_minus_beta1"]
    signs = [np.sign(b1 * m + (1 - b1) * g) for m, g in zip(before, history, strict=False)]
    return decayed(weight, signs, point)


def signum(weight, history, point):
    """Bernstein et al. 2018, algorithm 1."""
    return decayed(weight, map(np.sign, averages(history, 1 - point["one_minus_beta1"])), point)


def adopt(weight, history, point):
    """Taniguchi et al. 2024, algorithm 2; the first gradient makes v_0 and no step."""
    b1, b2 = 1 - point["one_minus_beta1"], point["beta2"]
    directions, mean, square = [np.zeros_like(weight)], np.zeros_like(weight), history[0] ** 2
    for t, gradient in enumerate(history[1:], start=1):
        scaled = gradient / np.maximum(np.sqrt(square), 1e-6)
        mean = b1 * mean + (1 - b1) * np.clip(scaled, -(t**0.25), t**0.25)
        square = b2 * square + (1 - b2) * gradient**2
        directions.append(mean)
    return decayed(weight, directions, point)


def ademamix(weight, history, point):
    """Pagliardini et al. 2024, algorithm 1: beta3 by its half-life, over 24 steps."""
    b1, b2, b3 = 1 - point["one_minus_beta1"], point["beta2"], point["beta3"]
    slow, directions = np.zeros_like(weight), []
    pairs = zip(averages(history, b1), averages(history, b2, 2), strict=True)
    for t, (first, second) in enumerate(pairs, start=1):
        share = t / 24
        half_life = (1 - share) * math.log(0.5) / math.log(b1) + share * math.log(0.5) / math.log(
            b3
        )
        beta = 0.5 ** (1 / half_life)
        slow = beta * slow + (1 - beta) * history[t - 1]
        mixed = first / (1 - b1**t) + share * point["alpha"] * slow
        directions.append(mixed / (np.sqrt(second / (1 - b2**t)) + 1e-8))
    return decayed(weight, directions, point)


def mars(weight, history, point):
    """Yuan et al. 2024, algorithm 2 with g_0 = 0."""
    b1 = 1 - point["one_minus_beta1"]
    changes = []
    for gradient, last in zip(history, [0 * weight, *history], strict=False):
        change = gradient + point["gamma"] * b1 / (1 - b1) * (gradient - last)
        changes.append(change / max(1.0, np.linalg.norm(change)))
    return adamw(weight, changes, point)


def adafactor(weight, history, point):
    """Shazeer and Stern 2018, algorithms 4 and 6, weights decayed by rate x decay."""
    square = np.zeros_like(weight)
    rows, columns = square.sum(-1), square.sum(0)
    for t, (cap, gradient) in enumerate(zip(rates_of(point), history, strict=True), start=1):
        decay = 1 - t ** -point["beta2_decay"]
        square = decay * square + (1 - decay) * gradient**2
        estimate = square
        if weight.ndim == 2:
            rows = decay * rows + (1 - decay) * (gradient**2).sum(1)
            columns = decay * columns + (1 - decay) * (gradient**2).sum(0)
            estimate = np.outer(rows, columns) / rows.sum()
        update = gradient / np.sqrt(estimate)
        update = update / max(1.0, np.sqrt(np.mean(update**2)))
        size = max(1e-3, np.sqrt(np.mean(weight**2)))
        rate = min(cap, 1 / math.sqrt(t))
        weight = weight - rate * size * update - cap * point["weight_decay"] * weight
    return weight


def newton_schulz(matrix):
    """Jordan et al. 2024: the quintic acts on the singular values alone."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values = values / np.linalg.norm(values)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return (left * values) @ right


def orthogonalized(history, point):
    """The Nesterov momentum of each step, with all singular values near 1."""
    velocity = np.zeros_like(history[0])
    for gradient in history:
        velocity = point["momentum"] * velocity + gradient
        yield newton_schulz(gradient + point["momentum"] * velocity)


def muon(weight, history, point):
    """Jordan et al. 2024, with the scale of Liu et al. 2025."""
    scale = 0.2 * math.sqrt(max(weight.shape))
    return decayed(weight, (scale * each for each in orthogonalized(history, point)), point)


def normuon(weight, history, point):
    """Li et al. 2025, algorithm 1: a neuron's weights are a column here."""
    matrices = list(orthogonalized(history, point))
    squares = averages([(each**2).mean(axis=0) for each in matrices], point["neuron_beta2"])
    normalized = [each / np.sqrt(square) for each, square in zip(matrices, squares, strict=True)]
    sizes = [0.2 * math.sqrt(each.size) / np.linalg.norm(each) for each in normalized]
    return decayed(weight, (s * each for s, each in zip(sizes, normalized, strict=True)), point)


def by_momentum(step):
    """A formula of Pethick et al. 2025, algorithm 1: a function of the averaged gradients."""

    def formula(weight, history, point):
        return decayed(weight, map(step, averages(history, 1 - point["one_minus_beta1"])), point)

    return formula


def spectral(average):
    inputs, outputs = average.shape
    return math.sqrt(outputs / inputs) * newton_schulz(average)


def rows(average):
    return average / np.sqrt((average**2).mean(axis=-1, keepdims=True))


def output(average):
    return 16 / len(average) * np.sign(average)


def psgd_kron(weight, history, point):
    """Li 2024: the quadratic form of Q's and S's updates, with the noise's covariance summed up."""
    roots = [np.eye(size) for size in weight.shape]  # Q, S
    bounds = [0.0, 0.0]
    b1, directions = 1 - point["one_minus_beta1"], []
    for t, (gradient, average) in enumerate(
        zip(history, averages(history, b1), strict=True), start=1
    ):
        p, r = (root @ root for root in roots)
        noise = math.sqrt(np.finfo(np.float32).eps) * np.abs(gradient).mean() + 1e-8
        seen = [gradient]
        for row, column in np.ndindex(gradient.shape):
            seen.append(np.zeros_like(gradient))
            seen[-1][row, column] = noise
        whitened = [p @ each @ r for each in seen]
        covariances = (sum(w @ w.T for w in whitened), sum(w.T @ w for w in whitened))
        for side, covariance in enumerate(covariances):
            size = weight.shape[1 - side]
            vector = covariance[np.argmax(np.linalg.norm(covariance, axis=1))]
            for _ in range(2):
                vector = covariance @ vector / np.linalg.norm(vector)
            now = np.linalg.norm(vector) + size
            bounds[side] = max(now, 0.9 * bounds[side] + 0.1 * now)
            identity = np.eye(len(covariance))
            factor = identity - 0.05 / bounds[side] * (covariance - size * identity)
            roots[side] = factor @ roots[side] @ factor
        largest = [np.abs(root).max() for root in roots]
        roots[0] = roots[0] * math.sqrt(largest[1] / largest[0])
        roots[1] = roots[1] * math.sqrt(largest[0] / largest[1])
        p, r = (root @ root for root in roots)
        direction = p @ average @ r / (1 - b1**t)
        directions.append(direction * min(1, 1.1 / np.sqrt((direction**2).mean())))
    return decayed(weight, directions, point)


def diloco(weight, history, point):
    """Douillard et al. 2023, algorithm 1 with one worker, whose Adam goes on over the rounds."""
    anchor, outer = weight, np.zeros_like(weight)
    steps = zip(rates_of(point), adam_directions(history, point), strict=True)
    for t, (rate, direction) in enumerate(steps, start=1):
        weight = weight - rate * (direction + point["weight_decay"] * weight)
        if t % point["inner_steps"] == 0:
            gradient = anchor - weight
            outer = point["outer_momentum"] * outer + gradient
            ahead = gradient + point["outer_momentum"] * outer
            weight = anchor = anchor - point["outer_learning_rate"] * ahead
    return weight


def shampoo(weight, history, point):
    """Averages of G G' and G' G, their inverse fourth roots of steps 10 and 20, Adam's length."""
    b1, b2 = 1 - point["one_minus_beta1"], point["beta2"]
    left = list(averages([g @ g.T for g in history], b2))
    right = list(averages([g.T @ g for g in history], b2))

    def root(matrix):
        vectors, values, _ = np.linalg.svd(matrix)
        return vectors @ np.diag((values + 1e-6 * values[0]) ** -0.25) @ vectors.T

    directions = []
    pairs = zip(adam_directions(history, point), averages(history, b1), strict=True)
    for t, (direction, mean) in enumerate(pairs, start=1):
        if t >= 10:
            renewed = t // 10 * 10 - 1
            changed = root(left[renewed]) @ mean @ root(right[renewed])
            direction = changed * np.linalg.norm(direction) / np.linalg.norm(changed)
        directions.append(direction)
    return decayed(weight, directions, point)


def schedule_free_adamw(weight, history, point, *, average=False):
    """Defazio et al. 2024, algorithm 1; the average's weights are the squared rates."""
    beta, b2 = 1 - point["one_minus_beta1"], point["beta2"]
    y = z = x = weight
    total = 0.0
    for t, (gradient, square) in enumerate(
        zip(history, averages(history, b2, 2), strict=True), start=1
    ):
        rate = point["learning_rate"] * min(1.0, t / round(point["warmup_factor"] * 24))
        scaled = gradient / (np.sqrt(square / (1 - b2**t)) + 1e-8)
        z = z - rate * (scaled + point["weight_decay"] * y)
        total += rate**2
        x = (1 - rate**2 / total) * x + rate**2 / total * z
        y = (1 - beta) * z + beta * x
    return x if average else y


FOR_MATRICES = {"muon": muon, "normuon": normuon, "psgd_kron": psgd_kron, "shampoo": shampoo}
# Scion's, whose steps depend on the layer.
NORMS = {
    **dict.fromkeys(MATRICES, by_momentum(spectral)),
    **dict.fromkeys(
        ("embed/embedding", "block/dense/bias", "block/norm/scale", "head/bias"), by_momentum(rows)
    ),
    "head/kernel": by_momentum(output),
}
FORMULAS = {
    **FOR_MATRICES,
    "scion": None,  # see NORMS
    **{
        formula.__name__: formula
        for formula in (
            *(adamw, nadamw, momentum, nesterov, lamb, cautious_adamw, lion, signum, adopt),
            *(ademamix, mars, adafactor, schedule_free_adamw, diloco),
        )
    },
}


def test_every_algorithm_is_covered():
    assert {*FORMULAS, *WITHOUT_FORMULA, *SELF_TUNING} == set(NAMES)


@pytest.mark.parametrize("name", ["schedule_free_adamw", "schedule_free_self_tuning"])
@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_an_evaluation_measures_the_average_and_leaves_training_alone(name, framework):
    initial, gradients = runs.initial_and_gradients(runs.SHAPES)
    point = vars(runs.load(name).FIXED) if name in SELF_TUNING else runs.point_of(name)
    run = runs.RUNS[framework](runs.load(name), runs.point_of(name), initial)
    for gradient in gradients:
        run.step(gradient)
    before = run.values()
    evaluated = run.evaluated()
    by_hand = {
        key: schedule_free_adamw(
            weight.astype(np.float64), [g[key] for g in gradients], point, average=True
        )
        for key, weight in initial.items()
    }
    assert runs.difference(evaluated, by_hand, initial) < 1e-4
    assert runs.difference(evaluated, before, initial) > 1e-2
    for key, value in run.values().items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("framework", ["jax", "pytorch"])
@pytest.mark.parametrize("name", NAMES)
def test_resumes_from_saved_state(name, framework, finals):
    """Twelve steps, save, load into a fresh optimizer, eight more: bit for bit as twenty."""
    in_jax, in_torch, initial, gradients = finals(name)
    first, second = (
        runs.RUNS[framework](runs.load(name), runs.point_of(name), initial) for _ in range(2)
    )
    for gradient in gradients[:12]:
        first.step(gradient)
    saved = first.saved()
    if framework == "jax":
        second._update = first._update  # the same program, compiled once
    second.restore(saved)
    for gradient in gradients[12:]:
        second.step(gradient)
    whole = in_jax if framework == "jax" else in_torch
    for key, value in second.values().items():
        np.testing.assert_array_equal(value, whole[key])
