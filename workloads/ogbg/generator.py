"""Built-in molecules: random ones under valence rules, with labels from their substructures.

A molecule starts as a ring of five or six atoms or as a chain, grows atom by atom at places with a
free valence, and may close another ring. Each task asks for a substructure, or for two that must
or must not be there together. Some of the labels are wrong, which nobody can know, and some are
missing. In training, halogens come only in molecules with nitrogen in a ring; in validation and
test they come without it, too, so that a model has to tell them apart.

All is integers and comparisons of NumPy's random bits: the same bytes on every machine.

Legend: M molecules of a chunk, A atoms, T tasks.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from algoperf.data.validation_seed import seed_words
from workloads.parts.graphs import EDGE_FEATURES, NODE_FEATURES, Graphs

ROWS = {"train": 12_000, "validation": 2_000, "test": 2_000}
CHUNK = 2_048
ATOMS = 20  # of a molecule at the most
LEAST_ATOMS = 7
CARBON, NITROGEN, OXYGEN, SULPHUR, FLUORINE, CHLORINE = range(6)
ATOMIC_NUMBERS = np.array([6, 7, 8, 16, 9, 17])
VALENCES = np.array([4, 3, 2, 2, 1, 1])
# Of a hundred atoms in the first ring or chain, and of others.
IN_CORE = np.repeat([CARBON, NITROGEN, OXYGEN, SULPHUR], [78, 14, 5, 3])
IN_BRANCH = np.repeat(list(range(6)), [52, 14, 18, 4, 6, 6])
SINGLE, DOUBLE, AROMATIC = 1, 2, 3  # bonds; 0 is none
NO_CHARGE = 5  # OGB's index of a formal charge of 0
MISSING = 0.25
FALSE_NEGATIVE, FALSE_POSITIVE = 0.1, 0.02
TASKS = (
    "amide",
    "acid or ester",
    "nitrogen in a ring",
    "halogen at an aromatic ring",
    "ether outside of rings",
    "carbon-carbon double bond",
    "nitrogen bound to nitrogen or oxygen",
    "carbonyl and aromatic ring",
    "nitrogen in a ring, no halogen",
    "two rings",
    "sulphur at or in a ring",
    "either carbonyl or aromatic ring",
)
Flags = NDArray[np.bool_]


class Molecules(NamedTuple):
    """Molecules in arrays of the same number of atoms; those beyond `size_M` are none.

    Attributes:
        size_M: How many atoms each has.
        element_MA: From `CARBON` to `CHLORINE`.
        bond_MAA: `SINGLE`, `DOUBLE`, `AROMATIC` or 0, symmetric.
        free_MA: Free valences, which hydrogen takes.
        in_ring_MA: Whether an atom is in a ring.
    """

    size_M: NDArray[np.int64]
    element_MA: NDArray[np.int64]
    bond_MAA: NDArray[np.int64]
    free_MA: NDArray[np.int64]
    in_ring_MA: Flags


class Split(NamedTuple):
    """The rows of a split.

    Attributes:
        graphs: The molecules.
        labels_GT: 1, 0, or NaN where a label is missing.
        true_GT: What the labels would be without errors; no model sees it.
    """

    graphs: Graphs
    labels_GT: NDArray[np.float32]
    true_GT: Flags


def generate(split: str, seed: int, validation_seed: int | None = None) -> Split:
    """Return the molecules of a split.

    Args:
        split: 'train', 'validation' or 'test', which have different molecules.
        seed: The seed of the molecules.
        validation_seed: The seed of other molecules than the usual ones for validation and test;
            None for the usual ones.
    """
    number = list(ROWS).index(split)
    secret = seed_words(split, validation_seed)
    generator = np.random.Generator(
        np.random.Philox(np.random.SeedSequence([seed, number, *secret]))
    )
    chunks: list[tuple[Molecules, Flags]] = []
    missing = ROWS[split]
    while missing > 0:
        molecules = _molecules(generator)
        true_MT, has_halogen_M, has_ring_nitrogen_M = _substructures(molecules)
        kept_M = np.flatnonzero(
            ~has_halogen_M | has_ring_nitrogen_M if split == "train" else np.ones(CHUNK, bool)
        )[:missing]
        kept: list[Any] = [each[kept_M] for each in molecules]
        chunks.append((Molecules(*kept), true_MT[kept_M]))
        missing -= len(kept_M)
    parts: list[Any] = [np.concatenate(each) for each in zip(*(m for m, _ in chunks), strict=True)]
    molecules = Molecules(*parts)
    true_GT = np.concatenate([flags for _, flags in chunks])
    error_GT = generator.random(true_GT.shape)
    wrong_GT = error_GT < np.where(true_GT, FALSE_NEGATIVE, FALSE_POSITIVE)
    labels_GT = (true_GT != wrong_GT).astype(np.float32)
    labels_GT[generator.random(true_GT.shape) < MISSING] = np.nan
    return Split(_graphs(molecules), labels_GT, true_GT)


def _molecules(generator: np.random.Generator) -> Molecules:
    """A chunk of molecules."""
    M, A = CHUNK, ATOMS
    wanted_M = generator.integers(LEAST_ATOMS, A, M, endpoint=True)
    ring_M = np.array([0, 5, 5, 6, 6, 6, 6])[generator.integers(0, 7, M)]
    is_aromatic_M = (ring_M == 6) & (generator.random(M) < 0.6)
    core_M = np.where(ring_M > 0, ring_M, 3)
    core_MA = IN_CORE[generator.integers(0, len(IN_CORE), (M, A))]
    # In an aromatic ring of six, oxygen and sulphur have no valence for a double bond.
    core_MA = np.where(is_aromatic_M[:, None] & (core_MA > NITROGEN), CARBON, core_MA)
    branch_MA = IN_BRANCH[generator.integers(0, len(IN_BRANCH), (M, A))]
    is_core_MA = np.arange(A) < core_M[:, None]
    element_MA = np.where(is_core_MA, core_MA, branch_MA)
    free_MA = VALENCES[element_MA]
    bond_MAA = np.zeros((M, A, A), np.int64)
    parent_MA = np.full((M, A), -1)
    size_M = np.ones(M, np.int64)

    def join(which: NDArray[np.int64], one: Any, other: Any, order: Any, cost: Any) -> None:
        bond_MAA[which, one, other] = bond_MAA[which, other, one] = order
        free_MA[which, one] -= cost
        free_MA[which, other] -= cost

    for atom in range(1, A):
        score_MA = generator.random((M, atom)) * (free_MA[:, :atom] >= 1)
        parent_M = np.where(atom < core_M, atom - 1, score_MA.argmax(1))
        has_place_M = (atom < core_M) | (score_MA.max(1) > 0)
        which = np.flatnonzero(has_place_M & (size_M == atom) & (atom < wanted_M))
        parents = parent_M[which]
        may_double = (free_MA[which, parents] >= 2) & (free_MA[which, atom] >= 2)
        is_double = may_double & (generator.random(M)[which] < 0.55) & (atom >= core_M[which])
        join(which, parents, atom, np.where(is_double, DOUBLE, SINGLE), 1 + is_double)
        parent_MA[which, atom] = parents
        size_M[which] += 1
        closing = which[ring_M[which] == atom + 1]
        join(closing, 0, atom, SINGLE, 1)
        _make_aromatic(closing[is_aromatic_M[closing]], bond_MAA, free_MA)
    in_ring_MA = is_core_MA & (ring_M[:, None] > 0)
    _close_another(generator, size_M, parent_MA, bond_MAA, free_MA, in_ring_MA)
    return Molecules(size_M, element_MA, bond_MAA, free_MA, in_ring_MA)


def _make_aromatic(
    which: NDArray[np.int64], bond_MAA: NDArray[np.int64], free_MA: NDArray[np.int64]
) -> None:
    """Make rings of six that are just closed aromatic: every atom takes part in a double bond."""
    for atom in range(6):
        other = (atom + 1) % 6
        bond_MAA[which, atom, other] = bond_MAA[which, other, atom] = AROMATIC
        free_MA[which, atom] -= 1


def _close_another(
    generator: np.random.Generator,
    size_M: NDArray[np.int64],
    parent_MA: NDArray[np.int64],
    bond_MAA: NDArray[np.int64],
    free_MA: NDArray[np.int64],
    in_ring_MA: Flags,
) -> None:
    """Let some molecules close a ring of five or six, from an atom to one that it grew from."""
    M, A = in_ring_MA.shape
    rows = np.arange(M)
    for length in (5, 6):
        ancestors = [np.tile(np.arange(A), (M, 1))]
        for _ in range(length - 1):
            before = ancestors[-1]
            ancestors.append(np.where(before < 0, -1, parent_MA[rows[:, None], before]))
        last_MA = ancestors[-1]
        may = (np.arange(A) < size_M[:, None]) & (last_MA >= 0) & (free_MA >= 1)
        may &= free_MA[rows[:, None], last_MA] >= 1
        may &= bond_MAA[rows[:, None], np.arange(A), last_MA] == 0
        score_MA = generator.random((M, A)) * may
        which = np.flatnonzero((score_MA.max(1) > 0) & (generator.random(M) < 0.3))
        atoms = score_MA.argmax(1)[which]
        ends = last_MA[which, atoms]
        bond_MAA[which, atoms, ends] = bond_MAA[which, ends, atoms] = SINGLE
        free_MA[which, atoms] -= 1
        free_MA[which, ends] -= 1
        for step in ancestors:
            in_ring_MA[which, step[which, atoms]] = True


def _substructures(molecules: Molecules) -> tuple[Flags, Flags, Flags]:
    """Which tasks each molecule is of, (M, T), whether it has a halogen, and nitrogen in a ring."""
    size_M, element_MA, bond_MAA, _, in_ring_MA = molecules
    is_atom_MA = np.arange(ATOMS) < size_M[:, None]
    carbon, nitrogen, oxygen, sulphur, fluorine, chlorine = (
        (element_MA == element) & is_atom_MA for element in range(6)
    )
    halogen = fluorine | chlorine
    bound, double = bond_MAA > 0, bond_MAA == DOUBLE
    aromatic = (bond_MAA == AROMATIC).any(2)

    def beside(bonds: Flags, neighbours: Flags) -> Flags:
        return np.asarray((bonds & neighbours[:, None, :]).any(2))

    carbonyl = carbon & beside(double, oxygen)
    amide = (carbonyl & beside(bound, nitrogen)).any(1)
    single = bound & ~double
    acid = (carbonyl & beside(single, oxygen)).any(1)
    ring_nitrogen = (nitrogen & in_ring_MA).any(1)
    two_carbons = (single & carbon[:, None, :]).sum(2) == 2
    ether = (oxygen & two_carbons & ~in_ring_MA).any(1)
    double_carbon = (carbon & beside(double, carbon)).any(1)
    hetero = (nitrogen & beside(bound, nitrogen | oxygen)).any(1)
    has_aromatic, has_halogen = aromatic.any(1), halogen.any(1)
    bonds_M = bound.sum((1, 2)) // 2
    true_MT = np.stack(
        [
            amide,
            acid,
            ring_nitrogen,
            (halogen & beside(bound, aromatic)).any(1),
            ether,
            double_carbon,
            hetero,
            carbonyl.any(1) & has_aromatic,
            ring_nitrogen & ~has_halogen,
            bonds_M - size_M >= 1,
            (sulphur & (in_ring_MA | beside(bound, in_ring_MA))).any(1),
            carbonyl.any(1) != has_aromatic,
        ],
        axis=1,
    )
    return true_MT, has_halogen, ring_nitrogen


def _graphs(molecules: Molecules) -> Graphs:
    """The molecules as graphs, with the features of OGB (Hu et al. 2020)."""
    size_M, element_MA, bond_MAA, free_MA, in_ring_MA = molecules
    is_atom_MA = np.arange(ATOMS) < size_M[:, None]
    node_MAF = np.zeros((*element_MA.shape, NODE_FEATURES), np.uint8)
    node_MAF[..., 0] = ATOMIC_NUMBERS[element_MA] - 1
    node_MAF[..., 2] = (bond_MAA > 0).sum(2)
    node_MAF[..., 3] = NO_CHARGE
    node_MAF[..., 4] = free_MA
    node_MAF[..., 6] = np.where((bond_MAA >= DOUBLE).any(2), 1, 2)  # sp2, sp3
    node_MAF[..., 7] = (bond_MAA == AROMATIC).any(2)
    node_MAF[..., 8] = in_ring_MA
    row, one, other = np.nonzero(np.triu(bond_MAA))
    bond_features = np.zeros((len(row), EDGE_FEATURES), np.uint8)
    bond_features[:, 0] = np.array([0, 0, 1, 3])[bond_MAA[row, one, other]]
    bond_features[:, 2] = bond_MAA[row, one, other] == AROMATIC  # conjugated
    return Graphs(
        nodes=size_M,
        bonds=np.bincount(row, minlength=len(size_M)),
        node_features=node_MAF[is_atom_MA],
        bond_features=bond_features,
        ends=np.stack([one, other], axis=1).astype(np.int16),
    )
