"""Losses: pure functions first, one file per family. ``get("name")`` finds a registered one, ``register`` adds one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gloam.exports import lazy_exports
from gloam.losses.registry import check_choice, get, names, register

if TYPE_CHECKING:
    from gloam.losses.center import center_loss
    from gloam.losses.cluster_nce import cluster_nce_loss, hybrid_memory_loss
    from gloam.losses.collaborative_consistency import expert_agreement, prediction_entropy, weak_identity_loss
    from gloam.losses.consistency import soft_cross_entropy, softened_divergence
    from gloam.losses.cycle_contrastive import cycle_contrastive_loss, neighbour_masses, soft_nearest
    from gloam.losses.multi_modality import multi_modality_alignment, separation_loss
    from gloam.losses.pair_distillation import (
        PairSets,
        draw_one,
        hard_sample_deduction,
        mix_memory,
        pair_sets,
        positive_pair_alignment,
        positives_or_cluster,
    )
    from gloam.losses.part_distillation import (
        graph_distillation_loss,
        known_pairs_triplet,
        orthogonality_loss,
        part_identity_loss,
        part_modality_loss,
    )
    from gloam.losses.permutation import (
        assign_orders,
        draw_orders,
        gumbel_noise,
        order_matrix,
        permutation_accuracy,
        permutation_loss,
        shuffle_stripes,
        sinkhorn,
        uniform_permutation_loss,
    )
    from gloam.losses.triplet import (
        fraction_correct,
        hard_triplet,
        mine_hard,
        pairwise_distances,
        soft_margin_triplet,
        squared_difference_triplet,
        weighted_distances,
        weighted_regularized_triplet,
    )

# File -> what it offers: imported when one of the names is asked for.
_NAMES = {
    "center": "center_loss",
    "cluster_nce": "cluster_nce_loss hybrid_memory_loss",
    "collaborative_consistency": "expert_agreement prediction_entropy weak_identity_loss",
    "consistency": "soft_cross_entropy softened_divergence",
    "cycle_contrastive": "cycle_contrastive_loss neighbour_masses soft_nearest",
    "multi_modality": "multi_modality_alignment separation_loss",
    "pair_distillation": (
        "PairSets draw_one hard_sample_deduction mix_memory pair_sets positive_pair_alignment positives_or_cluster"
    ),
    "part_distillation": (
        "graph_distillation_loss known_pairs_triplet orthogonality_loss part_identity_loss part_modality_loss"
    ),
    "permutation": (
        "assign_orders draw_orders gumbel_noise order_matrix permutation_accuracy permutation_loss "
        "shuffle_stripes sinkhorn uniform_permutation_loss"
    ),
    "registry": "check_choice",
    "triplet": (
        "fraction_correct hard_triplet mine_hard pairwise_distances soft_margin_triplet "
        "squared_difference_triplet weighted_distances weighted_regularized_triplet"
    ),
}

__all__ = [
    "PairSets",
    "assign_orders",
    "center_loss",
    "check_choice",
    "cluster_nce_loss",
    "cycle_contrastive_loss",
    "draw_one",
    "draw_orders",
    "expert_agreement",
    "fraction_correct",
    "get",
    "graph_distillation_loss",
    "gumbel_noise",
    "hard_sample_deduction",
    "hard_triplet",
    "hybrid_memory_loss",
    "known_pairs_triplet",
    "mine_hard",
    "mix_memory",
    "multi_modality_alignment",
    "names",
    "neighbour_masses",
    "order_matrix",
    "orthogonality_loss",
    "pair_sets",
    "pairwise_distances",
    "part_identity_loss",
    "part_modality_loss",
    "permutation_accuracy",
    "permutation_loss",
    "positive_pair_alignment",
    "positives_or_cluster",
    "prediction_entropy",
    "register",
    "separation_loss",
    "shuffle_stripes",
    "sinkhorn",
    "soft_cross_entropy",
    "soft_margin_triplet",
    "soft_nearest",
    "softened_divergence",
    "squared_difference_triplet",
    "uniform_permutation_loss",
    "weak_identity_loss",
    "weighted_distances",
    "weighted_regularized_triplet",
]

__getattr__, __dir__ = lazy_exports(__name__, _NAMES)
